"""The spool against a real file: what is stored, what comes back after a crash, and what happens without the disk."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from tests.support.messages import event
from visaged.pipelines.outputs.messages import Composer, Message
from visaged.pipelines.outputs.outbox import Envelope
from visaged.pipelines.outputs.spool.config import SpoolConfig
from visaged.pipelines.outputs.spool.database import SpoolError
from visaged.pipelines.outputs.spool.spool import FILE_NAME, Spool
from visaged.pipelines.runtime.metrics import Metrics

EPOCH = 1_700_000_000_000


class Clock:
    """A monotonic clock and a wall clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.wall_s = time.time()

    def advance(self, seconds: float) -> None:
        """Lets time pass on both."""
        self.now_s += seconds
        self.wall_s += seconds


class Bench:
    """Runs of a daemon, as far as the spool sees them, on one state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.lost: dict[str, int] = {}
        self.epoch = EPOCH
        self.config: dict[str, Any] = {}
        self.memory = (100_000, 100_000_000)
        self.spool, self.composer = self.start()

    def start(self) -> tuple[Spool, Composer]:
        """Begins a run; the one before, if any, has crashed."""
        self.epoch += 60_000
        self.metrics = Metrics(CollectorRegistry())
        self.spool = Spool(
            self.folder, SpoolConfig(**self.config), self.memory, self.epoch, self._lose, self.metrics,
            lambda: self.clock.now_s, lambda: self.clock.wall_s,
        )  # fmt: skip
        self.composer = Composer("node", self.epoch)
        return self.spool, self.composer

    def put(self, kind: Any = "update", track: int = 1, camera: str = "door") -> Message:
        """Puts an event."""
        message = self.composer.event(event(track, camera, kind, "lost" if kind == "end" else None))
        self.spool.put(message)
        return message

    def send(self, limit: int = 1000) -> list[Envelope]:
        """Sends all that is due, and reads on from the disk, until nothing is due."""
        sent: list[Envelope] = []
        while True:
            self.spool.turn()
            some = self.spool.pending(limit)
            if not some:
                return sent
            sent += some

    def _lose(self, cause: str, count: int) -> None:
        self.lost[cause] = self.lost.get(cause, 0) + count


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A spool in an empty folder."""
    return Bench(tmp_path)


def ids(envelopes: list[Envelope]) -> list[tuple[int, int]]:
    """The run and number of each."""
    return [(e.message.epoch, e.message.seq) for e in envelopes]


def block(bench: Bench) -> None:
    """Makes the state folder unusable, whoever runs the test."""
    shutil.rmtree(bench.folder)
    bench.folder.write_text("no folder")
    bench.clock.advance(5)
    bench.spool.turn()


def unblock(bench: Bench) -> None:
    """Makes the folder usable again, empty."""
    bench.folder.unlink()
    bench.folder.mkdir()
    bench.clock.advance(5)


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


def test_without_the_disk_events_go_on_from_memory_and_are_stored_once_it_is_back(bench: Bench) -> None:
    bench.put("begin")
    sent = bench.send()
    block(bench)
    assert bench.spool.trouble
    waiting = bench.put("update")
    sent += bench.send()
    assert ids(sent) == [(bench.epoch, 1), (bench.epoch, 2)]
    bench.spool.ack(sent[0].id)
    unblock(bench)
    bench.spool.turn()
    assert not bench.spool.trouble
    bench.start()
    bodies = [orjson.loads(e.message.body) for e in bench.send()]
    assert bodies[0] == orjson.loads(waiting.body)
    assert [(body["seq"], body["event"], body["reason"]) for body in bodies] == [
        (2, "update", None),
        (3, "end", "restart"),
    ]
    assert bench.lost == {}


def test_memory_is_bounded_without_the_disk(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "state")
    bench.memory = (50, 10_000_000)
    bench.start()
    block(bench)
    lost = []
    for _ in range(80):
        lost += bench.spool.put(bench.composer.event(event()))
    assert [message.seq for message in lost] == list(range(1, 31))
    assert [seq for _, seq in ids(bench.send())] == list(range(31, 81))


def test_an_unusable_disk_at_the_start_heals_and_what_it_held_comes_first(bench: Bench) -> None:
    for _ in range(3):
        bench.put()
    bench.spool.turn()
    first = bench.epoch
    hidden = bench.folder.with_name("hidden")
    bench.folder.rename(hidden)
    bench.folder.write_text("no folder")
    bench.start()
    assert bench.spool.trouble
    bench.put()
    bench.spool.turn()
    (early,) = bench.spool.pending(1)
    bench.put()
    bench.folder.unlink()
    hidden.rename(bench.folder)
    bench.clock.advance(5)
    assert ids([early, *bench.send()]) == [(bench.epoch, 1), *((first, n) for n in (1, 2, 3, 4)), (bench.epoch, 2)]
    assert not bench.spool.trouble


@pytest.mark.parametrize("place", [0, 50, 8192])
def test_a_damaged_file_is_set_aside(bench: Bench, place: int, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        bench.put()
    bench.spool.turn()
    bench.spool._database.close()  # type: ignore[union-attr]
    with (bench.folder / FILE_NAME).open("r+b") as file:
        file.seek(place)
        file.write(b"\x55" * 4096)
    bench.start()
    (kept,) = bench.folder.glob("spool.sqlite3.damaged-*")
    assert str(kept.name) in caplog.text
    message = bench.put()
    assert [e.message.body for e in bench.send()] == [message.body]


def test_an_event_whose_content_is_damaged_is_counted_and_passed(bench: Bench) -> None:
    bench.put("begin")
    bench.put("begin", camera="yard")
    bench.spool.turn()
    with sqlite3.connect(bench.folder / FILE_NAME) as database:
        database.execute("UPDATE events SET body = x'55' WHERE camera = 'door'")
        database.execute("UPDATE tracks SET body = x'55' WHERE camera = 'door'")
    bench.start()
    assert [(e.message.camera, e.message.seq) for e in bench.send()] == [("yard", 1), ("yard", 2)]
    assert bench.lost == {"damaged": 2}
    assert len(bench.spool) == 2


def test_a_disk_that_hangs_while_it_is_read_is_no_disk_that_can_be_written(bench: Bench) -> None:
    bench.put("begin")
    bench.spool.turn()
    with sqlite3.connect(bench.folder / FILE_NAME) as database:
        database.execute("UPDATE events SET body = x'55'")
    states: list[str] = []

    def lose(cause: str, count: int) -> None:  # called in the middle of a look at the disk
        bench.clock.advance(10)
        states.append(spool.state)

    spool = Spool(
        bench.folder, SpoolConfig(), bench.memory, EPOCH + 120_000, lose, Metrics(), lambda: bench.clock.now_s
    )
    spool.turn()
    assert states == ["the disk does not answer"]
    assert spool.state == ""


def test_a_file_that_is_damaged_while_it_is_used_is_begun_anew(bench: Bench) -> None:
    for _ in range(20):
        bench.put("begin")
    bench.spool.turn()
    with sqlite3.connect(bench.folder / FILE_NAME) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (bench.folder / FILE_NAME).open("r+b") as file:
        file.write(b"\x55" * 60_000)
    for _ in range(5):
        bench.put()
        bench.clock.advance(5)
        bench.spool.turn()
    assert not bench.spool.trouble
    assert len(list(bench.folder.glob("spool.sqlite3.damaged-*"))) >= 1
    assert [seq for _, seq in ids(bench.send())] == list(range(1, 26))
    bench.start()
    assert [orjson.loads(e.message.body)["event"] for e in bench.send()][-1] == "end"


def test_a_file_that_was_deleted_is_begun_anew(bench: Bench) -> None:
    bench.put()
    bench.spool.turn()
    for path in bench.folder.iterdir():
        path.unlink()
    bench.clock.advance(5)
    bench.put()
    bench.spool.turn()
    bench.clock.advance(5)
    bench.spool.turn()
    bench.start()
    assert [seq for _, seq in ids(bench.send())] == [1, 2, 3]  # the third ends the track


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("PRAGMA user_version = 99", "was written by a newer visaged"),
        ("PRAGMA application_id = 1", "is a database of another program"),
    ],
)
def test_a_foreign_database_is_left_alone(bench: Bench, statement: str, text: str) -> None:
    with sqlite3.connect(bench.folder / FILE_NAME) as database:
        database.execute(statement)
    with pytest.raises(SpoolError, match=text):
        bench.start()


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
