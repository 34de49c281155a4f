"""Shares out the broker's time among clients that want more of it than any client may have at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from visaged.daemon.broker.limits import Limits


class Turns:
    """Gives those who wait one turn each, in order, at a fixed rate for all of them together.

    So a flood takes a bounded part of the broker's time, whether it comes from one client or from all.

    Args:
        limits: Bounds of the broker.
        call_later: Calls a function after some seconds.
    """

    def __init__(self, limits: Limits, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self._pause_s = limits.turn / limits.units_per_s
        self._call_later = call_later
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_timed = False

    def wait(self, go_on: Callable[[], None]) -> None:
        """Have a function called when its turn comes."""
        self._waiting.append(go_on)
        self._time()

    def leave(self, go_on: Callable[[], None]) -> None:
        """Forget a function that may be waiting."""
        if go_on in self._waiting:
            self._waiting.remove(go_on)

    def _time(self) -> None:
        if self._waiting and not self._is_timed:
            self._is_timed = True
            self._call_later(self._pause_s, self._next)

    def _next(self) -> None:
        self._is_timed = False
        if self._waiting:
            go_on = self._waiting.popleft()
            self._time()
            go_on()
