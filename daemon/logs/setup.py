"""The log of the process, on stderr and optionally in a file."""

from __future__ import annotations

import logging
import sys
import time

from visaged.daemon.http.request_log import request_id
from visaged.daemon.logs.destinations import Descriptor, RotatedFile, Stream
from visaged.daemon.logs.queued import QueuedHandler
from visaged.daemon.logs.settings import LogSettings
from visaged.daemon.logs.stderr import real_stderr
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.redact import redact

# Terminals and log viewers act on control characters, which names and addresses from outside may hold.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}

# These libraries log every request, packet and start at info.
_NOISY = ("uvicorn.access", "uvicorn.error", "asyncio", "PIL")


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
        return redact((line + separator + rest).translate(_CONTROLS))


class ProcessLog:
    """The log of the process; whoever logs never waits for stderr or the file, see `QueuedHandler`.

    Until `configure` is called, lines from level info on go to stderr.

    Args:
        metrics: Counts lines that were dropped or could not be written.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._process_stderr = real_stderr()
        write = Stream(sys.stderr) if self._process_stderr is None else Descriptor(self._process_stderr.number)
        self._stderr = self._queued("stderr", write)
        self._handlers = [self._stderr]
        self._file: RotatedFile | None = None
        logging.basicConfig(handlers=[self._stderr], force=True, level=logging.INFO)
        if self._process_stderr is not None:
            self._process_stderr.take()
        logging.captureWarnings(True)
        for name in _NOISY:
            logging.getLogger(name).setLevel(logging.WARNING)

    def configure(self, settings: LogSettings) -> None:
        """Set the level, and begin to write to the file, if there is to be one.

        Raises:
            OSError: The log file cannot be opened.
        """
        set_level(settings.level)
        if settings.file is None:
            return
        try:
            self._file = RotatedFile(settings.file, round(settings.max_mb * 2**20), settings.keep, self.show)
        except OSError as error:
            hint = "name a file in a folder that visaged may write to"
            raise OSError(f"log.file {settings.file} cannot be opened: {error.strerror}; {hint}") from error
        self._handlers.append(self._queued("file", self._file))
        logging.getLogger().addHandler(self._handlers[-1])

    def show(self, text: str) -> None:
        """Write a text for people to stderr alone, as it is but for credentials; never blocks."""
        self._stderr.put(redact(text.rstrip("\n")))

    def close(self, timeout_s: float) -> bool:
        """Write what waits, for a limited time, and give stderr back; return whether everything was written."""
        root = logging.getLogger()
        if self._process_stderr is not None:
            self._process_stderr.give_back(timeout_s / 8)
        logging.captureWarnings(False)
        is_done = True
        for handler in reversed(self._handlers):  # the file first, as stderr is where its troubles are reported
            is_done &= handler.finish(timeout_s / 2)
            root.removeHandler(handler)
        if is_done and self._file is not None:
            self._file.close()
        return is_done

    def _queued(self, destination: str, write: Descriptor | Stream | RotatedFile) -> QueuedHandler:
        dropped = self._metrics.log_dropped.labels(destination)
        handler = QueuedHandler(destination, write, dropped.inc, self._metrics.log_errors.inc)
        handler.setFormatter(_Formatter())
        return handler


def set_level(level: str) -> None:
    """Set the least severe level that the log of the process shows."""
    logging.getLogger().setLevel(level.upper())
