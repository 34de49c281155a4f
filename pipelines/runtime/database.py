"""SQLite files of the state folder: opened, checked, set aside when damaged, kept within the room that the disk has.

What is the same for all of them; their tables, and what is done when a file cannot be used, are their users'.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

log = logging.getLogger(__name__)

RESERVE = 8_000_000
"""Bytes that are left free on the file system: about twice the log of a transaction of usual size."""

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_MOST_SET_ASIDE = 3
_FREE_PAGES = 1000


class ForeignFile(Exception):
    """A file belongs to somebody else, or to a newer version; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What a file holds.

    Attributes:
        application: Number that tells the file from those of other programs, and of other kinds.
        version: Version of the tables. A newer visaged converts older ones; an older visaged does not touch newer ones.
        schema: SQL that makes them.
        names: Names of all tables.
        moved: What follows for the content if the file is moved away; for texts.
        damaged: What follows for the content if the file is damaged; for the log.
        synchronous: When SQLite syncs: with `FULL` at every transaction, with `NORMAL` at checkpoints.
        wiped: Whether what is removed is overwritten (`secure_delete`), and a damaged file is removed, not set aside.
    """

    application: int
    version: int
    schema: str
    names: frozenset[str]
    moved: str
    damaged: str
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    wiped: bool = False


class StateDatabase:
    """An open database.

    Args:
        path: The file; it is made if it is not there. A damaged one is set aside or removed, and a new one is made.
            None: in memory.
        tables: What it holds.

    Raises:
        ForeignFile: The file is of a newer visaged, or of another program.
        sqlite3.Error, OSError: The file cannot be used now; that may pass.

    Attributes:
        is_new: Whether the file was made just now.
    """

    def __init__(self, path: Path | None, tables: Tables) -> None:
        self._path = path
        try:
            self._connection, self.is_new = _connect(path, tables)
        except sqlite3.DatabaseError as error:
            if path is None or not is_damaged(error):
                raise
            set_aside(path, tables)
            self._connection, self.is_new = _connect(path, tables)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def room(self) -> int:
        """Return how many bytes can be added: free pages, and what is free on the file system above a reserve.

        Without the reserve, a log that cannot be copied into the file and a file that cannot grow for it would fill the
        disk for ever, though all that it holds is removed.

        Raises:
            sqlite3.Error, OSError: The file cannot be used now.
        """
        if self._path is None:
            return 1 << 62
        disk = shutil.disk_usage(self._path.parent)
        free = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
        page: int = self._connection.execute("PRAGMA page_size").fetchone()[0]
        return disk.free - min(RESERVE, disk.total // 2) + int(free) * page

    def shorten(self) -> bool:
        """Give the space of the log back to the file system, and return whether nobody read from it.

        Raises:
            sqlite3.Error: The file cannot be used now.
        """
        busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        return not busy

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


def is_damaged(error: Exception) -> bool:
    """Return whether an error says that the file is damaged, and not only that it cannot be used now."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def is_full(error: Exception) -> bool:
    """Return whether an error says that the disk is full, and the file is otherwise as it should be."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code == sqlite3.SQLITE_FULL or (isinstance(error, OSError) and error.errno == errno.ENOSPC)


def reason_of(error: Exception) -> str:
    """Return why a file cannot be used, for people."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    name = getattr(error, "sqlite_errorname", "")
    return f"{error} ({name})" if name else str(error)


def files_of(path: Path) -> tuple[int, int]:
    """Return what identifies a database and its log, which lies beside it, wherever a link points; 0 for no log.

    SQLite would write to files that are deleted for ever.

    Raises:
        OSError: There is no such file.
    """
    place = os.path.realpath(path)
    try:
        log = os.stat(f"{place}-wal").st_ino
    except FileNotFoundError:
        log = 0
    return os.stat(place).st_ino, log


def set_aside(path: Path, tables: Tables) -> None:
    """Rename a damaged database, so that a new one can be begun; raises `OSError`.

    The last three are kept; none of those whose content must not outlast its time.
    """
    name = f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 1000:03}"
    for end in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{end}", path.with_name(name + end))
    os.replace(path, path.with_name(name))
    fate = (
        "it is removed, and a new one is begun"
        if tables.wiped
        else f"it is kept as {name}, and a new one is begun; delete it when nobody needs it"
    )
    log.error("%s is damaged: %s. %s. Look at the disk", path, fate, tables.damaged)
    kept = sorted(p for p in path.parent.glob(f"{path.name}.damaged-*") if not p.name.endswith(("-wal", "-shm")))
    for old in kept if tables.wiped else kept[:-_MOST_SET_ASIDE]:
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                os.unlink(f"{old}{end}")


def _connect(path: Path | None, tables: Tables) -> tuple[sqlite3.Connection, bool]:
    if path is not None:  # made here, because SQLite would let others read it
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path or ":memory:", timeout=1.0, isolation_level=None, check_same_thread=False)
    # A name that is no UTF-8 any more must not hold up what follows it.
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    try:
        is_new = _look_at(connection, path, tables)
        if tables.wiped:
            connection.execute("PRAGMA secure_delete = ON")
        if is_new:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {tables.synchronous}")
        connection.execute("PRAGMA journal_size_limit = 16000000")
        if is_new:
            connection.executescript(
                f"BEGIN; {tables.schema} PRAGMA application_id = {tables.application}; "
                f"PRAGMA user_version = {tables.version}; COMMIT;"
            )
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if found == "ok" and not names >= tables.names:
            found = f"tables are missing: {', '.join(sorted(tables.names - names))}"
        if found != "ok":
            error = sqlite3.DatabaseError(found)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
    except BaseException:
        connection.close()
        raise
    return connection, is_new


def _look_at(connection: sqlite3.Connection, path: Path | None, tables: Tables) -> bool:
    """Return whether a database has nothing in it yet; raises `ForeignFile` if it is not to be touched."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    is_new = not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    if version > tables.version and application == tables.application:
        raise ForeignFile(
            f"{path} was written by a newer visaged (version {version} of its tables, this one knows "
            f"{tables.version}); install that version again, or move the file away: {tables.moved}"
        )
    if not is_new and application != tables.application:
        raise ForeignFile(f"{path} is a database of another program; set state_dir to a folder of visaged's own")
    return is_new
