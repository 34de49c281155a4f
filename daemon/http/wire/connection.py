"""One connection of a client: requests in, answers out, within limits of time, and in small steps."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from prometheus_client import Counter
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from visaged.daemon.http.problems import Problem, raw_answer
from visaged.daemon.http.wire.exchange import Exchange, scope_of
from visaged.daemon.http.wire.framing import Malformed, Reads, body_of
from visaged.daemon.http.wire.heads import HeadReader
from visaged.daemon.http.wire.limits import Limits
from visaged.daemon.http.wire.seats import Seat, Seats
from visaged.daemon.http.wire.turns import Turns
from visaged.daemon.http.wire.writing import Writing
from visaged.pipelines.runtime.ratelimit import LimitedLog

# What connections beyond the seats may ask for, and the time in seconds in which they must.
_HEALTH = frozenset({b"/healthz", b"/readyz"})
_BEYOND_S = 1.0
# Bytes beyond which no more are received until these are parsed.
_UNPARSED_BYTES = 65_536
# After the last answer, what still comes is dropped within these bounds. Closing with unread bytes resets the
# connection, and the reset can overtake the answer that says why.
_LINGER_S = 2.0
_LINGER_BYTES = 100_000_000
# Bytes of answers that the kernel holds for a client that does not read; by default it holds megabytes.
_KERNEL_BYTES = 262_144
# Seconds of silence after which the kernel asks whether the other side is still there, and between its questions.
_PROBE_S = 20

_NO_ROOM = Problem(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "overloaded",
    "too many connections are open; try again, or close those that are not used",
    {"Retry-After": "1"},
)


@dataclass(frozen=True, slots=True)
class Service:
    """What the connections of a listener share.

    Attributes:
        app: The application.
        limits: Limits of each connection.
        state: The connections, tasks and headers of uvicorn's server.
        seats: Who may be connected.
        turns: Shares the event loop out.
        cut: Counters of the connections that are cut off, by cause.
        complain: Logs what clients do wrong, at a limited rate.
    """

    app: ASGIApp
    limits: Limits
    state: ServerState
    seats: Seats
    turns: Turns
    cut: Mapping[str, Counter]
    complain: LimitedLog


class Connection(asyncio.Protocol):
    """One connection.

    It waits for the head of a request, then for its body and answer, then for the next head, and so on. After the last
    answer it may linger, which is to drop unparsed what still comes.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._heads = HeadReader()
        self._reads = Reads()
        self._exchange: Exchange | None = None
        self._seat: Seat | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_idle = False  # between an answer and the first byte of the next request
        self._is_queued = False
        self._is_paused = False
        self._is_stopping = False
        self._lingers = False
        self._dropped = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a head."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._writing = Writing(transport, self._service.limits, self._unread)
        # `pause_writing` is called for every byte that the kernel does not take at once, and now if there is one.
        transport.set_write_buffer_limits(high=1)
        self._service.state.connections.add(self)  # type: ignore[arg-type]
        opened = transport.get_extra_info("socket")
        if opened is not None:
            _set_options(opened, self._service.limits)
            self._seat = self._service.seats.find(opened.fileno())
        head_s = self._service.limits.head_s
        self._arm(min(head_s, _BEYOND_S) if self._is_beyond else head_s, self._head_overdue)

    def data_received(self, data: bytes) -> None:
        """Keep what was received; it is parsed when it is this connection's turn."""
        if self._lingers:
            self._dropped += len(data)
            if self._dropped > _LINGER_BYTES:
                self._transport.close()
            return
        if self._transport.is_closing():
            return
        if self._is_idle:
            self._is_idle = False
            self._arm(self._service.limits.head_s, self._head_overdue)
        self._received += data
        if len(self._received) > _UNPARSED_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        if self._exchange is not None and not self._exchange.body.over:
            try:
                self._reads.count(len(data))
            except Malformed as error:
                self._refuse("malformed", _malformed(error))
                return
        self._queue()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._service.state.connections.discard(self)
        self._disarm()
        self._received.clear()
        self._leave()
        self._writing.resume()

    def pause_writing(self) -> None:
        """Note that the client does not take what it is sent at once."""
        self._writing.pause()

    def resume_writing(self) -> None:
        """Note that the client has taken what it was sent."""
        self._writing.resume()

    def shutdown(self) -> None:
        """Close the connection, after the answer to its request if there is one; the server calls this."""
        self._is_stopping = True
        if self._exchange is None:
            self._transport.close()
        else:
            self._exchange.last = True

    def write(self, data: bytes) -> None:
        """Send a part of an answer."""
        self._writing.write(data)

    async def drained(self) -> None:
        """Wait until the client has taken what it was sent."""
        await self._writing.drained()

    def wanted(self) -> None:
        """Go on with the body."""
        self._queue()

    def answered(self, keep: bool) -> None:
        """Go on with the next request, or close the connection."""
        exchange, self._exchange = self._exchange, None
        if self._seat is not None:
            self._service.seats.end(self._seat)
        self._service.state.total_requests += 1
        is_over = exchange is not None and exchange.body.over
        if not (keep and is_over):
            self._close(lingers=not is_over or bool(self._received))
        elif self._received:
            self._arm(self._service.limits.head_s, self._head_overdue)
            self._queue()
        else:
            self._is_idle = True
            self._arm(self._service.limits.idle_s, self._idle_overdue)

    def broken(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    @property
    def _is_beyond(self) -> bool:
        return self._seat is not None and self._seat.is_beyond

    def _queue(self) -> None:
        if not self._is_queued:
            self._is_queued = True
            # Beyond the seats there are few, with a second for one request, which must not pass in the queue of others.
            self._service.turns.add(self._step, is_urgent=self._is_beyond)

    def _step(self) -> None:
        """Parse a head, or a part of a body."""
        self._is_queued = False
        if self._lingers or self._transport.is_closing():
            return
        try:
            if self._exchange is None:
                self._read_head()
            else:
                self._read_body(self._exchange)
        except Malformed as error:
            self._refuse("malformed", _malformed(error))
            return
        if self._is_paused and len(self._received) <= _UNPARSED_BYTES:
            self._is_paused = False
            self._transport.resume_reading()

    def _read_head(self) -> None:
        found = self._heads.take(self._received)
        if found is None:
            return
        parser, request = found
        body = body_of(request.headers, request.http_version)
        may_all = self._seat is None or self._service.seats.begin(self._seat)
        if not may_all and request.target.partition(b"?")[0] not in _HEALTH:
            self._refuse("too_many", _NO_ROOM)
            return
        self._disarm()
        self._reads = Reads()
        get = self._transport.get_extra_info
        scheme = "https" if get("sslcontext") is not None else "http"
        scope = scope_of(request, scheme, _address(get("peername")), _address(get("sockname")))
        self._exchange = Exchange(self, parser, body, scope, self._service.state.default_headers)
        self._exchange.last = not may_all  # others may want to ask for health, too
        task = self._loop.create_task(self._exchange.run(self._service.app))
        self._service.state.tasks.add(task)
        task.add_done_callback(self._service.state.tasks.discard)
        if self._received and not body.over:
            self._queue()

    def _read_body(self, exchange: Exchange) -> None:
        if exchange.body.over or exchange.full:
            return
        before = len(self._received)
        piece = exchange.body.take(self._received)
        if piece or exchange.body.over:
            exchange.feed(piece)
        elif before == len(self._received):
            return
        if self._received and not exchange.body.over:
            self._queue()

    def _head_overdue(self) -> None:
        self._timer = None
        if self._is_beyond:
            self._refuse("too_many", _NO_ROOM)
        elif self._received:
            detail = f"the headers took longer than {self._service.limits.head_s:g} s; send them in one go"
            self._refuse("slow", Problem(HTTPStatus.REQUEST_TIMEOUT, "slow-headers", detail))
        else:
            # Browsers open connections in advance, and would take an answer on one as that to their next request.
            self._service.cut["slow"].inc()
            self._transport.close()

    def _idle_overdue(self) -> None:
        self._timer = None
        # The last piece of the answer may still be unsent; `Writing` limits the time for that.
        if self._transport.get_write_buffer_size():
            self._arm(self._service.limits.idle_s, self._idle_overdue)
        else:
            self._transport.close()

    def _unread(self) -> None:
        self._service.cut["unread"].inc()
        self._transport.abort()

    def _refuse(self, cause: str, problem: Problem) -> None:
        """Answer what is wrong, unless an answer has begun, and close the connection."""
        self._service.cut[cause].inc()
        if cause == "malformed":
            self._service.complain("a client sent what is not understood: %s", problem.detail)
        if self._exchange is None or not self._exchange.started:
            self._writing.write(raw_answer(problem))
        self._leave()
        self._close(lingers=True)

    def _leave(self) -> None:
        """Give up the request that is being answered."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.leave()
        if self._seat is not None:
            self._service.seats.end(self._seat)

    def _close(self, lingers: bool) -> None:
        """Close the connection after what was written, and if it lingers, after what still comes."""
        self._disarm()
        self._received.clear()
        if not lingers or self._is_stopping or self._transport.is_closing():
            self._transport.close()
            return
        self._lingers = True
        if self._transport.can_write_eof():
            with contextlib.suppress(OSError):  # the client is gone already
                self._transport.write_eof()
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        self._arm(_LINGER_S, self._transport.close)

    def _arm(self, seconds: float, overdue: Callable[[], Any]) -> None:
        self._disarm()
        self._timer = self._loop.call_later(seconds, overdue)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _malformed(error: Malformed) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "malformed-request", str(error))


def _address(given: Any) -> tuple[str, int] | None:
    """Return host and port of a socket's address; None for sockets of the file system."""
    return (str(given[0]), int(given[1])) if isinstance(given, tuple) else None


def _set_options(opened: socket.socket, limits: Limits) -> None:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)
    if opened.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # asyncio does not set it on sockets whose protocol number is 0, which `socket.socket` makes. As an answer is
    # written in two pieces, each would then wait 40 ms for a delayed acknowledgement.
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A client that went without a word, as a phone does that leaves its network, is noticed although nothing is sent:
    # an answer without an end would hold its place for hours.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in (("TCP_KEEPIDLE", _PROBE_S), ("TCP_KEEPINTVL", _PROBE_S)):
        if hasattr(socket, name):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
    # The kernel gives up what was written before the connection was closed, and is not taken.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * limits.silence_s))
