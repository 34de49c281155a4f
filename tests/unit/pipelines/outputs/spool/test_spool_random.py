"""Random runs of the spool, with crashes and a disk that is full or away: what a consumer gets in the end."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from pathlib import Path

import orjson
import pytest

from tests.support.spool_bench import Bench
from visaged.pipelines.outputs.messages import Message
from visaged.pipelines.outputs.outbox import Envelope
from visaged.pipelines.outputs.spool import queue, spool
from visaged.pipelines.outputs.spool.spool import FILE_NAME

Run = tuple[int, str]


class Rig:
    """A spool with tracks of two cameras, a consumer that takes each event once, and a disk that can fail."""

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir()
        self.choice = random.Random(seed)
        self.bench = Bench(folder)
        self.away = folder.with_name("away")
        self.put: set[tuple[int, str, int]] = set()
        self.stored: set[tuple[int, str, int]] = set()
        self.numbers: Counter[str] = Counter()
        self.open: dict[str, list[int]] = {"door": [], "yard": []}
        self.newest: Counter[Run] = Counter()
        self.taken: dict[tuple[int, str, int], dict[str, object]] = {}
        self.received: set[tuple[int, str, int]] = set()
        self.flying: list[Envelope] = []

    def add(self) -> None:
        """Puts an event of a new or an open track."""
        camera = self.choice.choice(["door", "yard"])
        tracks, kind = self.open[camera], "begin"
        if tracks and self.choice.random() < 0.6:
            kind = self.choice.choice(["update", "end"])
            track = tracks.pop(self.choice.randrange(len(tracks))) if kind == "end" else self.choice.choice(tracks)
        else:
            track = len(self.put)
            tracks.append(track)
        self.numbers[camera] += 1
        seq, epoch = self.numbers[camera], self.bench.epoch
        body = orjson.dumps({"event": kind, "track": track, "seq": seq})
        self.bench.spool.put(Message("events", camera, seq, epoch, body, 0.0, 0.0, track, kind == "end"))
        self.put.add((epoch, camera, seq))

    def turn(self) -> None:
        """Has the spool write and read."""
        self.bench.spool.turn()
        if not self.bench.spool.trouble:
            self.stored |= self.put

    def send(self, most: int) -> None:
        """Sends what is due; the consumer takes what is newer than what it has, as the README shows."""
        self.flying += (some := self.bench.spool.pending(most))
        for _, message, _ in some:
            run = message.epoch, message.camera
            self.received.add((*run, message.seq))
            if message.seq > self.newest[run]:
                self.newest[run] = message.seq
                self.taken[*run, message.seq] = orjson.loads(message.body)

    def ack(self, count: int) -> None:
        """Acknowledges some, in any order."""
        self.choice.shuffle(self.flying)
        for envelope in self.flying[:count]:
            self.bench.spool.ack(envelope.id)
        del self.flying[:count]

    def hide(self, away: bool) -> None:
        """Puts a file in place of the state folder, or has it back."""
        folder = self.bench.folder
        if away and not self.away.exists():
            folder.rename(self.away)
            folder.write_text("no folder")
        elif not away and self.away.exists():
            folder.unlink()
            self.away.rename(folder)

    def fill(self, full: bool) -> None:
        """Lets the database grow no more, or grow again."""
        database = self.bench.spool._database
        if database is not None:
            most = database._connection.execute("PRAGMA page_count").fetchone()[0] if full else 1 << 30
            database._connection.execute(f"PRAGMA max_page_count = {most}")

    def crash(self) -> None:
        """Begins the next run; what was not stored was never promised."""
        self.put &= self.stored | self.taken.keys()
        self.bench.start()
        self.numbers.clear()
        self.open = {"door": [], "yard": []}
        self.flying = []

    def drain(self) -> None:
        """Has everything sent and acknowledged, with a disk that works."""
        self.hide(False)
        self.fill(False)
        self.bench.spool.retry()
        self.flying = []
        for _ in range(5000):
            self.bench.clock.advance(3)
            self.turn()
            self.send(1000)
            self.ack(len(self.flying))
            if not (len(self.bench.spool) or self.bench.spool.trouble):
                break
        self.bench.clock.advance(3)
        self.turn()

    def live(self) -> None:
        """Does 300 things at random."""
        for _ in range(300):
            self.bench.clock.advance(self.choice.choice([0, 0.01, 0.3, 3]))
            what = self.choice.random()
            if what < 0.42:
                for _ in range(self.choice.choice([1, 2, 5, 40])):
                    self.add()
            elif what < 0.65:
                self.turn()
            elif what < 0.80:
                self.send(self.choice.choice([1, 5, 20, 30]))
            elif what < 0.90:
                self.ack(self.choice.randrange(len(self.flying) + 1))
            elif what < 0.93:
                self.bench.spool.retry()
                self.flying = []
            elif what < 0.96:
                self.hide(self.choice.random() < 0.5)
            elif what < 0.98:
                self.fill(self.choice.random() < 0.5)
            elif not self.bench.spool.trouble and not self.away.exists():
                self.crash()
        self.drain()
        with sqlite3.connect(self.bench.folder / FILE_NAME) as database:
            assert database.execute("SELECT COUNT(*) FROM events").fetchone() == (0,)
            assert database.execute("SELECT COUNT(*) FROM tracks").fetchone() == (sum(map(len, self.open.values())),)
        assert len(self.bench.spool) == 0
        assert self.bench.lost == {}


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has most events lie on disk alone."""
    for module in (queue, spool):
        monkeypatch.setattr(module, "MOST_IN_HEAD", 20)


@pytest.mark.usefixtures("few_are_many")
@pytest.mark.parametrize("seed", range(8))
def test_a_consumer_gets_each_event_in_order_and_an_end_of_each_track(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The steps here are far between; with less patience, newer events would go first, as from a disk that hangs.
    monkeypatch.setattr(queue, "_LONG_PATIENCE_S", 1e9)
    monkeypatch.setattr(queue, "_PATIENCE_S", 1e9)
    rig = Rig(tmp_path / "state", seed)
    rig.live()
    rig.crash()
    rig.drain()
    assert rig.put <= rig.taken.keys()
    ends = Counter((*key[:2], event["track"]) for key, event in rig.taken.items() if event["event"] == "end")
    begun = {(*key[:2], event["track"]) for key, event in rig.taken.items()}
    assert ends == Counter(begun)


@pytest.mark.usefixtures("few_are_many")
@pytest.mark.parametrize("seed", range(8))
def test_a_disk_that_is_too_slow_loses_nothing(tmp_path: Path, seed: int) -> None:
    rig = Rig(tmp_path / "state", seed)
    rig.live()
    assert rig.put <= rig.received
