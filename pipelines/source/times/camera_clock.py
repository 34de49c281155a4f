"""Capture times by a camera's own clock, and whether they are plausible.

RTSP cameras send the time of their clock every few seconds (RTCP sender reports); some fragmented MP4s carry it too.
FFmpeg sets `start_time_realtime` only once, at the first report (rtsp.c), but a camera's clock and its RTP clock drift
apart by some 100 ppm, which is 8 s a day. Every packet carries the time by the newest report (side data `prft`),
so that is read for each packet, and a clock that is set while it streams is noticed.

A clock is judged by the arrivals of frames. `Timeline` returns when a frame was captured under the assumption that the
fastest frames took no time. The camera's time differs from that by the real delay of those frames, and by the error of
its clock. Only their sum is known: a camera that is always 1.5 s late looks like one whose clock is 1.5 s slow. The
fastest frames of a live camera take less than half a second, and its clock may be wrong by half a second in either
direction; a larger difference counts as a wrong clock. Lateness that comes and goes (bursts, a stall) is known from the
arrivals, and does not count.
"""

from __future__ import annotations

import logging
import struct

from av.packet import Packet
from av.video.stream import VideoStream

log = logging.getLogger(__name__)

_MOST_WRONG_S = 0.5
_MOST_DELAY_S = 0.5
# The first frames of a connection waited while it was opened, and come at once, so they do not show the delay.
_BACKLOG_S = 2.0


class CameraClock:
    """Returns capture times by one camera's clock, if the camera sends its clock and it is plausible.

    Args:
        camera: Name of the camera, for the log.

    Attributes:
        behind_s: Seconds by which the camera's clock was behind this machine's at the last frame, with the delay of its
            fastest frames in it; None before there is a time by the camera's clock.
    """

    def __init__(self, camera: str) -> None:
        self._camera = camera
        self._warned = False
        self.begin(0.0)

    def begin(self, opening_s: float) -> None:
        """Begin a connection, whose opening starts at `opening_s`, monotonic seconds."""
        self._opening_s = opening_s
        self._first_s: float | None = None
        self.behind_s: float | None = None
        self._zero_at: float | None = None  # when the stream's position was 0, seconds since 1970

    def report(self, packet: Packet[VideoStream], start_time_realtime: int | None) -> None:
        """Note the camera's time from a packet, or else from the container's start in microseconds since 1970."""
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
            position_s: The frame's time stamp on the stream's own time line; None if it has none.
            motion_s: Time of capture by the stream's arrivals, monotonic seconds.
            arrived_s: Time of arrival, monotonic seconds.
            monotonic_to_wall_s: Seconds to add to monotonic seconds for this machine's seconds since 1970.
        """
        if self._first_s is None:
            self._first_s = arrived_s
        if self._zero_at is None or position_s is None:
            return None
        captured_at = self._zero_at + position_s
        behind_s = motion_s + monotonic_to_wall_s - captured_at
        self.behind_s = behind_s
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
