"""Keeps events: a thread of its own writes what came since the last transaction in one, at most ten a second.

Until they are written, events wait in memory, where they are found too. While the disk takes none (full, read-only,
broken, hanging) they wait within bounds and are stored once it does; nobody else waits for that.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from visaged.pipelines.history.database import FILE_NAME, HistoryDatabase, remove_file
from visaged.pipelines.history.hub import MOST_REMEMBERED, Item
from visaged.pipelines.history.kept import Kept, Numbers, first_number, kept_from
from visaged.pipelines.history.query import Filter
from visaged.pipelines.history.readers import Readers, Unavailable
from visaged.pipelines.outputs.messages import end_of
from visaged.pipelines.runtime.database import RESERVE, ForeignFile, files_of, is_damaged, is_full, reason_of
from visaged.pipelines.runtime.lasting import LastingClock
from visaged.pipelines.runtime.metrics import Metrics

log = logging.getLogger(__name__)

_PACE_S = 0.1
_WAIT_S = 0.5
_RETRY_S = 2.0
_LOOK_S = 1.0
_HANGS_S = 5.0
# No more than listeners are told of again, so that all that waits is remembered there.
_MOST_WAITING = MOST_REMEMBERED
_MOST_WAITING_BYTES = 64_000_000
_AT_ONCE = 500
# Beyond the bound of its size, the oldest events are removed until it is so much below it.
_LEFT = 0.97


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is kept.

    Attributes:
        keep_s: Seconds for which events are kept.
        most_bytes: Most bytes of the database.
        pictures: Whether pictures are kept.
        blurred: Whether faces in pictures are blurred.
    """

    keep_s: float
    most_bytes: int
    pictures: bool
    blurred: bool


class Store:
    """The events that are kept.

    Args:
        folder: The state folder; None keeps events in memory.
        bounds: What is kept.
        epoch: Number of this run, larger than those of earlier runs.
        numbers: Numbers events; those of this run go on after what the file has.
        metrics: Reports the state.
        clock: Returns monotonic seconds.
        wall: Returns seconds since 1970.
        ended: Camera, epoch and track of tracks of earlier runs that other nodes end, or have ended.

    Raises:
        ForeignFile: The file is of a newer visaged, or of another program.

    Attributes:
        readers: Connections to read from.
        trouble: Why events are not stored; empty while they are.
        gone: A number: events with it or a smaller one may be gone, those with larger ones are all there.
    """

    def __init__(
        self,
        folder: Path | None,
        bounds: Bounds,
        epoch: int,
        numbers: Numbers,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        ended: Container[tuple[str, int, int]] = (),
    ) -> None:
        self._path = None if folder is None else folder / FILE_NAME
        self._bounds = bounds
        self._ended = ended
        self._numbers = numbers
        self._metrics = metrics
        self._clock = clock
        self._lasting = LastingClock(clock, wall)
        self.readers = Readers(self._path)
        self.trouble = ""
        self.gone = first_number(epoch) - 1
        self._changed = threading.Condition()
        self._waiting: deque[Kept] = deque()
        self._waiting_bytes = 0
        self._jobs: deque[tuple[Filter | int, Future[int]]] = deque()
        self._woken = False
        self._database: HistoryDatabase | None = None
        self._inodes = 0, 0
        self._was_open = self._must_scrub = False
        self._events = 0
        self._busy_since_s: float | None = None
        self._written_s = self._retry_s = self._look_s = float("-inf")
        self._expire_s = clock()
        metrics.history_max_bytes.set(bounds.most_bytes)
        metrics.history_writable.set_function(lambda: not self.state)
        self._try(self._open, at_start=True)

    @property
    def state(self) -> str:
        """Why events are not stored now; empty while they are. May be asked from any thread."""
        since_s = self._busy_since_s
        if since_s is not None and self._clock() - since_s > _HANGS_S:
            return "the disk does not answer"
        return self.trouble

    @property
    def count(self) -> int:
        """Number of events that are kept."""
        return self._events + len(self._waiting)

    # For any thread.

    def add(self, event: Kept) -> None:
        """Keep an event; never blocks."""
        with self._changed:
            self._waiting.append(event)
            self._waiting_bytes += _size(event)
            lost = 0
            while len(self._waiting) > _MOST_WAITING or self._waiting_bytes > _MOST_WAITING_BYTES:
                self._forget_oldest()
                lost += 1
            self._changed.notify()
        if lost:
            self._metrics.history_lost.labels("overflow").inc(lost)

    def waiting(self, number: int) -> Kept | None:
        """Return an event that is not written yet; None if there is none with this number."""
        with self._changed:
            return next((event for event in self._waiting if event.number == number), None)

    def remove(self, wanted: Filter | int) -> Future[int]:
        """Delete an event by its number, or those of cameras and a time; the result is how many there were.

        It is there once they are gone from the disk. `Unavailable` is its error where the disk takes no change.
        """
        future: Future[int] = Future()
        with self._changed:
            self._jobs.append((wanted, future))
            self._changed.notify()
        return future

    # The store's own thread.

    def run(self, stopping: threading.Event) -> None:
        """Write until `stopping` is set, and then all that is left."""
        while not stopping.is_set():
            with self._changed:
                if not (self._waiting or self._jobs):
                    self._changed.wait(_WAIT_S)
            stopping.wait(self._written_s + _PACE_S - self._clock())
            self.turn()
        self._retry_s = float("-inf")
        self.turn()
        with self._changed:
            left = len(self._waiting)
            for _, future in self._jobs:
                future.set_exception(Unavailable("visaged is stopping"))
            self._jobs.clear()
        if self._database is not None and not left:
            self._try(lambda: self._mark(is_whole=True))
        if left:
            self._metrics.history_lost.labels("shutdown").inc(left)
            log.warning("%d events are missing in the history: %s", left, self.trouble)
        self.readers.stop()
        if self._database is not None:
            self._database.close()

    def turn(self) -> None:
        """Write what there is to write, delete what is asked for, and what is beyond the bounds."""
        now_s = self._clock()
        if not self.trouble and now_s >= self._look_s:
            self._look_s = now_s + _LOOK_S
            self._try(self._look)
        if not self.trouble or now_s >= self._retry_s:
            self._try(self._write)
        with self._changed:
            jobs = list(self._jobs)
            self._jobs.clear()
        for wanted, future in jobs:
            if future.set_running_or_notify_cancel():
                self._remove(wanted, future)
        if self._database is not None:
            self._try(self._bound)
        self._report()

    @contextmanager
    def _writing(self) -> Iterator[HistoryDatabase]:
        """Give the database to write to, which in memory nobody reads meanwhile."""
        if self._path is None:
            self.readers.writing.acquire()
        try:
            assert self._database is not None
            yield self._database
        finally:
            if self._path is None:
                self.readers.writing.release()

    def _try(self, do: Callable[[], None], at_start: bool = False) -> bool:
        """Do something with the disk, and return whether that worked; a foreign file ends the start."""
        self._busy_since_s = self._clock()
        try:
            do()
            return True
        except (sqlite3.Error, OSError, ForeignFile) as error:
            if self._path is not None and is_damaged(error):
                self._close(reason_of(error))
                try:
                    remove_file(self._path)
                    self._open()
                    return True
                except (sqlite3.Error, OSError, ForeignFile) as second:
                    error = second
            if at_start and isinstance(error, ForeignFile):
                raise error from None
            self._fail(error)
            return False
        finally:
            self._busy_since_s = None

    def _fail(self, error: Exception) -> None:
        reason = reason_of(error)
        if not is_full(error):
            self._close(reason)
        self._retry_s = self._clock() + _RETRY_S
        if not self.trouble:
            log.warning(
                "the history cannot be written (%s: %s): events wait for that in memory, up to %d of them; MQTT and "
                "the event stream go on. Free the disk, or set state_dir to a folder that can be written",
                self._path, reason, _MOST_WAITING,
            )  # fmt: skip
        self.trouble = reason

    def _close(self, reason: str) -> None:
        self.readers.closed(reason)
        if self._database is not None:
            self._database.close()
        self._database = None

    def _open(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = HistoryDatabase(self._path)
        try:
            state = database.state()
            if self._was_open:
                if state is None:  # what was written is gone with the file
                    with self._changed:
                        self.gone = max(self.gone, self._waiting[0].number - 1 if self._waiting else self._numbers.last)
            else:
                self._begin(database, state)
            self._events = database.totals()[0]
            self._inodes = (0, 0) if self._path is None else files_of(self._path)
        except BaseException:
            database.close()
            raise
        self._database, self._was_open = database, True
        self.readers.opened(database)

    def _begin(self, database: HistoryDatabase, state: tuple[int, tuple[float, float]] | None) -> None:
        """Take over what earlier runs left."""
        self._lasting.resume(None if state is None else state[1])
        last = database.totals()[1]
        self._numbers.pass_over(last)
        # What a killed run had told listeners and not written yet is missing.
        self.gone = state[0] if state is not None and database.was_whole() else self._numbers.last
        if not self._bounds.pictures or self._bounds.blurred:
            removed = database.remove_pictures(also_blurred=not self._bounds.pictures)
            if removed:
                self._must_scrub = True
                why = "history.pictures is off" if not self._bounds.pictures else "privacy.blur_faces is on"
                log.info("%d pictures of an earlier run were removed from the history, because %s", removed, why)
        ends = []
        for body, seq, picture in database.open_tracks():
            with suppress(KeyError, TypeError, ValueError):  # what cannot be read is left as it is
                newest = kept_from(0, orjson.loads(body), body, 0.0)
                has_moved = (newest.camera, newest.epoch, newest.track) in self._ended
                end = end_of(body, seq, "moved" if has_moved else "restart")
                event = kept_from(self._numbers.take(), orjson.loads(end), end, self._clock())
                ends.append(replace(event, picture=picture))
        database.add([(end, self._lasting.now()) for end in ends], self._bounds.blurred, self._marks())

    def _look(self) -> None:
        """Find out whether the file is still the one that is open, and can be read.

        SQLite would write to a deleted one for ever, and to pages that it has in memory, whatever became of the file.
        """
        if self.readers.damage is not None:
            damage, self.readers.damage = self.readers.damage, None
            raise damage
        if self._path is not None and self._database is not None and files_of(self._path) != self._inodes:
            raise OSError(f"{self._path} or its -wal file was replaced")

    def _write(self) -> None:
        if self._database is None:
            self._open()
        while True:
            with self._changed:
                batch = [self._waiting[index] for index in range(min(_AT_ONCE, len(self._waiting)))]
            with self._writing() as database:
                # An event is written twice, to the log and to the file.
                if database.room() < 2 * sum(map(_size, batch)):
                    database.shorten()
                    raise OSError(errno.ENOSPC, f"fewer than {RESERVE // 1_000_000} MB are free")
                if batch:
                    rows = [(event, self._lasting.at(event.put_s)) for event in batch]
                    database.add(rows, self._bounds.blurred, self._marks())
            self._written_s = self._clock()
            self._events += len(batch)
            written = {event.number for event in batch}
            with self._changed:
                while self._waiting and self._waiting[0].number in written:
                    self._waiting_bytes -= _size(self._waiting.popleft())
                more = bool(self._waiting)
            if self.trouble:
                self.trouble = ""
                log.info("the history is written again; %d events that waited are there now", len(batch))
            if not more or not batch:
                return

    def _remove(self, wanted: Filter | int, future: Future[int]) -> None:
        removed = 0

        def remove() -> None:
            nonlocal removed
            while True:
                with self._writing() as database:
                    numbers = [wanted] if isinstance(wanted, int) else database.matching(wanted, _AT_ONCE)
                    found = self._drop(database, numbers) if numbers else 0
                removed += found
                if not found:
                    break
            with self._writing() as database:
                self._must_scrub = not database.scrub()

        with self._changed:
            gone = {event.number for event in self._waiting if is_meant(wanted, event)}
            removed = len(gone)
            self.gone = max(self.gone, *gone, 0)
            self._waiting = deque(event for event in self._waiting if event.number not in gone)
            self._waiting_bytes = sum(map(_size, self._waiting))
        if self._database is not None and self._try(remove):
            future.set_result(removed)
        else:
            future.set_exception(Unavailable(self.trouble or "the disk cannot be written"))

    def _drop(self, database: HistoryDatabase, numbers: Sequence[int]) -> int:
        self.gone = max(self.gone, *numbers)
        found = database.remove(numbers, self._marks())
        self._events -= found
        self._must_scrub = self._must_scrub or found > 0
        return found

    def _bound(self) -> None:
        """Remove the oldest events that are beyond the bounds, and take them off the disk."""
        now_s = self._clock()
        with self._writing() as database:
            if now_s >= self._expire_s:
                self._expire_s = now_s + min(60.0, self._bounds.keep_s / 20)
                before_s = self._lasting.now() - self._bounds.keep_s
                while old := database.expired(before_s, _AT_ONCE):
                    self._drop(database, old)
            if database.size() > self._bounds.most_bytes:
                while (size := database.size()) > self._bounds.most_bytes * _LEFT and self._events > 0:
                    too_much = (size - self._bounds.most_bytes * _LEFT) / size
                    self._drop(database, database.oldest(min(_AT_ONCE, 1 + int(too_much * self._events))))
            if self._must_scrub:
                self._must_scrub = not database.scrub()

    def _mark(self, is_whole: bool) -> None:
        with self._writing() as database:
            database.mark(self._marks(), is_whole)

    def _marks(self) -> tuple[int, float, float]:
        return (self.gone, *self._lasting.state())

    def _forget_oldest(self) -> None:
        event = self._waiting.popleft()
        self._waiting_bytes -= _size(event)
        self.gone = max(self.gone, event.number)

    def _report(self) -> None:
        self._metrics.history_events.set(self.count)
        if self._database is not None:
            with suppress(sqlite3.Error), self._writing() as database:
                self._metrics.history_bytes.set(database.size())


def is_meant(wanted: Filter | int, event: Kept | Item) -> bool:
    """Return whether an event is one of those that are to be removed."""
    if isinstance(wanted, int):
        return event.number == wanted
    return wanted.covers(event.number, event.camera, event.at_ms)


def _size(event: Kept) -> int:
    return len(event.body) + len(event.jpeg or b"") + 500
