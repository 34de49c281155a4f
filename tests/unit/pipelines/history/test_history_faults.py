"""The history within its bounds, with a disk that is full, away or damaged, and with files that are not its own."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.history_bench import Bench, shot_at
from visaged.pipelines.history.query import Filter
from visaged.pipelines.history.readers import Unavailable
from visaged.pipelines.history.store import _MOST_WAITING
from visaged.pipelines.outputs.spool.database import Database
from visaged.pipelines.runtime.database import ForeignFile

HOUR_S = 3600.0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A history with pictures in an empty folder."""
    return Bench(tmp_path / "state", pictures=True, keep_s=HOUR_S)


def tell_with_picture(bench: Bench, track: int, camera: str = "door") -> tuple[int, bytes]:
    """Tells an event with a picture of noise; returns its number, and a part of the picture to search for."""
    noise = np.random.default_rng(track).integers(0, 256, (360, 640, 3), np.uint8)
    look = shot_at((200, 100, 360, 260), bench.clock.wall_s)
    bench.see(noise, look, first=track, camera=camera)
    number = bench.tell("begin", track, camera, look=look)
    bench.write(0.0)
    picture = bench.history.picture(number)
    assert picture is not None
    return number, picture[len(picture) // 2 :][:64]


def start_again(bench: Bench, *, killed: bool) -> None:
    if not killed:
        bench.end()
    bench.start()


@pytest.mark.parametrize("how", ["running", "ended", "killed"])
def test_what_has_expired_is_gone_from_the_disk(bench: Bench, how: str) -> None:
    _, old = tell_with_picture(bench, 1, "camera-of-old-events")
    bench.tell("end", 1, "camera-of-old-events")
    bench.clock.advance(HOUR_S / 2)
    _, young = tell_with_picture(bench, 2, "camera-of-young-events")
    bench.tell("end", 2, "camera-of-young-events")
    bench.write()
    assert old in bench.disk()
    if how != "running":
        start_again(bench, killed=how == "killed")
    bench.clock.advance(HOUR_S / 2 + 200)
    bench.write()
    assert [one["camera"] for one in bench.documents()] == ["camera-of-young-events"] * 2
    disk = bench.disk()
    assert old not in disk
    assert b"camera-of-old-events" not in disk
    assert young in disk


def test_what_expires_while_no_daemon_runs_is_gone_soon_after_the_start(bench: Bench) -> None:
    _, old = tell_with_picture(bench, 1)
    bench.tell("end", 1)
    bench.write()
    bench.end()
    bench.clock.advance(2 * HOUR_S)
    bench.start()
    bench.write()
    assert bench.documents() == []
    assert old not in bench.disk()


@pytest.mark.parametrize("jump_s", [-10 * HOUR_S, 10 * HOUR_S])
def test_a_wall_clock_that_is_set_lets_nothing_expire_and_keeps_nothing(bench: Bench, jump_s: float) -> None:
    bench.tell("begin")
    bench.tell("end")
    bench.write()
    bench.clock.wall_s += jump_s
    bench.write(200.0)
    assert len(bench.documents()) == 2
    bench.write(HOUR_S)
    assert bench.documents() == []


def test_deleted_events_are_gone_from_the_disk_while_others_are_read(bench: Bench) -> None:
    number, gone = tell_with_picture(bench, 1, "camera-that-is-deleted")
    _, kept = tell_with_picture(bench, 2)
    assert bench.history.store is not None
    with bench.history.store.readers.connection() as connection:  # a snapshot from before the deletion
        connection.execute("BEGIN")
        assert connection.execute("SELECT COUNT(*) FROM events").fetchone() == (2,)
        future = bench.history.remove(number)
        bench.write()
        assert future.result(0) == 1
        connection.execute("COMMIT")
    bench.write()
    disk = bench.disk()
    assert gone not in disk
    assert b"camera-that-is-deleted" not in disk
    assert kept in disk


def test_beyond_its_size_the_oldest_go_first(bench: Bench) -> None:
    bench.plan["most_bytes"] = 400_000
    bench.start()
    numbers = []
    for track in range(1, 31):
        number, sample = tell_with_picture(bench, track)
        numbers.append(number)
        bench.write(0.0)
        if track == 1:
            first = sample
    kept = bench.documents()
    assert 3 < len(kept) < 30
    assert [one["track_id"] for one in kept] == list(range(30, 30 - len(kept), -1))
    assert first not in bench.disk()
    assert sum(path.stat().st_size for path in bench.folder.glob("*")) < 1_000_000  # type: ignore[union-attr]
    assert bench.history.is_missing(numbers[0])
    assert not bench.history.is_missing(numbers[-1])


def test_only_the_owner_may_read_the_files(bench: Bench) -> None:
    bench.tell()
    bench.write()
    assert bench.folder is not None
    files = [path for path in bench.folder.iterdir() if path.name.startswith("history")]
    assert len(files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_killed_run_leaves_what_it_had_written(bench: Bench) -> None:
    for track in range(1, 20):
        bench.tell("begin", track)
        bench.tell("end", track)
    bench.write()
    bench.tell("begin", 20)  # never written
    bench.start()
    assert len(bench.documents()) == 38
    assert bench.tell() > max(bench.epoch << 20, 0)


def test_without_the_disk_events_wait_and_are_written_once_it_is_back(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.tell("begin")
    bench.write()
    assert bench.folder is not None
    aside = bench.folder.with_name("aside")
    bench.folder.rename(aside)
    bench.folder.write_text("no folder")
    for _ in range(3):
        waiting = bench.tell()
        bench.write(5.0)
    assert bench.history.store is not None
    assert bench.history.store.state
    assert bench.metrics.registry.get_sample_value("visaged_history_writable") == 0
    assert bench.history.document() == {"events": 4, "error": bench.history.store.state}
    assert caplog.text.count("cannot be written") == 1
    with pytest.raises(Unavailable):
        bench.documents()
    assert bench.history.one(waiting) is not None  # what waits is found
    refused = bench.history.remove(Filter())
    bench.write(5.0)
    assert isinstance(refused.exception(0), Unavailable)
    bench.tell()
    bench.folder.unlink()
    aside.rename(bench.folder)
    bench.write(5.0)
    assert not bench.history.store.state
    assert bench.metrics.registry.get_sample_value("visaged_history_writable") == 1
    assert [one["seq"] for one in bench.documents()][-1] == 1
    assert "written again" in caplog.text


def test_what_waits_is_bounded_and_what_is_lost_is_counted_and_told_as_missing(bench: Bench) -> None:
    assert bench.folder is not None
    bench.folder.rename(bench.folder.with_name("aside"))
    bench.folder.write_text("no folder")
    bench.write(5.0)
    first = bench.tell()
    for _ in range(_MOST_WAITING + 9):
        bench.tell()
    assert bench.metrics.history_lost.labels("overflow")._value.get() == 10
    assert bench.history.is_missing(first)
    assert bench.history.store is not None
    assert bench.history.store.count == _MOST_WAITING


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own with 9 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", place]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs to mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_stops_the_history_alone_and_deleting_makes_room(small_disk: Path) -> None:
    bench = Bench(small_disk, pictures=True)
    track = 0
    assert bench.history.store is not None
    while not bench.history.store.trouble:
        track += 1
        noise = np.random.default_rng(track).integers(0, 256, (360, 640, 3), np.uint8)
        look = shot_at((200, 100, 360, 260), bench.clock.wall_s)
        bench.see(noise, look, first=track)
        bench.tell("begin", track, look=look)
        bench.write()
        assert track < 1000
    listener, _ = bench.history.hub.listen(None, lambda item: True, lambda: None)
    bench.tell("begin", 2000)
    assert listener is not None
    assert len(listener.take()) == 1
    assert bench.documents()  # can be read
    future = bench.history.remove(Filter())
    bench.write(5.0)
    assert future.result(0) > 10
    bench.write(5.0)
    bench.tell("begin", 2001)
    bench.write(5.0)
    assert not bench.history.store.trouble
    assert [one["track_id"] for one in bench.documents()] == [2001]


@pytest.mark.parametrize("while_running", [False, True])
def test_a_damaged_file_is_removed_and_a_new_one_begun(
    bench: Bench, while_running: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(50):
        bench.tell()
    bench.write()
    seen = bench.history.newest
    bench.end()
    assert bench.folder is not None
    file = bench.folder / "history.sqlite3"
    if while_running:
        bench.start()
    data = bytearray(file.read_bytes())
    data[4096:] = random.Random(1).randbytes(len(data) - 4096)
    with file.open("r+b") as opened:
        opened.write(data)
    if not while_running:
        bench.start()
    with contextlib.suppress(Unavailable):
        bench.documents()
    bench.write()
    bench.tell("begin")
    bench.write(5.0)
    bench.tell("end")
    bench.write(5.0)
    assert bench.history.store is not None
    assert not bench.history.store.state
    assert "is damaged: it is removed" in caplog.text
    assert len(bench.documents()) <= 2
    assert not list(bench.folder.glob("*damaged*"))  # faces must not outlast their time
    assert bench.history.is_missing(seen)


def test_a_file_that_was_replaced_is_noticed(bench: Bench) -> None:
    bench.tell()
    bench.write()
    assert bench.folder is not None
    for path in bench.folder.glob("history*"):
        path.unlink()
    bench.write(5.0)
    number = bench.tell()
    bench.write(5.0)
    bench.write(5.0)
    assert (bench.folder / "history.sqlite3").exists()
    assert [one["id"] for one in bench.documents()] == [f"{number >> 20}-{number & 0xFFFFF}"]


def test_files_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "history.sqlite3"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE photos (id)")
    with pytest.raises(ForeignFile, match="another program; set state_dir"):
        Bench(tmp_path)
    file.unlink()
    Bench(tmp_path).end()
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 99")
    before = file.read_bytes()
    with pytest.raises(ForeignFile, match=r"newer visaged \(version 99 .* no longer found"):
        Bench(tmp_path)
    assert file.read_bytes() == before


def test_without_hours_what_earlier_runs_kept_is_gone(bench: Bench) -> None:
    _, picture = tell_with_picture(bench, 1, "camera-of-old-events")
    assert bench.folder is not None
    assert picture in bench.disk()
    bench.start(keep_s=0.0)  # the run before was killed
    assert list(bench.folder.iterdir()) == []
    (bench.folder / "history.sqlite3").write_bytes(b"no database" * 1000)
    bench.start()
    assert list(bench.folder.iterdir()) == []
    with sqlite3.connect(bench.folder / "history.sqlite3") as database:
        database.execute("CREATE TABLE photos (id)")
    with pytest.raises(ForeignFile, match="another program"):
        bench.start()
    assert (bench.folder / "history.sqlite3").exists()


def test_a_spool_in_its_place_is_refused(tmp_path: Path) -> None:
    Database(tmp_path / "history.sqlite3").close()
    with pytest.raises(ForeignFile, match="another program"):
        Bench(tmp_path)
