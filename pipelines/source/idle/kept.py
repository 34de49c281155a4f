"""The packets of an idle camera, from the newest key frame on in which nothing was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from av.packet import Packet
from av.video.stream import VideoStream

MOST_BYTES = 16 << 20
MOST_S = 10.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet that came.

    Attributes:
        packet: The packet.
        stamp_s: Its picture's stamp on the source's time line; None if that is not known.
        asked_s: Monotonic seconds when the reader was ready for it.
        arrived_s: Monotonic seconds when it came.
    """

    packet: Packet[VideoStream]
    stamp_s: float | None
    asked_s: float
    arrived_s: float

    def after_s(self, before: Arrival) -> float:
        """Return by how many seconds it follows another: by the stamps where they are known, for networks stall."""
        if self.stamp_s is None or before.stamp_s is None:
            return self.arrived_s - before.arrived_s
        return self.stamp_s - before.stamp_s


class Kept:
    """Kept packets, in groups that each begin with a key frame that was looked at.

    Args:
        let_go: Called with each packet that is given up without having been decoded, as pictures are shown.
    """

    def __init__(self, let_go: Callable[[Arrival], None]) -> None:
        self._let_go = let_go
        self._groups: list[list[Arrival]] = []
        self._bytes = 0

    @property
    def is_too_much(self) -> bool:
        """Whether the newest group, which cannot be given up, is larger or longer than may be kept."""
        if not self._groups:
            return False
        newest = self._groups[-1]
        size = sum(one.packet.size for one in newest) if self._bytes > MOST_BYTES else 0
        return size > MOST_BYTES or newest[-1].after_s(newest[0]) > MOST_S

    def add(self, arrival: Arrival, *, begins: bool) -> None:
        """Keep a packet; `begins` is whether a group begins with it. What is too much goes, oldest first."""
        if begins or not self._groups:
            self._groups.append([])
        self._groups[-1].append(arrival)
        self._bytes += arrival.packet.size
        while len(self._groups) > 1 and (
            self._bytes > 2 * MOST_BYTES or arrival.arrived_s - self._groups[1][0].arrived_s > MOST_S
        ):
            self._drop(self._groups.pop(0))

    def drop_before(self, begin: Arrival) -> None:
        """Give up the groups before the one that begins with that packet, and note its picture as shown.

        Nothing is done if that group was itself given up, because the answer was long in coming.
        """
        if all(group[0] is not begin for group in self._groups):
            return
        while self._groups[0][0] is not begin:
            self._drop(self._groups.pop(0))
        self._let_go(begin)

    def clear(self) -> None:
        """Give up everything."""
        for group in self._groups:
            self._drop(group)
        self._groups.clear()

    def take(self) -> list[Arrival]:
        """Return all packets, which are kept no longer."""
        arrivals = [one for group in self._groups for one in group]
        self._groups.clear()
        self._bytes = 0
        return arrivals

    def _drop(self, group: list[Arrival]) -> None:
        self._bytes -= sum(one.packet.size for one in group)
        # Pictures in front of the key frame refer to the group before, and are shown before it.
        begin_s = group[0].stamp_s or 0.0
        for one in sorted(group, key=lambda one: one.stamp_s or 0.0):
            if (one.stamp_s or 0.0) >= begin_s:
                self._let_go(one)
