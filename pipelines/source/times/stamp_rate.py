"""How fast a stream's time stamps run, compared with real time.

A camera with a mislabelled frame rate or a slow RTP clock stamps its frames at 0.84 of real time, say. Compared with
arrivals, its stamps then fall behind by 0.19 s every second, for ever. These look the same for a while, and must not be
taken for a wrong rate:

- A stall after which the stream goes on late: one step, and no slope before or after it. Steps are left out.
- A stream that catches up after a stall: its lateness falls. A falling slope counts only for a stream that is on time.
- Bursts and jitter: only the fastest frame of each second counts.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

# Cameras hold frames back before key frames for up to half a second; the fastest frame of a second is not one of them.
_BUCKET_S = 1.0
# The longest stretch of even slope is taken, so that a rate that changed is found within seconds, and a small
# deviation within minutes. In buckets.
_WINDOWS = (240, 60, 20, 10, 6)
# A rising slope makes ages grow and is followed as soon as it is significant. A falling one does not, and the backlog
# with which a connection begins falls too, for some seconds.
_FEWEST_RISING, _FEWEST_FALLING = 5, 10
# A step between two buckets that differs from the usual one by more than this comes from a stall or a jump.
_STEP_S = 0.1
# If half of this many steps at the end of a stretch are such steps, the rate has changed.
_NEWEST = 6
# A line whose points are further off than this on average is not straight: the rate or the network changes.
_UNEVEN_S = 0.06
# A slope is significant if it adds up to this many seconds, and this many times the noise.
_SURE_S, _SURE_TIMES = 0.02, 4.0
# `Timeline` tolerates a deviation below this (`_DRIFT_PER_S`).
LEAST_DEVIATION = 0.001
# Rates outside of these are not those of a live camera, but of a recording that is sent as fast as possible.
_BOUNDS = (0.4, 2.5)
# Rates are reported only after this long: a network that fills up looks like a slow clock for some seconds.
_SETTLED_S = 15.0


@dataclass(frozen=True, slots=True)
class _Point:
    """The fastest frame of a bucket: its stamp, arrival and lateness, and the run of stamps to which it belongs."""

    stamp_s: float
    arrival_s: float
    late_s: float
    run: int


@dataclass(frozen=True, slots=True)
class _Slope:
    """Seconds by which arrivals fall behind for each second of stamps, and the span over which that was measured."""

    value: float
    span_s: float


class StampRate:
    """Estimates how many real seconds pass for each second of a stream's stamps.

    Attributes:
        real_per_stamp: The estimate; exactly 1 unless the stamps are known to run at another rate.
        settled: Whether the rate was measured for long enough to be reported.
    """

    def __init__(self) -> None:
        self.real_per_stamp = 1.0
        self.settled = False
        self._points: deque[_Point] = deque(maxlen=_WINDOWS[0])
        self._bucket_end_s = -math.inf
        self._best: _Point | None = None
        self._run = 0
        self._until_fit = 0

    def jump(self) -> None:
        """Note that the next stamp does not continue from the last one."""
        self._close_bucket()
        self._bucket_end_s = -math.inf
        self._run += 1

    def add(self, stamp_s: float, arrival_s: float, late_s: float) -> None:
        """Add a frame: its stamp, its arrival in monotonic seconds, and how late it is by the present estimate."""
        if arrival_s >= self._bucket_end_s:
            if self._close_bucket():
                self._estimate()
            self._bucket_end_s = arrival_s + _BUCKET_S
        best = self._best
        if best is None or arrival_s - best.arrival_s < self.real_per_stamp * (stamp_s - best.stamp_s):
            self._best = _Point(stamp_s, arrival_s, late_s, self._run)

    def _close_bucket(self) -> bool:
        if self._best is None:
            return False
        self._points.append(self._best)
        self._best = None
        return True

    def _estimate(self) -> None:
        # A long stretch changes little from second to second.
        self._until_fit -= 1
        if self._until_fit > 0:
            return
        self._until_fit = len(self._points) // 40
        points = list(self._points)
        for window in _WINDOWS:
            if len(points) < window // 4:
                continue
            slope = _slope(points[-window:])
            if slope is None or (slope.value < 0 and not _may_fall(points[-window:])):
                continue
            rate = 1.0 + slope.value
            if not _BOUNDS[0] <= rate <= _BOUNDS[1]:
                rate = 1.0
            self.real_per_stamp = 1.0 if abs(rate - 1.0) < LEAST_DEVIATION else rate
            self.settled = slope.span_s >= _SETTLED_S
            return


def _may_fall(points: list[_Point]) -> bool:
    lateness = sorted(point.late_s for point in points)
    return len(points) >= _FEWEST_FALLING and lateness[len(points) * 4 // 5] < _STEP_S / 2


def _slope(points: list[_Point]) -> _Slope | None:
    """Return the slope of (arrival - stamp) over stamp; None if the points do not lie on a straight line."""
    steps = [
        (b.stamp_s - a.stamp_s, (b.arrival_s - a.arrival_s) - (b.stamp_s - a.stamp_s))
        for a, b in pairwise(points)
        if a.run == b.run and b.stamp_s > a.stamp_s
    ]
    if len(steps) < _FEWEST_RISING - 1:
        return None
    usual = median(behind / passed for passed, behind in steps)
    is_even = [abs(behind - usual * passed) <= _STEP_S for passed, behind in steps]
    if sum(is_even) < max(_FEWEST_RISING - 1, len(steps) * 2 / 3):
        return None
    if sum(is_even[-_NEWEST:]) <= _NEWEST / 2:
        return None  # no stall: the rate has changed
    even = [step for step, counts in zip(steps, is_even, strict=True) if counts]
    xs, ys = [0.0], [0.0]
    for passed, behind in even:
        xs.append(xs[-1] + passed)
        ys.append(ys[-1] + behind)
    middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
    value = sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True)) / sum(
        (x - middle_x) ** 2 for x in xs
    )
    noise_s = math.sqrt(
        sum((y - middle_y - value * (x - middle_x)) ** 2 for x, y in zip(xs, ys, strict=True)) / len(xs)
    )
    if noise_s > _UNEVEN_S:
        return None
    if abs(value) * xs[-1] < _SURE_S + _SURE_TIMES * noise_s:
        value = 0.0
    return _Slope(value, xs[-1] * (1.0 + value))
