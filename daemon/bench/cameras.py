"""How many cameras are carried: so many that every frame is decoded, five a second are analysed, and none is dropped.

First a few cameras are read as fast as the machine can, which says how many it would carry if frames came exactly when
a core has time for them. They do not, so fewer are carried without loss; how many is tried, with cameras that keep
their own speed, and not calculated. A number that is reported as carried was carried.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from visaged.daemon.bench.clips import SOURCE_FPS, Clip
from visaged.daemon.bench.composing import composing
from visaged.daemon.bench.machine import Disturbance
from visaged.daemon.bench.rig import Bench, Measured, Rig

FPS = 5.0
SETTLE_S = 1.0
_FIRST_GUESS = 0.85
_LEAST_ANALYSED = 0.97
_BUSY = 0.9
"""Part of the cores' time up to which more cameras are tried."""
_CLOSE = 0.03
"""Part of the carried cameras by which the search need not be closer."""
_NARROW = 0.01
"""Part of the frames that may be dropped for a try to be repeated: others take a core for a moment."""

Report = Callable[[str, float], None]
"""Is told what is done, and which part of it is done, 0..1."""


@dataclass(frozen=True, slots=True)
class Try:
    """A number of cameras that was tried.

    Attributes:
        cameras: How many.
        good: Whether they were carried.
        decoded: Decoded frames a second, of each camera.
        analysed: Analysed frames a second, of each camera.
        dropped: Frames that were to be analysed and were dropped.
        measured: All that was counted.
    """

    cameras: int
    good: bool
    decoded: float
    analysed: float
    dropped: int
    measured: Measured

    @property
    def narrow(self) -> bool:
        """Whether it failed, by little."""
        wanted = FPS * self.cameras * self.measured.seconds
        return not self.good and self.analysed >= _LEAST_ANALYSED * FPS and self.dropped <= max(1, _NARROW * wanted)


@dataclass(frozen=True, slots=True)
class Shares:
    """Where the time of the cores goes while they are as busy as they get, each 0..1, together 1.

    Attributes:
        decoder: The cameras' threads: decoding, and scaling what is analysed; None on systems that do not say.
        detector: The detector, with the reading of its outputs.
        analyzer: Aligning faces, and reading their attributes.
        rest: Tracking, composing messages, handing over: Python; also decoding where `decoder` is None.
        unused: Cores that this process did not use: idle, waiting, or taken by others.
    """

    decoder: float | None
    detector: float
    analyzer: float
    rest: float
    unused: float


@dataclass(frozen=True, slots=True)
class Carried:
    """What is carried of a kind of camera.

    Attributes:
        clip: What the cameras send.
        cameras: How many were carried; 0 if a single one was not.
        too_many: The smallest number that was not carried; None if the time ended before one was found.
        limit: How many would be carried by cores that are never idle.
        shares: Where the time goes.
        tries: All that was tried, in order.
        memory_mb: Most memory with `cameras` cameras, in megabytes; None where that cannot be read.
        disturbances: What others took of the machine, in each measurement.
    """

    clip: Clip
    cameras: int
    too_many: int | None
    limit: float
    shares: Shares
    tries: list[Try] = field(default_factory=list)
    memory_mb: float | None = None
    disturbances: list[Disturbance | None] = field(default_factory=list)


def run_cameras(
    bench: Bench, clip: Clip, cameras: int, seconds: float, settle_s: float = SETTLE_S, **options: object
) -> Try:
    """Try whether a number of cameras is carried.

    Args:
        bench: The networks.
        clip: What each camera sends, over and over, at its own speed.
        cameras: How many.
        seconds: How long it is measured.
        settle_s: How long they run before that.
        options: More keys of each camera's configuration.
    """
    specs = bench.specs([_camera(index, clip, "realtime") | options for index in range(cameras)])
    with composing(bench.died) as out:
        rig = Rig(bench, specs, out.submit)
        rig.start()
        rig.measure(settle_s)
        measured = rig.measure(seconds)
        rig.stop()
    decoded, analysed = (n / measured.seconds / cameras for n in (measured.received, measured.analysed))
    good = measured.dropped == 0 and analysed >= _LEAST_ANALYSED * FPS
    return Try(cameras, good, decoded, analysed, round(measured.dropped), measured)


def saturate(bench: Bench, clip: Clip, seconds: float, **options: object) -> Measured:
    """Read as many cameras as there are cores as fast as they can be analysed; `options` as in `run_cameras`."""
    specs = bench.specs([_camera(index, clip, "fast") | options for index in range(bench.cores)])
    with composing(bench.died) as out:
        rig = Rig(bench, specs, out.submit)
        rig.start()
        try:
            rig.measure(0.3 * seconds)
            return rig.measure(0.7 * seconds)
        finally:
            rig.stop()


def find_carried(bench: Bench, clip: Clip, seconds: float, report: Report = lambda what, part: None) -> Carried:
    """Find how many cameras are carried, in about that many seconds.

    Raises:
        BenchError: A camera or a thread failed.
    """
    began = time.monotonic()
    name = clip.size.name

    def left() -> float:
        return began + seconds - time.monotonic()

    def tell(what: str) -> None:
        report(f"{name}: {what}", min(1.0, 1 - left() / seconds))

    tell("as fast as it goes")
    full = saturate(bench, clip, 0.15 * seconds)
    limit = full.received / full.seconds / SOURCE_FPS
    long_s = min(15.0, max(2.5, 0.18 * seconds))
    search = _Search(limit, bench.cores)
    while (cameras := search.next()) is not None:
        if search.carried and left() < 0.6 * (long_s + SETTLE_S):
            break
        tell(f"{cameras} cameras")
        search.add(run_cameras(bench, clip, cameras, long_s))
    tell("done")
    carried = search.carried
    memory = next((one.measured.memory_mb for one in search.tries if one.good and one.cameras == carried), None)
    disturbances = [one.disturbance for one in (full, *(a_try.measured for a_try in search.tries))]
    shares = _shares(full, bench.cores)
    return Carried(clip, carried, search.too_many, limit, shares, search.tries, memory, disturbances)


class _Search:
    """Which number of cameras to try next.

    Args:
        limit: How many would be carried by cores that are never idle, which is low if others were busy meanwhile.
        cores: Number of cores.
    """

    def __init__(self, limit: float, cores: int) -> None:
        self.tries: list[Try] = []
        self.carried = 0
        self.too_many: int | None = None
        self._limit = limit
        self._cores = cores
        self._repeated: set[int] = set()

    def add(self, one: Try) -> None:
        """Note how a try went."""
        self.tries.append(one)
        if one.good:
            self.carried = max(self.carried, one.cameras)
        elif one.narrow and one.cameras not in self._repeated:
            self._repeated.add(one.cameras)
        else:
            self.too_many = min(one.cameras, self.too_many or one.cameras)

    def next(self) -> int | None:
        """Return the next number to try; None if nothing is open."""
        if not self.tries:
            return max(1, math.floor(_FIRST_GUESS * self._limit))
        last = self.tries[-1]
        if not last.good and last.cameras != self.too_many:
            return last.cameras  # once more
        if self.too_many is None:
            busy = last.measured.cpu / last.measured.seconds / self._cores
            return max(self.carried + 1, math.floor(self.carried * _BUSY / max(busy, 0.01)))
        if not self.carried:
            return max(1, int(0.8 * self.too_many)) if self.too_many > 1 else None
        between = self.too_many - self.carried
        return self.carried + between // 2 if between > max(1, _CLOSE * self.carried) else None


def _shares(full: Measured, cores: int) -> Shares:
    whole = full.seconds * cores
    decoder = None if full.reading is None else full.reading / whole
    detector, analyzer = full.detector / whole, full.analyzer / whole
    rest = max(0.0, full.cpu / whole - (decoder or 0.0) - detector - analyzer)
    return Shares(decoder, detector, analyzer, rest, max(0.0, 1 - full.cpu / whole))


def _camera(index: int, clip: Clip, pace: str) -> dict[str, object]:
    return {"name": f"camera{index + 1}", "url": str(clip.path), "fps": FPS, "loop": True, "pace": pace}
