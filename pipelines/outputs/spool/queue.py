"""The events that wait, between the thread that sends them and the thread that keeps them on disk; no input or output.

Events are numbered in the order in which they came, and sent in that order. They lie in three places, by their numbers:
the head in memory, which may be sent; the middle on disk alone; and the tail in memory, which is not on disk yet. The
middle is empty unless many events wait.

While the disk cannot be written, the tail goes on to the head without it. `Work` that fails is collected again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from visaged.pipelines.outputs.messages import Message
from visaged.pipelines.outputs.outbox import Envelope
from visaged.pipelines.outputs.spool.database import Track

MOST_IN_HEAD = 500
"""Most events that are held in memory though they are on disk."""

# A disk that takes longer holds up no event: those that wait are sent first, and stored when it answers.
_PATIENCE_S = 2.0
# The same while older events lie on disk alone, which then arrive after newer ones.
_LONG_PATIENCE_S = 10.0
_MANY_DONE = 500
_MANY_GONE = 1000


@dataclass(slots=True, eq=False)
class Entry:
    """An event that waits.

    Attributes:
        id: Its number.
        message: The event.
        put_s: Monotonic seconds when it was put here; by the spool's own clock for one of an earlier run.
        stored: Whether it is on disk.
        gone: Whether it was acknowledged or dropped.
    """

    id: int
    message: Message
    put_s: float
    stored: bool = False
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be written to the disk in one transaction.

    Attributes:
        new: Events to store.
        done: Events to remove, as pairs of number and bytes.
        open: Tracks that changed: None for one that has ended, by run, camera and track.
        sequences: The newest event's number, by run and camera.
        topics: Topics with a retained message: whether they have one now.
        is_whole: Whether `open` and `sequences` hold all that is known, because earlier changes were not stored.
    """

    new: Sequence[Entry]
    done: Sequence[tuple[int, int]]
    open: dict[tuple[int, str, int], Track | None]
    sequences: dict[tuple[int, str], int]
    topics: dict[str, bool]
    is_whole: bool

    def __bool__(self) -> bool:
        """Return whether there is anything to write."""
        return bool(self.new or self.done or self.open or self.topics or self.is_whole)


class SpoolQueue:
    """Events that wait; thread-safe.

    Args:
        first: Number of the first event; larger than all that are on disk.
        most: Most events that wait in memory because the disk does not take them; beyond it, the oldest are dropped.
        most_bytes: Most bytes of their bodies.
        clock: Returns monotonic seconds.
    """

    def __init__(self, first: int, most: int, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._clock = clock
        self._changed = threading.Condition()
        self._is_fresh = False
        self._last = self._replayed_to = first - 1
        self._head: deque[Entry] = deque()
        self._tail: deque[Entry] = deque()
        self._sent: dict[int, Entry] = {}
        # How many of head and tail were dropped; they are taken out in passing, or when there are many.
        self._gone = 0
        # All that are not on disk, wherever they lie, by number.
        self._unstored: dict[int, Entry] = {}
        self._unstored_bytes = 0
        self._done: list[tuple[int, int]] = []
        # Events with larger numbers are on disk alone, unless they lie in memory too: how many, and from where on.
        self._on_disk = 0
        self._read_to = -1
        self._fails = self._is_unreadable = False
        # Since when the next events to send are waited for, which are on disk alone.
        self._starves_since_s: float | None = None
        self._open: dict[tuple[int, str, int], Track] = {}
        self._sequences: dict[tuple[int, str], int] = {}
        self._changed_open: dict[tuple[int, str, int], Track | None] = {}
        self._changed_sequences: dict[tuple[int, str], int] = {}
        self._topics: set[str] = set()
        self._changed_topics: dict[str, bool] = {}
        self._is_whole = False

    def __len__(self) -> int:
        """Return how many events are not acknowledged."""
        with self._changed:
            return self._on_disk + len(self._head) + len(self._tail) - self._gone + len(self._sent)

    # For the thread that sends.

    def put(self, message: Message) -> list[Message]:
        """Add an event at the end; return those that were dropped to make room in memory."""
        with self._changed:
            self._last += 1
            entry = Entry(self._last, message, self._clock())
            self._tail.append(entry)
            self._unstored[entry.id] = entry
            self._unstored_bytes += len(message.body)
            self._note(message)
            lost = []
            while len(self._unstored) > self._most or self._unstored_bytes > self._most_bytes:
                oldest = next((e for e in self._unstored.values() if e.id not in self._sent), None)
                if oldest is None or oldest is entry:
                    break
                self._remove(oldest)
                self._gone += 1
                lost.append(oldest.message)
            if self._gone >= _MANY_GONE:
                self._sweep()
            self._refresh()
            return lost

    def pending(self, limit: int) -> list[Envelope]:
        """Return up to `limit` events to send, oldest first; each is returned once, until `retry` is called."""
        with self._changed:
            self._hurry()
            envelopes: list[Envelope] = []
            while self._head and len(envelopes) < limit:
                entry = self._head.popleft()
                if entry.gone:
                    self._gone -= 1
                else:
                    self._sent[entry.id] = entry
                    envelopes.append(Envelope(entry.id, entry.message, entry.id <= self._replayed_to))
            if self._wants_more():
                self._refresh()
            return envelopes

    def retry(self) -> None:
        """Make all events that are not acknowledged pending again, as replayed."""
        with self._changed:
            self._head = deque(sorted([*self._sent.values(), *self._head], key=_number))
            self._sent.clear()
            self._replayed_to = self._last

    def ack(self, id: int) -> None:
        """Remove an event that `pending` returned."""
        with self._changed:
            entry = self._sent.pop(id, None)
            if entry is not None:
                self._remove(entry)
            if len(self._done) >= _MANY_DONE:
                self._refresh()

    def waits(self, camera: str, epoch: int) -> bool:
        """Return whether events of a camera in an epoch may not be acknowledged: what is on disk alone may be any."""
        with self._changed:
            waiting = (entry for entry in (*self._sent.values(), *self._head, *self._tail) if not entry.gone)
            messages = (entry.message for entry in waiting)
            return self._on_disk > 0 or any(one.camera == camera and one.epoch == epoch for one in messages)

    def close_track(self, camera: str, epoch: int, track: int) -> None:
        """Note that a track has ended, by an event that was not put here."""
        with self._changed:
            key = (epoch, camera, track)
            if self._open.pop(key, None) is not None:
                self._changed_open[key] = None
                self._refresh()

    def remember(self, topic: str, has_message: bool) -> None:
        """Note whether a topic has a retained message."""
        with self._changed:
            if (topic in self._topics) != has_message:
                (self._topics.add if has_message else self._topics.discard)(topic)
                self._changed_topics[topic] = has_message
                self._refresh()

    # For the thread that writes.

    def wait(self, timeout_s: float) -> None:
        """Wait until there is something to write or to read, for up to `timeout_s`."""
        with self._changed:
            if not self._is_fresh:
                self._changed.wait(timeout_s)
            self._is_fresh = False

    def wake(self) -> None:
        """End `wait`."""
        with self._changed:
            self._refresh()

    def collect(self, adds: bool = True) -> Work:
        """Return all that is to be written; `stored` or `failed` must be called with it next.

        Args:
            adds: Whether events may be added; otherwise only those that are done are removed.
        """
        with self._changed:
            if not adds:
                done, self._done = self._done, []
                return Work([], done, {}, {}, {}, False)
            whole = self._is_whole
            work = Work(
                list(self._unstored.values()),
                self._done,
                dict(self._open) if whole else self._changed_open,
                dict(self._sequences) if whole else self._changed_sequences,
                self._changed_topics,
                whole,
            )
            self._done, self._changed_open, self._changed_sequences, self._changed_topics = [], {}, {}, {}
            self._is_whole = False
            return work

    def stored(self, work: Work) -> None:
        """Note that the work is on disk."""
        with self._changed:
            self._fails = self._is_unreadable = False
            self._on_disk -= sum(id > self._read_to for id, _ in work.done)
            in_tail = {entry.id for entry in self._tail}
            for entry in work.new:
                if self._unstored.pop(entry.id, None) is not None:
                    self._unstored_bytes -= len(entry.message.body)
                entry.stored = True
                if entry.id > self._read_to and (entry.gone or entry.id not in in_tail):
                    self._on_disk += 1
                if entry.gone:  # while it was being written
                    self._done.append((entry.id, len(entry.message.body)))
            self._settle()

    def failed(self, work: Work | None = None) -> None:
        """Note that the disk cannot be written, and that the work, if given, is not on disk."""
        with self._changed:
            self._fails = True
            if work is not None:
                self._done = [*work.done, *self._done]
                self._changed_topics = work.topics | self._changed_topics
                self._is_whole = True
            self._settle()

    def unreadable(self) -> None:
        """Note that what is on disk cannot be read: events that came later are sent before it."""
        with self._changed:
            self._fails = self._is_unreadable = True
            self._settle()

    @property
    def wants_more(self) -> bool:
        """Whether events should be read from the disk."""
        with self._changed:
            return self._wants_more()

    @property
    def read_to(self) -> int:
        """Number after which events are to be read from the disk."""
        with self._changed:
            return self._read_to

    def refill(self, entries: Iterable[Entry]) -> None:
        """Take the events that follow `read_to` on disk; none if there are no more. Those that are gone are removed."""
        with self._changed:
            known = self._sent.keys() | {e.id for e in self._head} | {id for id, _ in self._done}
            count = 0
            for entry in entries:
                count += 1
                self._read_to = max(self._read_to, entry.id)
                if entry.id in known:
                    continue
                if entry.gone:
                    self._done.append((entry.id, len(entry.message.body)))
                else:
                    self._head.append(entry)
            self._on_disk = max(0, self._on_disk - count) if count else 0
            self._starves_since_s = None
            self._head = deque(sorted(self._head, key=_number))
            self._settle()

    def resume(self, on_disk: int) -> None:
        """Note how many events after `read_to` are on disk, after the database was opened again."""
        with self._changed:
            self._on_disk = on_disk

    def adopt(self, on_disk: int, topics: set[str]) -> None:
        """Take over what is on disk from earlier runs: events, before those that have come since, and topics."""
        with self._changed:
            self._topics |= topics
            self._tail = deque([*self._head, *self._tail])
            self._head.clear()
            self._on_disk, self._read_to = on_disk, -1

    def begin_anew(self) -> int:
        """Have all that is in memory stored again, in a new database; return how many were on disk alone."""
        with self._changed:
            entries = sorted([*self._sent.values(), *self._head, *self._tail], key=_number)
            self._unstored = {entry.id: entry for entry in entries if not entry.gone}
            self._unstored_bytes = sum(len(entry.message.body) for entry in self._unstored.values())
            inside = sum(entry.id > self._read_to and entry.stored for entry in entries)
            for entry in entries:
                entry.stored = False
            lost, self._on_disk = max(0, self._on_disk - inside), 0
            self._read_to = max([self._read_to, *self._sent, *(e.id for e in self._head)])
            self._done.clear()
            self._changed_topics = dict.fromkeys(self._topics, True)
            self._is_whole = True
            return lost

    def drop_oldest(self, before_s: float | None = None) -> Message | None:
        """Drop the oldest event in the head, which is not in flight.

        Args:
            before_s: Only if it was put here before this monotonic time.

        Returns:
            The event; None if there is none that may be dropped.
        """
        with self._changed:
            while self._head and self._head[0].gone:
                self._head.popleft()
                self._gone -= 1
            if not self._head or (before_s is not None and self._head[0].put_s >= before_s):
                return None
            entry = self._head.popleft()
            self._remove(entry)
            if self._wants_more():
                self._refresh()
            return entry.message

    @property
    def done_bytes(self) -> int:
        """Bytes of the events that are to be removed from the disk."""
        with self._changed:
            return sum(size for _, size in self._done)

    @property
    def unstored_bytes(self) -> int:
        """Bytes of the bodies of the events that are not on disk."""
        with self._changed:
            return self._unstored_bytes

    @property
    def unstored(self) -> int:
        """Number of events that are not on disk."""
        with self._changed:
            return len(self._unstored)

    @property
    def oldest_s(self) -> float | None:
        """Monotonic seconds when the oldest event was put here; None if none waits."""
        with self._changed:
            first = next(iter(self._sent.values()), None) or next((e for e in self._head if not e.gone), None)
            first = first or next((e for e in self._tail if not e.gone), None)
            return None if first is None else first.put_s

    # With the lock held.

    def _refresh(self) -> None:
        self._is_fresh = True
        self._changed.notify_all()

    def _note(self, message: Message) -> None:
        run = message.epoch, message.camera
        self._sequences[run] = self._changed_sequences[run] = message.seq
        if message.track is None:
            return
        key = (*run, message.track)
        if message.is_end:
            self._open.pop(key, None)
            self._changed_open[key] = None
        else:
            self._open[key] = self._changed_open[key] = Track(*key, message.captured_at, message.body)

    def _remove(self, entry: Entry) -> None:
        entry.gone = True
        if entry.stored:
            self._done.append((entry.id, len(entry.message.body)))
        elif self._unstored.pop(entry.id, None) is not None:
            self._unstored_bytes -= len(entry.message.body)

    def _sweep(self) -> None:
        self._head = deque(entry for entry in self._head if not entry.gone)
        self._tail = deque(entry for entry in self._tail if not entry.gone)
        self._gone = 0

    def _wants_more(self) -> bool:
        return self._on_disk > 0 and len(self._head) < MOST_IN_HEAD // 2

    def _hurry(self) -> None:
        """Send what waits for a disk that hangs."""
        if self._head or not (self._tail or self._on_disk):
            return
        now_s = self._clock()
        if self._on_disk and self._starves_since_s is None:
            self._starves_since_s = now_s
        if not self._tail:
            return
        # Those that wait for the broker have waited long already when it comes back: that says nothing of the disk.
        since_s = max(self._tail[0].put_s, self._starves_since_s or self._tail[0].put_s)
        if now_s - since_s > (_LONG_PATIENCE_S if self._on_disk else _PATIENCE_S):
            self._move(len(self._tail))

    def _settle(self) -> None:
        """Let the tail go on, as far as it may."""
        while self._tail:
            entry = self._tail[0]
            if entry.gone:
                self._tail.popleft()
                self._gone -= 1
            elif entry.stored and (self._on_disk or len(self._head) >= MOST_IN_HEAD):
                self._tail.popleft()
                self._on_disk += 1
            elif entry.stored or (self._fails and (not self._on_disk or self._is_unreadable)):
                self._move(1)
            else:
                return

    def _move(self, count: int) -> None:
        for _ in range(count):
            entry = self._tail.popleft()
            self._head.append(entry)
            if not self._on_disk:
                self._read_to = max(self._read_to, entry.id)


def _number(entry: Entry) -> int:
    return entry.id
