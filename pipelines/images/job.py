"""A single picture on its way through the networks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from visaged.models.search import Look, Scales
from visaged.models.surface import ImageSurface
from visaged.models.types import Detections
from visaged.pipelines.attributes import AttributeReader, Reading, Request, request, single
from visaged.pipelines.images.decode import Decoded
from visaged.pipelines.jobs import DropCause, InferenceFailed, Overloaded
from visaged.pipelines.records import Face, Shot
from visaged.pipelines.tracking.tracks import faces_of

log = logging.getLogger(__name__)

LARGE_PIXELS = 4_000_000
"""Sum of the pixels of a picture's canvases above which it is large: it keeps an inference worker from the cameras for
a tenth of a second and longer. With all workers on such pictures, a camera got one frame in six seconds."""


@dataclass(frozen=True, slots=True)
class PictureQuery:
    """Which faces and attributes of a picture are wanted.

    Attributes:
        min_confidence: Smallest confidence of a face, 0..1.
        attributes: Names of the attributes wanted; the name of a points head for all its landmarks.
        upright: Whether coordinates are those of the picture after its EXIF orientation, or of the picture as stored.
        max_side: Longest side of a picture that is accepted, in pixels; None for no such limit.
        unsure: Whether attributes of any confidence are wanted, for clients that expect every field.
    """

    min_confidence: float
    attributes: frozenset[str] = frozenset()
    upright: bool = True
    max_side: int | None = None
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class PictureResult:
    """The result of a picture.

    Attributes:
        width: Width of the picture in pixels, after its EXIF orientation unless the query asks for it as stored.
        height: Height of the picture in pixels, like `width`.
        faces: The faces in pixels of the picture, most confident first.
    """

    width: int
    height: int
    faces: list[Face]


class PictureJob:
    """A picture to be searched and read; `future` receives the result.

    Args:
        picture: The picture, or a function that decodes it, which the worker calls; what that raises is the result.
        query: Which faces and attributes are wanted.
        scales: The sizes at which the picture is searched.
        reader: Reads the attributes of faces.
        deadline_s: Monotonic seconds after which the result is not needed any more.
    """

    def __init__(
        self,
        picture: Decoded | Callable[[], Decoded],
        query: PictureQuery,
        scales: Scales,
        reader: AttributeReader,
        deadline_s: float,
    ) -> None:
        self.future: Future[PictureResult] = Future()
        self._query = query
        self._scales = scales
        self._reader = reader
        self._deadline_s = deadline_s
        self._looks: Sequence[Look] = ()
        self._decode = picture if callable(picture) else None
        self._shots: list[Shot] = []
        self._requests: list[Request] = []
        if isinstance(picture, Decoded):
            self._prepare(picture)

    def __str__(self) -> str:
        return "picture"

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width of the largest canvas in pixels; None before the picture is decoded."""
        return (self._looks[0].canvas.height, self._looks[0].canvas.width) if self._looks else None

    @property
    def is_large(self) -> bool:
        """Whether only one such picture may be computed at a time; False before the picture is decoded."""
        return sum(look.canvas.width * look.canvas.height for look in self._looks) > LARGE_PIXELS

    def start(self, now_s: float) -> bool:
        """Decode the picture if that was left to the worker; return whether the result is still needed."""
        if not self.future.set_running_or_notify_cancel():
            return False
        if now_s > self._deadline_s:
            self.future.set_exception(Overloaded())
            return False
        decode, self._decode = self._decode, None
        if decode is not None:
            try:
                self._prepare(decode())
            except Exception as error:  # the picture's fault becomes the result
                log.debug("a picture cannot be decoded", exc_info=error)
                # The traceback holds the variables of the functions in it, and so the picture, in a reference cycle.
                error.__traceback__ = error.__context__ = None
                self.future.set_exception(error)
                return False
        return True

    def looks(self) -> Sequence[Look]:
        """Return the picture on all its canvases."""
        return self._looks

    def release(self) -> None:
        """Release the canvases."""
        self._looks = ()

    def observe(self, found: Detections) -> Sequence[Request]:
        """Keep the faces that are confident enough; return them if attributes are wanted."""
        self._shots = faces_of(found[found.confidences >= self._query.min_confidence])
        if self._query.attributes:
            self._requests = [request(shot, self._surface) for shot in self._shots]
        return self._requests

    def conclude(self, readings: Sequence[Reading] | None, started_s: float) -> None:
        """Set the result, in the picture's coordinates."""
        if readings is None:
            self.fail()
            return
        if self._requests:
            faces = [self._read(shot, reading) for shot, reading in zip(self._shots, readings, strict=True)]
        else:
            faces = [Face(shot) for shot in self._shots]
        picture = self._picture
        self.future.set_result(PictureResult(picture.width, picture.height, [picture.located(face) for face in faces]))

    def fail(self) -> None:
        """Set an exception as the result: `InferenceFailed`."""
        self.release()
        if not self.future.done():
            self.future.set_exception(InferenceFailed("the picture could not be analysed"))

    def drop(self, cause: DropCause) -> None:
        """Set an exception as the result: `Overloaded`."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(Overloaded())

    def _prepare(self, picture: Decoded) -> None:
        self._picture = picture
        self._surface = ImageSurface(picture.image)
        self._looks = self._scales.looks(self._surface)

    def _read(self, shot: Shot, reading: Reading) -> Face:
        heads, wanted = self._reader.heads, self._query.attributes
        wants_points = any(heads[name].kind == "points" for name in wanted if name in heads)
        points = self._reader.points(reading, shot.landmarks) if wants_points else None
        return Face(shot, None, single(heads, reading, wanted), points)
