"""Asks the daemon of this machine over its door: one request, one connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import h11

from visaged.daemon.fleet.pictures.body import ClientGone
from visaged.daemon.fleet.pictures.heads import Head, answer_headers

_READ_BYTES = 65_536


class Away(Exception):
    """The daemon gives no answer: it is not there, or stands still, or ended before it began one."""


class Malformed(Exception):
    """The request's head is none that HTTP/1.1 allows."""


class BrokenOff(Exception):
    """The daemon ended in the middle of an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose body still comes.

    Attributes:
        status: HTTP status.
        headers: Its headers, without those about the connection.
        pieces: The body; raises `BrokenOff`.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    pieces: AsyncIterator[bytes]


class Asking(Protocol):
    """Something that answers requests."""

    def ask(self, head: Head, body: AsyncIterable[bytes]) -> contextlib.AbstractAsyncContextManager[Answer]:
        """Ask; within the context, the answer's body can be read."""
        ...


class Door:
    """A door.

    Args:
        path: The socket.
        patience_s: Longest time in seconds for the daemon to take a piece of a body, or from a body's end to the
            answer's head.
    """

    def __init__(self, path: Path, patience_s: float) -> None:
        self._path = path
        self._patience_s = patience_s

    @contextlib.asynccontextmanager
    async def ask(self, head: Head, body: AsyncIterable[bytes]) -> AsyncIterator[Answer]:
        """Send a request; within the context, read its answer, which may come before the end of the body.

        Raises:
            Away: The daemon gives no answer.
            Malformed: It was not asked, because the request's head is malformed.
            ClientGone: The body broke off.
        """
        line = h11.Connection(h11.CLIENT)
        try:
            request = line.send(h11.Request(method=head.method, target=head.target, headers=list(head.headers)))
        except h11.LocalProtocolError as error:
            raise Malformed(str(error).partition(":")[0][:80]) from None
        assert request is not None
        try:
            async with asyncio.timeout(self._patience_s):
                reader, writer = await asyncio.open_unix_connection(str(self._path), limit=_READ_BYTES)
        except (OSError, TimeoutError):
            raise Away from None
        writer.write(request)
        sending = asyncio.ensure_future(self._send(line, writer, body))
        try:
            response = await self._response(line, reader, sending)
            headers = answer_headers(list(response.headers))
            yield Answer(response.status_code, headers, _pieces(line, reader))
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            writer.transport.abort()

    async def _send(self, line: h11.Connection, writer: asyncio.StreamWriter, body: AsyncIterable[bytes]) -> None:
        async for piece in body:
            if piece:
                writer.write(line.send(h11.Data(data=piece)) or b"")
                async with asyncio.timeout(self._patience_s):
                    await writer.drain()
        writer.write(line.send(h11.EndOfMessage()) or b"")

    async def _response(
        self, line: h11.Connection, reader: asyncio.StreamReader, sending: asyncio.Future[None]
    ) -> h11.Response:
        reading = asyncio.ensure_future(_head(line, reader))
        try:
            # While the body comes, the daemon says how slow a client may be.
            await asyncio.wait((reading, sending), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done() and isinstance(sending.exception(), ClientGone):
                raise ClientGone
            # A daemon that refuses a body closes its side before it has read all; its answer can be read all the same.
            async with asyncio.timeout(self._patience_s):
                return await reading
        except (OSError, TimeoutError, h11.RemoteProtocolError):
            raise Away from None
        finally:
            reading.cancel()


async def _head(line: h11.Connection, reader: asyncio.StreamReader) -> h11.Response:
    while True:
        event = await _event(line, reader)
        if isinstance(event, h11.Response):
            return event


async def _pieces(line: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    try:
        while isinstance(event := await _event(line, reader), h11.Data):
            yield bytes(event.data)
    except (OSError, h11.RemoteProtocolError):
        raise BrokenOff from None


async def _event(line: h11.Connection, reader: asyncio.StreamReader) -> h11.Event:
    while True:
        event = line.next_event()
        if isinstance(event, h11.Event):
            if isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("the connection was closed")
            return event
        line.receive_data(await reader.read(_READ_BYTES))
