"""Listeners get every event once and in order, also those that come back; nobody is held up by a slow one."""

from __future__ import annotations

import random
import threading
from pathlib import Path

from tests.support.history_bench import Bench
from visaged.pipelines.history.hub import Hub, Item, Listener
from visaged.pipelines.history.kept import number_of


def item(number: int, camera: str = "door") -> Item:
    return Item(number, camera, "update", 0, b"{}")


def everything(_: Item) -> bool:
    return True


def hear(hub: Hub, after: int | None = None) -> Listener:
    listener, _ = hub.listen(after, everything, lambda: None)
    assert listener is not None
    return listener


def numbers(listener: Listener) -> list[int]:
    return [one.number for one in listener.take()]


def test_who_listens_gets_what_comes_and_what_it_has_missed() -> None:
    hub = Hub(10)
    hub.publish(item(11))
    hub.publish(item(12))
    late, returning = hear(hub), hear(hub, 11)
    hub.publish(item(13))
    assert numbers(late) == [13]
    assert numbers(returning) == [12, 13]
    assert numbers(hear(hub, 13)) == []


def test_only_what_is_wanted() -> None:
    hub = Hub(0)
    hub.publish(item(1, "yard"))
    hub.publish(item(2))
    listener, _ = hub.listen(0, lambda one: one.camera == "door", lambda: None)
    assert listener is not None
    hub.publish(item(3, "yard"))
    hub.publish(item(4))
    assert numbers(listener) == [2, 4]


def test_older_events_than_are_remembered_have_to_come_from_elsewhere() -> None:
    hub = Hub(0, most_remembered=3)
    for number in range(1, 6):
        hub.publish(item(number))
    assert hub.listen(1, everything, lambda: None) == (None, 2)
    assert numbers(hear(hub, 2)) == [3, 4, 5]


def test_a_slow_listener_is_given_up_and_the_others_are_not() -> None:
    hub = Hub(0, most_waiting=3)
    woken: list[str] = []
    slow, _ = hub.listen(None, everything, lambda: woken.append("slow"))
    quick, _ = hub.listen(None, everything, lambda: woken.append("quick"))
    assert slow is not None
    assert quick is not None
    got = []
    for number in range(1, 8):
        hub.publish(item(number))
        got += numbers(quick)
    assert (slow.over, slow.too_slow, numbers(slow)) == (True, True, [])
    assert got == list(range(1, 8))
    assert not quick.over
    assert woken.count("slow") == 4  # no more once it is given up


def test_what_was_missed_may_be_more_than_may_wait() -> None:
    hub = Hub(0, most_waiting=2)
    for number in range(1, 10):
        hub.publish(item(number))
    listener = hear(hub, 0)
    hub.publish(item(10))
    assert numbers(listener) == list(range(1, 11))


def test_the_end_reaches_everybody_also_those_who_come_later() -> None:
    hub = Hub(0)
    woken = threading.Event()
    before, _ = hub.listen(None, everything, woken.set)
    hub.close()
    assert before is not None
    assert before.over
    assert not before.too_slow
    assert woken.is_set()
    assert hear(hub).over


def test_deleted_events_are_told_to_nobody() -> None:
    hub = Hub(0)
    hub.publish(item(1))
    waiting = hear(hub, 0)
    hub.publish(item(2))
    hub.drop(lambda one: one.number == 1)
    assert numbers(waiting) == [2]
    assert numbers(hear(hub, 0)) == [2]


def test_a_loop_that_has_ended_harms_nobody() -> None:
    hub = Hub(0)

    def ended() -> None:
        raise RuntimeError("Event loop is closed")

    hub.listen(None, everything, ended)
    other = hear(hub)
    hub.watch(ended)
    hub.publish(item(1))
    hub.changed()
    assert numbers(other) == [1]


def test_watchers_are_told_until_they_leave() -> None:
    hub = Hub(0)
    told: list[int] = []
    leave = hub.watch(lambda: told.append(1))
    hub.changed()
    leave()
    hub.changed()
    assert told == [1]


def replayed(bench: Bench, after: int) -> list[int]:
    """What a listener that comes back gets, in the way of the event stream."""
    got: list[int] = []
    while True:
        listener, floor = bench.history.hub.listen(after, everything, lambda: None)
        if listener is not None:
            return got + numbers(listener)
        items, after = bench.history.after(after, floor)
        got += [one.number for one in items]


def test_the_switch_from_disk_to_live_has_no_gap_and_nothing_twice(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for track in range(1, 5):
        bench.tell("begin", track)
    bench.write()
    bench.tell("end", 1)
    bench.write()
    bench.end()
    bench.start()
    bench.history.hub._most_remembered = 5
    chance = random.Random(3)
    for _ in range(400):
        bench.tell()
        if chance.random() < 0.4:  # the store is never behind what is remembered
            bench.write()
    bench.write()
    newest = bench.history.newest
    everything_kept = _all(bench)
    for after in chance.sample(everything_kept, 20):
        assert replayed(bench, after) == [number for number in everything_kept if number > after]
    assert replayed(bench, newest) == []


def _all(bench: Bench) -> list[int]:
    return sorted(number_of(one["id"]) or 0 for one in bench.documents(limit=10_000))


def test_whether_something_is_missing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.history.is_missing(1)  # of a history that is not this one
    first, second, third = bench.tell(), bench.tell(), bench.tell()
    bench.write()
    assert not bench.history.is_missing(first)
    assert bench.history.is_missing(third + 1)  # not told yet
    bench.history.remove(second)
    bench.write()
    assert bench.history.is_missing(first)
    assert not bench.history.is_missing(second)
    bench.end()
    bench.start()
    assert bench.history.is_missing(first)
    assert not bench.history.is_missing(second)
    bench.tell()
    bench.start()  # killed: what was told and not written is missing
    assert bench.history.is_missing(third)
