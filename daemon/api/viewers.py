"""Answers that go on for as long as somebody looks: live pictures, and events as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Literal

from fastapi import Response
from starlette.types import Receive, Scope, Send

from visaged.daemon.http.head import is_head
from visaged.daemon.http.problems import Problem
from visaged.pipelines.runtime.metrics import Metrics

Kind = Literal["mjpeg", "live", "events"]

_RETRY_S = 10
_LAST_S = 0.2
"""Longest wait in seconds until the client has taken the last part."""


class Viewers:
    """The seats of those who look, of which there are few, as each costs work for as long as it is taken.

    Only for the thread of the event loop.

    Args:
        most: Number of seats; 0 for none.
        metrics: Counts the seats that are taken, by kind.
    """

    def __init__(self, most: int, metrics: Metrics) -> None:
        self._most = most
        self._taken = 0
        self._ends: set[asyncio.Event] = set()
        self._is_closed = False
        self._gauge = metrics.live_viewers
        for kind in ("mjpeg", "live", "events"):
            self._gauge.labels(kind)

    @contextlib.contextmanager
    def seat(self, kind: Kind) -> Iterator[asyncio.Event]:
        """Take a seat; it gives an event that is set when its answer must end, because the daemon stops.

        Raises:
            Problem: All seats are taken, or there are none (503).
        """
        if self._taken >= self._most:
            raise self._full()
        end = asyncio.Event()
        if self._is_closed:
            end.set()
        self._taken += 1
        self._ends.add(end)
        self._gauge.labels(kind).inc()
        try:
            yield end
        finally:
            self._gauge.labels(kind).dec()
            self._ends.discard(end)
            self._taken -= 1

    def close(self) -> None:
        """Have every answer end now, and those that still come at once."""
        self._is_closed = True
        for end in self._ends:
            end.set()

    def _full(self) -> Problem:
        if not self._most:
            detail = "live.max_viewers is 0, so there are no live pictures and no streams of events"
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "no-viewers", detail)
        detail = (
            f"{self._most} live pictures and streams of events are open already; close one, try again later, or raise "
            "live.max_viewers"
        )
        headers = {"Retry-After": str(_RETRY_S)}
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "too-many-viewers", detail, headers)


class Endless(Response):
    """An answer without a foreseeable end, on a seat of `Viewers`.

    It ends when the parts do, when the client is gone, or when the daemon stops. A part is made when the client has
    taken the one before, so whoever makes them decides what a slow client misses. HEAD gets the headers alone, and
    takes no seat.

    Args:
        viewers: The seats. Without a free one, the answer is a problem with status 503.
        kind: What the answer is counted as.
        parts: Begins to make the parts; called once the seat is taken. The generator is closed however it ends.
        media_type: Value of the header Content-Type.
        headers: More headers.
    """

    def __init__(
        self,
        viewers: Viewers,
        kind: Kind,
        parts: Callable[[], AsyncGenerator[bytes]],
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        # Proxies and browsers must neither keep nor collect it: nginx, for one, buffers answers by default.
        always = {"Content-Type": media_type, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(headers={**always, **(headers or {})})
        del self.headers["content-length"]
        self._viewers = viewers
        self._kind = kind
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if is_head(scope):
            await send(start)
            await send({"type": "http.response.body", "body": b""})
            return
        with self._viewers.seat(self._kind) as end:
            await send(start)
            tasks = [asyncio.create_task(work) for work in (self._send(send), _gone(receive), end.wait())]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(outcomes[0], Exception):
            raise outcomes[0]
        # A client that has not taken what it was sent would hold up the end; its connection is cut then.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S):
                await send({"type": "http.response.body", "body": b""})

    async def _send(self, send: Send) -> None:
        async with contextlib.aclosing(self._parts()) as parts:
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
