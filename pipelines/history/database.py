"""The database of the history: SQLite in WAL mode, written by one thread at a time.

SQLite syncs at checkpoints alone (`synchronous=NORMAL`). A loss of power can then take the events of the last seconds,
and never damages the file (https://www.sqlite.org/pragma.html#pragma_synchronous). That is enough here: what must not
be lost is in the spool, and a sync for every event would wear out the memory cards of small machines.

What is deleted is overwritten (`secure_delete`), and `scrub` empties the log, which has older copies of pages, and
gives free pages back. What the disk itself keeps of blocks that a file had is beyond any program's reach.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson

from visaged.pipelines.history.kept import Kept
from visaged.pipelines.history.query import Filter, where
from visaged.pipelines.runtime.database import StateDatabase, Tables, reason_of, set_aside

log = logging.getLogger(__name__)

FILE_NAME = "history.sqlite3"

_SCHEMA = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    stored_s REAL NOT NULL,
    at INTEGER NOT NULL,
    started INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    camera TEXT NOT NULL,
    track INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    latest INTEGER NOT NULL,
    age REAL,
    gender TEXT,
    emotion TEXT,
    attributes TEXT NOT NULL,
    picture INTEGER
);
CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE pictures (id INTEGER PRIMARY KEY, blurred INTEGER NOT NULL, jpeg BLOB NOT NULL);
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    gone INTEGER NOT NULL,
    own_s REAL NOT NULL,
    wall_s REAL NOT NULL,
    whole INTEGER NOT NULL
);
CREATE INDEX seen ON events (at, id, camera, kind, latest, age, gender, emotion);
CREATE INDEX seen_by_camera ON events (camera, at, id, kind, latest, age, gender, emotion);
CREATE INDEX begun ON events (started, camera, age, gender, emotion, latest) WHERE latest;
CREATE INDEX tracks ON events (epoch, camera, track, latest);
CREATE INDEX pictured ON events (picture) WHERE picture IS NOT NULL;
"""
_TABLES = Tables(
    application=0x76736768,  # "vsgh"
    version=1,
    schema=_SCHEMA,
    names=frozenset({"events", "bodies", "pictures", "state"}),
    moved="the events in it are then no longer found",
    damaged="The history begins anew; events for the MQTT broker are not affected",
    synchronous="NORMAL",
    wiped=True,
)

_INSERT = f"INSERT OR REPLACE INTO events VALUES ({', '.join('?' * 15)})"  # noqa: S608 - marks alone


class HistoryDatabase(StateDatabase):
    """An open database.

    Args:
        path: The file; it is made if it is not there. A damaged one is removed, and a new one is made. None: in memory.

    Raises:
        ForeignFile: The file is of a newer visaged, or of another program.
        sqlite3.Error, OSError: The file cannot be used now; that may pass.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__(path, _TABLES)

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, for reading a database in memory."""
        return self._connection

    def add(self, rows: Iterable[tuple[Kept, float]], blurred: bool, state: tuple[int, float, float]) -> None:
        """Store events, each with the time of the history's clock; raises `sqlite3.Error`.

        Args:
            rows: The events, oldest first.
            blurred: Whether faces in their pictures are blurred.
            state: What `state` is to return.
        """
        with self._transaction() as run:
            for event, stored_s in rows:
                run.execute(
                    "UPDATE events SET latest = 0 WHERE epoch = ? AND camera = ? AND track = ? AND latest",
                    (event.epoch, event.camera, event.track),
                )
                if event.jpeg is not None:
                    run.execute("INSERT OR IGNORE INTO pictures VALUES (?, ?, ?)", (event.picture, blurred, event.jpeg))
                run.execute(_INSERT, _row(event, stored_s))
                run.execute("INSERT OR REPLACE INTO bodies VALUES (?, ?)", (event.number, event.body))
            self._set_state(run, state)

    def state(self) -> tuple[int, tuple[float, float]] | None:
        """Return the largest number of an event that is gone, and the clock's state; None in a new file."""
        row = self._connection.execute("SELECT gone, own_s, wall_s FROM state").fetchone()
        return None if row is None else (row[0], (row[1], row[2]))

    def totals(self) -> tuple[int, int]:
        """Return the number of events, and the largest of their numbers; raises `sqlite3.Error`."""
        count, last = self._connection.execute("SELECT COUNT(*), COALESCE(MAX(id), 0) FROM events").fetchone()
        return count, last

    def size(self) -> int:
        """Return the bytes that are in use; raises `sqlite3.Error`."""
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int(pages - free) * int(size)

    def expired(self, before_s: float, limit: int) -> list[int]:
        """Return the numbers of the oldest events that were stored before a time; raises `sqlite3.Error`."""
        numbers = []
        text = "SELECT id, stored_s FROM events ORDER BY id LIMIT ?"
        for number, stored_s in self._connection.execute(text, (limit,)):
            if stored_s >= before_s:  # those that follow are younger
                break
            numbers.append(number)
        return numbers

    def oldest(self, limit: int) -> list[int]:
        """Return the numbers of the oldest events; raises `sqlite3.Error`."""
        rows = self._connection.execute("SELECT id FROM events ORDER BY id LIMIT ?", (limit,))
        return [number for (number,) in rows]

    def matching(self, wanted: Filter, limit: int) -> list[int]:
        """Return the numbers of events that pass a filter; raises `sqlite3.Error`."""
        condition, values = where(wanted)
        text = f"SELECT id FROM events WHERE {condition} LIMIT ?"  # noqa: S608 - values are parameters
        rows = self._connection.execute(text, (*values, limit))
        return [number for (number,) in rows]

    def remove(self, numbers: Sequence[int], state: tuple[int, float, float]) -> int:
        """Remove events, and pictures that no other has; return how many there were. Raises `sqlite3.Error`.

        Args:
            numbers: Numbers of the events.
            state: What `state` is to return.
        """
        removed = 0
        with self._transaction() as run:
            for number in numbers:
                row = run.execute(
                    "DELETE FROM events WHERE id = ? RETURNING picture, latest, epoch, camera, track", (number,)
                ).fetchone()
                if row is None:
                    continue
                removed += 1
                run.execute("DELETE FROM bodies WHERE id = ?", (number,))
                picture, latest, *track = row
                if picture is not None:
                    run.execute(
                        "DELETE FROM pictures WHERE id = ? AND NOT EXISTS (SELECT 1 FROM events WHERE picture = ?)",
                        (picture, picture),
                    )
                if latest:  # of what is left of the track, the newest event stands for it
                    run.execute(
                        "UPDATE events SET latest = 1 WHERE id = "
                        "(SELECT MAX(id) FROM events WHERE epoch = ? AND camera = ? AND track = ?)",
                        track,
                    )
            self._set_state(run, state)
        return removed

    def remove_pictures(self, also_blurred: bool) -> int:
        """Remove pictures that show faces, or all; return how many there were. Raises `sqlite3.Error`."""
        with self._transaction() as run:
            run.execute(
                "UPDATE events SET picture = NULL WHERE picture IS NOT NULL "
                "AND picture IN (SELECT id FROM pictures WHERE ? OR NOT blurred)",
                (also_blurred,),
            )
            return run.execute("DELETE FROM pictures WHERE ? OR NOT blurred", (also_blurred,)).rowcount

    def open_tracks(self) -> list[tuple[bytes, int, int | None]]:
        """Return the newest event of each track that has not ended: body, next seq, and picture."""
        rows = self._connection.execute(
            "SELECT body, epoch, camera, picture FROM events JOIN bodies USING (id) "
            "WHERE latest AND kind != 'end' ORDER BY id",
        ).fetchall()
        numbers: dict[tuple[int, str], int] = {}
        found = []
        for body, run, camera, picture in rows:
            if (run, camera) not in numbers:
                text = "SELECT MAX(seq) FROM events WHERE camera = ? AND epoch = ?"
                numbers[run, camera] = self._connection.execute(text, (camera, run)).fetchone()[0]
            numbers[run, camera] += 1
            found.append((body, numbers[run, camera], picture))
        return found

    def scrub(self) -> bool:
        """Take what was removed off the disk; return False if somebody still reads from the log, so that it stays.

        Raises:
            sqlite3.Error: The file cannot be used now.
        """
        self._connection.execute("PRAGMA incremental_vacuum").fetchall()
        return self.shorten()

    def was_whole(self) -> bool:
        """Return whether the run that wrote last had written all when it ended; raises `sqlite3.Error`."""
        row = self._connection.execute("SELECT whole FROM state").fetchone()
        return row is not None and row[0] == 1

    def mark(self, state: tuple[int, float, float], is_whole: bool) -> None:
        """Note whether all is written, at the end of a run; raises `sqlite3.Error`."""
        with self._transaction() as run:
            self._set_state(run, state, is_whole)

    def _set_state(self, run: sqlite3.Connection, state: tuple[int, float, float], is_whole: bool = False) -> None:
        run.execute("INSERT OR REPLACE INTO state VALUES (1, ?, ?, ?, ?)", (*state, is_whole))


def remove_file(path: Path) -> None:
    """Remove a damaged database, so that a new one can be begun; raises `OSError`."""
    set_aside(path, _TABLES)


def wipe(folder: Path) -> None:
    """Remove what earlier runs kept in a folder; what cannot be removed is logged, a file of somebody else is left.

    Raises:
        ForeignFile: The file is of a newer visaged, or of another program.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return
    try:
        HistoryDatabase(path).close()  # nothing that is not ours is removed
        for end in ("-wal", "-shm", ""):
            path.with_name(path.name + end).unlink(missing_ok=True)
    except (sqlite3.Error, OSError) as error:
        log.error(
            "%s of an earlier run, with events and pictures of faces, cannot be removed (%s), although "
            "history.keep_hours is 0: remove it yourself", path, reason_of(error),
        )  # fmt: skip
    else:
        log.info("%s of an earlier run was removed, because history.keep_hours is 0", path)


def _row(event: Kept, stored_s: float) -> tuple[object, ...]:
    known = event.attributes
    age, gender, emotion = known.get("age"), known.get("gender"), known.get("emotion")
    return (
        event.number, stored_s, event.at_ms, event.started_ms, event.epoch, event.camera, event.track, event.seq,
        event.kind, not event.moved_in, age, gender, emotion, orjson.dumps(known).decode(), event.picture,
    )  # fmt: skip
