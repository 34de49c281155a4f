"""Parses Server-Sent Events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from visaged.daemon.watch.news import MOST_BYTES, cleaned


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """A Server-Sent Event.

    Attributes:
        name: Its type, `message` unless given.
        data: Its data, UTF-8.
        number: The id that was last given, or None.
        retry_s: Seconds to wait before the next connection, as last given, or None.
    """

    name: str
    data: bytes
    number: str | None
    retry_s: float | None


class EventParser:
    """Parses a stream of Server-Sent Events, of which none is larger than `MOST_BYTES`."""

    def __init__(self) -> None:
        self.number: str | None = None
        self.retry_s: float | None = None
        self._left = b""
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0
        self._too_long = False

    def feed(self, piece: bytes) -> Iterator[ServerEvent | None]:
        """Take some bytes; yield the events that are complete, and None for each that was too large."""
        text = self._left + piece
        # A line may end with CR, LF or both; a CR at the end may have its LF in the next piece.
        held = text.endswith(b"\r")
        lines = (text[:-1] if held else text).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._left = lines.pop() + (b"\r" if held else b"")
        for line in lines:
            yield from self._line(line)
        if len(self._left) > MOST_BYTES:
            self._left, self._too_long = b"data:", True

    def _line(self, line: bytes) -> Iterator[ServerEvent | None]:
        if not line:
            if self._too_long:
                yield None
            elif self._data:
                yield ServerEvent(self._name or "message", b"\n".join(self._data), self.number, self.retry_s)
            self._name, self._data, self._size, self._too_long = "", [], 0, False
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value)
            if self._size > MOST_BYTES:
                self._data, self._too_long = [], True
            else:
                self._data.append(value)
        elif field == b"event":
            self._name = cleaned(value.decode(errors="replace"))
        elif field == b"id" and len(value) <= 200 and value.isascii() and value.decode().isprintable():
            self.number = value.decode()
        elif field == b"retry" and value.isdigit() and len(value) <= 7:
            self.retry_s = int(value) / 1000
