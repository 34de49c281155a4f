"""When frames were captured, and which of them to look at.

A stream's own time stamps are smooth but count from anywhere; arrival times are the machine's own but carry the
network's bursts. `Timeline` puts the first onto the second: the fastest arrivals tell where the stream's zero lies.
"""

from __future__ import annotations

import math

# A stamp that is further than this ahead of the last one, or falls back, starts the time line anew: the camera
# restarted or the file looped.
_JUMP_S = 5.0
# Frames leave a decoder in order, so a stamp that falls back by more than this means that the clock was set back.
_BACK_S = 0.1
# Frames may arrive late by a full network buffer; later than this, the stream paused and its stamps did not.
_STALE_S = 30.0
# Camera and machine clocks drift apart by up to some 100 ppm. The estimate gives way by this much a second, so that
# a slow camera clock does not add up to hours of age.
_DRIFT_PER_S = 0.0005


class Timeline:
    """Maps a stream's time stamps to monotonic seconds of capture."""

    def __init__(self) -> None:
        self._offset: float | None = None
        self._last_stamp = 0.0
        self._last_capture = -math.inf
        self.jumps = 0

    def capture(self, stamp_s: float | None, arrival_s: float) -> float:
        """Return when a frame was captured, never later than it arrived and never before the frame ahead of it.

        Args:
            stamp_s: The frame's presentation time on the stream's own clock; None where it has none.
            arrival_s: Monotonic seconds when it arrived.
        """
        if stamp_s is None:
            capture = arrival_s
        else:
            offset = arrival_s - stamp_s
            if self._offset is None:
                self._offset = offset
            elif not -_BACK_S < stamp_s - self._last_stamp < _JUMP_S or offset - self._offset > _STALE_S:
                self.jumps += 1
                self._offset = offset
            else:
                slack = _DRIFT_PER_S * max(0.0, stamp_s - self._last_stamp)
                self._offset = min(self._offset + slack, offset)
            self._last_stamp = stamp_s
            capture = self._offset + stamp_s
        # In order across a jump too: trackers measure motion by these times.
        self._last_capture = max(min(capture, arrival_s), self._last_capture)
        return self._last_capture


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
