"""The history as a whole: what takes events, keeps them, and finds them again."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from visaged.pipelines.history import query
from visaged.pipelines.history.database import wipe
from visaged.pipelines.history.hub import Hub, Item
from visaged.pipelines.history.kept import Numbers, document_of, first_number
from visaged.pipelines.history.output import HistoryOutput, Wishes
from visaged.pipelines.history.query import Cursor, Filter, Statistics
from visaged.pipelines.history.readers import Readers, Unavailable
from visaged.pipelines.history.store import Bounds, Store, is_meant
from visaged.pipelines.outputs.messages import Message
from visaged.pipelines.runtime.metrics import Metrics

_PAGE = 200


@dataclass(frozen=True, slots=True)
class HistoryPlan:
    """What is kept, and for how long.

    Attributes:
        keep_s: Seconds for which events are kept; 0 keeps none.
        most_bytes: Most bytes that are kept.
        pictures: Whether pictures of best looks are kept.
        snapshots: Whether pictures of best looks are published.
        blurred: Whether faces in them are blurred.
    """

    keep_s: float = 86_400.0
    most_bytes: int = 256_000_000
    pictures: bool = False
    snapshots: bool = False
    blurred: bool = False


class NotKept(Exception):
    """No history is kept."""


class History:
    """The history.

    Args:
        plan: What is kept.
        folder: The state folder; None keeps events in memory.
        epoch: Number of this run, larger than those of earlier runs.
        publish: Takes messages with pictures; never blocks.
        metrics: Reports the state.
        clock: Returns monotonic seconds.
        wall: Returns seconds since 1970.
        ended: Camera, epoch and track of tracks of earlier runs that other nodes end, or have ended.

    Raises:
        ForeignFile: The file is of a newer visaged, or of another program.

    Attributes:
        hub: Hands events to listeners.
        store: Keeps events; None if none are kept.
        keeps_pictures: Whether pictures are kept with them.
        output: Takes events and looks.
    """

    def __init__(
        self,
        plan: HistoryPlan,
        folder: Path | None,
        epoch: int,
        publish: Callable[[Message], None],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        ended: Container[tuple[str, int, int]] = (),
    ) -> None:
        self._numbers = Numbers(first_number(epoch))
        self.store: Store | None = None
        if plan.keep_s > 0:
            bounds = Bounds(plan.keep_s, plan.most_bytes, plan.pictures, plan.blurred)
            self.store = Store(folder, bounds, epoch, self._numbers, metrics, clock, wall, ended)
        elif folder is not None:
            wipe(folder)
        self._first = self._numbers.last
        self.hub = Hub(self._first)
        self.keeps_pictures = plan.pictures and self.store is not None
        wishes = Wishes(self.keeps_pictures, plan.snapshots, plan.blurred)
        self.output = HistoryOutput(wishes, self._numbers, self.hub, self.store, publish, metrics, clock)

    def document(self) -> dict[str, object] | None:
        """Return the state of what is kept, for `/readyz`; None if nothing is kept."""
        return None if self.store is None else {"events": self.store.count, "error": self.store.state or None}

    # Reading; all of it may take a while, and is for threads that may wait.

    def page(self, wanted: Filter, before: Cursor | None, limit: int) -> tuple[list[bytes], Cursor | None]:
        """Return JSON objects of the newest events by capture time, and where the next page begins, if there is one.

        Raises:
            NotKept, Unavailable, TooSlow: There is no answer.
        """
        with self._readers.connection() as connection:
            found, more = query.page(connection, wanted, before, limit)
        return [document_of(one.number, bool(one.has_picture), one.body) for one in found], more

    def one(self, number: int) -> bytes | None:
        """Return the JSON object of an event, None if it is not there; raises as `page`."""
        waiting = self._store.waiting(number)
        if waiting is not None:
            return waiting.document
        with self._readers.connection() as connection:
            found = query.one(connection, number)
        return None if found is None else document_of(found.number, bool(found.has_picture), found.body)

    def picture(self, number: int) -> bytes | None:
        """Return the picture of an event, None if it has none; raises as `page`."""
        waiting = self._store.waiting(number)
        if waiting is not None:
            return waiting.jpeg
        with self._readers.connection() as connection:
            return query.picture(connection, number)

    def statistics(self, wanted: Filter, step_ms: int) -> Statistics:
        """Count tracks; raises as `page`."""
        with self._readers.connection() as connection:
            return query.statistics(connection, wanted, step_ms)

    def after(self, number: int, last: int) -> tuple[list[Item], int]:
        """Return the next events after a number and up to another, oldest first, and to where that reaches.

        Raises:
            Unavailable, TooSlow: There is no answer.
        """
        if self.store is None:
            return [], last
        with self._readers.connection() as connection:
            rows = query.after(connection, number, last, _PAGE)
        items = [
            Item(id, camera, kind, 0, document_of(id, bool(has_picture), body))
            for id, camera, kind, has_picture, body in rows
        ]
        return items, items[-1].number if len(items) == _PAGE else last

    def is_missing(self, after: int) -> bool:
        """Return whether events that came after one with a number may be gone, or it is not of this history."""
        gone = self._first if self.store is None else self.store.gone
        return after < gone or after > self._numbers.last

    @property
    def newest(self) -> int:
        """Number of the newest event."""
        return self._numbers.last

    def known(self, after: int) -> int:
        """Return the number of the newest event in place of one that there has not been yet."""
        return min(after, self._numbers.last)

    def remove(self, wanted: Filter | int) -> Future[int]:
        """Delete an event by its number, or those of cameras and a time, that there are now.

        The result is how many there were; it is there once they are gone from the disk.

        Raises:
            NotKept: There are none.
        """
        if isinstance(wanted, Filter):
            wanted = Filter(wanted.cameras, since_ms=wanted.since_ms, until_ms=wanted.until_ms, last=self._numbers.last)
        store = self._store

        def gone(camera: str, number: int, at_ms: int) -> bool:
            return wanted.covers(number, camera, at_ms) if isinstance(wanted, Filter) else number == wanted

        self.output.drop(gone)
        future = store.remove(wanted)
        future.add_done_callback(lambda _: self.hub.drop(lambda item: is_meant(wanted, item)))
        return future

    @property
    def _store(self) -> Store:
        if self.store is None:
            raise NotKept
        return self.store

    @property
    def _readers(self) -> Readers:
        return self._store.readers


__all__ = ["History", "HistoryPlan", "NotKept", "Unavailable"]
