"""The times of one camera's frames: their stamps, when they were captured, and by whose clock."""

from __future__ import annotations

import logging
from collections.abc import Callable

from visaged.pipelines.records import Clock
from visaged.pipelines.source.times.camera_clock import CameraClock
from visaged.pipelines.source.times.stamps import Stamps
from visaged.pipelines.source.times.timeline import Timeline

log = logging.getLogger(__name__)

# Deviation of the rate of stamps from real time above which there is a warning.
_WARN_OF_RATE = 0.01


class FrameTimes:
    """The times of the frames of one source, from connection to connection.

    Args:
        camera: Name of the camera, for the log.
        clock: Returns monotonic seconds.
        wall: Returns seconds since 1970.

    Attributes:
        stamps: The stamps of the connection's frames.
        timeline: What is known of them.
        camera_clock: What is known of the camera's clock.
    """

    def __init__(self, camera: str, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._camera = camera
        self._clock = clock
        self._wall = wall
        self._rate_warned = False
        self.camera_clock = CameraClock(camera)
        self.begin(live=True)

    def begin(self, live: bool) -> None:
        """Begin the first round of a connection; `live` is whether frames come when they were captured."""
        self.stamps = Stamps(live)
        self.timeline = Timeline(live)

    def advance(self, stamp_s: float, arrived_s: float) -> float:
        """Go on to the next frame; return when it was captured by the arrivals, monotonic seconds."""
        due_s = self.timeline.capture(stamp_s, arrived_s)
        self._warn_of_rate()
        return due_s

    def captured(self, position_s: float | None, due_s: float, arrived_s: float) -> tuple[float, float, Clock]:
        """Return when a frame was captured, in monotonic seconds and in seconds since 1970, and by whose clock.

        Args:
            position_s: The frame's own time stamp; None if it has none that can be trusted.
            due_s: When it was captured by the arrivals, monotonic seconds.
            arrived_s: When it came, monotonic seconds.
        """
        to_wall_s = self._wall() - self._clock()
        captured_at = None
        if self.timeline.stamp_rate == 1.0:  # the camera's clock is read every few seconds; stamps go on from there
            captured_at = self.camera_clock.captured_at(position_s, due_s, arrived_s, to_wall_s)
        if captured_at is None:
            return due_s, due_s + to_wall_s, "arrival"
        return min(captured_at - to_wall_s, arrived_s), captured_at, "camera"

    def _warn_of_rate(self) -> None:
        timeline = self.timeline
        if self._rate_warned or not timeline.stamp_rate_settled or abs(timeline.stamp_rate - 1.0) < _WARN_OF_RATE:
            return
        self._rate_warned = True
        log.warning(
            "camera %s: its time stamps run at %.2f of real time, going by arrival times instead; "
            "set the frame rate that it really has, or mend its clock", self._camera, timeline.stamp_rate,
        )  # fmt: skip
