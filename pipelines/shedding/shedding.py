"""Measures how the machine does, has cameras reduced and restored, and says so: in metrics, and in the log once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Protocol

from visaged.pipelines.batcher import Batcher
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.shedding.controller import CameraLoad, Controller, Load
from visaged.pipelines.shedding.processor import Usage, cores_allowed
from visaged.pipelines.source.demand import FULL, Demand

log = logging.getLogger(__name__)

_EVERY_S = 0.5
_TELL_S = 10.0
"""Seconds of an overload after which it is told, when it is known how many cameras it takes."""
_ABSORBED = 0.05
"""Seconds by which a camera that stays behind real time counts as less behind in each second: a stream that was held up
stays late, and that is no overload."""


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
        workers: Number of the inference workers.
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
        workers: int,
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
        self._least_lag: dict[str, float] = {}
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
        demands = self.demands = self._controller.step(now_s, load, cameras)
        self._cameras.demand(demands)
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
        whole_s = max(passed_s, 1e-3) * self._workers
        return Load(
            busy=max(self._usage.busy(), min(1.0, (frames_s + pictures_s) / whole_s)),
            overtaken=self._overtaken(cameras),
            behind_s=self._behind_s(passed_s, cameras),
            pictures=min(1.0, pictures_s / whole_s),
        )

    def _overtaken(self, cameras: Sequence[CameraLoad]) -> float:
        before, self._frames = self._frames, {one.name: (one.offered, one.overtaken) for one in cameras}
        counts = [(*self._frames[name], *before[name]) for name in self._frames if name in before]
        # A camera that was replaced counts from 0 again.
        offered = sum(max(0, now - then) for now, _, then, _ in counts)
        overtaken = sum(max(0, now - then) for _, now, _, then in counts)
        return overtaken / offered if offered else 0.0

    def _behind_s(self, passed_s: float, cameras: Sequence[CameraLoad]) -> float:
        """Return by how many seconds more than usual the cameras are behind real time.

        It is that of the camera in the middle of those that are decoded: one alone tells of its network, and key frames
        come late by themselves.
        """
        least = self._least_lag
        self._least_lag = {
            one.name: min(one.lag_s, least.get(one.name, one.lag_s) + _ABSORBED * passed_s) for one in cameras
        }
        decoded = [one for one in cameras if self.demands.get(one.name, FULL).decode == "all"]
        return median([one.lag_s - self._least_lag[one.name] for one in decoded] or [0.0])

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
