"""An outbox on disk: events survive the end of the process, however it ends, until the broker has acknowledged them.

An event is stored before it is sent, and removed once it is acknowledged. A thread of its own writes whatever came
since the last transaction in one; it starts at most 200 a second, so that 5,000 events a second cost few syncs while an
event waits a few milliseconds. Acknowledged events are removed along with the next ones that are stored, or within half
a second: after a kill, that much is sent twice.

The state of every open track is stored too, so that the next run can end the tracks that this one left open.

While the disk cannot be written (full, read-only, broken, hanging), events go on from memory, within bounds; all that
still waits is stored as soon as the disk takes it. The spool thread is not watched as the others are: a disk that hangs
holds up no event, and a new process would hang at it too.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Container
from pathlib import Path

from visaged.pipelines.outputs.messages import Message, end_of
from visaged.pipelines.outputs.outbox import Envelope
from visaged.pipelines.outputs.spool.config import SpoolConfig
from visaged.pipelines.outputs.spool.database import Changes, Database, Row, is_sound, set_spool_aside
from visaged.pipelines.outputs.spool.queue import MOST_IN_HEAD, Entry, SpoolQueue, Work
from visaged.pipelines.runtime.database import (
    RESERVE,
    ForeignFile,
    files_of,
    is_damaged,
    is_full,
    reason_of,
)
from visaged.pipelines.runtime.lasting import LastingClock
from visaged.pipelines.runtime.metrics import Metrics

log = logging.getLogger(__name__)

FILE_NAME = "spool.sqlite3"

_WAIT_S = 0.5
_PACE_S = 0.005
_RETRY_S = 2.0
_LOOK_S = 1.0
_TIDY_S = 60.0
_HANGS_S = 5.0
# So many numbers a millisecond are left to each run, whose epoch is larger than those of the runs before.
_NUMBERS = 1 << 20


class Spool:
    """An outbox on disk, and the memory of retained topics. What waits of earlier runs comes first.

    Args:
        folder: The state folder, which must exist.
        config: Bounds of what is on disk.
        memory: Most events, and most bytes of their bodies, that wait in memory while the disk takes none.
        epoch: Number of this run, larger than those of earlier runs.
        lose: Counts lost events: a cause in one word, and how many.
        metrics: Reports the state.
        clock: Returns monotonic seconds.
        wall: Returns seconds since 1970.
        ended: Camera, epoch and track of tracks of earlier runs that other nodes end, or have ended.

    Raises:
        ForeignFile: The database is of a newer visaged, or of another program.

    Attributes:
        trouble: Why events are not kept on disk; empty while they are.
    """

    durable = True

    def __init__(
        self,
        folder: Path,
        config: SpoolConfig,
        memory: tuple[int, int],
        epoch: int,
        lose: Callable[[str, int], None],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        ended: Container[tuple[str, int, int]] = (),
    ) -> None:
        self._path = folder / FILE_NAME
        self._busy_since_s: float | None = None
        self._most_bytes = config.max_mb * 1_000_000
        self._most_age_s = config.max_age_h * 3600
        self._lose = lose
        self._metrics = metrics
        self._clock = clock
        self._wall = wall
        self._next_id = epoch * _NUMBERS
        self._ended = ended
        self._queue = SpoolQueue(self._next_id + _NUMBERS // 2, *memory, clock)
        self._wake: Callable[[], None] = lambda: None
        self._database: Database | None = None
        self._inodes = 0, 0
        self._was_open = False
        self._lasting = LastingClock(clock, wall)
        self._bytes = 0
        self._topics: set[str] = set()
        self.trouble = ""
        self._retry_s = self._look_s = self._written_s = float("-inf")
        self._tidy_s = clock() + _TIDY_S
        metrics.spool_max_bytes.set(self._most_bytes)
        metrics.spool_max_age.set(self._most_age_s)
        metrics.spool_writable.set_function(lambda: not self.state)
        self._try(self._open, at_start=True)
        self._report()

    @property
    def state(self) -> str:
        """Why events are not kept on disk now; empty while they are. May be asked from any thread."""
        since_s = self._busy_since_s
        if since_s is not None and self._clock() - since_s > _HANGS_S:
            return "the disk does not answer"
        return self.trouble

    # For the output's thread.

    def listen(self, wake: Callable[[], None]) -> None:
        """Have a function called, from the spool's thread, when events become due."""
        self._wake = wake

    def put(self, message: Message) -> list[Message]:
        """Add an event at the end; return those that were dropped to make room in memory."""
        return self._queue.put(message)

    def pending(self, limit: int) -> list[Envelope]:
        """Return up to `limit` events to send, oldest first; each is returned once, until `retry` is called."""
        return self._queue.pending(limit)

    def retry(self) -> None:
        """Make all events that are not acknowledged pending again, as replayed."""
        self._queue.retry()

    def ack(self, id: int) -> None:
        """Remove an event that `pending` returned."""
        self._queue.ack(id)

    def waits(self, camera: str, epoch: int) -> bool:
        """Return whether events of a camera in an epoch may not be acknowledged."""
        return self._queue.waits(camera, epoch)

    def close_track(self, camera: str, epoch: int, track: int) -> None:
        """Note that a track has ended by an event that is not put here, so that the next run does not end it."""
        self._queue.close_track(camera, epoch, track)

    def __len__(self) -> int:
        """Return how many events are not acknowledged."""
        return len(self._queue)

    def close(self) -> None:
        """Have everything written soon; the end of `run` closes the file."""
        self._queue.wake()

    def remember(self, topic: str) -> None:
        """Note that a topic has a retained message."""
        self._queue.remember(topic, True)

    def forget(self, topic: str) -> None:
        """Note that a topic has no retained message any more."""
        self._queue.remember(topic, False)

    def remembered(self) -> set[str]:
        """Return the topics that had a retained message when the process began."""
        return set(self._topics)

    # The spool's own thread.

    def run(self, stopping: threading.Event) -> None:
        """Write until `stopping` is set, and then all that is left."""
        while not stopping.is_set():
            self._queue.wait(_WAIT_S)
            stopping.wait(self._written_s + _PACE_S - self._clock())
            self.turn()
        self._retry_s = float("-inf")
        self.turn()
        if self._queue.unstored:
            self._lose("shutdown", self._queue.unstored)
            log.warning("%d events are not on disk and are lost at the end: %s", self._queue.unstored, self.trouble)
        if self._database is not None:
            self._database.close()

    def turn(self) -> None:
        """Write what there is to write, read what is to be sent next, and drop what is beyond the bounds."""
        now_s = self._clock()
        if not self.trouble and now_s >= self._look_s:
            self._look_s = now_s + _LOOK_S
            self._try(self._look)
        if not self.trouble or now_s >= self._retry_s:
            self._try(self._write)
        elif self._queue.unstored:
            self._queue.failed()
        if self._database is not None and self._queue.wants_more:
            self._try(self._refill, reads=True)
        if not self.trouble:
            self._bound()
        self._report()
        self._wake()

    def _try(self, do: Callable[[], None], reads: bool = False, at_start: bool = False) -> None:
        """Do something with the disk; an error leads to `trouble`, and a foreign file ends the start."""
        self._busy_since_s = self._clock()
        try:
            do()
        except (sqlite3.Error, OSError, ForeignFile) as error:
            if is_damaged(error):
                self._close()
                try:
                    set_spool_aside(self._path)
                    self._open()
                    return
                except (sqlite3.Error, OSError, ForeignFile) as second:
                    error = second
            if at_start and isinstance(error, ForeignFile):
                raise error from None
            self._fail(error)
            if reads:
                self._queue.unreadable()
        finally:
            self._busy_since_s = None

    def _fail(self, error: Exception) -> None:
        if not is_full(error):
            self._close()
        self._metrics.spool_failures.inc()
        self._retry_s = self._clock() + _RETRY_S
        self._queue.failed()
        if not self.trouble:
            log.warning(
                "events cannot be kept on disk (%s: %s); they go on from memory, and those that wait for the broker "
                "are lost if visaged ends: free the disk, or set state_dir to a folder that can be written",
                self._path, reason_of(error),
            )  # fmt: skip
        self.trouble = reason_of(error)

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database = None

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = Database(self._path)
        try:
            if self._was_open and database.is_new:
                lost = self._queue.begin_anew()
                if lost:
                    self._lose("damaged", lost)
            elif self._was_open:
                self._queue.resume(database.total(self._queue.read_to)[0])
            else:
                self._begin(database)
            self._bytes = database.total()[1]
            self._inodes = files_of(self._path)
        except BaseException:
            database.close()
            raise
        self._database, self._was_open = database, True

    def _begin(self, database: Database) -> None:
        """Take over what earlier runs left."""
        self._lasting.resume(database.clock())
        self._topics = database.topics()
        sequences = database.sequences()
        ends: list[Row] = []
        for track in database.tracks():
            epoch, camera, number, captured_at, body = track
            if not is_sound(track):
                self._lose("damaged", 1)
                continue
            if (camera, epoch, number) in self._ended:
                continue
            seq = sequences[epoch, camera] = sequences.get((epoch, camera), 0) + 1
            end = end_of(body, seq, "restart")
            ends.append(Row(self._next_id + len(ends), epoch, camera, seq, captured_at, self._lasting.now(), end))
        database.close_tracks(ends, self._next_id)
        waiting = database.total()[0]
        self._queue.adopt(waiting, self._topics)
        if waiting:
            log.info(
                "%d events of earlier runs wait for the broker; %d of them end tracks that were left open", waiting,
                len(ends),
            )  # fmt: skip

    def _look(self) -> None:
        """Find out whether the file is still the one that is open: SQLite would write to a deleted one for ever."""
        if self._database is not None and files_of(self._path) != self._inodes:
            raise OSError(f"{self._path} or its -wal file was replaced")

    def _write(self) -> None:
        if self._database is None:
            self._open()
        assert self._database is not None
        # An event is written twice, to the log and to the file.
        room = self._database.room() >= 2 * self._queue.unstored_bytes
        work = self._queue.collect(room)
        if work:
            self._apply(work)
        if not room:
            if not len(self._queue):  # until then, the log is what removals and a restart can use
                self._database.shorten()
            raise OSError(errno.ENOSPC, f"fewer than {RESERVE // 1_000_000} MB are free")
        self._heal(len(work.new))
        if self._written_s >= self._tidy_s:
            self._tidy_s = self._written_s + _TIDY_S
            self._database.tidy()

    def _apply(self, work: Work) -> None:
        assert self._database is not None
        began_s = self._clock()
        try:
            self._database.apply(self._changes(work))
        except BaseException:
            self._queue.failed(work)
            raise
        self._written_s = self._clock()
        self._metrics.spool_write.observe(self._written_s - began_s)
        self._bytes += sum(len(entry.message.body) for entry in work.new) - sum(size for _, size in work.done)
        self._queue.stored(work)

    def _heal(self, count: int = 0) -> None:
        if self.trouble:
            self.trouble = ""
            log.info("events are kept on disk again; %d that waited in memory are there now", count)

    def _changes(self, work: Work) -> Changes:
        rows = [
            Row(e.id, m.epoch, m.camera, m.seq, m.captured_at, self._lasting.at(e.put_s), m.body)
            for e in work.new
            for m in (e.message,)
        ]
        done = [id for id, _ in work.done]
        return Changes(self._lasting.state(), rows, done, work.open, work.sequences, work.topics, work.is_whole)

    def _refill(self) -> None:
        assert self._database is not None
        entries = [self._entry(row) for row in self._database.read(self._queue.read_to, MOST_IN_HEAD)]
        self._queue.refill(entries)
        damaged = sum(entry.gone for entry in entries)
        if damaged:
            self._lose("damaged", damaged)

    def _entry(self, row: Row) -> Entry:
        if not is_sound(row):
            nothing = Message("events", "", 0, 0, b"", 0.0, 0.0)
            return Entry(row.id, nothing, 0.0, stored=True, gone=True)
        captured_s = self._clock() - (self._wall() - row.captured_at)
        message = Message("events", row.camera, row.seq, row.epoch, row.body, captured_s, row.captured_at)
        return Entry(row.id, message, self._lasting.monotonic(row.stored_s), stored=True)

    def _bound(self) -> None:
        """Drop the oldest events that are beyond the bounds."""
        dropped = 0
        while self._bytes - self._queue.done_bytes > self._most_bytes and self._queue.drop_oldest() is not None:
            dropped += 1
        if dropped:
            self._lose("spool_full", dropped)
        expired = 0
        while self._queue.drop_oldest(self._clock() - self._most_age_s) is not None:
            expired += 1
        if expired:
            self._lose("expired", expired)

    def _report(self) -> None:
        oldest_s = self._queue.oldest_s
        self._metrics.spool_events.set(len(self._queue))
        self._metrics.spool_bytes.set(self._bytes)
        self._metrics.spool_oldest.set(0.0 if oldest_s is None else max(0.0, self._clock() - oldest_s))
