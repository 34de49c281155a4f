"""Bounds how long an answer can hold the event loop, in which the whole HTTP server runs.

An HTTP parser takes some 20 microseconds for an event, however few bytes it stands for: 64 kB of chunks of one byte, of
1xx answers or of headers took it 0.3 to 1 s in one go. So little is read at a time, other tasks run in between, and
answers whose head is long or whose pieces are tiny are ended.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import httpcore2

# Bytes that are read at a time: of the head, of which the smallest event has 20 bytes, and of the body.
_HEAD_READ, _BODY_READ = 2048, 16_384
# Most bytes of the head, and of what comes in the body and is none of it: trailers and extensions of chunks. The parser
# takes 12 to 18 ms for as many bytes of the smallest headers. Servers allow themselves 8 to 16 kB.
_MOST_HEAD = 16_384
# A piece of the body costs one unit and brings one for every so many bytes; no more units than this are saved up.
_PIECE_BYTES, _MOST_CREDIT = 64, 256


class HeadTooLong(httpcore2.RemoteProtocolError):
    """The head of an answer, with 1xx answers before it, or what comes with its body is longer than any server's."""


class MeteredStream(httpcore2.AsyncNetworkStream):
    """A connection that is read a little at a time.

    Args:
        stream: The connection.
        meter: Counts the bytes; shared with the connection before TLS.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return the next bytes; raises `HeadTooLong`, and what the connection raises."""
        await asyncio.sleep(0)  # what is buffered, in TLS above all, would be returned without a turn for others
        data = await self._stream.read(min(max_bytes, self._meter.next_read), timeout)
        self._meter.count(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Return the connection with TLS on it."""
        return MeteredStream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._meter)

    def get_extra_info(self, info: str) -> Any:
        """Return what is known of the connection."""
        return self._stream.get_extra_info(info)


class Meter:
    """Counts the bytes of one answer's head, and the pieces of its body."""

    def __init__(self) -> None:
        self._head = 0  # bytes since the last piece of the body, or since the beginning
        self._credit = float(_MOST_CREDIT)
        self._in_body = False

    @property
    def next_read(self) -> int:
        """Most bytes to read at a time."""
        return _BODY_READ if self._in_body else _HEAD_READ

    def count(self, size: int) -> None:
        """Count bytes that came; raises `HeadTooLong`."""
        self._head += size
        if self._head > _MOST_HEAD:
            raise HeadTooLong(f"the head is longer than {_MOST_HEAD} bytes")

    def begin_body(self) -> None:
        """Note that the head has come."""
        self._in_body, self._head = True, 0

    def takes(self, piece: int) -> bool:
        """Count a piece of the body, of so many bytes; return whether pieces are large enough on average."""
        self._head = 0
        self._credit = min(self._credit + piece / _PIECE_BYTES, _MOST_CREDIT) - 1
        return self._credit >= 0
