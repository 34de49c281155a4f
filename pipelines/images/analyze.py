"""From the bytes of a single picture to its faces: decoded, queued for the inference workers, located."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future

from visaged.models.search import Scales
from visaged.pipelines.attributes import AttributeReader
from visaged.pipelines.batcher import Batcher
from visaged.pipelines.images.decode import Decoded, PictureError, load, measure
from visaged.pipelines.images.job import LARGE_PIXELS, PictureJob, PictureQuery, PictureResult

# What workers decode themselves: that saves handing a picture from thread to thread. What may take longer than the
# networks do is decoded elsewhere, so that no camera waits for it.
_JPEG = b"\xff\xd8\xff"
_QUICK_BYTES = 1_000_000
_QUICK_PIXELS = 4_000_000


class SlowToDecode(Exception):
    """A picture takes longer to decode than an inference worker should be kept from the cameras."""


class PictureAnalyzer:
    """Analyses single pictures with the workers that analyse the cameras.

    Args:
        batcher: Where pictures queue.
        reader: Reads the faces.
        scales: The sizes at which pictures are searched.
        max_pixels: Larger pictures are refused.
        deadline_s: Seconds after which nobody waits for a result.
        decode_in_workers: Whether workers decode small pictures; it pays where they are as many as cores.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        batcher: Batcher,
        reader: AttributeReader,
        scales: Scales,
        max_pixels: int,
        deadline_s: float,
        decode_in_workers: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batcher = batcher
        self._reader = reader
        self._scales = scales
        self._max_pixels = max_pixels
        self._deadline_s = deadline_s
        # Whether a picture is large shows when it has its canvases, and has to be known before a worker takes it.
        self._decode_in_workers = decode_in_workers and scales.large**2 < LARGE_PIXELS / 2
        self._clock = clock

    def is_quick(self, data: bytes) -> bool:
        """Return whether a picture may be given to `submit_encoded`, as far as its first bytes show."""
        return self._decode_in_workers and len(data) <= _QUICK_BYTES and data.startswith(_JPEG)

    def submit_encoded(self, data: bytes, query: PictureQuery) -> Future[PictureResult]:
        """Queue a picture that a worker is to decode; the future raises `SlowToDecode` if that would take long.

        The future also raises what `submit` raises.

        Args:
            data: A picture for which `is_quick` is true.
            query: What is asked of it.

        Raises:
            Overloaded: Too many pictures wait.
        """

        def decode() -> Decoded:
            width, height = measure(data, self._max_pixels)
            if width * height > _QUICK_PIXELS:
                raise SlowToDecode
            _check_side(width, height, query)
            return self._load(data, query)

        return self._submit(decode, query)

    def pixels(self, data: bytes, query: PictureQuery) -> int:
        """Return how many pixels a picture takes in memory, by its header alone.

        Raises:
            PictureError: It is no picture that can be taken.
        """
        width, height = measure(data, self._max_pixels)
        _check_side(width, height, query)
        canvases = self._scales.canvases(width, height)
        return max(width * height, sum(canvas.width * canvas.height for canvas in canvases))

    def submit(self, data: bytes, query: PictureQuery) -> Future[PictureResult]:
        """Decode a picture in this thread, then queue it.

        The future raises `Overloaded` when the deadline has passed, and `InferenceFailed`.

        Args:
            data: A JPEG, PNG, BMP or WebP file.
            query: What is asked of it.

        Raises:
            PictureError: It is no picture that can be taken.
            Overloaded: Too many pictures wait.
        """
        return self._submit(self._load(data, query), query)

    def _load(self, data: bytes, query: PictureQuery) -> Decoded:
        # What is read keeps more pixels for the analyzer.
        least_side = max(self._scales.large, self._scales.usual * (2 if query.attributes else 1))
        return load(data, self._max_pixels, least_side, query.upright)

    def _submit(self, picture: Decoded | Callable[[], Decoded], query: PictureQuery) -> Future[PictureResult]:
        job = PictureJob(picture, query, self._scales, self._reader, self._clock() + self._deadline_s)
        self._batcher.submit(job)
        return job.future


def _check_side(width: int, height: int, query: PictureQuery) -> None:
    if query.max_side is not None and max(width, height) > query.max_side:
        raise PictureError(
            "too_large", f"the picture is {width} x {height} pixels; at most {query.max_side} a side are taken"
        )
