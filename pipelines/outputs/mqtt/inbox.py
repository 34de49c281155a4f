"""The queue from other threads to the thread of the MQTT output."""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

from visaged.pipelines.outputs.messages import Kind, Message


class News(NamedTuple):
    """What came in since the last call of `Inbox.take`.

    Attributes:
        faces: Messages of frames, and snapshots, oldest first.
        events: Messages of events, oldest first.
        state: The newest payload to retain, by topic; an empty payload clears the topic.
    """

    faces: deque[Message]
    events: deque[Message]
    state: dict[str, bytes]


class Inbox:
    """A bounded queue whose reader can also be woken without a message.

    Args:
        most_faces: Most `faces` and `snapshot` messages that wait; beyond it, the oldest is dropped.
        most_events: Most `events` messages that wait; beyond it, the oldest is dropped.
    """

    def __init__(self, most_faces: int, most_events: int) -> None:
        self._most_faces = most_faces
        self._most_events = most_events
        self._changed = threading.Condition()
        self._woken = False
        self._news = News(deque(), deque(), {})

    def put(self, message: Message) -> Message | None:
        """Add a message that is not state; return the one that was dropped for it, if any."""
        with self._changed:
            faces, events, _ = self._news
            queue, most = (events, self._most_events) if message.kind == "events" else (faces, self._most_faces)
            queue.append(message)
            self._changed.notify()
            return queue.popleft() if len(queue) > most else None

    def put_state(self, topic: str, payload: bytes) -> None:
        """Set the payload to retain for a topic; replaces one that waits."""
        with self._changed:
            self._news.state[topic] = payload
            self._changed.notify()

    def wake(self) -> None:
        """Wake the reader without a message; the call is short and takes no other lock."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def take(self, timeout_s: float) -> News:
        """Return what came in; waits for that, or for `wake`, up to `timeout_s`."""
        with self._changed:
            if not (any(self._news) or self._woken):
                self._changed.wait(timeout_s)
            self._woken = False
            news, self._news = self._news, News(deque(), deque(), {})
            return news

    def wait(self, timeout_s: float) -> None:
        """Wait for `wake` up to `timeout_s`, without taking what came in."""
        with self._changed:
            if not self._woken:
                self._changed.wait(timeout_s)
            self._woken = False

    def count(self, kind: Kind) -> int:
        """Return how many messages of a kind wait."""
        with self._changed:
            if kind not in ("faces", "events", "snapshot"):
                return len(self._news.state)
            return sum(message.kind == kind for message in (*self._news.faces, *self._news.events))
