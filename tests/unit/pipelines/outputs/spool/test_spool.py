"""The spool against a real file: what is stored, and what comes back after a crash."""

from __future__ import annotations

import random
import sqlite3
import threading
from pathlib import Path

import orjson
import pytest

from tests.support.spool_bench import Bench, ids
from visaged.pipelines.outputs.messages import Message
from visaged.pipelines.outputs.outbox import Envelope
from visaged.pipelines.outputs.spool.spool import FILE_NAME


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A spool in an empty folder."""
    return Bench(tmp_path)


def test_an_event_is_due_only_once_it_is_stored(bench: Bench) -> None:
    bench.put()
    assert bench.spool.pending(10) == []
    bench.spool.turn()
    (envelope,) = bench.spool.pending(10)
    assert not envelope.replayed
    with sqlite3.connect(bench.folder / FILE_NAME) as database:
        assert database.execute("SELECT COUNT(*) FROM events").fetchone() == (1,)


def test_what_was_not_acknowledged_comes_again_after_a_crash_as_it_was(bench: Bench) -> None:
    sent = [bench.put() for _ in range(5)]
    envelopes = bench.send()
    bench.spool.ack(envelopes[0].id)
    bench.spool.ack(envelopes[2].id)
    bench.spool.turn()
    bench.clock.advance(60)
    bench.start()
    bench.put()
    again = bench.send()
    old = [sent[1], sent[3], sent[4]]
    assert [e.message.body for e in again[:3]] == [message.body for message in old]
    assert all(e.replayed for e in again[:4])  # the fourth ends the track
    assert [e.replayed for e in again[4:]] == [False]
    age_ms = orjson.loads(again[0].message.encode(bench.clock.now_s, replayed=True))["age_ms"]
    assert age_ms == pytest.approx((bench.clock.wall_s - sent[1].captured_at) * 1000, abs=1)


def test_tracks_that_another_node_ends_are_not_ended_here(bench: Bench) -> None:
    first = bench.epoch
    for track in (1, 2, 3):
        bench.put("begin", track=track)
    bench.spool.close_track("door", first, 3)  # by another node, while this one ran
    bench.spool.close_track("door", first, 99)
    for envelope in bench.send():
        bench.spool.ack(envelope.id)
    bench.spool.turn()
    bench.start(ended={("door", first, 2)})
    assert [(e.message.track, orjson.loads(e.message.body)["track_id"]) for e in bench.send()] == [(None, 1)]


def test_what_waits_is_known_by_camera_and_epoch(bench: Bench) -> None:
    bench.put("begin", track=1)
    assert bench.spool.waits("door", bench.epoch)
    assert not bench.spool.waits("yard", bench.epoch)
    assert not bench.spool.waits("door", bench.epoch - 1)
    for envelope in bench.send():
        assert bench.spool.waits("door", bench.epoch)
        bench.spool.ack(envelope.id)
    assert not bench.spool.waits("door", bench.epoch)


def test_tracks_that_were_left_open_end_once_with_what_was_known(bench: Bench) -> None:
    first = bench.epoch
    bench.put("begin", track=1)
    bench.put("begin", track=2)
    bench.put("update", track=2)
    bench.put("end", track=1)
    newest = bench.put("update", track=2)
    bench.put("begin", track=1, camera="yard")
    for envelope in bench.send():
        bench.spool.ack(envelope.id)
    bench.spool.turn()
    bench.start()
    ends = bench.send()
    assert {(e.message.camera, *ids([e])[0]) for e in ends} == {("door", first, 6), ("yard", first, 2)}
    door = next(orjson.loads(e.message.body) for e in ends if e.message.camera == "door")
    assert door == orjson.loads(newest.body) | {"seq": 6, "event": "end", "reason": "restart"}
    assert all(e.replayed for e in ends)
    bench.start()  # before they were acknowledged
    assert ids(bench.send()) == ids(ends)
    bench.start()
    for envelope in bench.send():
        bench.spool.ack(envelope.id)
    bench.spool.turn()
    bench.start()
    assert bench.send() == []


def test_a_run_that_ends_in_order_leaves_no_open_track(bench: Bench) -> None:
    bench.put("begin")
    bench.put("end")
    stopping = threading.Event()
    stopping.set()
    bench.spool.run(stopping)
    bench.start()
    assert [orjson.loads(e.message.body)["reason"] for e in bench.send()] == [None, "lost"]


def test_many_events_lie_on_disk_alone_and_come_in_order(bench: Bench) -> None:
    bodies = []
    for _ in range(30):
        bodies += [bench.put().body for _ in range(100)]
        bench.spool.turn()
    assert len(bench.spool) == 3000
    first = bench.spool.pending(700)
    assert len(first) < 700  # the rest is not in memory
    sent = first + bench.send(100)
    bodies.append(bench.put().body)
    sent += bench.send()
    assert [e.message.body for e in sent] == bodies
    for envelope in sent:
        bench.spool.ack(envelope.id)
    bench.spool.turn()
    assert len(bench.spool) == 0
    with sqlite3.connect(bench.folder / FILE_NAME) as database:
        assert database.execute("SELECT COUNT(*) FROM events").fetchone() == (0,)


def test_a_reconnect_sends_again_before_what_lies_on_disk(bench: Bench) -> None:
    for _ in range(8):
        for _ in range(200):
            bench.put()
        bench.spool.turn()
    first = bench.spool.pending(20)
    bench.spool.ack(first[3].id)
    bench.spool.retry()
    again = bench.send()
    assert ids(again) == [one for one in ((bench.epoch, n) for n in range(1, 1601)) if one != ids(first)[3]]
    assert all(e.replayed for e in again)


def test_the_oldest_are_dropped_beyond_the_bound_in_size(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.config = {"max_mb": 1}
    bench.start()
    size = len(bench.put().body)
    count = 2_000_000 // size
    for n in range(count):
        bench.put()
        if n % 100 == 0:
            bench.spool.turn()
    for _ in range(10):
        bench.spool.turn()
    left = ids(bench.send())
    assert len(left) == pytest.approx(1_000_000 / size, abs=100)
    assert left[-1] == (bench.epoch, count + 1)
    assert bench.lost == {"spool_full": count + 1 - len(left)}


def test_events_expire_by_time_that_passed_whatever_the_wall_clock_says(bench: Bench) -> None:
    bench.config = {"max_age_h": 1}
    bench.start()
    bench.put("end")
    bench.spool.turn()
    bench.clock.wall_s += 1e9  # set, as after a start in 1970
    bench.spool.turn()
    bench.put("end")
    bench.spool.turn()
    assert bench.lost == {}
    bench.clock.now_s += 3000
    bench.put("end")
    bench.spool.turn()
    bench.clock.now_s += 700
    bench.spool.turn()
    bench.spool.turn()
    assert bench.lost == {"expired": 2}
    bench.clock.wall_s += 700  # while it does not run, the wall clock is all there is
    bench.clock.now_s = 5.0
    bench.start()
    bench.clock.wall_s += 4000
    bench.start()
    bench.spool.turn()
    bench.spool.turn()
    assert bench.lost["expired"] == 3


@pytest.mark.parametrize("is_first", [True, False])
def test_a_clock_that_is_behind_for_a_run_lets_nothing_expire(bench: Bench, is_first: bool) -> None:
    right_s = bench.clock.wall_s
    if not is_first:
        bench.put("end")
        bench.spool.turn()
    bench.clock.wall_s = 0.0  # a machine without a battery, before it has reached a network
    if is_first:
        (bench.folder / FILE_NAME).unlink()
    bench.start()
    bench.clock.advance(100 * 3600)
    bench.put("end")
    bench.spool.turn()
    bench.clock.wall_s = right_s + 101 * 3600
    bench.start()
    bench.clock.advance(60 * 3600)
    assert len(bench.send()) == (1 if is_first else 2)
    assert bench.lost == {}


def test_topics_are_remembered_until_they_are_forgotten(bench: Bench) -> None:
    bench.spool.remember("v/door/status")
    bench.spool.remember("v/yard/status")
    bench.spool.turn()
    bench.spool.forget("v/yard/status")
    bench.spool.turn()
    bench.start()
    assert bench.spool.remembered() == {"v/door/status"}
    bench.spool.forget("v/door/status")
    bench.spool.turn()
    bench.start()
    assert bench.spool.remembered() == set()


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_nothing_is_lost_and_nothing_overtakes(tmp_path: Path, seed: int) -> None:
    """Random puts, sends, acknowledgements, reconnects and crashes: each stored event arrives, in order."""
    choice = random.Random(seed)
    bench = Bench(tmp_path / "state")
    put: list[tuple[int, int]] = []
    stored: set[tuple[int, int]] = set()
    acked: set[tuple[int, int]] = set()
    seen: set[tuple[int, int]] = set()
    order: list[tuple[int, int]] = []
    flying: list[Envelope] = []
    number = 0
    for _ in range(300):
        what = choice.random()
        if what < 0.5:
            for _ in range(choice.choice([1, 3, 200])):
                number += 1
                bench.spool.put(Message("events", "door", number, bench.epoch, b"{}", 0.0, 0.0))
                put.append((bench.epoch, number))
        elif what < 0.75:
            bench.spool.turn()
            stored |= set(put)
        elif what < 0.9:
            sent = bench.spool.pending(choice.choice([1, 20, 300]))
            flying += sent
            order += [one for one in ids(sent) if one not in seen]
            seen |= set(ids(sent))
        elif what < 0.95:
            choice.shuffle(flying)
            for envelope in flying[: len(flying) // 2]:
                bench.spool.ack(envelope.id)
                acked |= set(ids([envelope]))
            flying = flying[len(flying) // 2 :]
        elif what < 0.98:
            bench.spool.retry()
            flying = []
        else:
            put = [one for one in put if one in stored]  # the rest was never promised
            bench.start()
            flying = []
    bench.spool.retry()
    sent = bench.send()
    order += [one for one in ids(sent) if one not in seen]
    assert {one for one in put if one not in acked} <= set(ids(sent))
    assert order == sorted(order)
    assert bench.lost == {}
