"""Splits an RTSP connection into messages and interleaved frames, and writes messages anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

_FRAME = 0x24  # the `$` before a frame of media among the messages (RFC 2326, 10.12)
_END_OF_HEAD = re.compile(rb"\n\r*\n")
_STATUS = re.compile(r"RTSP/[0-9.]+ +([0-9]{3})(?![0-9]).*")
_BEGIN = re.compile(rb"\s*(?:RTSP/|[A-Z_]{3,20} )")  # of a response or a request
_LONGEST_BEGIN = 32
_MOST_HEAD = 65_536
_MOST_BODY = 1 << 20


class BadMessage(Exception):
    """What came is no RTSP."""


def as_header(text: str) -> str:
    """Return a text in the form that headers have here: its bytes in UTF-8, read as Latin-1."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


@dataclass(frozen=True, slots=True)
class Message:
    """A request or a response.

    Attributes:
        line: Its first line.
        fields: Names and values of the headers, without Content-Length.
        body: The body.
    """

    line: str
    fields: tuple[tuple[str, str], ...]
    body: bytes = b""

    @property
    def status(self) -> int | None:
        """Status of a response; None for a request. Raises `BadMessage` if it is no number of three digits."""
        if not self.line.startswith("RTSP/"):
            return None
        found = _STATUS.fullmatch(self.line)
        if found is None:
            raise BadMessage
        return int(found[1])

    def all(self, name: str) -> list[str]:
        """Return the values of all headers of a name, which is in lower case."""
        return [value for key, value in self.fields if key.lower() == name]

    def with_field(self, name: str, value: str) -> Message:
        """Return the message with a header that replaces those of its name."""
        kept = tuple((key, old) for key, old in self.fields if key.lower() != name.lower())
        return replace(self, fields=(*kept, (name, value)))

    def encode(self) -> bytes:
        """Return the message as it is sent."""
        fields = [*self.fields, *([("Content-Length", str(len(self.body)))] if self.body else [])]
        return (
            "".join([f"{self.line}\r\n", *(f"{k}: {v}\r\n" for k, v in fields), "\r\n"]).encode("latin-1") + self.body
        )


class Splitter:
    """Splits one direction of a connection.

    Nothing of a message is passed on as it came: two readers may see two messages where one sees one.
    """

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Message | bytes]:
        """Yield the messages, and the interleaved frames as bytes, that are complete with this data.

        Raises:
            BadMessage: The data is no RTSP.
        """
        self._data += data
        while self._data:
            if self._data[0] == _FRAME:
                end = self._frames()
                if not end:
                    return
                yield bytes(self._data[:end])
                del self._data[:end]
                continue
            if self._data[0] in b"\r\n":
                del self._data[:1]  # some servers send an empty line between messages
                continue
            message = self._message()
            if message is None:
                return
            yield message

    def rest(self) -> bytes:
        """Return, and forget, what has come and is not complete."""
        data, self._data = bytes(self._data), bytearray()
        return data

    def _frames(self) -> int:
        """Return where the complete frames at the beginning end."""
        data, at = self._data, 0
        while len(data) >= at + 4 and data[at] == _FRAME:
            end = at + 4 + (data[at + 2] << 8 | data[at + 3])
            if end > len(data):
                break
            at = end
        return at

    def _message(self) -> Message | None:
        if len(self._data) >= _LONGEST_BEGIN and _BEGIN.match(self._data) is None:
            raise BadMessage
        found = _END_OF_HEAD.search(self._data, 0, _MOST_HEAD)
        if found is None:
            if len(self._data) >= _MOST_HEAD:
                raise BadMessage
            return None
        first, *rest = bytes(self._data[: found.start()]).decode("latin-1").replace("\r", "").split("\n")
        fields = [(name.strip(), value.strip()) for name, mark, value in (text.partition(":") for text in rest) if mark]
        lengths = [value for name, value in fields if name.lower() == "content-length"]
        size = int(lengths[0]) if lengths and lengths[0].isascii() and lengths[0].isdigit() else 0
        if size > _MOST_BODY or len(set(lengths)) > 1:
            raise BadMessage
        if len(self._data) < found.end() + size:
            return None
        body = bytes(self._data[found.end() : found.end() + size])
        del self._data[: found.end() + size]
        kept = tuple((name, value) for name, value in fields if name.lower() != "content-length")
        return Message(first.strip(), kept, body)
