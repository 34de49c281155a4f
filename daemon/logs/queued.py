"""A log handler that leaves the writing to a thread of its own.

A pipe that nobody reads, a paused terminal and a hanging file system block whoever writes to them, and a logging
handler blocks everyone else who logs too: the HTTP server's event loop, the cameras, the shutdown. Here records are
formatted by whoever logs, and wait in a bounded queue. When it is full, lines are dropped and counted until half of it
is written; then a line in the log says how many are missing there.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

_MOST_LINES = 10_000
_MOST_CHARACTERS = 4_000_000
_LONGEST = 64_000
"""Most characters of a record; of a longer one, which only an attack or a fault makes, the beginning is kept."""

_UNFORMATTED = "a record of logger %s could not be formatted: %s"


class QueuedHandler(logging.Handler):
    """Queues formatted records for a thread that writes them; nothing but that thread ever waits.

    Args:
        destination: What is written to, as the line about dropped lines names it.
        write: Writes one record, whose lines are separated and not ended by line feeds; it may block, and may raise
            OSError or ValueError.
        on_dropped: Called for every record that is dropped because the queue is full.
        on_error: Called for every record that could not be written, in the writing thread.
        most_lines: Most records that wait.
        most_characters: Most characters that wait.
    """

    def __init__(
        self,
        destination: str,
        write: Callable[[str], None],
        on_dropped: Callable[[], None],
        on_error: Callable[[], None],
        most_lines: int = _MOST_LINES,
        most_characters: int = _MOST_CHARACTERS,
    ) -> None:
        super().__init__()
        self._destination = destination
        self._write = write
        self._on_dropped = on_dropped
        self._on_error = on_error
        self._most_lines = most_lines
        self._most_characters = most_characters
        # Reentrant: a finalizer or a signal handler may log while its own thread is queueing a record.
        self._changed = threading.Condition(threading.RLock())
        self._waiting: deque[str] = deque()
        self._characters = 0
        self._dropped = 0
        self._is_full = self._is_closing = False
        self._thread = threading.Thread(target=self._run, name=f"log-{destination}", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Format a record and queue it, or count it; never blocks and never raises."""
        try:
            text = self.format(record)
        except Exception as error:  # the text of any object may fail; whoever logs must go on
            text = self._made(_UNFORMATTED, record.name, type(error).__name__)
        self.put(text)

    def put(self, text: str) -> None:
        """Queue a text as it is, or count it; never blocks."""
        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]}... ({len(text) - _LONGEST} more characters)"
        with self._changed:
            self._is_full = self._is_full or not self._has_room(1)
            if self._is_full and self._has_room(2):
                self._is_full = False
                self._add_notice()
            is_dropped = self._is_full or self._is_closing
            if is_dropped:
                self._dropped += 1
            else:
                self._add(text)
        if is_dropped:
            self._on_dropped()

    def finish(self, timeout_s: float) -> bool:
        """Write what waits, for a limited time, and take no more; return whether the writing thread has ended."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _has_room(self, part: int) -> bool:
        """Return whether less than the n-th part of the queue is taken."""
        return len(self._waiting) < self._most_lines / part and self._characters < self._most_characters / part

    def _add(self, text: str) -> None:
        self._waiting.append(text)
        self._characters += len(text)
        self._changed.notify_all()

    def _add_notice(self) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            text = "%d log lines are missing here: they were dropped, because %s took no more"
            self._add(self._made(text, dropped, self._destination))

    def _made(self, text: str, *values: object) -> str:
        return self.format(logging.LogRecord(__name__, logging.WARNING, "", 0, text, values, None))

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._is_full = False
                    self._add_notice()
                while not self._waiting and not self._is_closing:
                    self._changed.wait()
                if not self._waiting:
                    return
                text = self._waiting.popleft()
                self._characters -= len(text)
            try:
                self._write(text)
            except (OSError, ValueError):
                self._on_error()
