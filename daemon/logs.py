"""The log: to stderr, and to a file if one is wanted, which a full disk must not turn into a flood or a crash."""

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
    """One line a record, UTC, credentials taken out of whatever a library may have put in."""

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
    """Lines to stderr; one that cannot be written is counted.

    Args:
        on_error: Called for every line that could not be written.
    """

    def __init__(self, on_error: Callable[[], None]) -> None:
        super().__init__()
        self._on_error = on_error

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Count a line that could not be written; there is nowhere left to tell of it."""
        self._on_error()


class FileHandler(RotatingFileHandler):
    """A log file whose trouble is counted and told once a minute on stderr.

    Args:
        settings: Which file, and how large.
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
                pass  # whoever logs must not die of it


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
    # These tell of every request, packet and start of their own at info.
    for noisy in ("uvicorn.access", "uvicorn.error", "asyncio", "multipart", "python_multipart", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def set_level(level: str) -> None:
    """Set the least weight of lines in the process's log."""
    logging.getLogger().setLevel(level.upper())
