"""Repeated trouble is one line a while."""

from __future__ import annotations

import logging
import threading

import pytest

from tests.unit import fakes
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger("tests.ratelimit")


@pytest.fixture
def clock() -> fakes.Clock:
    return fakes.Clock()


@pytest.fixture
def complain(clock: fakes.Clock, caplog: pytest.LogCaptureFixture) -> LimitedLog:
    caplog.set_level(logging.DEBUG)
    return LimitedLog(log, logging.ERROR, interval_s=10.0, clock=clock)


def test_the_first_is_said_at_once(complain: LimitedLog, caplog: pytest.LogCaptureFixture) -> None:
    complain("batch %d failed: %s", 7, "why")
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [(logging.ERROR, "batch 7 failed: why")]


def test_what_follows_is_added_up(complain: LimitedLog, clock: fakes.Clock, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(100):
        complain("failed: %d", index)
        clock.advance(0.09)
    assert caplog.messages == ["failed: 0"]
    clock.advance(2.0)
    complain("failed: %d", 100)
    assert caplog.messages[1] == "failed: 100 (and 99 more like it since the last such line)"
    clock.advance(10.0)
    complain("failed: %d", 101)
    assert caplog.messages[2] == "failed: 101"


def test_never_more_than_one_line_in_an_interval(
    complain: LimitedLog, clock: fakes.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(1000):
        complain("trouble")
        clock.advance(0.1)
    assert len(caplog.messages) == 10


def test_a_message_without_arguments_may_hold_anything(
    complain: LimitedLog, clock: fakes.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    complain("%s", "100 % of 5 %d")
    complain("%s", "x")
    clock.advance(11)
    complain("%s", "100 % again")
    assert caplog.messages == ["100 % of 5 %d", "100 % again (and 1 more like it since the last such line)"]


def test_nothing_is_lost_among_threads(
    complain: LimitedLog, clock: fakes.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    calls = [lambda: [complain("x") for _ in range(200)]] * 4
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    clock.advance(10)
    complain("x")
    assert caplog.messages == ["x", "x (and 799 more like it since the last such line)"]


def test_several_lines_at_once(clock: fakes.Clock, caplog: pytest.LogCaptureFixture) -> None:
    complain = LimitedLog(log, interval_s=10.0, clock=clock, burst=3)
    for index in range(10):
        complain("line %d", index)
    clock.advance(10.0)
    complain("line %d", 10)
    assert caplog.messages == [
        *(f"line {n}" for n in range(3)),
        "line 10 (and 7 more like it since the last such line)",
    ]
