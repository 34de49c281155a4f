"""Bodies of requests: where they end, and what is in them, decoded in steps whose cost is bounded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Protocol

PIECE_BYTES = 65_536
"""Most bytes of a body that one step decodes."""

# Most chunks that one step decodes; each takes about 3 us.
_CHUNKS = 128
# A chunk's size with its extensions, and a line of a trailer.
_LINE_BYTES = 256
_TRAILER_BYTES = 4096
# After so many chunks, or reads, a body whose chunks, or reads, hold less than this on average is ended: every byte of
# it costs as much time as a kilobyte of others. Lines of base64 have 76 characters.
_PATIENT_CHUNKS = 256
_PATIENT_READS = 1024
_LEAST_BYTES = 64

# The number of digits is bounded so that a size cannot be a number of any length.
_SIZE = re.compile(rb"(?P<size>[0-9A-Fa-f]{1,16})(?:;[^\r\n\0]*|[ \t]*)")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*")


class Malformed(Exception):
    """A request breaks the rules of HTTP, or is made to cost time; its text says what is wrong and what to do."""


class Body(Protocol):
    """The body of a request."""

    @property
    def over(self) -> bool:
        """Whether all of it was taken."""
        ...

    def take(self, received: bytearray) -> bytes:
        """Remove a part of the body from the front of the bytes received, and return what it holds.

        Nothing is removed where the bytes received end within something that must be complete.

        Raises:
            Malformed: The body is not well-formed, or in too many too small chunks.
        """
        ...


def body_of(headers: Iterable[tuple[bytes, bytes]], http_version: bytes) -> Body:
    """Return the body that a request announces.

    Args:
        headers: Lower-case names and values, as h11 returns them: it has checked each value.
        http_version: The request's version, such as `1.1`.

    Raises:
        Malformed: The headers say two things about the body's length, so that a proxy in front may have understood
            another one.
    """
    length, encodings = None, []
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            encodings.append(value)
    if not encodings:
        return SizedBody(length or 0)
    if length is not None:
        raise Malformed("there are both Content-Length and Transfer-Encoding; send one of them")
    if http_version < b"1.1":
        raise Malformed("HTTP/1.0 has no Transfer-Encoding; send Content-Length")
    return ChunkedBody()


class SizedBody:
    """A body whose length in bytes was announced."""

    def __init__(self, size: int) -> None:
        self._left = size

    @property
    def over(self) -> bool:
        """Whether all of the body was taken."""
        return self._left == 0

    def take(self, received: bytearray) -> bytes:
        """Remove a part of the body from the front of the bytes received, and return it."""
        piece = _removed(received, min(self._left, PIECE_BYTES))
        self._left -= len(piece)
        return piece


class ChunkedBody:
    """A body in chunks (RFC 9112, 7.1). Extensions of chunks and trailers are checked and dropped."""

    def __init__(self) -> None:
        self.over = False
        self._left = 0  # bytes of the current chunk that have not come yet
        self._chunks, self._payload, self._trailer = 0, 0, 0
        self._expect: Callable[[bytearray], bytes] = self._size

    def take(self, received: bytearray) -> bytes:
        """Remove some chunks from the front of the bytes received, and return what they hold."""
        pieces: list[bytes] = []
        taken = 0
        for _ in range(3 * _CHUNKS):
            before = len(received)
            piece = self._expect(received)
            if piece:
                pieces.append(piece)
                taken += len(piece)
            if self.over or len(received) == before or taken >= PIECE_BYTES:
                break
        return b"".join(pieces)

    def _size(self, received: bytearray) -> bytes:
        line = _line(received)
        if line is None:
            return b""
        found = _SIZE.fullmatch(line)
        if found is None:
            raise Malformed("a chunk of the body does not begin with its size in hexadecimal digits")
        self._left = int(found["size"], 16)
        self._expect = self._data if self._left else self._trailers
        self._chunks += 1
        self._payload += self._left
        if self._chunks >= _PATIENT_CHUNKS and self._payload < _LEAST_BYTES * self._chunks:
            detail = f"the body's chunks hold less than {_LEAST_BYTES} bytes on average"
            raise Malformed(f"{detail}; send Content-Length, or larger chunks")
        return b""

    def _data(self, received: bytearray) -> bytes:
        piece = _removed(received, min(self._left, PIECE_BYTES))
        self._left -= len(piece)
        if not self._left:
            self._expect = self._end
        return piece

    def _end(self, received: bytearray) -> bytes:
        if not b"\r\n".startswith(received[:2]):
            raise Malformed("a chunk of the body is longer than its size says")
        if len(received) >= 2:
            del received[:2]
            self._expect = self._size
        return b""

    def _trailers(self, received: bytearray) -> bytes:
        line = _line(received)
        if line is None:
            return b""
        self._trailer += len(line) + 2
        if not line:
            self.over = True
        elif self._trailer > _TRAILER_BYTES or not _TRAILER.fullmatch(line):
            raise Malformed(f"what follows the body's last chunk is no trailer of at most {_TRAILER_BYTES} bytes")
        return b""


class Reads:
    """Watches over how a body comes: in reads that hold enough on average, or a byte at a time."""

    def __init__(self) -> None:
        self._reads, self._bytes = 0, 0

    def count(self, size: int) -> None:
        """Count a read of a number of bytes; raises `Malformed` if they are too small on average."""
        self._reads += 1
        self._bytes += size
        if self._reads >= _PATIENT_READS and self._bytes < _LEAST_BYTES * self._reads:
            raise Malformed(f"the body comes in pieces of less than {_LEAST_BYTES} bytes on average; send larger ones")


def _removed(received: bytearray, size: int) -> bytes:
    """Remove up to `size` bytes from the front, and return them."""
    piece = bytes(received[:size])
    del received[:size]
    return piece


def _line(received: bytearray) -> bytes | None:
    """Remove a line from the front, and return it without its end; None if it is not complete."""
    end = received.find(b"\r\n", 0, _LINE_BYTES + 2)
    if end < 0:
        if len(received) >= _LINE_BYTES + 2:
            raise Malformed(f"a line within the body is longer than {_LINE_BYTES} bytes")
        return None
    line = bytes(received[:end])
    del received[: end + 2]
    return line
