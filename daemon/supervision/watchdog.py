"""Watches whether every part of the daemon makes progress, and feeds systemd's watchdog only while all do.

A part that stands still is named in the log and by `/healthz`. If it goes on, so does the feeding; if it does not, and
systemd watches (`WatchdogSec=`), the process is ended with SIGABRT, the log gets the stacks of all threads, and systemd
starts the daemon anew.

Time counts in the watcher's own turns: if the whole process was frozen or the machine slept, no part is to blame.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from visaged.daemon.supervision.notify import Notifier
from visaged.pipelines.runtime.progress import Progress

log = logging.getLogger(__name__)

PATIENCE_S = 30.0
"""Longest time in seconds between two beats of a part where no watchdog waits; with one, half of its time."""
_MOST_TURN_S = 1.0
_OWN_NAME = "watchdog"


class _Part:
    """A part that is watched, and for how many seconds it has stood still."""

    __slots__ = ("idle_s", "is_stalled", "progress", "turns")

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.turns = progress.turns
        self.idle_s = 0.0
        self.is_stalled = False


class Watchdog:
    """The watcher; `run` is the body of its thread.

    Args:
        parts: The progress of every part that has to go on.
        notifier: Is fed, and shows the status to people.
        status: Returns the status in a line; must not wait for any of the parts.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        parts: Iterable[Progress],
        notifier: Notifier,
        status: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = [_Part(progress) for progress in parts]
        self._notifier = notifier
        self._status = status
        self._clock = clock
        self._patience_s = notifier.watchdog_s / 2 if notifier.watchdog_s else PATIENCE_S
        # The watchdog is fed at least every half of its time, also if a turn takes somewhat longer than it should.
        self._turn_s = min(_MOST_TURN_S, self._patience_s / 4)
        self._feed_s = self._patience_s / 2
        self._fed_s = float("-inf")
        self._last_s: float | None = None
        self._stalled: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all that `stalled` may name."""
        return (*(part.progress.name for part in self._parts), _OWN_NAME)

    @property
    def stalled(self) -> tuple[str, ...]:
        """Names of the parts that stand still; empty before and after `run`. May be read from any thread."""
        last_s = self._last_s
        late = last_s is not None and self._clock() - last_s > self._patience_s + self._turn_s
        return (*self._stalled, *((_OWN_NAME,) if late else ()))

    def run(self, stopping: threading.Event) -> None:
        """Watch until `stopping` is set."""
        for part in self._parts:
            part.turns, part.idle_s = part.progress.turns, 0.0
        self._last_s = self._clock()
        self._notifier.status(self._status())
        while not stopping.wait(self._turn_s):
            self.turn()
        self._last_s, self._stalled = None, ()

    def turn(self) -> None:
        """Look at every part once, and feed the watchdog if it is time to and all go on."""
        now_s = self._clock()
        passed_s = 0.0 if self._last_s is None else min(now_s - self._last_s, 2 * self._turn_s)
        self._last_s = now_s
        for part in self._parts:
            self._look_at(part, passed_s)
        self._stalled = tuple(part.progress.name for part in self._parts if part.is_stalled)
        stands = f"; {', '.join(self._stalled)} made no progress" if self._stalled else ""
        self._notifier.status(self._status() + stands)
        if not self._stalled and now_s - self._fed_s >= self._feed_s:
            self._fed_s = now_s
            self._notifier.feed()
        self._notifier.flush()

    def _look_at(self, part: _Part, passed_s: float) -> None:
        turns, limit_s = part.progress.turns, self._patience_s * part.progress.times
        if turns != part.turns:
            if part.is_stalled:
                log.warning("%s goes on after %.0f s without progress", part.progress.name, part.idle_s)
            part.turns, part.idle_s, part.is_stalled = turns, 0.0, False
            return
        part.idle_s += passed_s
        if part.idle_s > limit_s and not part.is_stalled:
            part.is_stalled = True
            then = "; systemd is going to restart visaged if it stays so" if self._notifier.watchdog_s else ""
            log.error("%s has made no progress for %.0f s%s", part.progress.name, part.idle_s, then)
