"""The spool with a disk that is full, away or damaged, and with files that are not its own."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.support.messages import event
from tests.support.spool_bench import EPOCH, Bench, block, ids, unblock
from visaged.pipelines.outputs.messages import Message
from visaged.pipelines.outputs.outbox import Envelope
from visaged.pipelines.outputs.spool.config import SpoolConfig
from visaged.pipelines.outputs.spool.spool import FILE_NAME, Spool
from visaged.pipelines.runtime.database import ForeignFile
from visaged.pipelines.runtime.metrics import Metrics


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A spool in an empty folder."""
    return Bench(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own with 8 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs to mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


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


def test_a_disk_that_the_spool_itself_has_filled_heals_once_the_events_are_sent(small_disk: Path) -> None:
    bench = Bench(small_disk)
    body = b'{"a":"' + b"x" * 2000 + b'"}'
    for number in range(1, 5001):
        bench.spool.put(Message("events", "door", number, bench.epoch, body, 0.0, 0.0))
        if number % 20 == 0:
            bench.spool.turn()
    assert bench.spool.trouble
    bench.clock.advance(5)
    sent: list[Envelope] = []
    while some := bench.spool.pending(20):
        sent += some
        for envelope in some:
            bench.spool.ack(envelope.id)
        bench.clock.advance(0.1)
        bench.spool.turn()
    assert ids(sent) == [(bench.epoch, number) for number in range(1, 5001)]
    for _ in range(3):  # what was sent is removed, then the log is shortened, which makes room
        bench.clock.advance(5)
        bench.spool.turn()
    assert not bench.spool.trouble
    bench.put("begin")
    bench.spool.turn()
    bench.start()
    assert len(bench.send()) == 2


def test_nothing_overtakes_after_a_long_wait_for_the_broker_with_a_full_disk(bench: Bench) -> None:
    for _ in range(20):
        for _ in range(100):
            bench.put()
        bench.spool.turn()
    bench.spool._database._connection.execute("PRAGMA max_page_count = 1")  # type: ignore[union-attr]
    for _ in range(100):
        bench.put()
        bench.clock.advance(1)
        bench.spool.turn()
    assert bench.spool.trouble
    sent: list[Envelope] = []
    while True:
        some = bench.spool.pending(20)
        if not some:  # the broker is faster than the disk
            bench.clock.advance(0.1)
            bench.spool.turn()
            some = bench.spool.pending(20)
        if not some:
            break
        sent += some
    assert ids(sent) == [(bench.epoch, number) for number in range(1, 2101)]


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


def test_what_was_dropped_leaves_memory(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    bench = Bench(tmp_path / "state")
    bench.memory = (50, 10_000_000)
    bench.start()
    block(bench)
    for number in range(3000):
        bench.put()
        if number % 10 == 0:
            bench.spool.turn()
    assert len(bench.spool) == 50
    queue = bench.spool._queue
    assert len(queue._head) + len(queue._tail) < 1100


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


@pytest.mark.parametrize("earlier", [3_600_000, 59_999])
def test_events_of_a_run_with_a_larger_epoch_or_very_many_events_come_first(bench: Bench, earlier: int) -> None:
    bench.spool._queue._last += 600_000  # as after so many events
    first = bench.epoch
    bench.put("begin")
    bench.put("update")
    bench.spool.turn()
    bench.epoch -= earlier  # the clock was set back; by an hour, with the file of the epoch lost
    bench.start()
    bench.put("begin")
    assert ids(bench.send()) == [(first, 1), (first, 2), (first, 3), (bench.epoch, 1)]
    assert not bench.spool.trouble
    bench.start()
    assert [seq for _, seq in ids(bench.send())] == [1, 2, 3, 1, 2]


@pytest.mark.parametrize(
    ("statement", "lost"),
    [
        ("UPDATE events SET camera = CAST(x'ff41' AS TEXT) WHERE camera = 'door'", 1),
        ("UPDATE events SET camera = 'd#or' WHERE camera = 'door'", 1),
        ("UPDATE events SET seq = 'x' WHERE camera = 'door'", 1),
        ("UPDATE events SET captured_at = 'x', stored_s = x'00' WHERE camera = 'door'", 1),
        ("UPDATE tracks SET captured_at = 9e999 WHERE camera = 'door'", 1),
        ("UPDATE sequences SET seq = 'x' WHERE camera = 'door'", 0),
        ("UPDATE clock SET spool_s = 'x', wall_s = x'00'", 0),
        ("INSERT INTO topics VALUES (CAST(x'ff' AS TEXT)), ('v/#')", 0),
        ("INSERT INTO events VALUES (-5, 1, 'door', 1, 1, 1, '{}')", 0),
        ("INSERT INTO events VALUES (9223372036854775807, 1, 'door', 'x', 1, 1, '{}')", 1),
    ],
)
def test_values_that_are_damaged_hold_up_nothing_else(bench: Bench, statement: str, lost: int) -> None:
    bench.put("begin")
    bench.put("begin", camera="yard")
    bench.spool.turn()
    with sqlite3.connect(bench.folder / FILE_NAME) as database:
        database.execute(statement)
    bench.start()
    sent = bench.send()
    assert [e.message.seq for e in sent if e.message.camera == "yard"] == [1, 2]
    assert not bench.spool.trouble
    assert bench.lost == ({"damaged": lost} if lost else {})
    assert bench.spool.remembered() == set()
    for envelope in sent:
        bench.spool.ack(envelope.id)
    bench.spool.turn()
    with sqlite3.connect(bench.folder / FILE_NAME) as database:
        assert database.execute("SELECT COUNT(*) FROM events").fetchone() == (0,)


def test_a_database_without_its_tables_is_set_aside(bench: Bench) -> None:
    with sqlite3.connect(bench.folder / FILE_NAME) as database:
        database.execute("DROP TABLE tracks")
    bench.start()
    bench.put()
    assert len(bench.send()) == 1
    assert list(bench.folder.glob("spool.sqlite3.damaged-*"))


def test_a_log_that_was_deleted_takes_nothing_with_it(bench: Bench) -> None:
    bench.put()
    bench.spool.turn()
    (bench.folder / f"{FILE_NAME}-wal").unlink()
    bench.put()
    for _ in range(3):
        bench.clock.advance(5)
        bench.spool.turn()
    assert not bench.spool.trouble
    bench.start()
    assert [seq for _, seq in ids(bench.send())] == [1, 2, 3]  # the third ends the track


def test_the_file_may_be_a_link(bench: Bench) -> None:
    bench.folder.joinpath("elsewhere").mkdir()
    for path in bench.folder.glob(f"{FILE_NAME}*"):
        path.unlink()
    (bench.folder / FILE_NAME).symlink_to(bench.folder / "elsewhere" / "file")
    bench.start()
    bench.put()
    for _ in range(3):
        bench.clock.advance(5)
        bench.spool.turn()
        assert not bench.spool.trouble
    bench.start()
    assert len(bench.send()) == 2


def test_a_foreign_database_that_comes_while_events_are_written_is_left_alone(bench: Bench) -> None:
    bench.put()
    bench.spool.turn()
    for path in bench.folder.iterdir():
        path.unlink()
    with sqlite3.connect(bench.folder / FILE_NAME) as database:
        database.execute("CREATE TABLE theirs (x)")
    bench.put()
    for _ in range(3):
        bench.clock.advance(5)
        bench.spool.turn()
    assert "is a database of another program" in bench.spool.trouble
    assert [seq for _, seq in ids(bench.send())] == [1, 2]
    with sqlite3.connect(bench.folder / FILE_NAME) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


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
    with pytest.raises(ForeignFile, match=text):
        bench.start()
