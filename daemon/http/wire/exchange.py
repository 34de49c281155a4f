"""A request and its answer, between a connection and an ASGI application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import unquote

import h11
from starlette.types import ASGIApp, Message

from visaged.daemon.http.wire.framing import PIECE_BYTES, Body

log = logging.getLogger(__name__)

# Size in bytes of the pieces in which answers are written. A larger answer would be buffered at once and count as
# complete, and what the client has not read when the keep-alive time or the TLS shutdown ends would be lost.
_ANSWER_BYTES = 262_144

_CLOSE = (b"connection", b"close")
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}

Headers = Iterable[tuple[bytes, bytes]]


class Line(Protocol):
    """The connection that an exchange takes place on."""

    def write(self, data: bytes) -> None:
        """Send bytes."""
        ...

    async def drained(self) -> None:
        """Wait until the client has taken what was sent."""
        ...

    def wanted(self) -> None:
        """Go on with receiving the body."""
        ...

    def answered(self, keep: bool) -> None:
        """Go on with the next request, or close the connection."""
        ...

    def broken(self) -> None:
        """Close the connection at once: the rest of the answer will never come."""
        ...


class Exchange:
    """A request, and its answer.

    Args:
        line: The connection.
        parser: State of the protocol; it has parsed the request's head.
        body: The request's body, which the connection goes on to receive.
        scope: The request's scope of ASGI; see `scope_of`.
        more_headers: Headers of every answer.

    Attributes:
        body: The request's body.
        gone: Whether nobody reads an answer any more.
        started: Whether the answer has begun.
        complete: Whether the answer was sent.
        last: Whether the connection is to be closed after the answer.
    """

    def __init__(
        self, line: Line, parser: h11.Connection, body: Body, scope: dict[str, Any], more_headers: Headers
    ) -> None:
        self.body = body
        self.gone = self.started = self.complete = self.last = False
        self._line = line
        self._parser = parser
        self._scope = scope
        self._more_headers = more_headers
        self._pieces: list[bytes] = []
        self._size = 0
        self._news = asyncio.Event()
        self._has_body = not body.over
        self._delivered = False  # whether the application has all of the body
        self._must_invite = parser.they_are_waiting_for_100_continue

    @property
    def full(self) -> bool:
        """Whether the application must take a part of the body before more of it is decoded."""
        return self._size >= PIECE_BYTES

    def feed(self, piece: bytes) -> None:
        """Hand a part of the body to the application, empty if only its end is new."""
        self._pieces.append(piece)
        self._size += len(piece)
        self._news.set()

    def leave(self) -> None:
        """Note that nobody reads an answer any more."""
        self.gone = True
        self._news.set()

    async def run(self, app: ASGIApp) -> None:
        """Have the application answer the request."""
        try:
            await app(self._scope, self._receive, self._send)
        except asyncio.CancelledError:  # the server stops
            self._line.broken()
            return
        except Exception:
            path = self._scope["raw_path"][:200].decode()
            log.exception("%s %s was not answered as it should be", self._scope["method"], path)
        if self.complete or self.gone:
            return
        if self.started:
            self._line.broken()
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8"), _CLOSE]
        await self._send({"type": "http.response.start", "status": 500, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"Internal Server Error"})

    async def _receive(self) -> Message:
        """Return the next part of the body; once there is no more, wait until the exchange is over."""
        if self._must_invite and not self.started:
            self._must_invite = False
            self._write(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        while not (self.gone or self.complete) and (self._delivered or not (self._pieces or self.body.over)):
            self._news.clear()
            await self._news.wait()
        if self.gone or self.complete:
            return {"type": "http.disconnect"}
        piece = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._delivered = self.body.over
        if not self._delivered:
            self._line.wanted()
        return {"type": "http.request", "body": piece, "more_body": not self._delivered}

    async def _send(self, message: Message) -> None:
        """Send a part of the answer, as fast as the client takes it."""
        await self._line.drained()
        if self.gone:
            return
        if not self.started:
            self._begin(message)
            return
        if self.complete:
            raise RuntimeError("the answer is complete already")
        body = b"" if self._scope["method"] == "HEAD" else message.get("body", b"")
        for start in range(0, len(body), _ANSWER_BYTES):
            self._write(h11.Data(data=body[start : start + _ANSWER_BYTES]))
            if start + _ANSWER_BYTES < len(body):
                await self._line.drained()
                if self.gone:
                    return
        if not message.get("more_body", False):
            self._write(h11.EndOfMessage())
            self.complete = True
            self._news.set()
            # h11 knows whether the request or the answer asked for the connection to be closed.
            self._line.answered(keep=self._parser.our_state is h11.DONE and not self.last)

    def _begin(self, message: Message) -> None:
        """Send the head of the answer."""
        if message["type"] != "http.response.start":
            raise RuntimeError(f"an answer does not begin with {message['type']}")
        headers = [*self._more_headers, *message.get("headers", ())]
        # The rest of a body that the application did not want is not parsed, so that no next request can be found.
        self.last |= self._has_body and not self._delivered
        if self.last and not any(name.lower() == b"connection" for name, _ in headers):
            headers.append(_CLOSE)
        status = message["status"]
        self.started = True
        self._write(h11.Response(status_code=status, headers=headers, reason=_PHRASES.get(status, b"")))

    def _write(self, event: h11.Event) -> None:
        data = self._parser.send(event)
        if data:
            self._line.write(data)


def scope_of(
    request: h11.Request, scheme: str, client: tuple[str, int] | None, server: tuple[str, int | None] | None
) -> dict[str, Any]:
    """Return the scope of ASGI for a request.

    Args:
        request: The request's head.
        scheme: `http` or `https`.
        client: Address and port of the client; None if unknown.
        server: Address and port that the client connected to; None if unknown.
    """
    path, _, query = request.target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version.decode("ascii"),
        "server": server,
        "client": client,
        "scheme": scheme,
        "method": request.method.decode("ascii"),
        "root_path": "",
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "headers": list(request.headers),
        "state": {},
    }
