"""A named thread with a request to stop, a join with a time limit, and a report if it dies."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence

from visaged.pipelines.runtime.progress import Progress

log = logging.getLogger(__name__)

OnDeath = Callable[[str, BaseException], None]


class Worker:
    """Runs one function in a thread of its own.

    Args:
        name: Name of the thread, also in the log.
        run: The work; returns when `stopping` is set or when there is nothing more to do.
        on_death: Called from the thread with the name and the exception when `run` raises.
        nice: How far the thread steps back for the process's others where the cores are too few, 0..19, as `nice`
            counts. It has no effect on systems whose threads have no priority of their own (all but Linux).

    Attributes:
        progress: Counts the turns of `run`, if that calls `beat`.
    """

    def __init__(self, name: str, run: Callable[[threading.Event], None], on_death: OnDeath, nice: int = 0) -> None:
        self.name = name
        self._nice = nice
        self.progress = Progress(name)
        self._run = run
        self._on_death = on_death
        self._stopping = threading.Event()
        # A library may hang in a system call; a daemon thread does not keep the process from ending.
        self._thread = threading.Thread(target=self._guard, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; returns at once and may be called more than once."""
        self._stopping.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; return whether it did."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, timeout_s))
        return not self._thread.is_alive()

    def _guard(self) -> None:
        self.progress.adopt()
        if self._nice and sys.platform == "linux":
            with contextlib.suppress(OSError):  # a container may forbid even this
                os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + self._nice)
        try:
            self._run(self._stopping)
        except BaseException as error:
            self._on_death(self.name, error)  # before the log, which may fail or block
            with contextlib.suppress(BaseException):
                log.error("thread %s died", self.name, exc_info=error)


def not_joined(workers: Sequence[Worker], deadline_s: float) -> list[Worker]:
    """Wait for threads to end until a monotonic time; return those that have not."""
    return [worker for worker in workers if not worker.join(deadline_s - time.monotonic())]
