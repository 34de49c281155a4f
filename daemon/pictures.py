"""Single pictures of whatever API: let in within bounds of number, time and memory, analysed, counted."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, ParamSpec, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from visaged.daemon.http_settings import HttpSettings
from visaged.daemon.problems import Problem
from visaged.models.manifest import Head
from visaged.models.search import Scales
from visaged.models.types import Image
from visaged.pipelines.attributes import sure
from visaged.pipelines.batcher import LARGE_PIXELS, Batcher, Overloaded
from visaged.pipelines.inference import InferenceFailed
from visaged.pipelines.metrics import Metrics
from visaged.pipelines.pictures import Decoded, PictureError, load, measure, submit
from visaged.pipelines.tracks import Face

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_STATUS = {
    "empty": HTTPStatus.BAD_REQUEST,
    "unsupported": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "damaged": HTTPStatus.UNPROCESSABLE_ENTITY,
}


# What callers decode themselves: that saves handing a picture from thread to thread. What may take longer than the
# networks do is decoded elsewhere, so that no camera waits for it.
_JPEG = b"\xff\xd8\xff"
_QUICK_BYTES = 1_000_000
_QUICK_PIXELS = 4_000_000


class _TooLong(Exception):
    """A picture takes longer to decode than a caller should be kept."""


class Room:
    """Pixels that may be in memory at a time, for one event loop.

    A file of 160 kB can hold 49 megapixels, and decoding takes 13 bytes for each: sixteen of them at once took 9 GB.

    Args:
        pixels: Most of them; a picture that is larger comes in alone.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @contextlib.asynccontextmanager
    async def place(self, pixels: int) -> AsyncIterator[None]:
        """Wait until there is room for so many pixels, and hold it."""
        while self._taken and self._taken + pixels > self._pixels:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self.take(pixels)
        try:
            yield
        finally:
            self.give_back(pixels)

    def take(self, pixels: int) -> None:
        """Take up so many pixels, whether there is room or not."""
        self._taken += pixels

    def give_back(self, pixels: int) -> None:
        """Give back what was taken."""
        self._taken -= pixels
        # All look again, longest waiting first; those that were cancelled are done already.
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
        self._waiting.clear()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a picture showed.

    Attributes:
        width: Pixels of the picture, after its EXIF orientation where that was asked for.
        height: The same.
        faces: In the same pixels, best first.
    """

    width: int
    height: int
    faces: list[Face]


class Pictures:
    """Single pictures through the same callers as the cameras'.

    Args:
        settings: Limits.
        batcher: Where pictures queue.
        heads: The attributes that can be read.
        enabled: Those that are switched on.
        scales: The sizes at which pictures are searched.
        threshold: The detector's own confidence threshold.
        metrics: Counts them.
        least: Smallest confidence of each attribute that is told.
        decode_in_callers: Whether the callers decode small pictures; it pays where they are as many as cores.
        clock: Monotonic seconds.
        floor: The confidence below which the detector reports nothing, whatever a request asks for.

    Attributes:
        threshold: The confidence from which something is a face, unless an answer asks for another.
        floor: The confidence below which the detector reports nothing.
        attributes: What can be read and is switched on, without the points.
        has_points: Whether all landmarks can be had.
        most_bytes: Of a picture's file.
    """

    def __init__(
        self,
        settings: HttpSettings,
        batcher: Batcher,
        heads: Mapping[str, Head],
        enabled: frozenset[str],
        scales: Scales,
        threshold: float,
        metrics: Metrics,
        least: Mapping[str, float] | None = None,
        decode_in_callers: bool = False,
        clock: Callable[[], float] = time.monotonic,
        floor: float = 0.0,
    ) -> None:
        self._settings = settings
        # Whether a picture is large shows when it has its canvases, and has to be known before a caller takes it.
        self._decode_in_callers = decode_in_callers and scales.large**2 < LARGE_PIXELS / 2
        self._batcher = batcher
        points = frozenset(name for name, head in heads.items() if head.kind == "points")
        self._points = points & enabled
        self.attributes = enabled - points
        self.has_points = bool(self._points)
        self._scales = scales
        self.threshold = threshold
        self.floor = floor
        self._metrics = metrics
        self._least = least or {}
        self._clock = clock
        self._in_work = 0
        self.most_bytes = int(settings.max_body_mb * 1e6)
        self._most_pixels = int(settings.max_megapixels * 1e6)
        self._room = Room(2 * self._most_pixels)

    @contextlib.asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Hold one picture's place, from the first byte of its request to the answer.

        Whatever goes wrong with a picture inside comes out as a `Problem`; so does the refusal when too many wait.
        """
        outcome = "failed"
        if self._in_work >= self._settings.max_waiting:
            self._metrics.pictures.labels("refused").inc()
            raise _overloaded()
        self._in_work += 1
        try:
            yield
            outcome = "answered"
        except PictureError as error:
            outcome = "refused"
            raise Problem(_STATUS[error.reason], f"picture-{error.reason.replace('_', '-')}", str(error)) from None
        except Problem as problem:
            outcome = "refused" if problem.status < HTTPStatus.INTERNAL_SERVER_ERROR else "failed"
            raise
        except Overloaded:
            outcome = "refused"
            raise _overloaded() from None
        except TimeoutError:
            outcome = "refused"
            text = f"the picture was not done within {self._settings.deadline_s:g} s; try again, or send it smaller"
            raise _overloaded(text) from None
        except asyncio.CancelledError:
            # The server cancels what is not done a while after it was asked to stop.
            detail = "the server is stopping"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "stopping", detail, {"Retry-After": "10"}) from None
        except ClientDisconnect:
            outcome = "abandoned"
            raise Problem(HTTPStatus.BAD_REQUEST, "body-cut-short", "the body ended too early") from None
        except InferenceFailed as error:
            raise Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "inference-failed", str(error)) from None
        finally:
            self._in_work -= 1
            self._metrics.pictures.labels(outcome).inc()

    async def analyse(
        self,
        data: bytes,
        *,
        min_confidence: float,
        attributes: frozenset[str],
        points: bool,
        max_side: int | None = None,
        upright: bool = True,
        unsure: bool = False,
    ) -> Answer:
        """Find and read the faces of a picture; to be called with a place held (`admitted`).

        Args:
            data: A JPEG, PNG, BMP or WebP file.
            min_confidence: The least confidence of a face in the answer, 0..1; below `floor` it has no effect.
            attributes: Of those in `attributes`, the ones wanted.
            points: Whether all landmarks are wanted, where they can be had.
            max_side: Longest side taken, in pixels, if shorter than the configuration allows.
            upright: Whether coordinates are of the picture after its EXIF orientation, or of the picture as stored.
            unsure: Whether attributes are wanted whatever their confidence is, by clients who expect every field.

        Raises:
            PictureError: It is no picture that can be taken.
            Overloaded: Too many pictures wait.
            TimeoutError: It was not done within the deadline.
            InferenceFailed: The networks failed.
        """
        began_s = self._clock()
        wanted = attributes | (self._points if points else frozenset())
        async with asyncio.timeout(self._settings.deadline_s):
            answer = None
            if self._decode_in_callers and len(data) <= _QUICK_BYTES and data.startswith(_JPEG):
                with contextlib.suppress(_TooLong):
                    answer = await self._by_caller(data, upright, wanted, min_confidence, max_side)
            if answer is None:
                answer = await self._ahead(data, upright, wanted, min_confidence, max_side)
        self._metrics.picture_seconds.observe(self._clock() - began_s)
        if unsure:
            return answer
        told = [replace(face, attributes=sure(face.attributes, self._least)) for face in answer.faces]
        return replace(answer, faces=told)

    def _least_side(self, wanted: frozenset[str]) -> int:
        """Return how many pixels a picture's longer side has to keep: what is read keeps more for the analyzer."""
        return max(self._scales.large, self._scales.usual * (2 if wanted else 1))

    async def _by_caller(
        self,
        data: bytes,
        upright: bool,
        wanted: frozenset[str],
        min_confidence: float,
        max_side: int | None,
    ) -> Answer:
        """Have a caller decode a picture; raises `_TooLong` for one that would keep it from the cameras."""
        made: list[Decoded] = []

        def image() -> Image:
            width, height = measure(data, self._most_pixels)
            if width * height > _QUICK_PIXELS:
                raise _TooLong
            _check_side(width, height, max_side)
            made.append(load(data, self._most_pixels, self._least_side(wanted), upright))
            return made[0].image

        faces = await asyncio.wrap_future(self._submit(image, wanted, min_confidence))
        return _answer(made[0], faces)

    async def _ahead(
        self,
        data: bytes,
        upright: bool,
        wanted: frozenset[str],
        min_confidence: float,
        max_side: int | None,
    ) -> Answer:
        """Decode a picture in a thread of its own, when there is room for its pixels, and queue it then."""
        width, height = await self._in_thread(0, measure, data, self._most_pixels)
        _check_side(width, height, max_side)

        def queue() -> tuple[Decoded, Future[list[Face]]]:
            decoded = load(data, self._most_pixels, self._least_side(wanted), upright)
            return decoded, self._submit(decoded.image, wanted, min_confidence)

        canvases = self._scales.canvases(width, height)
        pixels = max(width * height, sum(canvas.width * canvas.height for canvas in canvases))
        async with self._room.place(pixels):
            decoded, future = await self._in_thread(pixels, queue)
            return _answer(decoded, await asyncio.wrap_future(future))

    async def _in_thread(
        self,
        pixels: int,
        function: Callable[_Arguments, _Result],
        *arguments: _Arguments.args,
        **more: _Arguments.kwargs,
    ) -> _Result:
        """Run a function in a thread, which goes on when its caller is cancelled: nothing can stop it.

        Until it ends, it then counts as a picture in work that holds so many pixels. Otherwise those who send what
        takes long to decode could have any number of threads at work.
        """
        work = asyncio.ensure_future(run_in_threadpool(function, *arguments, **more))
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            self._in_work += 1
            self._room.take(pixels)
            work.add_done_callback(functools.partial(self._ended, pixels))
            raise
        return work.result()

    def _ended(self, pixels: int, work: asyncio.Future[Any]) -> None:
        self._in_work -= 1
        self._room.give_back(pixels)
        if not work.cancelled():
            work.exception()  # which nobody is left to be told of

    def _submit(
        self, image: Image | Callable[[], Image], wanted: frozenset[str], min_confidence: float
    ) -> Future[list[Face]]:
        return submit(
            self._batcher,
            image,
            self._scales,
            wanted,
            min_confidence,
            self._settings.deadline_s,
        )


def _answer(decoded: Decoded, faces: list[Face]) -> Answer:
    return Answer(decoded.width, decoded.height, [decoded.located(face) for face in faces])


def _check_side(width: int, height: int, most: int | None) -> None:
    if most is not None and max(width, height) > most:
        raise PictureError("too_large", f"the picture is {width} x {height} pixels; at most {most} a side")


def _overloaded(text: str = "too many pictures are waiting; try again") -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", text, {"Retry-After": "1"})
