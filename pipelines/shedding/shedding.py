"""Measures how the machine does, has cameras reduced and restored, and says so: in metrics, and in the log once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from visaged.pipelines.batcher import Batcher
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.shedding.controller import Controller
from visaged.pipelines.shedding.lags import Lags
from visaged.pipelines.shedding.load import BUSY, CameraLoad, Load
from visaged.pipelines.shedding.processor import Usage, cores_allowed
from visaged.pipelines.source.demand import FULL, Demand

log = logging.getLogger(__name__)

_EVERY_S = 0.5
_SKIP = Demand(decode="none")
_TELL_S = 10.0
"""Seconds of an overload after which it is told, when it is known how many cameras it takes."""


class Cameras(Protocol):
    """The cameras that are reduced: `CameraSet`."""

    def loads(self) -> list[CameraLoad]:
        """Return all live cameras that stream, and can be reduced."""
        ...

    def demand(self, demands: Mapping[str, Demand]) -> None:
        """Ask this of each camera, and all of those that are not named."""
        ...


class Shedding:
    """Sheds load; one thread calls `tick`, and `close` at the end.

    Args:
        cameras: The cameras.
        batcher: The queue of the inference workers.
        workers: Number of the inference workers on a GPU, which may be what is short; None where they run on the
            processors.
        metrics: Says how much is reduced.
        clock: Returns monotonic seconds.
        usage: Says how busy the processors are; None for those that this process may use.

    Attributes:
        demands: What is asked of each camera now, by name.
    """

    def __init__(
        self,
        cameras: Cameras,
        batcher: Batcher,
        workers: int | None,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        usage: Usage | None = None,
    ) -> None:
        self._cameras = cameras
        self._batcher = batcher
        self._workers = workers
        self._clock = clock
        self._usage = usage or Usage(cores_allowed(), clock)
        self._controller = Controller()
        self._due_s = self._last_s = clock()
        self._last_spent = batcher.spent()
        self.demands: dict[str, Demand] = {}
        self._frames: dict[str, tuple[int, int]] = {}  # offered and overtaken at the last look, by camera
        self._lags = Lags()
        self._since_s: float | None = None
        self._told = False
        self._reduced = metrics.cameras_reduced

    def tick(self) -> None:
        """Look at the machine, if it is time, and change what is asked of the cameras."""
        now_s = self._clock()
        if now_s < self._due_s:
            return
        self._due_s = now_s + _EVERY_S
        cameras = self._cameras.loads()
        load = self._load(now_s, cameras)
        demands = self._controller.step(now_s, load, cameras)
        if demands != self.demands:
            self._lags.forget_skips()
        self.demands = demands
        self._cameras.demand(demands | dict.fromkeys(self._lags.skipping, _SKIP))
        reduced = [demand for demand in demands.values() if demand != FULL]
        key_frames = sum(demand.decode == "key_frames" for demand in reduced)
        self._reduced.labels("key_frames").set(key_frames)
        self._reduced.labels("fps").set(len(reduced) - key_frames)
        self._tell(now_s, len(reduced), key_frames, len(cameras))

    def _load(self, now_s: float, cameras: Sequence[CameraLoad]) -> Load:
        passed_s, self._last_s = now_s - self._last_s, now_s
        spent = self._batcher.spent()
        frames_s, pictures_s = (new - old for new, old in zip(spent, self._last_spent, strict=True))
        self._last_spent = spent
        own, busy = self._usage.look()
        part = pictures_s / max(frames_s + pictures_s, 1e-3)
        pictures = min(own, pictures_s / max(passed_s, 1e-3) / self._usage.allowed)
        if self._workers is not None:
            workers = min(1.0, (frames_s + pictures_s) / max(passed_s, 1e-3) / self._workers)
            if workers > own:
                own, pictures = workers, part * workers
        busy = max(own, busy)
        self._lags.look(now_s, cameras, busy > BUSY)
        decoded = [one for one in cameras if self.demands.get(one.name, FULL).decode == "all"]
        decoding = max(1e-3, 1.0 - self._lags.skipped(decoded))
        own, busy = min(1.0, own / decoding), min(1.0, busy / decoding)
        return Load(busy, own, self._overtaken(decoded), self._lags.behind_s(decoded), pictures)

    def _overtaken(self, cameras: Sequence[CameraLoad]) -> float:
        before, self._frames = self._frames, {one.name: (one.offered, one.overtaken) for one in cameras}
        counts = [(*self._frames[name], *before[name]) for name in self._frames if name in before]
        # A camera that was replaced counts from 0 again.
        offered = sum(max(0, now - then) for now, _, then, _ in counts)
        overtaken = sum(max(0, now - then) for _, now, _, then in counts)
        return overtaken / offered if offered else 0.0

    def _tell(self, now_s: float, reduced: int, key_frames: int, cameras: int) -> None:
        if reduced and self._since_s is None:
            self._since_s = now_s
        if self._since_s is None:
            return
        if reduced and not self._told and now_s - self._since_s >= _TELL_S:
            self._told = True
            log.warning(
                "there are more cameras than this machine can analyse: %d of %d are reduced, %d of them to their "
                "key frames, those without a face first; lower their fps, take smaller streams of them, set idle: "
                "keyframes for quiet ones, or give some to another machine", reduced, cameras, key_frames,
            )  # fmt: skip
        if not reduced:
            if self._told:
                log.info("all cameras are analysed as configured again, after %.0f s", now_s - self._since_s)
            self._since_s, self._told = None, False
