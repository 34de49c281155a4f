"""Seats: silent connections give way, addresses have bounds, and some seats are kept."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from visaged.daemon.http.wire.seats import BEYOND, SILENT_S, Seat, Seats

HERE, THERE, ELSEWHERE = "127.0.0.1", "192.0.2.1", "192.0.2.2"


class Scene:
    """Seats, with real sockets and a clock that stands still."""

    def __init__(self, most: int, most_each: int = 1000) -> None:
        self.now, self.cut = 100.0, 0
        self._stack = contextlib.ExitStack()
        self.seats = Seats(most, most_each, self._count, lambda: self.now)

    def _count(self) -> None:
        self.cut += 1

    def come(self, host: str = HERE) -> Seat | None:
        """Have a client connect; return its seat."""
        near, far = socket.socketpair()
        self._stack.enter_context(near)
        self._stack.enter_context(far)
        return self.seats.find(near.fileno()) if self.seats.take(near, host) else None

    def sit(self, host: str = HERE) -> Seat:
        seat = self.come(host)
        assert seat is not None
        return seat

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene(4, 2)
    yield made
    made.close()


def is_ended(seat: Seat) -> bool:
    seat.connection.setblocking(False)
    try:
        return seat.connection.recv(1) == b""
    except BlockingIOError:
        return False


def test_beyond_the_seats_there_is_room_for_some_who_ask_for_health(scene: Scene) -> None:
    seated = [scene.sit() for _ in range(4)]
    beyond = [scene.sit() for _ in range(BEYOND)]
    assert not any(seat.is_beyond for seat in seated)
    assert all(seat.is_beyond for seat in beyond)
    assert scene.cut == 0
    assert scene.seats.begin(seated[0])
    assert not scene.seats.begin(beyond[0])
    # Who asks without delay is not kept out by those who do not.
    assert scene.sit().is_beyond
    assert scene.cut == 1
    assert is_ended(beyond[1])
    assert not is_ended(beyond[0])
    # A seat that is free again is for whoever begins a request first.
    seated[1].connection.close()
    assert scene.seats.begin(beyond[2])
    assert not beyond[2].is_beyond
    assert not scene.seats.begin(beyond[3])


def test_the_longest_silent_gives_way(scene: Scene) -> None:
    first, second, third, fourth = (scene.sit() for _ in range(4))
    scene.seats.begin(first)
    scene.now += SILENT_S
    scene.seats.begin(second)
    scene.seats.end(second)
    scene.now += SILENT_S / 2
    fifth = scene.sit()
    assert not fifth.is_beyond
    assert is_ended(third)
    sixth = scene.sit()
    assert not sixth.is_beyond
    assert is_ended(fourth)
    # The first is busy, the others were not silent for long.
    assert scene.sit().is_beyond
    assert not any(is_ended(seat) for seat in (first, second, fifth, sixth))
    assert scene.cut == 2


def test_an_address_of_another_machine_has_some_seats_and_its_own_give_way() -> None:
    scene = Scene(100, 2)
    first, second = scene.sit(THERE), scene.sit(THERE)
    assert not first.is_beyond
    beyond = scene.sit(THERE)
    assert beyond.is_beyond
    assert not scene.seats.begin(beyond)
    assert not scene.sit(ELSEWHERE).is_beyond
    scene.now += SILENT_S
    assert not scene.sit(THERE).is_beyond
    assert is_ended(first)
    second.connection.close()
    assert scene.seats.begin(beyond)
    assert not any(scene.sit().is_beyond for _ in range(20))  # programs of this machine have no such bound
    scene.close()


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("2001:db8::1", "2001:db8::2:3", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_addresses_of_one_machine_count_as_one(first: str, second: str, is_one: bool) -> None:
    scene = Scene(100, 1)
    assert not scene.sit(first).is_beyond
    assert scene.sit(second).is_beyond == is_one
    scene.close()


@pytest.mark.parametrize("here", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", ""])
def test_the_last_seats_are_for_this_machine(here: str) -> None:
    scene = Scene(80)
    assert not any(scene.sit(f"192.0.2.{number}").is_beyond for number in range(70))
    assert scene.sit("192.0.2.99").is_beyond
    own = [scene.sit(here) for _ in range(10)]
    assert not any(seat.is_beyond for seat in own)
    assert scene.sit(here).is_beyond
    scene.now += SILENT_S
    for number in range(70):
        assert not scene.sit(f"192.0.2.{number}").is_beyond
    assert not any(is_ended(seat) for seat in own)
    scene.close()


def test_silent_connections_of_this_machine_keep_no_other_machine_out() -> None:
    scene = Scene(80)
    own = [scene.sit() for _ in range(80)]
    assert scene.sit(THERE).is_beyond
    scene.now += SILENT_S
    assert not any(scene.sit(f"192.0.2.{number}").is_beyond for number in range(70))
    assert sum(is_ended(seat) for seat in own) == 70
    scene.close()


def test_closed_connections_leave_their_seats(scene: Scene) -> None:
    for _ in range(100):
        seat = scene.sit(THERE)
        assert not seat.is_beyond
        seat.connection.close()
    assert scene.cut == 0


def test_beyond_the_seats_all_may_be_busy(scene: Scene) -> None:
    for _ in range(4 + BEYOND):
        scene.seats.begin(scene.sit())
    scene.now += 100
    assert scene.come() is None
    assert scene.cut == 1
