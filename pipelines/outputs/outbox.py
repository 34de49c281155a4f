"""Keeps messages until the receiver of an output has acknowledged them.

`Outbox` is the interface that an output uses. `MemoryOutbox` keeps messages in memory, `spool.Spool` on disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from visaged.pipelines.outputs.messages import Message


class Envelope(NamedTuple):
    """A message that is due to be sent.

    Attributes:
        id: Number that the outbox gave the message, for `ack`; grows from message to message.
        message: The message.
        replayed: Whether the message had to wait for a connection.
    """

    id: int
    message: Message
    replayed: bool


class TopicMemory(Protocol):
    """Remembers over a restart which topics have a retained message; all methods never block."""

    def remember(self, topic: str) -> None:
        """Note that a topic has a retained message."""
        ...

    def forget(self, topic: str) -> None:
        """Note that a topic has no retained message any more."""
        ...

    def remembered(self) -> set[str]:
        """Return the topics that had a retained message when the process began."""
        ...


class NoTopicMemory:
    """Remembers nothing."""

    def remember(self, topic: str) -> None:
        """Do nothing."""

    def forget(self, topic: str) -> None:
        """Do nothing."""

    def remembered(self) -> set[str]:
        """Return no topic."""
        return set()


class Outbox(Protocol):
    """Messages in the order in which they came, kept until acknowledged. Must be used by one thread only.

    Attributes:
        durable: Whether messages that are not acknowledged survive the end of the process.
    """

    durable: bool

    def listen(self, wake: Callable[[], None]) -> None:
        """Have a function called, from any thread, when messages become due that were not when they were added."""
        ...

    def put(self, message: Message) -> list[Message]:
        """Add a message at the end; return those that were dropped to make room, which are lost."""
        ...

    def pending(self, limit: int) -> list[Envelope]:
        """Return up to `limit` messages to send, oldest first; each is returned once, until `retry` is called."""
        ...

    def retry(self) -> None:
        """Make all messages that are not acknowledged pending again, as replayed, after a new connection."""
        ...

    def ack(self, id: int) -> None:
        """Remove a message that `pending` returned, because the receiver has it or it is given up."""
        ...

    def waits(self, camera: str, epoch: int) -> bool:
        """Return whether messages of a camera in an epoch may not be acknowledged; takes time for each that waits."""
        ...

    def close_track(self, camera: str, epoch: int, track: int) -> None:
        """Note that a track has ended by a message that is not put here."""
        ...

    def __len__(self) -> int:
        """Return how many messages are not acknowledged."""
        ...

    def close(self) -> None:
        """Release what the outbox holds; a durable one keeps its messages for the next process."""
        ...


class MemoryOutbox:
    """An outbox in memory.

    Args:
        most: Most messages that wait; beyond it, the oldest that is not in flight is dropped.
        most_bytes: Most bytes of bodies that wait; beyond it, the oldest messages are dropped.
    """

    durable = False

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._waiting: deque[tuple[int, Message]] = deque()
        self._sent: dict[int, Message] = {}
        self._last = 0
        self._replayed_to = 0

    def listen(self, wake: Callable[[], None]) -> None:
        """Do nothing: messages are due at once."""

    def put(self, message: Message) -> list[Message]:
        """Add a message at the end; return those that were dropped to make room."""
        self._last += 1
        self._waiting.append((self._last, message))
        self._bytes += len(message.body)
        lost = []
        # After `retry`, more messages than the limit may wait. Then one is dropped for each new one, so that those that
        # were in flight are not dropped at once.
        if len(self._waiting) > self._most:
            lost.append(self._drop())
        while self._bytes > self._most_bytes and len(self._waiting) > 1:
            lost.append(self._drop())
        return lost

    def pending(self, limit: int) -> list[Envelope]:
        """Return the next messages to send, oldest first."""
        envelopes: list[Envelope] = []
        while self._waiting and len(envelopes) < limit:
            id, message = self._waiting.popleft()
            self._bytes -= len(message.body)
            self._sent[id] = message
            envelopes.append(Envelope(id, message, id <= self._replayed_to))
        return envelopes

    def retry(self) -> None:
        """Make all messages that are not acknowledged pending again, as replayed."""
        self._waiting.extendleft(reversed(self._sent.items()))
        self._bytes += sum(len(message.body) for message in self._sent.values())
        self._sent.clear()
        self._replayed_to = self._last

    def ack(self, id: int) -> None:
        """Remove a message that `pending` returned."""
        self._sent.pop(id, None)

    def waits(self, camera: str, epoch: int) -> bool:
        """Return whether messages of a camera in an epoch are not acknowledged."""
        messages = (*self._sent.values(), *(message for _, message in self._waiting))
        return any(message.camera == camera and message.epoch == epoch for message in messages)

    def close_track(self, camera: str, epoch: int, track: int) -> None:
        """Do nothing: the tracks of a process end with it."""

    def __len__(self) -> int:
        """Return how many messages are not acknowledged."""
        return len(self._waiting) + len(self._sent)

    def close(self) -> None:
        """Do nothing: memory needs no release."""

    def _drop(self) -> Message:
        message = self._waiting.popleft()[1]
        self._bytes -= len(message.body)
        return message
