"""Which parts make progress, and when the watchdog is fed."""

from __future__ import annotations

import logging
import threading
from itertools import pairwise

import pytest

from visaged.daemon.supervision.notify import Notifier
from visaged.daemon.supervision.watchdog import PATIENCE_S, Watchdog
from visaged.pipelines.runtime.progress import Progress, beat

WATCHDOG_S = 60.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Fed(Notifier):
    """A notifier that notes when it was fed, by a clock, and what it was told."""

    def __init__(self, clock: Clock, watchdog_s: float | None = WATCHDOG_S) -> None:
        super().__init__()
        self.watchdog_s = watchdog_s
        self.clock = clock
        self.times: list[float] = []
        self.shown = ""

    def feed(self) -> None:
        self.times.append(self.clock.now_s)

    def status(self, text: str) -> None:
        self.shown = text


class Watched:
    """A watchdog over some parts, whose turns are made by hand."""

    def __init__(self, *names: str, watchdog_s: float | None = WATCHDOG_S) -> None:
        self.clock = Clock()
        self.parts = {name: Progress(name) for name in names}
        self.notifier = Fed(self.clock, watchdog_s)
        self.watchdog = Watchdog(self.parts.values(), self.notifier, lambda: "all is well", self.clock)

    def run(self, seconds: float, *going: str, turn_s: float = 1.0) -> None:
        """Let time pass, in which the parts that are named go on."""
        for _ in range(round(seconds / turn_s)):
            self.clock.now_s += turn_s
            for name in going:
                self.parts[name].beat()
            self.watchdog.turn()


def test_it_is_fed_in_less_than_half_its_time_while_all_go_on() -> None:
    watched = Watched("mqtt", "http")
    watched.run(300, "mqtt", "http")
    assert max(b - a for a, b in pairwise(watched.notifier.times)) <= WATCHDOG_S / 2 - 1
    assert watched.watchdog.stalled == ()
    assert watched.notifier.shown == "all is well"


def test_a_part_that_stands_still_is_named_once_and_nothing_is_fed(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched("mqtt", "http")
    watched.run(10, "mqtt", "http")
    watched.run(WATCHDOG_S / 2 + 1, "http")
    assert watched.watchdog.stalled == ("mqtt",)
    assert watched.notifier.shown == "all is well; mqtt made no progress"
    fed = len(watched.notifier.times)
    watched.run(100, "http")
    assert len(watched.notifier.times) == fed
    (record,) = caplog.records
    assert record.getMessage() == (
        "mqtt has made no progress for 31 s; systemd is going to restart visaged if it stays so"
    )
    with caplog.at_level(logging.WARNING):
        watched.run(2, "http", "mqtt")
    assert caplog.records[-1].getMessage() == "mqtt goes on after 131 s without progress"
    assert watched.watchdog.stalled == ()
    assert len(watched.notifier.times) == fed + 1
    assert watched.notifier.shown == "all is well"


def test_without_systemd_it_is_named_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched("mqtt", watchdog_s=None)
    watched.run(PATIENCE_S + 2)
    assert watched.watchdog.stalled == ("mqtt",)
    assert caplog.records[0].getMessage() == "mqtt has made no progress for 31 s"


def test_a_long_computation_has_the_time_that_it_asks_for() -> None:
    watched = Watched("inference-0")
    watched.run(5, "inference-0")
    watched.parts["inference-0"].beat(2)
    watched.run(WATCHDOG_S)
    assert watched.watchdog.stalled == ()
    watched.run(3)
    assert watched.watchdog.stalled == ("inference-0",)
    watched.run(1, "inference-0")
    watched.run(WATCHDOG_S / 2 + 2)
    assert watched.watchdog.stalled == ("inference-0",)  # the next turn has the usual time again


def test_a_process_that_was_frozen_blames_no_part(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched("mqtt")
    watched.run(5, "mqtt")
    watched.clock.now_s += 3600
    watched.watchdog.turn()
    assert watched.watchdog.stalled == ()
    assert watched.notifier.times[-1] == watched.clock.now_s
    assert not caplog.records


def test_the_watcher_itself_may_stand_still() -> None:
    watched = Watched("mqtt")
    assert watched.watchdog.stalled == ()
    watched.run(5, "mqtt")
    watched.clock.now_s += WATCHDOG_S
    assert watched.watchdog.stalled == ("watchdog",)


def test_a_thread_that_nobody_watches_may_beat() -> None:
    thread = threading.Thread(target=beat)
    thread.start()
    thread.join(20)
