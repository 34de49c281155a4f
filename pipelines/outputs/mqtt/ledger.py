"""Tracks the messages sent on the current MQTT connection, and which of them the broker has certainly processed."""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass

from visaged.pipelines.outputs.messages import Kind

# A message of QoS 0 that was written this long before a hang-up did not cause it.
_QUIET_S = 1.0
# A QoS 1 message that has waited this long for its acknowledgement did not cause a hang-up: the broker itself hung.
_PROMPT_S = 5.0


@dataclass(slots=True)
class Sent:
    """A message that was sent.

    Attributes:
        kind: Kind of the message.
        topic: Topic of the message.
        size: Size of the whole packet in bytes.
        qos: Quality of service, 0 or 1.
        sent_s: Monotonic seconds when the message was handed to paho.
        id: Id of the message in the outbox, for events; 0 for other kinds.
        clears: Whether the message clears a retained topic.
        order: Number in order of sending; set by the ledger.
    """

    kind: Kind
    topic: str
    size: int
    qos: int
    sent_s: float
    id: int = 0
    clears: bool = False
    order: int = 0


class Ledger:
    """The messages of one connection.

    A broker processes messages in order, so an acknowledgement shows that it has processed all QoS 0 messages before.
    """

    def __init__(self) -> None:
        self._order = 0
        self._unsettled: dict[int, Sent] = {}
        self._unacknowledged = 0
        # QoS 0 messages that were written to the socket, and that the broker may not have processed yet.
        self._written: deque[Sent] = deque(maxlen=1000)

    def __contains__(self, number: int) -> bool:
        """Return whether a message is not settled."""
        return number in self._unsettled

    @property
    def in_flight(self) -> int:
        """Number of QoS 1 messages that are not acknowledged."""
        return self._unacknowledged

    @property
    def in_doubt(self) -> int:
        """Number of messages that the broker may not have processed yet."""
        return len(self._unsettled) + len(self._written)

    def has(self, topics: Container[str]) -> bool:
        """Return whether a message to one of some topics is not settled."""
        return any(sent.topic in topics for sent in self._unsettled.values())

    def unsettled(self, kind: Kind) -> int:
        """Return how many messages of a kind are not written (QoS 0) or not acknowledged (QoS 1)."""
        return sum(sent.kind == kind for sent in self._unsettled.values())

    def add(self, number: int, sent: Sent) -> None:
        """Note a message that was sent, with its number from `BrokerLink.send`."""
        self._order += 1
        sent.order = self._order
        self._unsettled[number] = sent
        self._unacknowledged += sent.qos

    def settle(self, number: int) -> tuple[Sent | None, list[Sent]]:
        """Note that a message is acknowledged or written.

        Returns:
            The message, None if it is not of this connection; and the messages that the broker has now certainly
            processed without hanging up.
        """
        sent = self._unsettled.pop(number, None)
        if sent is None:
            return None, []
        self._unacknowledged -= sent.qos
        if sent.qos == 0:
            self._written.append(sent)
            return sent, []
        passed = []
        while self._written and self._written[0].order < sent.order:
            passed.append(self._written.popleft())
        return sent, [*passed, sent]

    def expire(self, now_s: float) -> list[Sent]:
        """Return the QoS 0 messages that were written so long ago that the broker has certainly processed them."""
        passed = []
        while self._written and self._written[0].sent_s < now_s - _QUIET_S:
            passed.append(self._written.popleft())
        return passed

    def clear(self) -> list[Sent]:
        """Remove all messages at the end of the connection; return those that were not settled."""
        unsettled = list(self._unsettled.values())
        self._unsettled.clear()
        self._written.clear()
        self._unacknowledged = 0
        return unsettled

    def suspects(self, at_s: float) -> list[Sent]:
        """Return the messages that may have made the broker hang up at a time, in the order in which they were sent."""
        unsettled = [sent for sent in self._unsettled.values() if at_s - _PROMPT_S <= sent.sent_s <= at_s]
        written = [sent for sent in self._written if at_s - _QUIET_S <= sent.sent_s <= at_s]
        return sorted([*unsettled, *written], key=lambda sent: sent.order)
