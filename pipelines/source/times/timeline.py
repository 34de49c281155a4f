"""Computes when frames were captured, and chooses the frames to analyse.

A stream's own time stamps are smooth, but count from an arbitrary zero, and some run at another rate than real time.
Arrival times are in the machine's own time, but have the network's bursts. `Timeline` maps the first to the second: the
fastest arrivals show where the stream's zero is, and how fast its clock runs.

A stream that goes on late after a stall shows the scene of some seconds ago, so its frames are that old, and stay so.
For two kinds of stream, stamps cannot show this: those whose stamps run at a wrong rate, and those that have only
begun, whose rate is not known. For these, the fastest of the recent arrivals counts as on time.
"""

from __future__ import annotations

import math
from collections import deque

from visaged.pipelines.source.times.stamp_rate import LEAST_DEVIATION, StampRate

# A stamp that is further than this ahead of the last one, or falls back, starts the time line anew: the camera
# restarted or the file looped.
_JUMP_S = 5.0
# Frames leave a decoder in order, so a stamp that falls back by more than this means that the clock was set back.
_BACK_S = 0.1
# Frames may arrive late by a full network buffer; later than this, the stream paused and its stamps did not.
_STALE_S = 30.0
# Camera and machine clocks drift apart by up to some 100 ppm. The estimate follows by this much a second, so that a
# slow camera clock does not add up to hours of age; a faster drift is noticed as a wrong rate.
_DRIFT_PER_S = LEAST_DEVIATION
# Until the rate of the stamps is known, lateness is measured against only this much of the past: longer than the half
# second for which cameras hold frames back at key frames, but short, because stamps at 0.84 of real time make frames
# seem older by 0.19 s for each second.
_YOUNG_S, _YOUNG_MEMORY_S = 6.0, 0.6
# How much of the past lateness is measured against for stamps at a wrong rate, which is known to a few per cent at
# first, and later to one per cent: an error of 0.1 s of age at most.
_UNSETTLED_MEMORY_S, _WRONG_RATE_MEMORY_S = 2.0, 10.0
# A larger change of the estimate than this is a change of the rate, not only a better estimate.
_RATE_CHANGED = 0.01
# Seconds of a stretch of which the fastest frame is remembered.
_STRETCH_S = 0.15


class _Fastest:
    """The fastest of the recent frames.

    Each stretch of time keeps the frame that came earliest for its stamp.
    """

    def __init__(self) -> None:
        self._frames: deque[tuple[float, float]] = deque()  # (stamp, arrival) in seconds
        self._stretch_end_s = -math.inf

    def clear(self) -> None:
        """Forget all frames."""
        self._frames.clear()
        self._stretch_end_s = -math.inf

    def add(self, stamp_s: float, arrival_s: float, real_per_stamp: float) -> None:
        """Add a frame."""
        if arrival_s >= self._stretch_end_s:
            self._frames.append((stamp_s, arrival_s))
            self._stretch_end_s = arrival_s + _STRETCH_S
            while arrival_s - self._frames[0][1] > _WRONG_RATE_MEMORY_S:
                self._frames.popleft()
        else:
            stamp, arrival = self._frames[-1]
            if arrival_s - arrival < real_per_stamp * (stamp_s - stamp):
                self._frames[-1] = stamp_s, arrival_s

    def due(self, stamp_s: float, real_per_stamp: float, since_s: float) -> float:
        """Return when a frame would have arrived if it were as fast as the fastest one that arrived after `since_s`."""
        due = math.inf
        for stamp, arrival in reversed(self._frames):
            if arrival < since_s:
                break
            due = min(due, arrival + real_per_stamp * (stamp_s - stamp))
        return due


class Timeline:
    """Maps a stream's time stamps to monotonic seconds of capture.

    Args:
        live: Whether frames come when they were captured, so that the rate of the stamps can be measured by their
            arrivals. The stamps of a file are right at whatever speed it is read.

    Attributes:
            jumps: How often the stamps started anew.
        scene_s: Time of the newest frame on a clock that runs as the scene does, monotonic seconds at the first frame.
            It goes by the stamps alone, corrected for their rate, and by arrivals only where the stamps jump: what is
            late after a stall was in the picture all the time, and trackers measure motion by this clock.
    """

    def __init__(self, live: bool = True) -> None:
        self._live = live
        self._rate = StampRate()
        self._fastest = _Fastest()
        self._line_s: float | None = None  # when the last frame was captured, if it was as fast as the fastest
        self._began_s = 0.0
        self._last_stamp = 0.0
        self._last_capture = -math.inf
        self._last_arrival = math.nan
        self._real_per_stamp, self._shift_s = 1.0, 0.0
        self.jumps = 0
        self.scene_s = math.nan

    @property
    def stamp_rate(self) -> float:
        """Seconds of stamps that pass in a real second; exactly 1 unless another rate is known."""
        return 1.0 / self._real_per_stamp

    @property
    def stamp_rate_settled(self) -> bool:
        """Whether `stamp_rate` was measured for long enough to be reported."""
        return self._rate.settled

    def real(self, stamp_s: float) -> float:
        """Return a stamp corrected to the rate of real time, without a step when the estimate of the rate changes.

        May be called for packets whose frames have not been decoded yet.
        """
        return stamp_s * self._real_per_stamp + self._shift_s

    def late_s(self, stamp_s: float, arrival_s: float) -> float:
        """Return by how many seconds a packet comes later than the fastest ones did; 0 before the first frame.

        May be called for packets whose frames are not decoded.
        """
        if self._line_s is None:
            return 0.0
        return max(0.0, arrival_s - self._line_s - self._real_per_stamp * (stamp_s - self._last_stamp))

    def capture(self, stamp_s: float | None, arrival_s: float) -> float:
        """Return the monotonic time of a frame's capture, never after its arrival or before that of the last frame.

        Args:
            stamp_s: The frame's presentation time on the stream's own clock; None if it has none.
            arrival_s: Monotonic seconds when it arrived.
        """
        self._advance_scene(stamp_s, arrival_s)
        capture = arrival_s if stamp_s is None else self._follow(stamp_s, arrival_s)
        self._last_capture = max(min(capture, arrival_s), self._last_capture)
        return self._last_capture

    def foresee(self, stamp_s: float, arrival_s: float) -> tuple[float, float]:
        """Return the times of capture and of the scene that a frame will have, whose predecessors are not known yet."""
        if self._line_s is None:
            return arrival_s, arrival_s
        passed_s = self._real_per_stamp * (stamp_s - self._last_stamp)
        return max(min(self._line_s + passed_s, arrival_s), self._last_capture), self.scene_s + max(0.0, passed_s)

    def _advance_scene(self, stamp_s: float | None, arrival_s: float) -> None:
        if math.isnan(self._last_arrival):
            self.scene_s = arrival_s
        elif stamp_s is not None and self._line_s is not None and self._goes_on(stamp_s - self._last_stamp):
            self.scene_s += self._real_per_stamp * max(0.0, stamp_s - self._last_stamp)
        else:
            self.scene_s += max(0.0, arrival_s - self._last_arrival)
        self._last_arrival = arrival_s

    @staticmethod
    def _goes_on(step_s: float) -> bool:
        return -_BACK_S < step_s < _JUMP_S

    def _follow(self, stamp_s: float, arrival_s: float) -> float:
        step_s = stamp_s - self._last_stamp
        line_s = self._line_s
        if line_s is None:
            line_s = self._begin(arrival_s)
        else:
            line_s += self._real_per_stamp * step_s
            if not self._goes_on(step_s) or arrival_s - line_s > _STALE_S:
                self.jumps += 1
                line_s = self._begin(arrival_s)
            else:
                line_s = min(line_s + _DRIFT_PER_S * max(0.0, step_s), arrival_s)
        self._last_stamp = stamp_s
        if self._live:
            line_s = self._learn(stamp_s, arrival_s, line_s)
        self._line_s = line_s
        return line_s

    def _begin(self, arrival_s: float) -> float:
        self._began_s = arrival_s
        self._fastest.clear()
        self._rate.jump()
        return arrival_s

    def _learn(self, stamp_s: float, arrival_s: float, line_s: float) -> float:
        self._rate.add(stamp_s, arrival_s, arrival_s - line_s)
        rate = self._rate.real_per_stamp
        if rate != self._real_per_stamp:
            self._shift_s += (self._real_per_stamp - rate) * stamp_s
            if abs(rate - self._real_per_stamp) > _RATE_CHANGED:
                # By the old rate, frames seemed late or early although they were not.
                self._began_s = arrival_s
                self._fastest.clear()
            self._real_per_stamp = rate
        self._fastest.add(stamp_s, arrival_s, rate)
        if rate != 1.0:
            memory_s = _WRONG_RATE_MEMORY_S if self._rate.settled else _UNSETTLED_MEMORY_S
            return self._fastest.due(stamp_s, rate, arrival_s - memory_s)
        if arrival_s - self._began_s < _YOUNG_S:
            return self._fastest.due(stamp_s, rate, arrival_s - _YOUNG_MEMORY_S)
        return line_s


class Sampler:
    """Chooses frames by time stamp: `fps` per second on average, at whatever rate they come.

    Args:
        fps: Frames a second to keep; None keeps all.
    """

    # Stamps are rounded to the stream's time base (often 1/90000 s, in some containers 1 ms).
    _ROUNDING_S = 0.002

    def __init__(self, fps: float | None) -> None:
        self._due: float | None = None
        self.set_fps(fps)

    def set_fps(self, fps: float | None) -> None:
        """Change the rate: from the next frame that is due on, frames are as far apart as it says."""
        self._interval = None if fps is None else 1.0 / fps
        if fps is None:
            self._due = None

    def certainly_not(self, stamp_s: float) -> bool:
        """Return whether `keep` will be False for the frame with that stamp, whatever frames come before it.

        May be called for packets before decoding, in decoding order.
        """
        if self._interval is None or self._due is None:
            return False
        return self._due - self._interval - _BACK_S <= stamp_s < self._due - self._ROUNDING_S

    def keep(self, stamp_s: float) -> bool:
        """Return whether to analyse the frame with that stamp; to be called once for every frame, in order."""
        if self._interval is None:
            return True
        late = math.inf if self._due is None else stamp_s - self._due
        if late >= self._interval or late < -self._interval - _BACK_S:
            # The first frame, a gap, or a clock that was set back: the grid starts anew.
            self._due = stamp_s + self._interval
            return True
        if late < -self._ROUNDING_S:
            return False
        assert self._due is not None
        # The next one is due on the grid, not an interval from now: 10 of 25 a second are then 10, not 8.3.
        self._due += self._interval
        return True
