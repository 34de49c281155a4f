"""Progress of threads: a loop calls `beat()` in every turn, so that whoever watches sees when it stands still.

A thread that waits for a lock, a disk or a library for ever is alive, and its work is not done. Only the thread itself
knows that it goes on; so it counts its turns, and somebody else looks whether the count grows.
"""

from __future__ import annotations

import threading


class Progress:
    """How often a thread has come round.

    Args:
        name: Name of the thread.

    Attributes:
        turns: Calls of `beat` so far.
        times: How many times as long as usual the current turn may take.
    """

    __slots__ = ("name", "times", "turns")

    def __init__(self, name: str) -> None:
        self.name = name
        self.turns = 0
        self.times = 1.0

    def beat(self, times: float = 1.0) -> None:
        """Note that a turn begins; see the function `beat`. Only for the thread itself."""
        self.times = times
        self.turns += 1

    def adopt(self) -> None:
        """Have `beat` count here when the thread that calls this calls it."""
        _here.progress = self


_here = threading.local()


def beat(times: float = 1.0) -> None:
    """Note that the loop of this thread goes on: its next call is due within half a minute, by default.

    A loop that waits for work must wake up for it about every second. In a thread that nobody watches, this does
    nothing. It costs less than a microsecond.

    Args:
        times: How many times as long as usual it may take until the next call, for long computations.
    """
    progress: Progress | None = getattr(_here, "progress", None)
    if progress is not None:
        progress.beat(times)
