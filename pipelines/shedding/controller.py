"""Decides what is asked of each camera when all together are more than the machine can analyse.

Too much to do shows in frames that newer ones overtake in the queue, in cameras' threads that fall behind real time,
and in processors or inference workers that are never idle. Each alone has other causes: a network that was held up, a
program beside this one, a machine that is used well. Two of the three at a time are pressure, unless the threads are
catching up already. Under pressure

1. cameras without a face are reduced to their key frames: those of lower priority first, then those that have shown no
   face for longest;
2. when all of them are, the rate of the others is lowered: a share of `fps`, twice as large for each step of priority,
   down to their key frames.

Steps grow while the pressure lasts, so that 4 x too many cameras are sorted out in some ten seconds. Recovery goes the
same way back, after `_HOLD_S` without trouble and only as far as the processor time that is free will do: what a camera
takes is known from those that run. If more is asked for and the pressure comes back soon, the next try waits twice as
long. A face that is found on a key frame brings its camera back at once, and one without a face takes its place.

Nothing here reads a clock or a thread, so that all of it can be tested by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from visaged.pipelines.source.demand import FULL, Demand

_BUSY = 0.9
"""Part of the processors, or of the inference workers, above which they count as never idle."""
_OVERTAKEN = 0.05
"""Part of the frames that may be overtaken; cameras that are not in step lose one now and then."""
_BEHIND_S = 0.25
"""Seconds by which the cameras' threads may be further behind real time than they have been."""
_CATCHING_UP = 0.95
"""Part of its last value to which that must have fallen for the threads to be catching up."""
_ROOM = 0.8
"""Part of the processors up to which cameras are given more."""
_FACE_S = 10.0
"""Seconds for which a camera counts as one with a face after it showed the last."""
_PRESSED_S = 1.5
"""Seconds for which the pressure must last before a step, and each further one."""
_HOLD_S, _LONGEST_HOLD_S = 10.0, 640.0
"""Seconds without trouble before a step back; longest, after tries that failed."""
_FAILED_S = 20.0
"""If pressure comes back so soon after a step back, that was too much."""
_NEWEST = 0.05
"""Weight of the newest look in the average of what is taken."""
_FIRST_CUT = 0.1
"""Part of all cameras that the first step takes; each further one takes twice as many."""
_KEY_COST = 0.12
"""What a camera on key frames takes, compared with all of it: 1080p25 with a key frame every two seconds."""
LEAST_SHARE = 0.15
"""A camera whose share of `fps` is below this gets its key frames alone, which are as many."""
MOST_PRIORITY = 3

# Where every frame is a key frame, or every second, that many are enough.
_KEY_FRAMES = Demand(decode="key_frames", fps=2.0)


@dataclass(frozen=True, slots=True)
class CameraLoad:
    """A live camera that streams, as it is now.

    Attributes:
        name: Its name.
        priority: -3..3; each step doubles the share of its frames that it keeps.
        fps: Frames a second that it is to be analysed at.
        face_ago_s: Seconds since it showed a face; infinite if it never did.
        lag_s: Seconds by which its thread is behind real time.
        offered: Frames that it has handed over so far.
        overtaken: Those of them that a newer one overtook.
    """

    name: str
    priority: int = 0
    fps: float = 5.0
    face_ago_s: float = math.inf
    lag_s: float = 0.0
    offered: int = 0
    overtaken: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """How the machine did since the last look at it.

    Attributes:
        busy: Part of the processors, or of the inference workers, that was in use, whichever is more, 0..1.
        overtaken: Part of the cameras' frames that newer ones overtook, 0..1.
        behind_s: Seconds by which the cameras' threads are further behind real time than they have been.
        pictures: Part of the inference workers' time that single pictures took, 0..1.
    """

    busy: float
    overtaken: float = 0.0
    behind_s: float = 0.0
    pictures: float = 0.0

    @property
    def signs(self) -> int:
        """How many of the three signs of too much to do there are."""
        return (self.busy > _BUSY) + (self.overtaken > _OVERTAKEN) + (self.behind_s > _BEHIND_S)

    @property
    def taken(self) -> float:
        """Part of the machine that cameras cannot have more of: pictures beyond their half give way to them."""
        return self.busy - max(0.0, self.pictures - 0.5)


class Controller:
    """Decides what is asked of each camera; `step` is to be called about twice a second."""

    def __init__(self) -> None:
        self._cut = 0  # cameras without a face that are on key frames
        self._share = 1.0  # of the frames of the others
        self._stride = 1.0
        self._behind_s = 0.0
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
        is_catching_up = _BEHIND_S < load.behind_s < _CATCHING_UP * self._behind_s
        self._behind_s = load.behind_s
        if load.signs >= 2 and not is_catching_up:
            self._press(now_s, len(without), len(cameras), self._demands(without, cameras))
            self._begin_calm(now_s)
        else:
            self._pressed_since_s = None
            if load.signs - (load.busy > _BUSY):
                self._begin_calm(now_s)
            self._looks += 1
            self._taken += max(1 / self._looks, _NEWEST) * (load.taken - self._taken)
            if now_s - self._calm_since_s >= self._hold_s:
                self._stride = 1.0
                self._restore(now_s, self._demands(without, cameras), cameras)
        return self._demands(without, cameras)

    def _begin_calm(self, now_s: float) -> None:
        self._calm_since_s, self._looks = now_s, 0

    def _demands(self, without: Sequence[CameraLoad], cameras: Sequence[CameraLoad]) -> dict[str, Demand]:
        cut = {camera.name for camera in without[: self._cut]}
        return {camera.name: _KEY_FRAMES if camera.name in cut else self._of(camera) for camera in cameras}

    def _of(self, camera: CameraLoad) -> Demand:
        share = min(1.0, self._share * 2.0**camera.priority)
        if share == 1.0:
            return FULL
        return _KEY_FRAMES if share < LEAST_SHARE else Demand(fps=share * camera.fps)

    def _press(self, now_s: float, without: int, cameras: int, demands: dict[str, Demand]) -> None:
        if self._pressed_since_s is None:
            self._pressed_since_s = now_s
        if now_s - self._pressed_since_s < _PRESSED_S:
            return
        if now_s - self._restored_s < _FAILED_S:
            self._hold_s = min(_LONGEST_HOLD_S, 2 * self._hold_s)
            self._restored_s = -math.inf
        self._pressed_since_s = now_s
        if self._cut < without:
            self._cut = min(without, self._cut + max(1, round(self._stride * _FIRST_CUT * cameras)))
        elif any(demand != _KEY_FRAMES for demand in demands.values()):
            self._share *= max(0.5, 1.0 - 0.15 * self._stride)
        self._stride = min(4.0, 2 * self._stride)

    def _restore(self, now_s: float, demands: dict[str, Demand], cameras: Sequence[CameraLoad]) -> None:
        if not self._cut and self._share == 1.0:
            self._hold_s = _HOLD_S
            return
        whole = sum(_cost(demands[camera.name], camera) for camera in cameras)
        more = (_ROOM - self._taken) * whole / max(self._taken, 0.01)  # in cameras that are analysed as configured
        if self._share < 1.0:
            others = max(1, len(cameras) - self._cut)
            share = min(1.0, 1.25 * self._share, self._share + more / others)
            if share < 1.05 * self._share and share < 1.0:
                return
            self._share = share
        else:
            count = min(int(more / (1.0 - _KEY_COST)), max(1, self._cut // 4))
            if count < 1:
                return
            self._cut -= count
        self._restored_s = now_s
        self._begin_calm(now_s)


def _cost(demand: Demand, camera: CameraLoad) -> float:
    if demand.decode == "key_frames":
        return _KEY_COST
    return 1.0 if demand.fps is None else demand.fps / camera.fps
