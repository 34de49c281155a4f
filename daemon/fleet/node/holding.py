"""The leases of a node, by its own clock: what is produced after the end of a lease is not published.

The clock goes on while the machine sleeps or the process is stopped, and nobody sets it: CLOCK_BOOTTIME where there is
one. A lease that has ended stays so until it is activated again, as what happened in between is missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


def lasting_s() -> float:
    """Return seconds of a clock that counts all time since some past moment, and only grows."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)  # of Linux alone
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


@dataclass(slots=True)
class _Lease:
    until_s: float
    has_lapsed: bool = False


class Holding:
    """The leases of a node. Thread-safe; a `Fence`.

    Args:
        clock: Returns seconds, see `lasting_s`.
    """

    def __init__(self, clock: Callable[[], float] = lasting_s) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._leases: dict[tuple[str, int], _Lease] = {}
        self._current: dict[str, int] = {}

    def epoch(self, camera: str) -> int | None:
        """Return the epoch in which a camera is published; None if it is not held, or warm."""
        return self._current.get(camera)

    def holds(self, camera: str, epoch: int) -> bool:
        """Return whether the lease of an epoch lasts."""
        with self._lock:
            lease = self._leases.get((camera, epoch))
            return lease is not None and self._lasts(lease)

    def activate(self, camera: str, epoch: int, until_s: float) -> None:
        """Publish a camera in an epoch until a time; also after its lease ended."""
        with self._lock:
            self._leases[camera, epoch] = _Lease(until_s)
            self._current[camera] = epoch

    def renew(self, camera: str, epoch: int, until_s: float) -> bool:
        """Have a lease last until a later time; return False, and leave it, if it has ended or there is none."""
        with self._lock:
            lease = self._leases.get((camera, epoch))
            if lease is None or not self._lasts(lease):
                return False
            lease.until_s = max(lease.until_s, until_s)
            return True

    def retire(self, camera: str) -> None:
        """Publish nothing new of a camera. What was produced before may still be, until `drop` or the lease's end."""
        with self._lock:
            self._current.pop(camera, None)

    def drop(self, camera: str, epoch: int) -> None:
        """End a lease."""
        with self._lock:
            self._leases.pop((camera, epoch), None)

    def _lasts(self, lease: _Lease) -> bool:
        lease.has_lapsed = lease.has_lapsed or self.clock() >= lease.until_s
        return not lease.has_lapsed
