"""Leases by the node's own clock."""

from __future__ import annotations

import time

from visaged.daemon.fleet.node.holding import Holding, lasting_s


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_lease_holds_until_its_end_and_no_longer() -> None:
    clock = Clock()
    holding = Holding(clock)
    assert holding.epoch("door") is None
    holding.activate("door", 7, 106.0)
    assert holding.epoch("door") == 7
    assert holding.holds("door", 7)
    assert not holding.holds("door", 6)
    assert not holding.holds("yard", 7)
    clock.now_s = 105.9
    assert holding.holds("door", 7)
    clock.now_s = 106.0
    assert not holding.holds("door", 7)


def test_a_lease_is_renewed_only_while_it_lasts() -> None:
    clock = Clock()
    holding = Holding(clock)
    assert not holding.renew("door", 7, 110.0)
    holding.activate("door", 7, 106.0)
    assert holding.renew("door", 7, 110.0)
    assert holding.renew("door", 7, 108.0)  # the answer to an earlier report
    clock.now_s = 109.0
    assert holding.holds("door", 7)
    clock.now_s = 111.0
    assert not holding.renew("door", 7, 120.0)
    assert not holding.holds("door", 7)
    holding.activate("door", 7, 120.0)
    assert holding.holds("door", 7)


def test_what_was_missed_is_missed_even_if_a_renewal_was_on_its_way() -> None:
    clock = Clock()
    holding = Holding(clock)
    holding.activate("door", 7, 106.0)
    clock.now_s = 106.5
    assert not holding.holds("door", 7)  # a message was not published
    clock.now_s = 105.0  # when a thread read the clock that renews only now
    assert not holding.renew("door", 7, 111.0)


def test_a_retired_camera_gives_nothing_new_and_its_lease_lasts_for_what_it_gave() -> None:
    holding = Holding(Clock())
    holding.activate("door", 7, 106.0)
    holding.retire("door")
    assert holding.epoch("door") is None
    assert holding.holds("door", 7)
    holding.activate("door", 9, 106.0)
    holding.drop("door", 7)
    assert not holding.holds("door", 7)
    assert holding.holds("door", 9)


def test_the_clock_only_grows_whatever_the_wall_clock_says() -> None:
    before = lasting_s()
    assert lasting_s() >= before
    assert abs(lasting_s() - time.time()) > 1e6  # it is no wall clock
