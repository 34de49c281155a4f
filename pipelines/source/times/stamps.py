"""Puts the frames of a source on one time line, with or without usable time stamps."""

from __future__ import annotations

from av.packet import Packet
from av.video.stream import VideoStream


class Stamps:
    """One time line for the frames of a connection, or of all rounds of a looping file.

    Frames keep their own stamps if those can be trusted. Otherwise live frames are stamped by their arrival, frames of
    a file by its nominal rate.
    """

    def __init__(self, live: bool) -> None:
        self._live = live
        self._last: float | None = None
        self._last_arrival = 0.0
        self._shift: float | None = 0.0  # added to a round's own stamps; unknown before its first frame
        self.trusted = True
        self.interval_s = 0.04

    def begin(self, trusted: bool, interval_s: float) -> None:
        """Begin a round; `trusted` is whether its stamps can be trusted, `interval_s` its nominal frame interval."""
        self.trusted = trusted
        self.interval_s = interval_s
        self._shift = 0.0 if self._last is None else None

    def of_packet(self, packet: Packet[VideoStream]) -> float | None:
        """Return the stamp in seconds that the packet's frame will have; None if it is not known."""
        if packet.pts is None or self._shift is None or not self.trusted:
            return None
        base = packet.time_base  # arithmetic of fractions takes as long as all the rest here
        return packet.pts * base.numerator / base.denominator + self._shift

    def begin_with(self, packet: Packet[VideoStream]) -> None:
        """Take a round's first packet for its first frame, where its frames are not decoded."""
        if self._shift is None and packet.pts is not None:
            self._shift = self._follows - float(packet.pts * packet.time_base)

    @property
    def _follows(self) -> float:
        """The stamp of a frame that follows the last one."""
        return 0.0 if self._last is None else self._last + self.interval_s

    def of_frame(self, position_s: float | None, arrived_s: float) -> float:
        """Return a frame's stamp in seconds; to be called once for every frame, in order."""
        follows = self._follows
        if position_s is not None and self.trusted:
            if self._shift is None:
                self._shift = follows - position_s
            stamp = position_s + self._shift
        elif self._live and self._last is not None:
            stamp = self._last + (arrived_s - self._last_arrival)
        else:
            stamp = follows
        self._last, self._last_arrival = stamp, arrived_s
        return stamp
