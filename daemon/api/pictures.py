"""Single pictures for all APIs: analysed within bounds of number, time and memory."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, ParamSpec, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from visaged.daemon.http.problems import Problem
from visaged.daemon.http.settings import HttpSettings
from visaged.daemon.http.wire.memory import BodyMemory, Upload
from visaged.models.manifest import Head
from visaged.pipelines.attributes import sure
from visaged.pipelines.images.analyze import PictureAnalyzer, SlowToDecode
from visaged.pipelines.images.decode import PictureError
from visaged.pipelines.images.job import PictureQuery, PictureResult
from visaged.pipelines.jobs import InferenceFailed, Overloaded
from visaged.pipelines.runtime.metrics import Metrics

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_STATUS = {
    "empty": HTTPStatus.BAD_REQUEST,
    "unsupported": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "damaged": HTTPStatus.UNPROCESSABLE_ENTITY,
}


class PixelBudget:
    """Bounds the pixels that are in memory at a time, for one event loop.

    A file of 160 kB can hold 49 megapixels, and decoding takes 13 bytes for each: sixteen such files at once took 9 GB.

    Args:
        pixels: Most pixels in memory; a larger picture is admitted when there is no other.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @contextlib.asynccontextmanager
    async def place(self, pixels: int) -> AsyncIterator[None]:
        """Wait until there is room for a number of pixels, and hold it within the context."""
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
        """Count a number of pixels as in memory, whether there is room or not."""
        self._taken += pixels

    def give_back(self, pixels: int) -> None:
        """Release a number of pixels, and wake those that wait for room."""
        self._taken -= pixels
        # All check again, the longest waiting first; futures that were cancelled are done already.
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
        self._waiting.clear()


class Pictures:
    """Analyses single pictures for all APIs, in the same inference workers as the cameras' frames.

    Args:
        settings: Limits on size, number and time.
        analyzer: Analyses pictures.
        heads: The attributes that can be read.
        metrics: Counts pictures.
        floor: The confidence below which the detector reports nothing, whatever a query asks for.
        clock: Returns monotonic seconds.

    Attributes:
        floor: The confidence below which the detector reports nothing.
        threshold: Smallest confidence of a face, unless a query asks for another.
        attributes: Attributes that can be read and are switched on, without landmarks.
        points: Landmark heads that can be read and are switched on.
        most_bytes: Largest file of a picture in bytes.
    """

    def __init__(
        self,
        settings: HttpSettings,
        analyzer: PictureAnalyzer,
        heads: Mapping[str, Head],
        metrics: Metrics,
        floor: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._analyzer = analyzer
        self._all_points = frozenset(name for name, head in heads.items() if head.kind == "points")
        self.floor = floor
        self._metrics = metrics
        self._clock = clock
        self._in_work = 0
        self._memory = BodyMemory(int(settings.max_bodies_mb * 1e6), clock)
        self.most_bytes = int(settings.max_body_mb * 1e6)
        self._room = PixelBudget(2 * settings.max_pixels)
        self.configure(frozenset(heads), 0.5, {})

    def configure(self, enabled: frozenset[str], threshold: float, least: Mapping[str, float]) -> None:
        """Set what may change while the daemon runs.

        Args:
            enabled: The attributes that are switched on.
            threshold: Smallest confidence of a face, unless a query asks for another.
            least: Smallest confidence with which each attribute is reported.
        """
        self.points = self._all_points & enabled
        self.attributes = enabled - self._all_points
        self.threshold = threshold
        self._least = least

    @contextlib.asynccontextmanager
    async def request(self) -> AsyncIterator[Upload]:
        """Attend to a request for one picture, from its head to the answer.

        Errors with the picture inside the context are raised as `Problem`; so is the refusal, at once, when too many
        pictures wait already. The context's value counts the bytes of the picture's file, which are held until its end.
        No place is held: the client decides how long its picture takes to come (`analyse` takes one).
        """
        outcome = "failed"
        try:
            self._check_places()
            with self._memory.upload() as upload:
                yield upload
            outcome = "answered"
        except PictureError as error:
            outcome = "refused"
            raise Problem(_STATUS[error.reason], f"picture-{error.reason.replace('_', '-')}", str(error)) from None
        except Problem as problem:
            is_refused = problem.status < HTTPStatus.INTERNAL_SERVER_ERROR or problem.kind == "overloaded"
            outcome = "refused" if is_refused else "failed"
            raise
        except Overloaded:
            outcome = "refused"
            raise _overloaded() from None
        except TimeoutError:
            outcome = "refused"
            text = f"the picture was not done within {self._settings.deadline_s:g} s; try again, or send it smaller"
            raise _overloaded(text) from None
        except asyncio.CancelledError:
            # A while after it was asked to stop, the server cancels the requests that are not done.
            detail = "the server is stopping"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "stopping", detail, {"Retry-After": "10"}) from None
        except ClientDisconnect:
            outcome = "abandoned"
            raise Problem(HTTPStatus.BAD_REQUEST, "body-cut-short", "the body ended too early") from None
        except InferenceFailed as error:
            raise Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "inference-failed", str(error)) from None
        finally:
            self._metrics.pictures.labels(outcome).inc()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Within the context, hold a place for a picture whose file is in memory; raises `Problem` if there is none."""
        self._check_places()
        self._in_work += 1
        try:
            yield
        finally:
            self._in_work -= 1

    def _check_places(self) -> None:
        if self._in_work >= self._settings.max_waiting:
            raise _overloaded()

    async def analyse(self, data: bytes, query: PictureQuery) -> PictureResult:
        """Find the faces of a picture, and read their attributes; to be called within the context of `request`.

        Args:
            data: A JPEG, PNG, BMP or WebP file.
            query: Which faces and attributes are wanted.

        Raises:
            Problem: There is no place.
            PictureError: The file is empty, damaged, too large or of an unsupported format.
            Overloaded: Too many pictures wait.
            TimeoutError: The picture was not done within the deadline.
            InferenceFailed: The networks failed.
        """
        began_s = self._clock()
        with self.place():
            result = await self._result(data, query)
        self._metrics.picture_seconds.observe(self._clock() - began_s)
        if query.unsure:
            return result
        faces = [replace(face, attributes=sure(face.attributes, self._least)) for face in result.faces]
        return replace(result, faces=faces)

    async def _result(self, data: bytes, query: PictureQuery) -> PictureResult:
        async with asyncio.timeout(self._settings.deadline_s):
            if self._analyzer.is_quick(data):
                with contextlib.suppress(SlowToDecode):
                    return await asyncio.wrap_future(self._analyzer.submit_encoded(data, query))
            return await self._decoded_ahead(data, query)

    async def _decoded_ahead(self, data: bytes, query: PictureQuery) -> PictureResult:
        """Decode a picture in a thread of its own once there is room for its pixels, then queue it for analysis."""
        pixels = await self._in_thread(0, self._analyzer.pixels, data, query)
        async with self._room.place(pixels):
            return await asyncio.wrap_future(await self._in_thread(pixels, self._analyzer.submit, data, query))

    async def _in_thread(
        self,
        pixels: int,
        function: Callable[_Arguments, _Result],
        *arguments: _Arguments.args,
        **more: _Arguments.kwargs,
    ) -> _Result:
        """Run a function in a thread, which goes on when the caller is cancelled: a thread cannot be stopped.

        Until it ends, it then counts as a picture that holds a place and its pixels. Otherwise clients that send
        pictures that take long to decode could occupy any number of threads.
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
            work.exception()  # mark the exception as retrieved: the caller is gone


def _overloaded(text: str = "too many pictures are waiting; try again") -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", text, {"Retry-After": "1"})
