"""The HTTP server: uvicorn, hardened against clients that are slow, silent, or too many.

What uvicorn does not do by itself, and is done here:

- A client that connects and sends nothing, or its headers a byte at a time, is cut off; so is one that goes on sending
  a body long after it was answered.
- A client that does not read its answer is cut off; one that reads it slowly gets all of it.
- The number of open connections is bounded. (`limit_concurrency` answers all with 503 once there are too many, those
  that are open included, and closes none.)
- `TCP_NODELAY` is set. asyncio does not set it on sockets whose protocol number is 0, which `socket.socket` makes. As
  an answer is written in two pieces, each would then wait 40 ms for a delayed acknowledgement.
- TLS handshakes have a time limit, and count as connections. TLS settings come from outside.
- Headers are bounded (16 KiB), and what cannot be parsed is answered like other errors, and logged at a limited rate.

Requests are parsed by h11, whichever parsers are installed: it is strict, and costs 0.5 ms
more than httptools for a picture of 300 kB, whose faces take twenty times that.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import socket
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
import orjson
import uvicorn
from prometheus_client import Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from visaged.daemon.http.problems import MEDIA_TYPE, Problem
from visaged.daemon.http.sockets import Listening
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)

_HANDSHAKE_S = 10.0
# Connections beyond the limit that are answered with 503; further ones are closed without an answer.
_BEYOND = 32
# The same bound that h11 has for heads that come in pieces.
_HEAD_BYTES = 16384
_HEAD_END = re.compile(rb"\n\r?\n")
# Size in bytes of the pieces in which answers are written. A larger answer would be buffered at once and count as
# complete, and what the client has not read when the keep-alive time or the TLS shutdown ends would be lost.
_PIECE_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a listener.

    Attributes:
        head_s: Longest time in seconds to the end of a request's headers, and for the rest of a body whose request was
            answered already.
        silence_s: Longest time in seconds in which the kernel takes nothing of an answer; it may itself buffer some
            megabytes.
        idle_s: Longest time in seconds between an answer and the next request.
        connections: Most open connections.
    """

    head_s: float = 10.0
    silence_s: float = 60.0
    idle_s: int = 15
    connections: int = 500


class Server(uvicorn.Server):
    """Serves an application on sockets that listen already.

    Args:
        app: The application.
        limits: Limits of each connection, and on their number.
        metrics: Counts connections.
        listener: Name of the listener in metrics.
        tls: Context for HTTPS; None for HTTP.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, metrics: Metrics, listener: str = "http", tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                _in_pieces(app),
                http=H11Protocol,  # so that uvicorn loads no other; the connections use the subclass below
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=limits.idle_s,
                timeout_graceful_shutdown=1,
            )
        )
        self._limits = limits
        self._tls = tls
        self._cut = {
            cause: metrics.http_cut.labels(listener, cause) for cause in ("slow", "unread", "too_many", "malformed")
        }
        metrics.http_connections.labels(listener).set_function(lambda: len(self.server_state.connections))
        # Any client can cause these lines as often as it likes.
        logging.getLogger("uvicorn.error").addFilter(_NOISE)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections. uvicorn's own method cannot set a time limit for TLS handshakes."""
        loop = asyncio.get_running_loop()
        timeouts: dict[str, Any] = {}
        if self._tls is not None:
            timeouts = {"ssl_handshake_timeout": _HANDSHAKE_S}
        await self.lifespan.startup()
        self.servers = [
            await loop.create_server(
                self._protocol,
                sock=Listening(listener, self._limits.connections + _BEYOND, self._cut["too_many"].inc),
                ssl=self._tls,
                backlog=self.config.backlog,
                **timeouts,
            )
            for listener in sockets or []
        ]
        self.started = True

    def _protocol(self) -> asyncio.Protocol:
        return _Connection(self.config, self.server_state, self.lifespan.state, self._limits, self._cut)


class _Connection(H11Protocol):
    """One connection, with its time limits."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        limits: Limits,
        cut: dict[str, Counter],
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._limits = limits
        self._cut = cut
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unwritten = 0
        self._began = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        opened = transport.get_extra_info("socket")
        if opened is not None and opened.family in (socket.AF_INET, socket.AF_INET6):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # `pause_writing` is then called for every byte that the client does not take at once.
        transport.set_write_buffer_limits(high=1)
        if len(self.connections) > self._limits.connections:
            detail = "too many connections are open; try again, or close those that are not used"
            self._end("too_many", Problem(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", detail, {"Retry-After": "1"}))
            return
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._began = True
        # h11 bounds only incomplete heads. It would parse a complete one of any length that comes in one read (256
        # KiB), which takes half a second for 20,000 headers.
        if len(data) > _HEAD_BYTES and self.conn.their_state is h11.IDLE and not _HEAD_END.search(data, 0, _HEAD_BYTES):
            self.send_400_response("")
            return
        super().data_received(data)
        if self._working:
            self._cancel_head()
        elif self._head_timer is None and not self.transport.is_closing():
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head()
        self._cancel_write()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._began = False
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_write()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_write()

    def timeout_keep_alive_handler(self) -> None:
        # The last piece of an answer may still be unsent; `_write_overdue` limits the time for that.
        if self.transport.get_write_buffer_size():
            again = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
            self.timeout_keep_alive_task = again
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        problem = Problem(
            HTTPStatus.BAD_REQUEST, "malformed-request", "this is not HTTP/1.1, or its headers are too long"
        )
        self._end("malformed", problem)

    @property
    def _working(self) -> bool:
        """Whether a request's headers are complete and its answer is not."""
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        self._cancel_head()
        self._head_timer = self.loop.call_later(self._limits.head_s, self._head_overdue)

    def _head_overdue(self) -> None:
        self._head_timer = None
        if self._working or self.transport.is_closing():
            return
        # Browsers open connections in advance, and would take an answer on one as the answer to their next request.
        detail = f"the headers took longer than {self._limits.head_s:g} s; send them in one go"
        headers_begun = self._began and self.conn.their_state is h11.IDLE
        self._end("slow", Problem(HTTPStatus.REQUEST_TIMEOUT, "slow-headers", detail) if headers_begun else None)

    def _cancel_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _watch_write(self) -> None:
        self._cancel_write()
        self._unwritten = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self._limits.silence_s, self._write_overdue)

    def _write_overdue(self) -> None:
        if self.transport.get_write_buffer_size() < self._unwritten:
            self._watch_write()
            return
        self._write_timer = None
        self._cut["unread"].inc()
        self.transport.abort()

    def _cancel_write(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _end(self, cause: str, problem: Problem | None) -> None:
        """Close the connection, with an answer if none has begun."""
        self._cut[cause].inc()
        self._cancel_head()
        answering = self._working and self.cycle.response_started
        if problem is not None and not answering:
            self.transport.write(_raw(problem))
        self.transport.close()


def _in_pieces(app: ASGIApp) -> ASGIApp:
    """Return an application whose large answers are sent piece by piece, as fast as the client takes them."""

    async def pieces(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_pieces(message: Message) -> None:
            body = message.get("body", b"")
            if message["type"] != "http.response.body" or len(body) <= _PIECE_BYTES:
                await send(message)
                return
            last = (len(body) - 1) // _PIECE_BYTES * _PIECE_BYTES
            for start in range(0, last, _PIECE_BYTES):
                piece = body[start : start + _PIECE_BYTES]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({**message, "body": body[last:]})

        await app(scope, receive, send_in_pieces)

    return pieces


def _raw(problem: Problem) -> bytes:
    """Return the bytes of a whole HTTP response, for errors of connections that the application does not see."""
    body = orjson.dumps(
        {
            "type": f"urn:visaged:problem:{problem.kind}",
            "title": problem.status.phrase,
            "status": int(problem.status),
            "detail": problem.detail,
        }
    )
    headers = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        "X-Request-ID": secrets.token_hex(8),
        **(problem.headers or {}),
    }
    lines = [
        f"HTTP/1.1 {problem.status} {problem.status.phrase}",
        *(f"{name}: {text}" for name, text in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Noise(logging.Filter):
    """Drops uvicorn's log lines about bad requests; `LimitedLog` logs them at a limited rate instead."""

    # The last one advises to install a library that is left out on purpose.
    _of_clients = ("Invalid HTTP request received.", "Unsupported upgrade request.", "No supported WebSocket library ")

    def __init__(self) -> None:
        super().__init__()
        self._limited = LimitedLog(log)

    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith(self._of_clients):
            self._limited("a client sent what the server does not understand: %s", record.msg)
            return False
        return True


_NOISE = _Noise()
