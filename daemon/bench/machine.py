"""The machine that is measured, and what else it does meanwhile: figures of a busy machine are low, and have to say so.

What cannot be found out on a system (all but Linux has no /proc) is None, and is left out of the report.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

from visaged.pipelines.shedding.processor import cores, cores_allowed

__all__ = ["Disturbance", "Watch", "cores", "cores_allowed"]

_MOST_OTHERS = 0.05
"""Part of this process's cores that other programs may take before the figures are called low."""
_LEAST_IDLE = 0.1
"""Part of all cores that has to be idle for other programs not to matter, as on a large machine that is shared."""
_MOST_STOLEN = 0.02


def processor() -> str:
    """Return the name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def load_average() -> float | None:
    """Return how many programs wanted a core over the last minute, on average."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def resident_mb() -> float | None:
    """Return the memory of this process in megabytes (10^6 bytes)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return float(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


def running_daemons() -> list[int]:
    """Return the numbers of the processes that are a visaged daemon."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is another user's where those are hidden
            continue
        names = [word.rpartition(b"/")[2] for word in words[:4]]
        is_ours = b"visaged" in names[:2] or (b"-m" in names and b"visaged.daemon" in names)
        if is_ours and b"run" in words[1:5] and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return sorted(found)


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What others took of the machine while something was measured.

    Attributes:
        others: Cores that other programs took, on average.
        stolen: Part of the machine's time that the hypervisor gave to others, 0..1.
        idle: Part of the machine's time in which a core had nothing to do, 0..1.
    """

    others: float
    stolen: float
    idle: float

    def complaint(self, allowed: float) -> str | None:
        """Return why figures that were measured meanwhile are low; None if they are not.

        Args:
            allowed: Cores that this process may use.
        """
        if self.stolen >= _MOST_STOLEN:
            return f"the hypervisor gave {self.stolen:.0%} of this machine's time to others"
        if self.others >= _MOST_OTHERS * allowed and self.idle < _LEAST_IDLE:
            return f"other programs took {self.others:.1f} of {allowed:g} cores"
        return None


class Watch:
    """Watches what others take of the machine, from its making on."""

    def __init__(self) -> None:
        self._began = self._times()
        self._cpu = time.process_time()

    def disturbance(self) -> Disturbance | None:
        """Return what others took so far; None if that cannot be found out here."""
        now = self._times()
        if self._began is None or now is None:
            return None
        passed = [after - before for before, after in zip(self._began, now, strict=True)]
        total = sum(passed)
        if total <= 0:
            return None
        user, nice, system, idle, waiting, interrupts, soft, stolen = passed
        busy = (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")
        seconds = total / os.sysconf("SC_CLK_TCK") / cores()
        others = max(0.0, busy - (time.process_time() - self._cpu)) / seconds
        return Disturbance(others, stolen / total, (idle + waiting) / total)

    @staticmethod
    def _times() -> list[int] | None:
        try:
            line = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
        except OSError:
            return None
        times = [int(word) for word in line.split()[1:9]]
        return times if len(times) == 8 else None
