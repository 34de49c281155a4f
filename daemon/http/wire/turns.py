"""Shares the event loop out among connections that have bytes to parse.

Parsing a request costs time that its sender decides about: a read of 256 kB may hold 43,000 chunks or 20,000 headers.
So parsing is cut into small steps (a head, some chunks, a piece of a body), and of all connections together only a few
steps are made between two looks of the event loop at its timers and sockets.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

STEPS = 4
"""Most steps of all connections together in a turn of the event loop. A step takes 2 ms at most."""


class Turns:
    """Makes steps in the order in which they were asked for, a few in each turn of an event loop.

    Args:
        steps: Most steps in a turn, at least 2.
    """

    def __init__(self, steps: int = STEPS) -> None:
        self._steps = steps
        self._waiting: deque[Callable[[], None]] = deque()
        self._urgent: deque[Callable[[], None]] = deque()
        self._is_scheduled = False

    def add(self, step: Callable[[], None], is_urgent: bool = False) -> None:
        """Have a step made soon, in the running event loop.

        Args:
            step: The step.
            is_urgent: Whether it does not wait for those that are not; up to half the steps in a turn are such ones.
        """
        (self._urgent if is_urgent else self._waiting).append(step)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        try:
            urgent = min((self._steps + 1) // 2, len(self._urgent))
            for _ in range(urgent):
                self._urgent.popleft()()
            for _ in range(min(self._steps - urgent, len(self._waiting))):
                self._waiting.popleft()()
        finally:  # a step that fails is an error of the server; the other connections go on
            if self._waiting or self._urgent:
                self._schedule()
