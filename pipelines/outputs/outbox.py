"""Where messages wait that must not be lost while the broker is away.

`Outbox` is the seam: this one keeps them in memory, bounded; one that keeps them on disk has the same four calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from visaged.pipelines.outputs.messages import Message


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that waits.

    Attributes:
        message: The message.
        connection: To the broker when it came, counted from 1; -1 when there was none.
    """

    message: Message
    connection: int


class Outbox(Protocol):
    """First in, first out, used by the publisher's thread alone."""

    def put(self, letter: Letter) -> None:
        """Add a letter behind the others."""
        ...

    def take(self) -> Letter | None:
        """Return the next letter to be sent; it stays the outbox's until `done`."""
        ...

    def done(self, letter: Letter) -> None:
        """Forget a letter that `take` gave: the broker has it."""
        ...

    def __len__(self) -> int:
        """Return how many letters the broker does not have yet."""
        ...


class MemoryOutbox:
    """An outbox in memory.

    Args:
        most: Letters that it holds; one more pushes out the oldest that is not on its way.
        on_lost: Called with each letter that is pushed out.
    """

    def __init__(self, most: int, on_lost: Callable[[Letter], None]) -> None:
        self._most = most
        self._on_lost = on_lost
        self._waiting: deque[Letter] = deque()
        self._sent = 0

    def put(self, letter: Letter) -> None:
        """Add a letter behind the others."""
        self._waiting.append(letter)
        if len(self._waiting) > self._most:
            self._on_lost(self._waiting.popleft())

    def take(self) -> Letter | None:
        """Return the next letter to be sent."""
        if not self._waiting:
            return None
        self._sent += 1
        return self._waiting.popleft()

    def done(self, letter: Letter) -> None:
        """Forget a letter that `take` gave."""
        self._sent -= 1

    def __len__(self) -> int:
        """Return how many letters the broker does not have yet."""
        return len(self._waiting) + self._sent
