"""Reading from the history: in the caller's thread, with a time limit, beside the thread that writes."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from visaged.pipelines.history.database import HistoryDatabase
from visaged.pipelines.runtime.database import is_damaged, reason_of

_STEPS = 20_000
"""Instructions of SQLite between two looks at the clock: some 0.2 ms."""


class Unavailable(Exception):
    """The history cannot be read or written now; the text says why."""


class TooSlow(Exception):
    """An answer took too long to find."""


class Readers:
    """Connections to the database, one for each thread that reads at a time. Thread-safe.

    Args:
        path: The file; None for a database in memory, which is read by the connection that writes.
        limit_s: Longest time of an answer in seconds.
    """

    def __init__(self, path: Path | None, limit_s: float = 5.0) -> None:
        self._path = path
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._free: list[sqlite3.Connection] = []
        self._generation = 0
        self._database: HistoryDatabase | None = None
        self._trouble = "it is not open yet"
        self._stopped = False
        self.damage: sqlite3.Error | None = None
        """What showed that the file is damaged; None if nothing did."""
        self.writing = threading.RLock()
        """Held by whoever uses the connection that writes, where the database is in memory."""

    def opened(self, database: HistoryDatabase) -> None:
        """Read from a database from now on."""
        with self._lock:
            self._generation += 1
            self._database = database

    def closed(self, trouble: str) -> None:
        """Read from nothing from now on.

        Args:
            trouble: Why.
        """
        with self._lock:
            self._generation += 1
            self._database, self._trouble = None, trouble
            free, self._free = self._free, []
        for connection in free:
            connection.close()

    def stop(self) -> None:
        """End what is being read; nothing is read any more."""
        self._stopped = True
        self.closed("visaged is stopping")

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Give a connection for one answer.

        Raises:
            Unavailable: The history cannot be read now.
            TooSlow: The answer took too long.
        """
        end_s = time.monotonic() + self._limit_s

        def is_over() -> bool:
            return self._stopped or time.monotonic() > end_s

        with self._lock:
            database, generation = self._database, self._generation
            if database is None:
                raise Unavailable(self._trouble)
            connection = self._free.pop() if self._free else None
        if self._path is None:
            with self.writing:
                yield from _limited(database.connection, is_over)
            return
        try:
            connection = connection or _open(self._path)
            yield from _limited(connection, is_over)
        except sqlite3.Error as error:
            if is_damaged(error):
                self.damage = error
            raise Unavailable(reason_of(error)) from error
        finally:
            with self._lock:
                keep = connection is not None and generation == self._generation
                if keep and connection is not None:
                    self._free.append(connection)
            if connection is not None and not keep:
                connection.close()


def _limited(connection: sqlite3.Connection, is_over: Callable[[], bool]) -> Iterator[sqlite3.Connection]:
    connection.set_progress_handler(is_over, _STEPS)
    try:
        yield connection
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise TooSlow from None
        raise
    finally:
        connection.set_progress_handler(None, 0)


def _open(path: Path) -> sqlite3.Connection:
    place = f"{path.absolute().as_uri()}?mode=rw"  # so that a file that is gone is not made anew
    connection = sqlite3.connect(place, timeout=1.0, isolation_level=None, check_same_thread=False, uri=True)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    return connection
