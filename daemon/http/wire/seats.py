"""Seats: who may be connected while there are many connections.

- A new connection takes the seat of the one that has been silent for longest, where none is free and that is a while.
  Connections whose requests are being answered keep theirs.
- An address of another machine may have only some of the seats, within which its own connections give way. Addresses
  of IPv6 count by their networks of 64 bits, as a single machine is given one.
- The last of the seats are for programs of this machine.
- A few connections are taken beyond the seats. They may ask for health alone, once and without delay, so that
  supervisors are answered however many others there are; any other request is answered with 503.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

BEYOND = 32
"""Most connections beyond the seats."""

SILENT_S = 2.0
"""Seconds of silence after which a connection gives way to a new one."""

_MOST_KEPT = 32


@dataclass(slots=True, eq=False)
class Seat:
    """The seat of a connection.

    Attributes:
        connection: Its socket, which the transport closes.
        address: What it counts for: the address of the client, or its network.
        is_local: Whether the client is on this machine.
        silent_since_s: Monotonic seconds when the last answer ended, or the connection began.
        is_busy: Whether a request is being answered.
        is_beyond: Whether it is beyond the seats.
    """

    connection: socket.socket
    address: str
    is_local: bool
    silent_since_s: float
    is_busy: bool = False
    is_beyond: bool = False


class Seats:
    """The seats of a listener.

    Args:
        most: Number of seats.
        most_each: Most seats of an address of another machine.
        cut: Called for every connection that loses its seat to another, or gets none.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self, most: int, most_each: int, cut: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._most_remote = most - min(_MOST_KEPT, most // 8)
        self._most_each = most_each
        self._cut = cut
        self._clock = clock
        self._taken: dict[int, Seat] = {}  # by file descriptor

    def take(self, connection: socket.socket, host: str) -> bool:
        """Seat a new connection, and return whether it may stay.

        Args:
            connection: Its socket.
            host: Address of the client.
        """
        self._taken = {number: seat for number, seat in self._taken.items() if seat.connection.fileno() >= 0}
        address, is_local = counted_address(host)
        seat = Seat(connection, address, is_local, self._clock())
        if not self._sits(seat):
            seat.is_beyond = True
            beyond = [other for other in self._taken.values() if other.is_beyond]
            if len(beyond) >= BEYOND and not self._make_room(beyond, 0.0):
                self._cut()
                return False
        self._taken[connection.fileno()] = seat
        return True

    def find(self, number: int) -> Seat | None:
        """Return the seat of the connection with a file descriptor."""
        return self._taken.get(number)

    def begin(self, seat: Seat) -> bool:
        """Note that a request begins, and return whether it may ask for anything, or for health alone."""
        if seat.is_beyond:
            seat.is_beyond = not self._has_room(seat) or not self._has_share(seat)
        seat.is_busy = True
        return not seat.is_beyond

    def end(self, seat: Seat) -> None:
        """Note that a request was answered."""
        seat.is_busy = False
        seat.silent_since_s = self._clock()

    def _sits(self, seat: Seat) -> bool:
        """Return whether there is a seat for a new connection, made free by another's end if necessary."""
        if not self._has_share(seat):
            own = [other for other in self._seated() if other.address == seat.address]
            return self._make_room(own, SILENT_S)
        if self._has_room(seat):
            return True
        seated = self._seated()
        # The seats that are kept for this machine are not taken from it.
        if not seat.is_local and sum(other.is_local for other in seated) <= self._most - self._most_remote:
            seated = [other for other in seated if not other.is_local]
        return self._make_room(seated, SILENT_S)

    def _has_share(self, seat: Seat) -> bool:
        """Return whether an address may have one more seat."""
        return seat.is_local or sum(one.address == seat.address for one in self._seated()) < self._most_each

    def _has_room(self, seat: Seat) -> bool:
        """Return whether one more seat is free."""
        return len(self._seated()) < (self._most if seat.is_local else self._most_remote)

    def _seated(self) -> list[Seat]:
        return [seat for seat in self._taken.values() if not seat.is_beyond and seat.connection.fileno() >= 0]

    def _make_room(self, seats: list[Seat], silent_s: float) -> bool:
        """End the connection that has been silent for longest, if there is one and that is a while."""
        silent = [seat for seat in seats if not seat.is_busy]
        oldest = min(silent, key=lambda seat: seat.silent_since_s, default=None)
        if oldest is None or self._clock() - oldest.silent_since_s < silent_s:
            return False
        del self._taken[oldest.connection.fileno()]
        self._cut()
        with contextlib.suppress(OSError):
            oldest.connection.shutdown(socket.SHUT_RDWR)  # its transport closes it then, also within a TLS handshake
        return True


def counted_address(host: str) -> tuple[str, bool]:
    """Return what a client's address counts for, and whether it is on this machine."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # a socket of the file system
        return host, True
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped), address.ipv4_mapped.is_loopback
        if not address.is_loopback:
            return str(ipaddress.ip_network((address, 64), strict=False)), False
    return str(address), address.is_loopback
