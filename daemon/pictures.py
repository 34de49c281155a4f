"""Single pictures of whatever API: let in within bounds of number, time and memory, analysed, counted."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ParamSpec, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from visaged.daemon.http_settings import HttpSettings
from visaged.daemon.problems import Problem
from visaged.models.manifest import Head
from visaged.pipelines.batcher import Batcher, Overloaded
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
        long_side: Of the detector's canvas.
        multiple_of: What its sides must divide by.
        threshold: The detector's own confidence threshold.
        metrics: Counts them.
        clock: Monotonic seconds.

    Attributes:
        threshold: The confidence from which something is a face, unless an answer asks for another.
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
        long_side: int,
        multiple_of: int,
        threshold: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._batcher = batcher
        points = frozenset(name for name, head in heads.items() if head.kind == "points")
        self._points = points & enabled
        self.attributes = enabled - points
        self.has_points = bool(self._points)
        self._long_side = long_side
        self._multiple_of = multiple_of
        self.threshold = threshold
        self._metrics = metrics
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
        except (Overloaded, TimeoutError):
            outcome = "refused"
            raise _overloaded() from None
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
    ) -> Answer:
        """Find and read the faces of a picture; to be called with a place held (`admitted`).

        Args:
            data: A JPEG, PNG, BMP or WebP file.
            min_confidence: Of the faces wanted.
            attributes: Of those in `attributes`, the ones wanted.
            points: Whether all landmarks are wanted, where they can be had.
            max_side: Longest side taken, in pixels, if shorter than the configuration allows.
            upright: Whether coordinates are of the picture after its EXIF orientation, or of the picture as stored.

        Raises:
            PictureError: It is no picture that can be taken.
            Overloaded: Too many pictures wait.
            TimeoutError: It was not done within the deadline.
            InferenceFailed: The networks failed.
        """
        began_s = self._clock()
        async with asyncio.timeout(self._settings.deadline_s):
            width, height = await self._in_thread(0, measure, data, self._most_pixels)
            if max_side is not None and max(width, height) > max_side:
                raise PictureError("too_large", f"the picture is {width} x {height} pixels; at most {max_side} a side")
            async with self._room.place(width * height):
                wanted = attributes | (self._points if points else frozenset())
                # Small faces keep their pixels for the analyzer.
                least_side = self._long_side * (2 if wanted else 1)
                decoded, future = await self._in_thread(
                    width * height, self._queue, data, least_side, upright, wanted, min_confidence
                )
                faces = await asyncio.wrap_future(future)
        self._metrics.picture_seconds.observe(self._clock() - began_s)
        return Answer(decoded.width, decoded.height, [decoded.located(face) for face in faces])

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

    def _queue(
        self, data: bytes, least_side: int, upright: bool, wanted: frozenset[str], min_confidence: float
    ) -> tuple[Decoded, Future[list[Face]]]:
        decoded = load(data, self._most_pixels, least_side, upright)
        future = submit(
            self._batcher,
            decoded.image,
            self._long_side,
            self._multiple_of,
            wanted,
            min_confidence,
            self._settings.deadline_s,
        )
        return decoded, future


def _overloaded() -> Problem:
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", "too many pictures are waiting; try again", {"Retry-After": "1"}
    )
