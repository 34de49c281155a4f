"""How much of the processors this process may use, and how much of that is in use.

What cannot be found out on a system (all but Linux has no /proc) is left out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def cores() -> int:
    """Return the number of cores of the machine."""
    return os.cpu_count() or 1


def cores_allowed() -> float:
    """Return how many cores this process may use at a time, by its affinity and its control groups."""
    allowed = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores())
    return min([allowed, *_quotas()])


def _quotas() -> Iterator[float]:
    """Yield the limits in cores that the process's control group and those around it set."""
    try:
        lines = _MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, named = line.partition(":")
        controllers, found, path = named.partition(":")
        if not found:
            continue
        if controllers == "":
            root, quota_of = _GROUPS, _quota
        elif "cpu" in controllers.split(","):
            root, quota_of = _GROUPS / "cpu", _old_quota
        else:
            continue
        group = root / path.lstrip("/")
        # In a container the path may be the host's, and then only the root of what is mounted is there.
        for folder in (group, *group.parents):
            if folder != root and root not in folder.parents:
                break
            quota = quota_of(folder)
            if quota is not None:
                yield quota


def _quota(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _old_quota(group: Path) -> float | None:
    try:
        quota, period = (int((group / f"cpu.cfs_{name}_us").read_text("ascii")) for name in ("quota", "period"))
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


class Usage:
    """The part of the processors that was in use from one call of `look` to the next.

    Args:
        allowed: Cores that this process may use.
        clock: Returns monotonic seconds.
        spent: Returns the processor time of this process in seconds.

    Attributes:
        allowed: See above.
    """

    def __init__(
        self,
        allowed: float,
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.process_time,
    ) -> None:
        self.allowed = allowed
        self._clock, self._spent = clock, spent
        self._last = clock(), spent()
        self._last_machine = _machine_times()

    def look(self) -> tuple[float, float]:
        """Return the part of what this process may use that it used, and of the machine that all used, 0..1."""
        now = self._clock(), self._spent()
        passed_s, spent_s = now[0] - self._last[0], now[1] - self._last[1]
        self._last = now
        own = min(1.0, spent_s / passed_s / self.allowed) if passed_s > 0 else 0.0
        machine = _machine_times()
        total, idle = (after - before for after, before in zip(machine, self._last_machine, strict=True))
        self._last_machine = machine
        return own, 1.0 - idle / total if total > 0 else own


def _machine_times() -> tuple[int, int]:
    """Return the ticks of all cores so far, and those in which a core had nothing to do; 0 where unknown."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
        ticks = [int(word) for word in line.split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4]
    except (OSError, ValueError, IndexError):
        return 0, 0
