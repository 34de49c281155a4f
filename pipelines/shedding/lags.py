"""How far the cameras' threads are behind real time, and which of them are to skip what they are behind with.

A camera's thread that gets too little of the processor reads its stream late; what it has not read yet waits in the
buffers of the network, and all later results are as old as that. Making up for it takes the time that lacks. So while
the processors are busy, a camera that is more than a second behind reads on without decoding until it has caught up.

Not all that is late is an overload: a stream that was held up by its network stays late for ever. So a camera is behind
by what it is later than before; and one that does not catch up by skipping is taken as it is after `_SKIP_S`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from visaged.pipelines.shedding.load import CameraLoad

_ABSORBED = 0.05
"""Seconds by which a camera that stays late counts as less behind, in each second."""
_FAR_S, _NEAR_S = 1.0, 0.3
_SKIP_S = 6.0


@dataclass(slots=True)
class _Lag:
    usual_s: float
    behind_s: float = 0.0
    skips_since_s: float | None = None


class Lags:
    """The lags of all cameras; `look` is to be called about twice a second."""

    def __init__(self) -> None:
        self._cameras: dict[str, _Lag] = {}
        self._last_s = 0.0

    def look(self, now_s: float, cameras: Sequence[CameraLoad], is_busy: bool) -> None:
        """Take note of how late the cameras are.

        Args:
            now_s: Monotonic seconds.
            cameras: All live cameras that stream.
            is_busy: Whether the processors are, so that the lag may be this machine's.
        """
        passed_s, self._last_s = now_s - self._last_s, now_s
        before, self._cameras = self._cameras, {}
        for camera in cameras:
            lag = self._cameras[camera.name] = before.get(camera.name) or _Lag(camera.lag_s)
            lag.usual_s = min(camera.lag_s, lag.usual_s + _ABSORBED * passed_s)
            lag.behind_s = camera.lag_s - lag.usual_s
            if lag.skips_since_s is None:
                if is_busy and lag.behind_s > _FAR_S:
                    lag.skips_since_s = now_s
            elif lag.behind_s < _NEAR_S:
                lag.skips_since_s = None
            elif now_s - lag.skips_since_s > _SKIP_S:
                lag.skips_since_s, lag.usual_s, lag.behind_s = None, camera.lag_s, 0.0

    @property
    def skipping(self) -> frozenset[str]:
        """Names of the cameras that are to read without decoding until they have caught up."""
        return frozenset(name for name, lag in self._cameras.items() if lag.skips_since_s is not None)

    def behind_s(self, decoded: Sequence[CameraLoad]) -> float:
        """Return by how many seconds the one in the middle of some cameras is behind: one alone tells of its network.

        One that skips is as far behind as when it began to: it has not caught up by what the machine can do.

        Args:
            decoded: Those that are decoded; key frames come late by themselves.
        """
        lags = [self._cameras[camera.name] for camera in decoded]
        return median([lag.behind_s if lag.skips_since_s is None else _FAR_S for lag in lags] or [0.0])
