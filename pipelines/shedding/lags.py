"""How far the cameras' threads are behind real time, and which of them are to skip what they are behind with.

A camera's thread that gets too little of the processor reads its stream late; what it has not read yet waits in the
buffers of the network, and all later results are as old as that. Making up for it takes the time that lacks. So while
the processors are busy, a camera that is too far behind reads on without decoding until it has caught up, and is
decoded again from its next key frame on. Meanwhile the processors have time again. That they have it only because much
is skipped must be remembered, or else nothing would be shed, and the cameras would fall behind and skip for ever.

Not all that is late is an overload. What a network held up comes all at once, and is worked off soon: a camera that
catches up by itself loses nothing. Other streams stay late for ever once they were held up. So a camera is behind by
what it is later than it was while the processors had time; and one that does not catch up by skipping is taken as it is
after `_SKIP_S`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from visaged.pipelines.shedding.load import BUSY, CameraLoad

_ABSORBED = 0.05
"""Seconds by which a camera that stays late counts as less behind, in each second in which there is time."""
_FAR_S, _NEAR_S = 0.4, 0.1
_SKIP_S = 6.0
_SOON_S = 3.0
"""In so many seconds, at the rate of the last look, a camera that catches up by itself must have done so."""
_SURELY_S = 0.3
"""Less than that comes and goes with the turns that threads get."""
_LONGEST_GROUP_S = 2.5
"""Seconds after skipping in which a camera counts as one that skips: it waits for a key frame, and costs nothing."""


@dataclass(slots=True)
class _Lag:
    usual_s: float
    worked_s: float
    behind_s: float = 0.0
    catches_up: bool = False
    skips_since_s: float | None = None
    skipped_s: float = -math.inf


class Lags:
    """The lags of all cameras; `look` is to be called about twice a second."""

    def __init__(self) -> None:
        self._cameras: dict[str, _Lag] = {}
        self._now_s = 0.0

    def look(self, now_s: float, cameras: Sequence[CameraLoad], is_busy: bool) -> None:
        """Take note of how late the cameras are.

        Args:
            now_s: Monotonic seconds.
            cameras: All live cameras that stream.
            is_busy: Whether the processors are, so that the lag may be this machine's.
        """
        passed_s, self._now_s = now_s - self._now_s, now_s
        before, self._cameras = self._cameras, {}
        has_time = not is_busy and not any(self._skips(lag) for lag in before.values())
        for camera in cameras:
            lag = before.get(camera.name) or _Lag(0.0 if is_busy else camera.lag_s, camera.worked_s)
            self._cameras[camera.name] = lag
            # A stream can be too much for its one thread while other cores have nothing to do.
            is_thread_busy = camera.worked_s - lag.worked_s > BUSY * passed_s
            lag.worked_s = camera.worked_s
            may_absorb = has_time and not is_thread_busy
            lag.usual_s = min(camera.lag_s, lag.usual_s + (_ABSORBED * passed_s if may_absorb else 0.0))
            grown_s, lag.behind_s = camera.lag_s - lag.usual_s - lag.behind_s, camera.lag_s - lag.usual_s
            # What a thread has not read yet grows no faster than time passes: more than that was held up on its way.
            lag.catches_up = lag.behind_s > _SURELY_S and (
                grown_s > 1.2 * passed_s or -_SOON_S * grown_s > lag.behind_s * passed_s
            )
            if lag.skips_since_s is None:
                if (is_busy or is_thread_busy) and lag.behind_s > _FAR_S and not lag.catches_up:
                    lag.skips_since_s = now_s
            elif lag.behind_s < _NEAR_S:
                lag.skips_since_s, lag.skipped_s = None, now_s
            elif now_s - lag.skips_since_s > _SKIP_S:
                lag.skips_since_s, lag.usual_s, lag.behind_s = None, camera.lag_s, 0.0

    @property
    def skipping(self) -> frozenset[str]:
        """Names of the cameras that are to read without decoding until they have caught up."""
        return frozenset(name for name, lag in self._cameras.items() if lag.skips_since_s is not None)

    def behind_s(self, decoded: Sequence[CameraLoad]) -> float:
        """Return by how many seconds some cameras are behind: the mean without the last, which may tell of its network.

        One that skips is as far behind as when it began to: it has not caught up by what the machine can do. One that
        catches up without skipping is not behind.

        Args:
            decoded: Those that are decoded; key frames come late by themselves.
        """
        lags = [self._cameras[camera.name] for camera in decoded]
        behind_s = sorted(
            _FAR_S if self._skips(lag) else 0.0 if lag.catches_up else min(_FAR_S, lag.behind_s) for lag in lags
        )
        return fmean(behind_s[:-1] or behind_s or [0.0])

    def skipped(self, decoded: Sequence[CameraLoad]) -> float:
        """Return which part of some cameras skips, or did until a moment ago, 0..1."""
        return fmean([self._skips(self._cameras[camera.name]) for camera in decoded] or [0.0])

    def forget_skips(self) -> None:
        """Count no camera as one that skipped: something else is asked of them now, whose effect is to be seen."""
        for lag in self._cameras.values():
            lag.skipped_s = -math.inf

    def _skips(self, lag: _Lag) -> bool:
        return lag.skips_since_s is not None or self._now_s - lag.skipped_s < _LONGEST_GROUP_S
