"""The database of events that wait: SQLite in WAL mode, used by one thread at a time.

Every transaction is synced to the disk (`synchronous=FULL`), so that a committed event survives the end of the process,
and a loss of power as far as the disk keeps what it has confirmed (https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import orjson

from visaged.pipelines.runtime.database import StateDatabase, Tables, set_aside

_SCHEMA = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    camera TEXT NOT NULL,
    seq INTEGER NOT NULL,
    captured_at REAL NOT NULL,
    stored_s REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE tracks (
    epoch INTEGER NOT NULL,
    camera TEXT NOT NULL,
    track INTEGER NOT NULL,
    captured_at REAL NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (epoch, camera, track)
) WITHOUT ROWID;
CREATE TABLE sequences (
    epoch INTEGER NOT NULL,
    camera TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (epoch, camera)
) WITHOUT ROWID;
CREATE TABLE topics (topic TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), spool_s REAL NOT NULL, wall_s REAL NOT NULL);
"""
_TABLES = Tables(
    application=0x76736764,  # "vsgd"
    version=1,
    schema=_SCHEMA,
    names=frozenset({"events", "tracks", "sequences", "topics", "clock"}),
    moved="the events in it are then not published",
    damaged="Events that only it held are not published",
)


class Row(NamedTuple):
    """An event in the database.

    Attributes:
        id: Number of the event; events are sent in the order of their numbers.
        epoch: Run of the process that composed it.
        camera: Name of its camera.
        seq: Its number among the camera's events of that run.
        captured_at: Wall clock of capture, seconds since 1970.
        stored_s: Time of the spool's own clock at which it was stored, in seconds.
        body: The message without `age_ms` and `replayed`, as `Message.body`.
    """

    id: int
    epoch: int
    camera: str
    seq: int
    captured_at: float
    stored_s: float
    body: bytes


class Track(NamedTuple):
    """A track that has begun and not ended, with its newest event."""

    epoch: int
    camera: str
    track: int
    captured_at: float
    body: bytes


@dataclass
class Changes:
    """What one transaction changes.

    Attributes:
        rows: Events to store.
        done: Numbers of events to remove.
        open: The newest state of tracks: None for one that has ended, by run, camera and track.
        sequences: The newest event's number, by run and camera.
        topics: Topics with a retained message: whether they have one now.
        restart: Whether all that is known of tracks and sequences is replaced, because earlier changes were not stored.
        clock: The spool's own clock and the wall clock, in seconds.
    """

    clock: tuple[float, float]
    rows: Sequence[Row] = ()
    done: Iterable[int] = ()
    open: Mapping[tuple[int, str, int], Track | None] = field(default_factory=dict)
    sequences: Mapping[tuple[int, str], int] = field(default_factory=dict)
    topics: Mapping[str, bool] = field(default_factory=dict)
    restart: bool = False


class Database(StateDatabase):
    """An open database.

    Args:
        path: The file; it is made if it is not there. A damaged one is set aside under another name, and a new one is
            made.

    Raises:
        ForeignFile: The file is of a newer visaged, or of another program.
        sqlite3.Error, OSError: The file cannot be used now; that may pass.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _TABLES)

    def apply(self, changes: Changes) -> None:
        """Make all changes, or none; raises `sqlite3.Error`."""
        with self._transaction() as run:
            run.executemany("DELETE FROM events WHERE id = ?", ((id,) for id in changes.done))
            run.executemany("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", changes.rows)
            if changes.restart:
                run.execute("DELETE FROM tracks")
                run.execute("DELETE FROM sequences")
            gone = [key for key, track in changes.open.items() if track is None]
            run.executemany("DELETE FROM tracks WHERE (epoch, camera, track) = (?, ?, ?)", gone)
            known = [track for track in changes.open.values() if track is not None]
            run.executemany("INSERT OR REPLACE INTO tracks VALUES (?, ?, ?, ?, ?)", known)
            numbers = [(*key, seq) for key, seq in changes.sequences.items()]
            run.executemany("INSERT OR REPLACE INTO sequences VALUES (?, ?, ?)", numbers)
            kept = [(topic,) for topic, has in changes.topics.items() if has]
            run.executemany("INSERT OR REPLACE INTO topics VALUES (?)", kept)
            cleared = [(topic,) for topic, has in changes.topics.items() if not has]
            run.executemany("DELETE FROM topics WHERE topic = ?", cleared)
            run.execute("INSERT OR REPLACE INTO clock VALUES (1, ?, ?)", changes.clock)

    def close_tracks(self, rows: Iterable[Row], first: int) -> None:
        """Store the ends of all open tracks, and forget those tracks; raises `sqlite3.Error`.

        Args:
            rows: The ends.
            first: Number of the first row, or a smaller one. Events with numbers from there on are moved before it:
                there are some if a run made very many, or if an earlier one's epoch was larger than this one's.
        """
        with self._transaction() as run:
            run.execute("DELETE FROM events WHERE id < 0")  # there are none but by damage
            newest = run.execute("SELECT MAX(id) FROM events").fetchone()[0]
            if newest is not None and newest >= first:
                old = [id for (id,) in run.execute("SELECT id FROM events ORDER BY id")]
                run.execute("UPDATE events SET id = -1 - id")  # so that no number is used twice in between
                moved = ((first - len(old) + place, -1 - id) for place, id in enumerate(old))
                run.executemany("UPDATE events SET id = ? WHERE id = ?", moved)
            run.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            run.execute("DELETE FROM tracks")
            run.execute("DELETE FROM sequences")

    def read(self, after: int, limit: int) -> list[Row]:
        """Return the first events whose number is larger than `after`; raises `sqlite3.Error`."""
        text = "SELECT * FROM events WHERE id > ? ORDER BY id LIMIT ?"
        return [Row(*row) for row in self._connection.execute(text, (after, limit))]

    def tracks(self) -> list[Track]:
        """Return the open tracks, oldest look first; raises `sqlite3.Error`."""
        return [Track(*row) for row in self._connection.execute("SELECT * FROM tracks ORDER BY captured_at")]

    def sequences(self) -> dict[tuple[int, str], int]:
        """Return the newest event's number by run and camera; raises `sqlite3.Error`."""
        rows = self._connection.execute("SELECT * FROM sequences")
        return {(epoch, camera): seq for epoch, camera, seq in rows if type(seq) is int}

    def topics(self) -> set[str]:
        """Return the topics that have a retained message; raises `sqlite3.Error`."""
        return {topic for (topic,) in self._connection.execute("SELECT topic FROM topics") if is_topic(topic)}

    def clock(self) -> tuple[float, float] | None:
        """Return the spool's own clock and the wall clock at the last change, in seconds; raises `sqlite3.Error`."""
        row = self._connection.execute("SELECT spool_s, wall_s FROM clock").fetchone()
        return (row[0], row[1]) if row is not None and all(map(_is_finite, row)) else None

    def total(self, after: int = -1) -> tuple[int, int]:
        """Return number and bytes of the events whose number is larger than `after`; raises `sqlite3.Error`."""
        text = "SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0) FROM events WHERE id > ?"
        count, size = self._connection.execute(text, (after,)).fetchone()
        return count, size


def is_topic(text: object) -> bool:
    """Return whether a text from the database can be (a part of) a topic to publish to."""
    return isinstance(text, str) and 0 < len(text) < 20_000 and not any(c in text for c in "+#\0\ufffd")


def is_sound(row: Row | Track) -> bool:
    """Return whether a row has values of the right kinds: SQLite does not notice damage inside of a value."""
    whole = (row.epoch, row.seq) if isinstance(row, Row) else (row.epoch, row.track)
    times = (row.captured_at, row.stored_s) if isinstance(row, Row) else (row.captured_at,)
    if not (all(type(n) is int for n in whole) and all(map(_is_finite, times)) and is_topic(row.camera)):
        return False
    try:
        return isinstance(row.body, bytes) and isinstance(orjson.loads(row.body), dict)
    except orjson.JSONDecodeError:
        return False


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def set_spool_aside(path: Path) -> None:
    """Rename a damaged database, so that a new one can be begun; raises `OSError`."""
    set_aside(path, _TABLES)
