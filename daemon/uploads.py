"""Pictures that come in over HTTP: taken in within bounds of size, time and memory, and analysed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from visaged.daemon.problems import Problem
from visaged.daemon.settings import HttpSettings
from visaged.models.manifest import Head
from visaged.pipelines.batcher import Batcher, Overloaded
from visaged.pipelines.inference import InferenceFailed
from visaged.pipelines.messages import face_document
from visaged.pipelines.metrics import Metrics
from visaged.pipelines.pictures import PictureError, decode, measure, submit

# A client that sends nothing for this long is gone.
_BODY_SILENCE_S = 20.0
# Nor may one that sends a byte now and then keep its place for ever.
_BODY_MOST_S = 300.0

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
        self._taken += pixels
        try:
            yield
        finally:
            self._taken -= pixels
            # All look again, longest waiting first; those that were cancelled are done already.
            for turn in self._waiting:
                if not turn.done():
                    turn.set_result(None)
            self._waiting.clear()


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
        self._long_side = long_side
        self._multiple_of = multiple_of
        self.threshold = threshold
        self._metrics = metrics
        self._clock = clock
        self._in_work = 0
        self._most_pixels = int(settings.max_megapixels * 1e6)
        self._room = Room(2 * self._most_pixels)

    async def faces(
        self, request: Request, min_confidence: float, points: bool, attributes: frozenset[str]
    ) -> dict[str, Any]:
        """Return the answer for the picture in a request; raises `Problem`."""
        if points and not self._points:
            detail = "landmarks: 106 cannot be had: there is no analyzer for them, or they are switched off"
            raise Problem(HTTPStatus.BAD_REQUEST, "invalid-parameter", detail)
        began_s = self._clock()
        outcome = "failed"
        if self._in_work >= self._settings.max_waiting:
            self._metrics.pictures.labels("refused").inc()
            raise _overloaded()
        self._in_work += 1
        try:
            data = await self._body(request)
            began_s = self._clock()
            document = await self._analyse(data, min_confidence, points, attributes)
            outcome = "answered"
            return document
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
            self._metrics.picture_seconds.observe(self._clock() - began_s)

    async def _analyse(
        self, data: bytes, min_confidence: float, points: bool, attributes: frozenset[str]
    ) -> dict[str, Any]:
        width, height = await run_in_threadpool(measure, data, self._most_pixels)
        async with asyncio.timeout(self._settings.deadline_s), self._room.place(width * height):
            image = await run_in_threadpool(decode, data, self._most_pixels)
            wanted = attributes | (self._points if points else frozenset())
            future = await run_in_threadpool(
                submit,
                self._batcher,
                image,
                self._long_side,
                self._multiple_of,
                wanted,
                min_confidence,
                self._settings.deadline_s,
            )
            faces = await asyncio.wrap_future(future)
        height, width = image.shape[:2]
        return {
            "image": {"width": width, "height": height},
            "faces": [face_document(face, tracked=False) for face in faces],
        }

    async def _body(self, request: Request) -> bytes:
        most = int(self._settings.max_body_mb * 1e6)
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > most:
            raise self._too_long()
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data":
            return await self._multipart(request, most)
        return b"".join([chunk async for chunk in self._chunks(request, most)])

    async def _chunks(self, request: Request, most: int) -> AsyncGenerator[bytes, None]:
        received = 0
        stream = aiter(request.stream())
        last_s = self._clock() + _BODY_MOST_S
        while True:
            try:
                chunk = await asyncio.wait_for(anext(stream), min(_BODY_SILENCE_S, last_s - self._clock()))
            except StopAsyncIteration:
                return
            except TimeoutError:
                detail = f"nothing came for {_BODY_SILENCE_S:g} s, or not all in {_BODY_MOST_S:g} s; send it in one go"
                raise Problem(HTTPStatus.REQUEST_TIMEOUT, "slow-body", detail, {"Connection": "close"}) from None
            received += len(chunk)
            if received > most:
                raise self._too_long()
            yield chunk

    async def _multipart(self, request: Request, most: int) -> bytes:
        parser = MultiPartParser(request.headers, self._chunks(request, most + 65536), max_files=1, max_fields=10)
        parser.spool_max_size = most + 1  # pictures stay in memory: none is to be left on a disk
        try:
            form = await parser.parse()
        except (MultiPartException, KeyError, ValueError) as error:
            text = getattr(error, "message", None) or "it has no boundary"
            raise Problem(HTTPStatus.BAD_REQUEST, "bad-multipart", f"the multipart body is wrong: {text}") from None
        try:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            if not files:
                raise Problem(
                    HTTPStatus.BAD_REQUEST, "bad-multipart", "the form has no file; send the picture as a file field"
                )
            data = await files[0].read()
        finally:
            await form.close()
        if len(data) > most:
            raise self._too_long()
        return data

    def _too_long(self) -> Problem:
        return Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "body-too-large",
            f"the body is larger than {self._settings.max_body_mb:g} MB (http.max_body_mb)",
            {"Connection": "close"},
        )


def _overloaded() -> Problem:
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", "too many pictures are waiting; try again", {"Retry-After": "1"}
    )
