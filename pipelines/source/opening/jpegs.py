"""Converts JPEGs over HTTP, in any wrapping, into the form that FFmpeg reads without delay.

FFmpeg's `mpjpeg` demuxer needs parts of the type `image/jpeg`, nothing before the first boundary, and dashes in front
of it; its demuxers for bare JPEGs read ahead for seconds to find out a rate that such streams do not have. This module
splits the answer by the markers of the JPEGs, whatever stands between them. FFmpeg still does HTTP, so redirects,
logins, TLS and errors are as for every other source.
"""

from __future__ import annotations

import errno
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import av
import av.error
from av.container import InputContainer

from visaged.pipelines.source.errors import SourceError

_PLAYLIST = (b"#EXTM3U", b"\xef\xbb\xbf#EXTM3U")
_WEB_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,999}<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_START = b"\xff\xd8\xff"
_MOST_BYTES = 64 << 20  # most bytes of one picture
_MOST_ELSE = 1 << 20  # most bytes between two pictures

_NEXT, _END, _SCAN = 0xD8, 0xD9, 0xDA
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})


class JpegSplitter:
    """Finds the JPEGs in a stream of bytes.

    Marker segments are skipped by their lengths, so that the end of an embedded thumbnail is not taken for the end of
    the picture. A picture that is cut short by the next one is returned as far as it goes.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._at: int | None = None  # offset to go on from in the picture at offset 0; None while there is no picture
        self._in_scan = False
        self.skipped = 0
        """Bytes after the last picture that belong to no picture."""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pictures that are complete with these bytes."""
        self._data += data
        found = []
        while (picture := self._next()) is not None:
            found.append(picture)
        return found

    def finish(self) -> bytes | None:
        """Return the last picture, if it was cut short within its pixels; None otherwise."""
        return bytes(self._data) if self._at is not None and self._in_scan else None

    @property
    def size(self) -> int:
        """Bytes of the picture that is not yet complete."""
        return 0 if self._at is None else len(self._data)

    def _next(self) -> bytes | None:
        if self._at is None and not self._begin():
            return None
        end = self._end()
        if end is None:
            return None
        picture = bytes(self._data[:end])
        del self._data[:end]
        self._at, self._in_scan, self.skipped = None, False, 0
        return picture

    def _begin(self) -> bool:
        start = self._data.find(_START)
        skipped = start if start >= 0 else max(0, len(self._data) - len(_START) + 1)
        self.skipped += skipped
        del self._data[:skipped]
        if start < 0:
            return False
        self._at = 2
        return True

    def _end(self) -> int | None:
        """Return the offset of the picture's end; None if it has not come yet."""
        data = self._data
        assert self._at is not None
        while True:
            mark = data.find(b"\xff", self._at) if self._in_scan else self._at
            if mark < 0:
                self._at = len(data)
                return None
            self._at = mark
            if mark + 2 > len(data):  # the rest of the marker has not come yet
                return None
            code = data[mark + 1]
            if data[mark] != 0xFF or code == _NEXT:  # not a marker, or the next picture: this one is damaged
                return mark
            if code == _END:
                return mark + 2
            if code == 0xFF:  # padding
                self._at = mark + 1
            elif code == 0 or code in _WITHOUT_LENGTH:
                self._at = mark + 2
            else:
                after = mark + 2 + int.from_bytes(data[mark + 2 : mark + 4], "big")
                if max(after, mark + 4) > len(data):  # look at the marker again when its segment is there
                    return None
                self._at, self._in_scan = after, code == _SCAN


class JpegStream:
    """A readable file in FFmpeg's `mpjpeg` form, from an answer that was opened with the `data` demuxer.

    Args:
        where: The URL without credentials.
        answer: The open answer.
        most_silent_s: Seconds without a picture after which the stream is given up.
        clock: Returns monotonic seconds.
    """

    name = "jpegs"

    def __init__(
        self, where: str, answer: InputContainer, most_silent_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._where = where
        self._answer = answer
        self._most_silent_s = most_silent_s
        self._clock = clock
        self._packets: Iterator[Any] = iter(answer.demux())
        self._splitter = JpegSplitter()
        self._ready: deque[bytes] = deque()
        self._is_over = False
        self._has_any = self._has_data = False
        self._last_s = clock()

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes as soon as there is a picture; empty at the end.

        Raises:
            SourceError: Data comes, but no picture in time.
            Exception: PyAV raised it, or the data is no JPEG (`av.error.InvalidDataError`).
        """
        while not self._ready:
            if self._is_over:
                return b""
            self._fill()
        data = self._ready.popleft()
        if len(data) > size:
            self._ready.appendleft(data[size:])
        return data[:size]

    def close(self) -> None:
        """Close the connection; only in the thread that opened it."""
        self._answer.close()

    def _fill(self) -> None:
        data = self._receive()
        if data is None:
            self._is_over = True
            rest = self._splitter.finish()
            pictures = [] if rest is None else [rest]
            if not self._has_any and not pictures:
                raise av.error.InvalidDataError(1, "no JPEG")
        else:
            if not self._has_data and data.startswith(_PLAYLIST):
                raise SourceError(
                    "invalid",
                    f"{self._where} is a playlist, and its URL does not end in .m3u8; set format: hls for this camera "
                    "if it may name what is asked for next",
                )
            if not self._has_data and _WEB_PAGE.match(data):
                raise SourceError("invalid", f"{self._where} is a web page, not a video or a picture")
            self._has_data = True
            pictures = self._splitter.feed(data)
        for picture in pictures:
            head = b"--visaged\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
            self._ready.append(head + picture + b"\r\n")
            self._has_any = True
            self._last_s = self._clock()
        self._check()

    def _check(self) -> None:
        splitter = self._splitter
        if splitter.skipped > _MOST_ELSE or splitter.size > _MOST_BYTES:
            raise av.error.InvalidDataError(1, "no JPEG")
        if self._clock() - self._last_s > self._most_silent_s:
            cause = "invalid" if self._has_any else "timeout"
            text = f"{self._where} sends data, but no picture in {self._most_silent_s:.0f} s"
            raise SourceError(cause, text)

    def _receive(self) -> bytes | None:
        """Return the next bytes of the answer; None at its end."""
        try:
            packet = next(self._packets, None)
        except OSError as error:
            if error.errno != errno.EIO:  # FFmpeg reports the end of an answer without a length as this error
                raise
            return None
        return None if packet is None else bytes(packet)
