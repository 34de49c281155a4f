"""The capture times that a camera gives by its own clock, and whether to believe them.

RTSP cameras send the time of their clock every few seconds (RTCP sender reports), some fragmented MP4s carry it too.
FFmpeg puts it into `start_time_realtime` once, when the first report comes, and never again (rtsp.c); a camera's clock
and its RTP clock drift apart by some 100 ppm, which is 8 s a day. But every packet carries the time by the newest
report (side data `prft`), so that is read, packet by packet; a clock that is set while it streams is seen as well.

A clock is judged by the stream's own arrivals. `Timeline` knows when a frame was captured if the fastest frames took
no time; the camera's time is earlier by what those really took, and off by what the clock is wrong. Which of both it
is, nobody can know: a camera that is always 1.5 s late looks like one whose clock is 1.5 s slow. A live camera's
fastest frames take less than half a second, and a clock may be wrong by half a second in either direction; what is
beyond is taken for a wrong clock. Lateness that comes and goes (bursts, a stall) is known from the arrivals, and is
no matter of the clock.
"""

from __future__ import annotations

import logging
import struct

from av.packet import Packet
from av.video.stream import VideoStream

log = logging.getLogger(__name__)

_MOST_WRONG_S = 0.5
_MOST_DELAY_S = 0.5
# The first frames of a connection have waited while it was opened, and come at once: they say nothing of a delay.
_BACKLOG_S = 2.0


class CameraClock:
    """Gives capture times by one camera's clock where it sends them and they are plausible.

    Args:
        camera: Its name, for the log.
    """

    def __init__(self, camera: str) -> None:
        self._camera = camera
        self._warned = False
        self.begin(0.0)

    def begin(self, opening_s: float) -> None:
        """Begin a connection that is opened from this time on, in monotonic seconds."""
        self._opening_s = opening_s
        self._first_s: float | None = None
        self._zero_at: float | None = None  # when the stream's position was 0, seconds since 1970

    def report(self, packet: Packet[VideoStream], start_time_realtime: int | None) -> None:
        """Take the clock's time from a packet; from the container's start, in microseconds, where packets have none."""
        if packet.pts is not None and packet.has_sidedata("prft"):
            # AVProducerReferenceTime: microseconds since 1970, then flags.
            (microseconds,) = struct.unpack_from("=q", bytes(packet.get_sidedata("prft")))
            self._zero_at = microseconds / 1e6 - float(packet.pts * packet.time_base)
        elif self._zero_at is None and start_time_realtime is not None:
            self._zero_at = start_time_realtime / 1e6

    def captured_at(
        self, position_s: float | None, motion_s: float, arrived_s: float, monotonic_to_wall_s: float
    ) -> float | None:
        """Return when a frame was captured by the camera's clock, seconds since 1970; None if that is not known.

        Args:
            position_s: The frame's time stamp on the stream's own time line.
            motion_s: When it was captured by the stream's arrivals, monotonic seconds.
            arrived_s: When it arrived, monotonic seconds.
            monotonic_to_wall_s: What to add to monotonic seconds for this machine's seconds since 1970.
        """
        if self._first_s is None:
            self._first_s = arrived_s
        if self._zero_at is None or position_s is None:
            return None
        captured_at = self._zero_at + position_s
        behind_s = motion_s + monotonic_to_wall_s - captured_at
        opening = arrived_s - self._first_s < _BACKLOG_S
        waited_s = self._first_s - self._opening_s if opening else 0.0
        if -_MOST_WRONG_S <= behind_s <= _MOST_DELAY_S + _MOST_WRONG_S + waited_s:
            return captured_at
        if not self._warned and not opening:
            self._warned = True
            log.warning(
                "camera %s: its clock is %.1f s %s this machine's, taking arrival times instead; "
                "let both follow the same NTP server",
                self._camera, abs(behind_s), "behind" if behind_s > 0 else "ahead of",
            )  # fmt: skip
        return None
