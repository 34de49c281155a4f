"""Logging at a limited rate, for problems that recur with every frame or request."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable


class LimitedLog:
    """Logs the first messages at once, then as many every `interval_s`, with the number of messages left out.

    Args:
        log: Logger that gets the lines.
        level: Level of the lines.
        interval_s: Time in seconds in which at most `burst` lines are logged.
        burst: Number of lines in that time.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        log: logging.Logger,
        level: int = logging.WARNING,
        interval_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        burst: int = 1,
    ) -> None:
        self._log = log
        self._level = level
        self._interval_s = interval_s
        self._clock = clock
        self._burst = burst
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._left = self._held = 0

    def __call__(self, message: str, *args: object) -> None:
        """Log `message % args`, or count it."""
        with self._lock:
            now = self._clock()
            if now >= self._until:
                self._until, self._left = now + self._interval_s, self._burst
            if not self._left:
                self._held += 1
                return
            self._left -= 1
            held, self._held = self._held, 0
        if held:
            message, args = message + " (and %d more like it since the last such line)", (*args, held)
        self._log.log(self._level, message, *args)
