"""The log, on stderr and optionally in a file; a full disk must cause neither a flood of lines nor a crash."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from typing import TextIO

from visaged.daemon.http.request_log import request_id
from visaged.daemon.settings import LogSettings
from visaged.pipelines.runtime.redact import redact


class _Formatter(logging.Formatter):
    """Formats records with UTC time and the request's id, and removes credentials, which libraries may have put in."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        request = request_id.get()
        line, separator, rest = super().format(record).partition("\n")
        if request and request not in line:
            line += f" (request {request})"
        return redact(line + separator + rest)


class ErrorHandler(logging.StreamHandler[TextIO]):
    """Writes lines to stderr, and counts those that cannot be written.

    Args:
        on_error: Called for every line that could not be written.
    """

    def __init__(self, on_error: Callable[[], None]) -> None:
        super().__init__()
        self._on_error = on_error

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Count a line that could not be written; there is no other place to report it."""
        self._on_error()


class FileHandler(RotatingFileHandler):
    """A rotated log file; lines that cannot be written are counted, and reported on stderr at most once a minute.

    Args:
        settings: Path of the file, its largest size, and how many rotated files are kept.
        on_error: Called for every line that could not be written.
    """

    def __init__(self, settings: LogSettings, on_error: Callable[[], None]) -> None:
        assert settings.file is not None
        super().__init__(
            settings.file, maxBytes=int(settings.max_mb * 2**20), backupCount=settings.keep, encoding="utf-8"
        )
        self._on_error = on_error
        self._quiet_until = 0.0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Count a line that could not be written."""
        self._on_error()
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + 60
            try:
                print(f"visaged: cannot write the log {self.baseFilename}: {sys.exc_info()[1]}", file=sys.stderr)
            except (OSError, ValueError):
                pass  # logging must not raise


def configure(settings: LogSettings, on_error: Callable[[], None]) -> None:
    """Set up the process's log.

    Raises:
        OSError: The log file cannot be opened.
    """
    handlers: list[logging.Handler] = [ErrorHandler(on_error)]
    if settings.file is not None:
        handlers.append(FileHandler(settings, on_error))
    for handler in handlers:
        handler.setFormatter(_Formatter())
    logging.basicConfig(handlers=handlers, force=True)
    set_level(settings.level)
    # These libraries log every request, packet and start at info.
    for noisy in ("uvicorn.access", "uvicorn.error", "asyncio", "multipart", "python_multipart", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def set_level(level: str) -> None:
    """Set the least severe level that the log of the process shows."""
    logging.getLogger().setLevel(level.upper())
