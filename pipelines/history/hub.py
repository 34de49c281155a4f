"""Hands events to listeners as they come, and remembers the newest ones, so that one who comes back misses none."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

MOST_REMEMBERED = 2000
_MOST_WAITING = 256


class Item(NamedTuple):
    """An event for listeners.

    Attributes:
        number: Number of the event.
        camera: Name of its camera.
        kind: `begin`, `update` or `end`.
        at_ms: Capture of the newest look, milliseconds since 1970.
        document: The JSON object that listeners get.
    """

    number: int
    camera: str
    kind: str
    at_ms: int
    document: bytes


class Listener:
    """What one listener has not taken yet. Made by `Hub.listen`.

    Attributes:
        wanted: Whether it wants an event.
        wake: Called from any thread when there is something new; must return at once.
        over: Whether nothing more will come: it was too slow, or the hub is closed.
        too_slow: Whether it took too little, and was given up.
    """

    def __init__(self, wanted: Callable[[Item], bool], wake: Callable[[], None], most: int) -> None:
        self.wanted = wanted
        self.wake = wake
        self.over = self.too_slow = False
        self._most = most
        self._lock = threading.Lock()
        self._items: deque[Item] = deque()

    def put(self, item: Item) -> None:
        """Add an event; give up if too many wait."""
        with self._lock:
            if len(self._items) >= self._most:
                self.over = self.too_slow = True
                self._items.clear()
            elif not self.over:
                self._items.append(item)

    def take(self) -> list[Item]:
        """Return what came since the last call, oldest first."""
        with self._lock:
            items = list(self._items)
            self._items.clear()
            return items

    def drop(self, gone: Callable[[Item], bool]) -> None:
        """Forget events that were deleted."""
        with self._lock:
            self._items = deque(item for item in self._items if not gone(item))


class Hub:
    """The newest events, and those who listen. Thread-safe; nothing here waits.

    Args:
        before: A number that is smaller than that of every event to come.
        most_remembered: Most events that are remembered.
        most_waiting: Most events that wait for a listener; one who takes fewer is given up.
    """

    def __init__(self, before: int, most_remembered: int = MOST_REMEMBERED, most_waiting: int = _MOST_WAITING) -> None:
        self._lock = threading.Lock()
        self._most_remembered = most_remembered
        self._most_waiting = most_waiting
        self._floor = before
        self._items: deque[Item] = deque()
        self._listeners: set[Listener] = set()
        self._watchers: set[Callable[[], None]] = set()
        self._closed = False

    def publish(self, item: Item) -> None:
        """Hand an event to all who want it. Numbers must grow."""
        with self._lock:
            self._items.append(item)
            if len(self._items) > self._most_remembered:
                self._floor = self._items.popleft().number
            listeners = [one for one in self._listeners if one.wanted(item)]
            for listener in listeners:
                listener.put(item)
                if listener.over:
                    self._listeners.discard(listener)
        for listener in listeners:
            _call(listener.wake)

    def listen(
        self, after: int | None, wanted: Callable[[Item], bool], wake: Callable[[], None]
    ) -> tuple[Listener | None, int]:
        """Begin to listen.

        Args:
            after: Number of the last event that the listener has; None for no events of the past.
            wanted: Whether the listener wants an event.
            wake: Called from any thread when there is something to take; must return at once.

        Returns:
            The listener, with all that it wants after that event waiting; None if older events are needed than are
            remembered. And the number of the newest event that is not remembered any more.
        """
        with self._lock:
            if after is not None and after < self._floor:
                return None, self._floor
            # What is remembered may be more than may wait for one that does not take it.
            most = self._most_waiting + (0 if after is None else len(self._items))
            listener = Listener(wanted, wake, most)
            for item in self._items if after is not None else ():
                if item.number > after and wanted(item):  # type: ignore[operator]
                    listener.put(item)
            if self._closed:
                listener.over = True
            else:
                self._listeners.add(listener)
            return listener, self._floor

    def leave(self, listener: Listener) -> None:
        """Stop listening."""
        with self._lock:
            self._listeners.discard(listener)

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have a function called, from any thread, when a camera's state or number of tracks may have changed.

        Returns:
            What ends that.
        """
        with self._lock:
            self._watchers.add(wake)
        return lambda: self._watchers.discard(wake)

    def changed(self) -> None:
        """Note that a camera's state or number of tracks may have changed."""
        for wake in tuple(self._watchers):
            _call(wake)

    def drop(self, gone: Callable[[Item], bool]) -> None:
        """Forget events that were deleted."""
        with self._lock:
            self._items = deque(item for item in self._items if not gone(item))
            for listener in self._listeners:
                listener.drop(gone)

    def close(self) -> None:
        """End all listening."""
        with self._lock:
            self._closed = True
            listeners, self._listeners = self._listeners, set()
            for listener in listeners:
                listener.over = True
        for listener in listeners:
            _call(listener.wake)


def _call(wake: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the listener's event loop has ended
        wake()
