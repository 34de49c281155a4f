"""Analyses single pictures: decodes them, and queues them for the inference workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future

from visaged.models.search import Scales
from visaged.pipelines.attributes import AttributeReader
from visaged.pipelines.batcher import Batcher
from visaged.pipelines.images.decode import Decoded, PictureError, load, measure
from visaged.pipelines.images.job import LARGE_PIXELS, PictureJob, PictureQuery, PictureResult

# Inference workers decode small JPEGs themselves, which saves handing a picture from thread to thread. Pictures that
# may take longer to decode than to analyse are decoded in other threads, so that no camera waits for them.
_JPEG = b"\xff\xd8\xff"
_QUICK_BYTES = 1_000_000
_QUICK_PIXELS = 4_000_000


class SlowToDecode(Exception):
    """A picture would take so long to decode that an inference worker must not do it."""


class PictureAnalyzer:
    """Analyses single pictures with the workers that analyse the cameras' frames.

    Args:
        batcher: Queue of the inference workers.
        reader: Reads the attributes of faces.
        scales: The sizes at which pictures are searched.
        max_pixels: Most pixels of a picture; larger ones are refused.
        deadline_s: Seconds after which a result is not needed any more.
        decode_in_workers: Whether workers decode small pictures; it pays where there is a worker for each core.
        clock: Returns monotonic seconds.
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
        # Whether a job is large must be known before a worker takes it, but shows only once the picture is decoded. So
        # workers decode only if no picture can be large.
        self._decode_in_workers = decode_in_workers and scales.large**2 < LARGE_PIXELS / 2
        self._clock = clock

    def is_quick(self, data: bytes) -> bool:
        """Return whether a picture may be given to `submit_encoded`, by its size and first bytes."""
        return self._decode_in_workers and len(data) <= _QUICK_BYTES and data.startswith(_JPEG)

    def submit_encoded(self, data: bytes, query: PictureQuery) -> Future[PictureResult]:
        """Queue a picture that a worker decodes; the future raises `SlowToDecode` if that would take long.

        The future also raises what `submit` and its future raise.

        Args:
            data: A picture for which `is_quick` is true.
            query: Which faces and attributes are wanted.

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
            PictureError: The file is empty, damaged, too large or of an unsupported format.
        """
        width, height = measure(data, self._max_pixels)
        _check_side(width, height, query)
        canvases = self._scales.canvases(width, height)
        return max(width * height, sum(canvas.width * canvas.height for canvas in canvases))

    def submit(self, data: bytes, query: PictureQuery) -> Future[PictureResult]:
        """Decode a picture in this thread, then queue it.

        The future raises `Overloaded` if the deadline has passed or the daemon stops, and `InferenceFailed`.

        Args:
            data: A JPEG, PNG, BMP or WebP file.
            query: Which faces and attributes are wanted.

        Raises:
            PictureError: The file is empty, damaged, too large or of an unsupported format.
            Overloaded: Too many pictures wait.
        """
        return self._submit(self._load(data, query), query)

    def _load(self, data: bytes, query: PictureQuery) -> Decoded:
        # If attributes are read, the decoded picture keeps more pixels, for the analyzer's crops.
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
