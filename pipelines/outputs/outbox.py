"""Where messages wait until an output's receiver has acknowledged them.

`Outbox` is what an output needs of such a place. `MemoryOutbox` keeps them in memory; one that keeps them on disk can
take its place without a change to the output.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

from visaged.pipelines.outputs.messages import Message


class Envelope(NamedTuple):
    """A message that is due to be sent.

    Attributes:
        id: Given by the outbox, for `ack`; grows from message to message.
        message: The message.
        replayed: Whether it had to wait for a connection.
    """

    id: int
    message: Message
    replayed: bool


class Outbox(Protocol):
    """Messages in the order in which they came, kept until acknowledged. Used by one thread.

    Attributes:
        durable: Whether what is not acknowledged survives the end of the process.
    """

    durable: bool

    def put(self, message: Message) -> list[Message]:
        """Add a message behind the others; return those that had to go to make room, which are lost."""
        ...

    def pending(self, limit: int) -> list[Envelope]:
        """Return the next messages to send, oldest first; each is returned once, until `retry`."""
        ...

    def retry(self) -> None:
        """Make everything that is not acknowledged pending again, as replayed: there is a new connection."""
        ...

    def ack(self, id: int) -> None:
        """Forget a message that `pending` returned: the receiver has it, or it is given up."""
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
        most: Messages that may wait; one more pushes out the oldest that is not on its way.
        most_bytes: Bytes of their bodies that may wait, likewise.
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

    def put(self, message: Message) -> list[Message]:
        """Add a message behind the others; return those that were pushed out."""
        self._last += 1
        self._waiting.append((self._last, message))
        self._bytes += len(message.body)
        lost = []
        # What a broken connection brought back may exceed the count; it then only stops growing, so that nothing that
        # was on its way is lost for it.
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
        """Make everything that is not acknowledged pending again, as replayed."""
        self._waiting.extendleft(reversed(self._sent.items()))
        self._bytes += sum(len(message.body) for message in self._sent.values())
        self._sent.clear()
        self._replayed_to = self._last

    def ack(self, id: int) -> None:
        """Forget a message that `pending` returned."""
        self._sent.pop(id, None)

    def __len__(self) -> int:
        """Return how many messages are not acknowledged."""
        return len(self._waiting) + len(self._sent)

    def close(self) -> None:
        """Do nothing: memory needs no release."""

    def _drop(self) -> Message:
        message = self._waiting.popleft()[1]
        self._bytes -= len(message.body)
        return message
