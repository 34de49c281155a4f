"""The subscription to Home Assistant's birth message."""

from __future__ import annotations

import logging

import pytest

from tests.unit.fakes import Clock
from visaged.pipelines.outputs.home_assistant.births import Births

TOPIC = "homeassistant/status"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def births(clock: Clock) -> Births:
    return Births(TOPIC, clock, least_s=10)


def test_a_birth_is_answered_once(births: Births, clock: Clock) -> None:
    assert births.opened() == TOPIC
    births.answered("")
    clock.now_s += 60
    assert not births.due()
    births.heard()
    assert births.due()
    assert not births.due()


def test_a_flood_of_births_is_answered_every_ten_seconds(births: Births, clock: Clock) -> None:
    births.opened()
    answers = 0
    for _ in range(800):
        clock.now_s += 0.125
        births.heard()
        answers += births.due()
    assert answers == 10


def test_one_right_after_the_connection_waits(births: Births, clock: Clock) -> None:
    births.opened()
    births.heard()
    assert not births.due(), "all is told at a new connection"
    clock.now_s += 10
    assert births.due()


def test_what_was_heard_on_an_earlier_connection_is_answered_by_the_new_one(births: Births, clock: Clock) -> None:
    births.opened()
    births.heard()
    births.opened()
    clock.now_s += 60
    assert not births.due()


def test_without_a_topic_nothing_is_asked_for(clock: Clock) -> None:
    births = Births(None, clock)
    assert births.opened() is None
    assert not births.lost(unexplained=True)


def test_a_broker_that_hangs_up_at_it_is_asked_three_times(births: Births, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    given_up = []
    for _ in range(3):
        assert births.opened() == TOPIC
        given_up.append(births.lost(unexplained=True))
    assert given_up == [False, False, True]
    assert births.opened() is None
    assert not births.lost(unexplained=True)
    assert [record.getMessage() for record in caplog.records if TOPIC in record.getMessage()] != []
    assert len(caplog.records) == 1


def test_other_ends_of_connections_do_not_count(births: Births) -> None:
    for _ in range(5):
        births.opened()
        assert not births.lost(unexplained=False)
    for _ in range(5):
        births.opened()
        births.answered("")
        assert not births.lost(unexplained=True)
    assert births.opened() == TOPIC


def test_a_refusal_is_logged_once(births: Births, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        births.opened()
        births.answered("Not authorized")
    assert len(caplog.records) == 1
    assert "Not authorized" in caplog.text
