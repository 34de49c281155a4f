"""Finds the messages that make an MQTT broker hang up, so that they do not hold up all others.

A broker may end the connection at a message that it does not allow: AWS IoT does so for a topic that the policy does
not name, and for a packet over 128 kB. A client that sends such a message again right after every connect cannot send
anything else any more.

With several messages in flight, it is not known which of them was the cause. So after a hang-up, only one message at a
time is sent, and with an acknowledgement. If the broker hangs up several times in a row after messages on the same
topic, messages of about their size and larger on that topic are set aside, and the whole topic if a smaller message
ends the connection too. If two topics for one kind of message are set aside as a whole, so are all topics for that
kind, unless a message of the kind has ever passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from visaged.pipelines.outputs.messages import Kind
from visaged.pipelines.outputs.mqtt.ledger import Sent
from visaged.pipelines.outputs.mqtt.reports import Lost
from visaged.pipelines.outputs.mqtt.times import Times

STRIKES = 3
"""Hang-ups after messages on one topic, without one of their size passing, after which messages are set aside."""
_MOST_TOPICS = 2
# Similar messages differ by some bytes; without a margin, each of them would have to cause hang-ups again.
_MARGIN = 0.9
# Connections in a row that ended soon without a message in flight, after which the log explains likely causes.
_MOST_UNEXPLAINED = 3
_TIMES = Times()


@dataclass(slots=True)
class _Topic:
    """Hang-ups and limit of a topic.

    Attributes:
        strikes: Sizes in bytes of the messages after which the broker hung up.
        limit: Size in bytes from which messages are set aside; None for no limit.
        limited_s: Monotonic seconds when the limit was set.
        passed: Whether the broker has taken a message since the limit was set.
        largest: Size in bytes of the largest message that the broker has taken since the first hang-up.
    """

    strikes: list[int] = field(default_factory=list)
    limit: int | None = None
    limited_s: float = 0.0
    passed: bool = False
    largest: int = 0


class HangUps:
    """Remembers hang-ups by topic and size.

    Args:
        clock: Returns monotonic seconds.
        times: Seconds after which conclusions are drawn.
    """

    def __init__(self, clock: Callable[[], float], times: Times = _TIMES) -> None:
        self._clock = clock
        self._times = times
        self._topics: dict[str, _Topic] = {}
        self._suspected: Counter[str] = Counter()
        self._careful_until_s = 0.0
        self._unexplained = 0
        self._whole: Counter[Kind] = Counter()
        self._passed: set[Kind] = set()

    @property
    def careful(self) -> bool:
        """Whether only one message at a time may be in flight."""
        return bool(self._suspected) and self._clock() < self._careful_until_s

    def opened(self) -> None:
        """Note a new connection; `careful` ends some time after it if there is no further hang-up."""
        self._careful_until_s = self._clock() + self._times.careful_s

    @property
    def without_reason(self) -> bool:
        """Whether several connections in a row ended soon, without a message that may be the cause."""
        return self._unexplained >= _MOST_UNEXPLAINED

    def lost(self, lost: Lost, suspects: Sequence[Sent]) -> Sent | None:
        """Note the end of a connection; return the message that is set aside from now on, if there is one.

        Args:
            lost: Report of the end of the connection.
            suspects: The messages that may be the cause.
        """
        if not lost.unexplained:
            self._unexplained = 0
            return None
        self._unexplained = 0 if suspects or lost.lived_s > self._times.short_s else self._unexplained + 1
        if suspects:  # otherwise the suspected topics stay as they are
            self._suspected = Counter(sent.topic for sent in suspects)
        if len(suspects) != 1 or lost.lived_s < self._times.proven_s:
            return None
        culprit = suspects[0]
        topic = self._topics.setdefault(culprit.topic, _Topic())
        topic.strikes.append(culprit.size)
        whole = topic.limit is not None and not topic.passed
        if not whole and len(topic.strikes) < STRIKES:
            return None
        topic.limit = 0 if whole else max(topic.largest + 1, int(min(topic.strikes) * _MARGIN))
        topic.limited_s, topic.passed = self._clock(), False
        topic.strikes.clear()
        if whole:
            self._whole[culprit.kind] += 1
            self._suspected.clear()
        return culprit

    def passed(self, sent: Sent) -> None:
        """Note that the broker processed a message without hanging up."""
        self._passed.add(sent.kind)
        if self._suspected[sent.topic] > 1:
            self._suspected[sent.topic] -= 1
        else:
            del self._suspected[sent.topic]
        topic = self._topics.get(sent.topic)
        if topic is not None:
            topic.strikes = [size for size in topic.strikes if size > sent.size]
            topic.passed = True
            topic.largest = max(topic.largest, sent.size)
            if topic.limit is None and not topic.strikes:
                del self._topics[sent.topic]

    def refuses(self, kind: Kind, topic: str, size: int) -> bool:
        """Return whether a message is set aside; after ten minutes the next one is tried again."""
        known = self._topics.get(topic)
        if known is None and self._whole[kind] >= _MOST_TOPICS and kind not in self._passed:
            known = self._topics[topic] = _Topic(limit=0, limited_s=self._clock())
        if known is None or known.limit is None or size < known.limit:
            return False
        if self._clock() >= known.limited_s + self._times.retry_s:
            known.strikes = [known.limit] * (STRIKES - 1)
            known.limit = None
            return False
        return True
