"""What waits for one subscriber: bounded, in order, with a window of messages that it has not acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from visaged.daemon.broker.limits import Limits
from visaged.daemon.broker.packets import Publish, publish
from visaged.daemon.broker.topics import selected

_MOST_NUMBERS = 65535


class Backlog:
    """How many bytes wait for all subscribers together."""

    def __init__(self) -> None:
        self.bytes = 0


class Outgoing:
    """The messages that a subscriber is still to get.

    A message is not kept once it was sent, because no session outlives its connection: there is no other delivery.

    Args:
        retained: The retained messages by topic, as they are now.
        backlog: What waits for all subscribers.
        limits: Bounds of the broker.
    """

    def __init__(self, retained: Mapping[str, Publish], backlog: Backlog, limits: Limits) -> None:
        self._retained = retained
        self._backlog = backlog
        self._limits = limits
        self._waiting: deque[tuple[Publish, int]] = deque()
        self._waiting_bytes = 0
        # Filters whose retained messages are wanted, and topics that one of them has matched, with their QoS. The
        # messages are looked up when they can be sent, so that a client that subscribes often fills no queue.
        self._filters: dict[str, int] = {}
        self._wanted: dict[str, int] = {}
        self._in_flight: set[int] = set()
        self._number = 0

    @property
    def has_more(self) -> bool:
        """Whether there is anything to send, now or after an acknowledgement."""
        return bool(self._waiting or self._wanted or self._filters)

    @property
    def is_held_up(self) -> bool:
        """Whether messages wait for acknowledgements of the client."""
        return self.has_more and len(self._in_flight) >= self._limits.in_flight

    def put(self, message: Publish, qos: int) -> bool:
        """Add a message with the QoS of the subscription; return False if there is no room for it."""
        size, limits = _size(message), self._limits
        # One message has room whatever its size.
        total = self._waiting_bytes + size if self._waiting else 0
        if len(self._waiting) >= limits.waiting or total > limits.waiting_bytes:
            return False
        if total > limits.waiting_share_bytes and self._backlog.bytes + size > limits.waiting_total_bytes:
            return False
        self._waiting.append((message, min(qos, message.qos, 1)))
        self._count(size)
        return True

    def clear(self) -> None:
        """Drop all that waits."""
        self._waiting.clear()
        self._wanted.clear()
        self._filters.clear()
        self._count(-self._waiting_bytes)

    def want(self, text: str, qos: int) -> None:
        """Have the retained messages that a filter matches sent, before all that waits."""
        self._filters[text] = qos

    def look_up(self) -> int:
        """Find the retained messages of one filter, if that is to be done; return how much work it causes, in units.

        It is a call of its own, because it takes long if there are many messages.
        """
        if not self._filters or self._wanted:
            return 0
        text = next(iter(self._filters))
        qos = self._filters.pop(text)
        self._wanted = dict.fromkeys(selected(text, self._retained), qos)
        # Measured: a unit takes as long as eight topics are compared, or two messages sent.
        return len(self._retained) // 8 + len(self._wanted) // 2

    def acknowledge(self, number: int) -> bool:
        """Note that a message has arrived; return False if none with this number is on its way."""
        if number not in self._in_flight:
            return False
        self._in_flight.remove(number)
        return True

    def next(self) -> bytes | None:
        """Return the next packet to send; None if something else has to be done first, or if there is none."""
        if self.is_held_up:
            return None
        while self._wanted:
            topic = next(iter(self._wanted))
            qos = self._wanted.pop(topic)
            message = self._retained.get(topic)
            if message is not None:
                return self._packet(message, min(qos, message.qos, 1), True)
        if self._filters or not self._waiting:
            return None
        message, qos = self._waiting.popleft()
        self._count(-_size(message))
        return self._packet(message, qos, False)

    def _packet(self, message: Publish, qos: int, is_retained: bool) -> bytes:
        number = 0
        if qos:
            number = self._next_number()
            self._in_flight.add(number)
        return publish(Publish(message.topic, message.payload, qos, is_retained, number))

    def _count(self, size: int) -> None:
        self._waiting_bytes += size
        self._backlog.bytes += size

    def _next_number(self) -> int:
        while True:
            self._number = self._number % _MOST_NUMBERS + 1
            if self._number not in self._in_flight:
                return self._number


def _size(message: Publish) -> int:
    return len(message.payload) + len(message.topic)
