"""A connection of the HTTP server on a transport that a test holds in its hands, without sockets."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from prometheus_client import Counter
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from visaged.daemon.http.wire.connection import Connection, Service
from visaged.daemon.http.wire.limits import Limits
from visaged.daemon.http.wire.seats import Seats
from visaged.daemon.http.wire.turns import Turns
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.ratelimit import LimitedLog


class HeldTransport(asyncio.Transport):
    """Keeps what is written.

    Attributes:
        sent: What the client has been sent.
        unsent: Bytes that the client does not take, for `get_write_buffer_size`.
        is_paused: Whether nothing is received.
        has_ended: Whether the sending side was closed.
        is_aborted: Whether the connection was cut off.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.unsent = 0
        self.is_paused = self.has_ended = self.is_aborted = self._is_closing = False

    def write(self, data: Any) -> None:
        assert not self.has_ended
        assert not self._is_closing, "asyncio logs this"
        self.sent += bytes(data)

    def write_eof(self) -> None:
        self.has_ended = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._is_closing = True

    def abort(self) -> None:
        self._is_closing = self.is_aborted = True

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume_reading(self) -> None:
        assert self.is_paused
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Wire:
    """A connection, with an application behind it; to be made within an event loop.

    Args:
        app: The application.
        limits: Of the connection.
        turns: Shared with other connections; None for this one alone.
    """

    def __init__(self, app: ASGIApp, limits: Limits | None = None, turns: Turns | None = None) -> None:
        metrics = Metrics()
        self.cut: dict[str, Counter] = {
            cause: metrics.http_cut.labels("http", cause) for cause in ("slow", "unread", "too_many", "malformed")
        }
        self.turns = turns or Turns()
        service = Service(
            app,
            limits or Limits(),
            ServerState(),
            Seats(10, 10, lambda: None),
            self.turns,
            self.cut,
            LimitedLog(logging.getLogger(__name__)),
        )
        self.transport = HeldTransport()
        self.connection = Connection(service)
        self.connection.connection_made(self.transport)

    async def receive(self, data: bytes) -> None:
        """Receive bytes as reads of 256 KiB, as the kernel has them, while the connection reads."""
        for start in range(0, len(data), 262_144):
            while self.transport.is_paused:
                await asyncio.sleep(0)
            self.connection.data_received(data[start : start + 262_144])
            await asyncio.sleep(0)

    async def settle(self, turns: int = 200) -> None:
        """Let the event loop turn a number of times."""
        for _ in range(turns):
            await asyncio.sleep(0)

    def lose(self) -> None:
        """Have the client go away."""
        self.connection.connection_lost(None)


class Echo:
    """An application that answers with the number of bytes that it received, or at once.

    Args:
        status: Status of an answer that does not wait for the body; None to read it.

    Attributes:
        paths: Paths of the requests so far.
        received: Bytes of their bodies.
    """

    def __init__(self, status: int | None = None) -> None:
        self._status = status
        self.paths: list[str] = []
        self.received = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        while self._status is None:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            self.received += len(message["body"])
            if not message["more_body"]:
                break
        text = str(self.received).encode()
        headers = [(b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": self._status or 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})
