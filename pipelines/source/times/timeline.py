"""When frames were captured, and which of them to look at.

A stream's own time stamps are smooth but count from anywhere, and some run at another rate than real time; arrival
times are the machine's own but carry the network's bursts. `Timeline` puts the first onto the second: the fastest
arrivals tell where the stream's zero lies, and how fast its clock runs.

A stream that goes on late after a stall really shows the scene of some seconds ago, so its frames are that old, and
stay so. Two kinds of stream cannot say so by their stamps: one whose stamps run at a wrong rate, and one that has
only begun, whose rate is not known. For those the fastest of the recent arrivals counts as on time.
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
# Camera and machine clocks drift apart by up to some 100 ppm. The estimate gives way by this much a second, so that
# a slow camera clock does not add up to hours of age; what is above is seen as a wrong rate.
_DRIFT_PER_S = LEAST_DEVIATION
# Until it can be known how fast the stamps run, frames are late only against this much of the past. Longer than the
# half second for which cameras hold frames back at key frames; short, because stamps at 0.84 of real time make
# frames seem older by 0.19 s for each second of it.
_YOUNG_S, _YOUNG_MEMORY_S = 6.0, 0.6
# The same for stamps at a wrong rate, which is known to a few per cent at first, and to one per cent when it was seen
# for longer: 0.1 s of age at most.
_UNSETTLED_MEMORY_S, _WRONG_RATE_MEMORY_S = 2.0, 10.0
# A change of the estimate by more than this is a change of the rate, and not only a better estimate.
_RATE_CHANGED = 0.01
# The fastest frame of each such stretch is remembered.
_STRETCH_S = 0.15


class _Fastest:
    """The fastest of the recent frames.

    Each stretch of time keeps the frame that came earliest for its stamp.
    """

    def __init__(self) -> None:
        self._frames: deque[tuple[float, float]] = deque()  # (stamp, arrival) in seconds
        self._stretch_end_s = -math.inf

    def clear(self) -> None:
        """Forget all."""
        self._frames.clear()
        self._stretch_end_s = -math.inf

    def add(self, stamp_s: float, arrival_s: float, real_per_stamp: float) -> None:
        """Take a frame."""
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
        """Return when a frame would have come that is as fast as the fastest that arrived since then."""
        due = math.inf
        for stamp, arrival in reversed(self._frames):
            if arrival < since_s:
                break
            due = min(due, arrival + real_per_stamp * (stamp_s - stamp))
        return due


class Timeline:
    """Maps a stream's time stamps to monotonic seconds of capture.

    Args:
        live: Whether the stream's frames come when they were captured, so that the rate of its stamps can be told
            from their arrivals. A file's stamps are right whatever the speed at which it is read.

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
        self._line_s: float | None = None  # when the last frame was captured, were it as fast as the fastest
        self._began_s = 0.0
        self._last_stamp = 0.0
        self._last_capture = -math.inf
        self._last_arrival = math.nan
        self._real_per_stamp, self._shift_s = 1.0, 0.0
        self.jumps = 0
        self.scene_s = math.nan

    @property
    def stamp_rate(self) -> float:
        """Seconds of stamps that pass in a real second; exactly 1 unless it is known to be another rate."""
        return 1.0 / self._real_per_stamp

    @property
    def stamp_rate_settled(self) -> bool:
        """Whether `stamp_rate` was seen for long enough to be reported."""
        return self._rate.settled

    def real(self, stamp_s: float) -> float:
        """Return a stamp corrected to run with real time; without a break when the estimate of the rate changes.

        May be asked of packets whose frames have not come yet.
        """
        return stamp_s * self._real_per_stamp + self._shift_s

    def capture(self, stamp_s: float | None, arrival_s: float) -> float:
        """Return when a frame was captured, never later than it arrived and never before the frame ahead of it.

        Args:
            stamp_s: The frame's presentation time on the stream's own clock; None where it has none.
            arrival_s: Monotonic seconds when it arrived.
        """
        self._advance_scene(stamp_s, arrival_s)
        capture = arrival_s if stamp_s is None else self._follow(stamp_s, arrival_s)
        self._last_capture = max(min(capture, arrival_s), self._last_capture)
        return self._last_capture

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
                # By the old rate, frames seemed late or early that were not.
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
    """Chooses frames by time stamp, `fps` of them a second on average, whatever rate they come at.

    Args:
        fps: Frames a second to keep; None keeps all.
    """

    # Stamps are rounded to the stream's time base (often 1/90000 s, in some containers 1 ms).
    _ROUNDING_S = 0.002

    def __init__(self, fps: float | None) -> None:
        self._interval = None if fps is None else 1.0 / fps
        self._due: float | None = None

    def certainly_not(self, stamp_s: float) -> bool:
        """Return whether `keep` cannot want the frame with that stamp, whatever comes before it.

        May be asked of packets before decoding, in decoding order.
        """
        if self._interval is None or self._due is None:
            return False
        return self._due - self._interval - _BACK_S <= stamp_s < self._due - self._ROUNDING_S

    def keep(self, stamp_s: float) -> bool:
        """Return whether to look at the frame with that stamp; to be asked once for every frame, in order."""
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
