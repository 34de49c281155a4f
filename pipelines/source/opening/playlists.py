"""Opens the segments, keys and further playlists that a playlist (HLS, DASH) names, each after a check of its URL.

FFmpeg's demuxers of playlists ask for every URL by a callback, and check no more than its scheme. The callback opens
allowed URLs with FFmpeg as raw bytes, so logins, TLS, decryption and proxies are as for every other source.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from av.container import InputContainer

from visaged.pipelines.source.errors import SourceError

# Prefixes of FFmpeg's decryption, before the URL of what is encrypted.
_DECRYPTION = ("crypto+", "crypto:")
# Failures in a row after which a playlist counts as broken; a live one names segments that are gone already.
_MOST_FAILURES = 5


Opening = Callable[[str, str, Mapping[str, str]], InputContainer]
"""Returns what a playlist names, opened as raw bytes.

Its arguments are the URL; FFmpeg's prefix for decryption, empty for none; and options of FFmpeg's protocol, such as the
part of the file that is wanted. It raises `SourceError` if the playlist may not name the URL, and what PyAV raises.
"""


class RawFile:
    """A readable file of what was opened with FFmpeg's `data` demuxer; an error while it is read is its end."""

    def __init__(self, answer: InputContainer) -> None:
        self._answer = answer
        self._packets: Iterator[Any] = iter(answer.demux())
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; empty at the end."""
        if not self._rest:
            try:
                self._rest = next((bytes(packet) for packet in self._packets if packet.size), b"")
            except Exception:  # PyAV would print the second one of a call; the demuxer goes on with what is next
                self._rest = b""
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        """Close the connection; only in the thread that opened it."""
        self._answer.close()


class PlaylistFiles:
    """FFmpeg's callback for the URLs that one playlist names.

    PyAV keeps one exception of a callback until FFmpeg returns, and prints further ones to stderr. So only the first is
    raised; what else is asked for is then empty.

    Args:
        opening: Opens a URL.

    Attributes:
        failure: Why the playlist cannot be played; None while it can.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._playlist: RawFile | None = None
        self._failures = 0  # in a row
        self._is_first = True
        self.failure: Exception | None = None

    def __call__(self, url: str, flags: int, options: Mapping[str, str]) -> object:
        """Return a readable file; one without bytes for what cannot be opened."""
        is_first, self._is_first = self._is_first, False
        if self.failure is not None:
            return io.BytesIO()
        prefix = next((prefix for prefix in _DECRYPTION if url.startswith(prefix)), "")
        try:
            file = RawFile(self._opening(url.removeprefix(prefix), prefix, options))
        except Exception as error:
            self._failures += 1
            if is_first or isinstance(error, SourceError) or self._failures >= _MOST_FAILURES:
                self.failure = error
                raise
            return io.BytesIO()
        self._failures = 0
        if is_first:
            self._playlist = file
        return file

    def close(self) -> None:
        """Close the playlist itself, which FFmpeg leaves open; only in the thread that opened it."""
        if self._playlist is not None:
            self._playlist.close()
