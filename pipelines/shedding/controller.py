"""Decides what is asked of each camera when all together are more than the machine can analyse.

Too much to do shows in frames that newer ones overtake in the queue, in cameras' threads that fall behind real time,
and in processors or inference workers that are never idle. Each alone has other causes: a network that was held up, a
program beside this one, a machine that is used well. Two of the three at a time are pressure. Under pressure

1. cameras without a face are reduced to their key frames: those of lower priority first, then those that have shown no
   face for longest;
2. when all of them are, the rate of the others is lowered: a share of `fps`, twice as large for each step of priority,
   down to their key frames.

Steps grow while the pressure lasts, so that 4 x too many cameras are sorted out in some ten seconds. Recovery goes the
same way back, after `_HOLD_S` without trouble and only as far as the processor time that is free will do: what a camera
takes is known from those that run. If that was too much, the next try waits twice as long. A face that is found on a
key frame brings its camera back at once, and one without a face takes its place.

Nothing here reads a clock or a thread, so that all of it can be tested by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from visaged.pipelines.shedding.load import CameraLoad, Load
from visaged.pipelines.source.demand import FULL, Demand

_ROOM = 0.85
"""Part of the processors up to which cameras are given more."""
_FACE_S = 10.0
"""Seconds for which a camera counts as one with a face after it showed the last."""
_CUT_S, _LOWER_S = 1.5, 2.5
"""Seconds for which the pressure must last before cameras are cut, and before the rate of the others is lowered, which
shows its effect at the end of a group of pictures."""
_HOLD_S, _LONGEST_HOLD_S = 10.0, 640.0
"""Seconds without trouble before a step back; longest, after tries that failed."""
_FAILED_S = 20.0
"""If pressure comes back so soon after a step back, that was too much."""
_NEWEST = 0.05
"""Weight of the newest look in the average of what is taken."""
_FIRST_CUT = 0.1
"""Part of all cameras that the first step takes; each further one takes twice as many."""
_LOWER = 0.8
"""What the first two steps leave of the others' share; each further one goes twice as far."""
_KEY_COST = 0.12
"""What a camera on key frames takes, compared with all of it: `tests.benchmarks idle` has 0.11 for 1080p25 with a key
frame every two seconds."""
_LEAST_SHARE = 0.15
"""A camera whose share of `fps` is below this gets its key frames alone, which are as many."""

# Where every frame is a key frame, or every second, that many are enough.
KEY_FRAMES = Demand(decode="key_frames", fps=2.0)


class Controller:
    """Decides what is asked of each camera; `step` is to be called about twice a second."""

    def __init__(self) -> None:
        self._cut = 0  # cameras without a face that are on key frames
        self._share = 1.0  # of the frames of the others
        self._stride, self._lowered = _FIRST_CUT, 0
        self._pressed_since_s: float | None = None
        self._calm_since_s = 0.0
        self._taken, self._looks = 0.0, 0  # of the machine, on average since then
        self._hold_s = _HOLD_S
        self._restored_s = -math.inf

    def step(self, now_s: float, load: Load, cameras: Sequence[CameraLoad]) -> dict[str, Demand]:
        """Return what is to be asked of each camera, by name.

        Args:
            now_s: Monotonic seconds.
            load: How the machine did since the last call.
            cameras: All live cameras that stream.
        """
        without = sorted(
            (camera for camera in cameras if camera.face_ago_s > _FACE_S),
            key=lambda camera: (camera.priority, -camera.face_ago_s, camera.name),
        )
        # While cameras with a face get less, those without one get no more than key frames.
        self._cut = len(without) if self._share < 1.0 else min(self._cut, len(without))
        if load.is_too_much:
            self._press(now_s, without, cameras)
        else:
            self._pressed_since_s = None
            self._relax(now_s, load, without, cameras)
        return self._demands(without, cameras)

    def _demands(self, without: Sequence[CameraLoad], cameras: Sequence[CameraLoad]) -> dict[str, Demand]:
        cut = {camera.name for camera in without[: self._cut]}
        return {camera.name: KEY_FRAMES if camera.name in cut else self._of(camera) for camera in cameras}

    def _of(self, camera: CameraLoad) -> Demand:
        share = min(1.0, self._share * 2.0**camera.priority)
        if share == 1.0:
            return FULL
        return KEY_FRAMES if share < _LEAST_SHARE else Demand(fps=share * camera.fps)

    def _press(self, now_s: float, without: Sequence[CameraLoad], cameras: Sequence[CameraLoad]) -> None:
        self._begin_calm(now_s)
        if self._pressed_since_s is None:
            self._pressed_since_s = now_s
        may_cut = self._cut < len(without)
        if now_s - self._pressed_since_s < (_CUT_S if may_cut else _LOWER_S):
            return
        self._pressed_since_s = now_s
        if now_s - self._restored_s < _FAILED_S:
            self._hold_s = min(_LONGEST_HOLD_S, 2 * self._hold_s)
            self._restored_s = -math.inf
        if may_cut:
            self._cut = min(len(without), self._cut + max(1, round(self._stride * len(cameras))))
            self._stride *= 2
        elif any(demand != KEY_FRAMES for demand in self._demands(without, cameras).values()):
            self._share *= _LOWER if self._lowered < 2 else _LOWER**2
            self._lowered += 1

    def _relax(self, now_s: float, load: Load, without: Sequence[CameraLoad], cameras: Sequence[CameraLoad]) -> None:
        if load.lacks:
            self._begin_calm(now_s)
        self._looks += 1
        self._taken += max(1 / self._looks, _NEWEST) * (load.taken - self._taken)
        if now_s - self._calm_since_s < self._hold_s:
            return
        self._stride, self._lowered = _FIRST_CUT, 0
        if not self._cut and self._share == 1.0:
            self._hold_s = _HOLD_S
            return
        demands = self._demands(without, cameras)
        whole = sum(_cost(demands[camera.name], camera) for camera in cameras)
        # For as many more cameras, analysed as configured, there is room.
        more = (_ROOM - self._taken) * whole / max(self._taken, 0.01)
        if self._share < 1.0:
            share = min(1.0, self._share / _LOWER, self._share + more / max(1, len(cameras) - self._cut))
            if share < 1.0 and share < 1.05 * self._share:
                return
            self._share = share
        else:
            count = min(int(more / (1.0 - _KEY_COST)), max(1, self._cut // 4))
            if count < 1:
                return
            self._cut -= count
        self._restored_s = now_s
        self._begin_calm(now_s)

    def _begin_calm(self, now_s: float) -> None:
        self._calm_since_s, self._looks = now_s, 0


def _cost(demand: Demand, camera: CameraLoad) -> float:
    if demand.decode == "key_frames":
        return _KEY_COST
    return 1.0 if demand.fps is None else demand.fps / camera.fps
