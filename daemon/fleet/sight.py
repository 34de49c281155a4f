"""The newest view of the fleet, asked for beside the event loop: a coordinator that is away holds up no request."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from visaged.daemon.fleet.records import FleetView
from visaged.pipelines.runtime.redact import redact

FRESH_S = 1.0
"""A view that is younger is not asked for again, however many ask."""
WAIT_S = 2.0
"""Longest wait for a newer view; then the last one is told, with its age."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of the fleet.

    Attributes:
        view: The newest view that was got; None if none ever was.
        age_s: Seconds since it was got; 0 without one.
        error: Why there is no newer one; empty if it is fresh.
    """

    view: FleetView | None
    age_s: float
    error: str


class FleetSight:
    """Asks for views, one at a time, each in a thread of its own, which may hang.

    Args:
        ask: Returns the newest view; may wait and raise.
        clock: Returns monotonic seconds.
        wait_s: Longest wait for it.
    """

    def __init__(
        self, ask: Callable[[], FleetView], clock: Callable[[], float] = time.monotonic, wait_s: float = WAIT_S
    ) -> None:
        self._ask, self._clock, self._wait_s = ask, clock, wait_s
        self._view: FleetView | None = None
        self._got_s = 0.0
        self._error = ""
        self._asked_s = 0.0
        self._asking: asyncio.Future[None] | None = None

    async def newest(self) -> Seen:
        """Return the newest view, after `wait_s` seconds at the most; must be called in one event loop alone."""
        if self._asking is None and (self._view is None or self._clock() - self._got_s >= FRESH_S):
            self._begin()
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=self._wait_s)
        waits_s = 0.0 if self._asking is None else self._clock() - self._asked_s
        error = self._error if self._asking is None else f"the coordinator has not answered for {waits_s:.0f} s"
        return Seen(self._view, 0.0 if self._view is None else self._clock() - self._got_s, error)

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._asking, self._asked_s = loop.create_future(), self._clock()

        def ask() -> None:
            view, error = None, ""
            try:
                view = self._ask()
            except Exception as failed:  # whatever the cluster's client raises: it is told, and asked again later
                error = redact(f"{failed}" or type(failed).__name__)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._answered, view, error)

        # Not a thread of the loop's own pool: the end of the loop waits for those.
        threading.Thread(target=ask, name="fleet-view", daemon=True).start()

    def _answered(self, view: FleetView | None, error: str) -> None:
        if view is not None:
            self._view, self._got_s = view, self._clock()
        self._error = error
        if self._asking is not None and not self._asking.done():
            self._asking.set_result(None)
        self._asking = None
