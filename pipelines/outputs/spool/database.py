"""The database of events that wait: SQLite in WAL mode, used by one thread at a time.

Every transaction is synced to the disk (`synchronous=FULL`), so that a committed event survives the end of the process,
and a loss of power as far as the disk keeps what it has confirmed (https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

VERSION = 1
"""Version of the tables. A newer visaged converts older ones; an older visaged does not touch newer ones."""

_APPLICATION = 0x76736764  # "vsgd"
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
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_MOST_SET_ASIDE = 3
_FREE_PAGES = 1000


class SpoolError(Exception):
    """The database belongs to somebody else, or to a newer version; the text says what to do."""


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


class Database:
    """An open database.

    Args:
        path: The file; it is made if it is not there. A damaged one is set aside under another name, and a new one is
            made.

    Raises:
        SpoolError: The file is of a newer visaged, or of another program.
        sqlite3.Error, OSError: The file cannot be used now; that may pass.

    Attributes:
        is_new: Whether the file was made just now.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection, self.is_new = _connect(path)
        except sqlite3.DatabaseError as error:
            if not is_damaged(error):
                raise
            set_aside(path)
            self._connection, self.is_new = _connect(path)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

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

    def close_tracks(self, rows: Iterable[Row]) -> None:
        """Store the ends of all open tracks, and forget those tracks; raises `sqlite3.Error`."""
        with self._transaction() as run:
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
        return {(epoch, camera): seq for epoch, camera, seq in self._connection.execute("SELECT * FROM sequences")}

    def topics(self) -> set[str]:
        """Return the topics that have a retained message; raises `sqlite3.Error`."""
        return {topic for (topic,) in self._connection.execute("SELECT topic FROM topics")}

    def clock(self) -> tuple[float, float] | None:
        """Return the spool's own clock and the wall clock at the last change, in seconds; raises `sqlite3.Error`."""
        row = self._connection.execute("SELECT spool_s, wall_s FROM clock").fetchone()
        return None if row is None else (row[0], row[1])

    def total(self, after: int = -1) -> tuple[int, int]:
        """Return number and bytes of the events whose number is larger than `after`; raises `sqlite3.Error`."""
        text = "SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0) FROM events WHERE id > ?"
        count, size = self._connection.execute(text, (after,)).fetchone()
        return count, size

    def tidy(self) -> None:
        """Give free pages back to the file system if there are many; raises `sqlite3.Error`."""
        free = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
        if free > _FREE_PAGES:
            self._connection.execute(f"PRAGMA incremental_vacuum({_FREE_PAGES})").fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise


def is_damaged(error: sqlite3.Error) -> bool:
    """Return whether an error says that the file is damaged, and not only that it cannot be used now."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def set_aside(path: Path) -> None:
    """Rename a damaged database, so that a new one can be begun; raises `OSError`.

    The last three are kept.
    """
    name = f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 1000:03}"
    for end in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{end}", path.with_name(name + end))
    os.replace(path, path.with_name(name))
    log.error(
        "%s is damaged; it is kept as %s, and a new one is begun: events that only it held are not published. Look at "
        "the disk, and delete the file when nobody needs it", path, name,
    )  # fmt: skip
    kept = sorted(p for p in path.parent.glob(f"{path.name}.damaged-*") if not p.name.endswith(("-wal", "-shm")))
    for old in kept[:-_MOST_SET_ASIDE]:
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                os.unlink(f"{old}{end}")


def _connect(path: Path) -> tuple[sqlite3.Connection, bool]:
    # Made here, because SQLite would let others read it.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        is_new = not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        if version > VERSION and application == _APPLICATION:
            raise SpoolError(
                f"{path} was written by a newer visaged (version {version} of its tables, this one knows {VERSION}); "
                "install that version again, or move the file away: the events in it are then not published"
            )
        if not is_new and application != _APPLICATION:
            raise SpoolError(f"{path} is a database of another program; set state_dir to a folder of visaged's own")
        if is_new:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 16000000")
        if is_new:
            connection.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
            )
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            error = sqlite3.DatabaseError(found)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
    except BaseException:
        connection.close()
        raise
    return connection, is_new
