"""What a log is written to: a file descriptor, a text stream, or a file that is rotated. Writing may block."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

_QUIET_S = 60.0
"""Least time in seconds between two reports that the log's file cannot be written."""


class Descriptor:
    """Writes lines to a file descriptor, without Python's buffers and their locks.

    Args:
        number: The file descriptor. Another program may have made it non-blocking for all that share it.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, text: str) -> None:
        """Write a record; raises `OSError`."""
        data = memoryview((text + "\n").encode("utf-8", "backslashreplace"))
        while data:
            try:
                data = data[os.write(self._number, data) :]
            except BlockingIOError:
                time.sleep(0.05)


class Stream:
    """Writes lines to a text stream.

    Args:
        stream: The stream; None where the process has none.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def __call__(self, text: str) -> None:
        """Write a record; raises `OSError`, or `ValueError` if the stream is closed."""
        if self._stream is not None:
            self._stream.write(text + "\n")
            self._stream.flush()


class RotatedFile(RotatingFileHandler):
    """Writes lines to a file that is rotated, and reports at most once a minute that it cannot be written.

    Args:
        path: The file.
        max_bytes: Size in bytes at which the file is rotated.
        keep: Number of rotated files to keep; with 0 the file begins anew when it is full.
        on_trouble: Called with a text for people when the file cannot be written.
        clock: Returns monotonic seconds.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        keep: int,
        on_trouble: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=keep, encoding="utf-8", errors="backslashreplace")
        self._on_trouble = on_trouble
        self._clock = clock
        self._quiet_until = float("-inf")

    def __call__(self, text: str) -> None:
        """Write a record; raises `OSError` or `ValueError`."""
        record = logging.LogRecord("", logging.INFO, "", 0, text, None, None)
        try:
            if self.shouldRollover(record):
                self.doRollover()
            if self.stream is None:
                self.stream = self._open()
            self.stream.write(text + self.terminator)
            self.stream.flush()
        except (OSError, ValueError) as error:
            self.close()  # what is buffered would come again, and again fail
            now = self._clock()
            if now >= self._quiet_until:
                self._quiet_until = now + _QUIET_S
                self._on_trouble(f"visaged: cannot write the log {self.baseFilename}: {error}")
            raise

    def close(self) -> None:
        """Close the file, until the next record is written."""
        with contextlib.suppress(OSError, ValueError):
            super().close()
        self.stream = None

    def doRollover(self) -> None:  # noqa: N802 - the name is logging's
        """Begin a new file; the base class would let the file grow for ever if no old ones are kept."""
        if self.backupCount > 0:
            super().doRollover()
        elif self.stream is not None:
            self.stream.seek(0)
            self.stream.truncate()
