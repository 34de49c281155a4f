"""A clock that goes on over restarts, by which what is on disk expires."""

from __future__ import annotations

from collections.abc import Callable

# A wall clock before this (October 2025) is not set.
_PLAUSIBLE = 1.76e9


class LastingClock:
    """Seconds that go on with the monotonic clock: a wall clock that is set lets nothing expire.

    While no process runs, the wall clock counts. Its latest time is kept, so that a clock that is behind for one run,
    as after a start without a network, and then right again lets nothing expire either.

    Args:
        clock: Returns monotonic seconds.
        wall: Returns seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock
        self._wall = wall
        self._base_s = -clock()
        self._wall_base = wall() - clock()

    def resume(self, last: tuple[float, float] | None) -> None:
        """Go on from what `state` returned last, in an earlier run; None if there was none."""
        now_s, wall = self._clock(), self._wall()
        last_s, last_wall = last or (0.0, wall)
        away_s = max(0.0, wall - last_wall) if last_wall > _PLAUSIBLE else 0.0
        self._base_s = last_s + away_s - now_s
        self._wall_base = max(wall, last_wall) - now_s

    def now(self) -> float:
        """Return the time."""
        return self.at(self._clock())

    def at(self, monotonic_s: float) -> float:
        """Return the time at monotonic seconds of this process."""
        return self._base_s + monotonic_s

    def monotonic(self, at_s: float) -> float:
        """Return the monotonic seconds of this process at a time of this clock."""
        return at_s - self._base_s

    def state(self) -> tuple[float, float]:
        """Return what has to be kept for the next run: this clock and the wall clock, in seconds."""
        now_s = self._clock()
        return self._base_s + now_s, max(self._wall(), self._wall_base + now_s)
