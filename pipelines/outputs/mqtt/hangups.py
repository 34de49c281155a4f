"""Finds the messages that make an MQTT broker hang up, so that they do not starve all others.

A broker may end the connection at a message that it does not allow: AWS IoT does so for a topic that the policy does
not name and for a packet over 128 kB. A client that sends such a message again first thing after every connect gets
nothing else through any more.

With several messages on their way nobody knows which of them it was. After such a hang-up the connection is careful:
one message at a time, each with an acknowledgement. Once the broker has hung up several times in a row right behind
the same message, that message is set aside: at first messages of about its size and more on its topic, and the whole
topic when the next smaller one ends the connection too. Two topics of one kind of message set aside as a whole stand
for all of that kind, unless one of it has ever passed.
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
"""Hang-ups right behind a message on the same topic, none of its size passed in between, until it is set aside."""
_MOST_TOPICS = 2
# Messages of one content differ by some bytes; without a margin each of them would have to be tried anew.
_MARGIN = 0.9
# Connections in a row that ended soon with no message on its way, until the log says what it looks like.
_MOST_UNEXPLAINED = 3
_TIMES = Times()


@dataclass(slots=True)
class _Topic:
    """What is known of a topic.

    Attributes:
        strikes: Sizes of the messages behind which the broker hung up.
        limit: Size from which messages are set aside; None for no limit.
        limited_s: Monotonic seconds since when.
        passed: Whether the broker has taken a message since the limit was set.
        largest: Size of the largest message that the broker has taken meanwhile.
    """

    strikes: list[int] = field(default_factory=list)
    limit: int | None = None
    limited_s: float = 0.0
    passed: bool = False
    largest: int = 0


class HangUps:
    """Remembers hang-ups by topic and size.

    Args:
        clock: Monotonic seconds.
        times: How patient it is.
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
        """Whether only one message may be on its way."""
        return bool(self._suspected) and self._clock() < self._careful_until_s

    def opened(self) -> None:
        """Note a new connection: being careful ends some time after it, when nothing has happened."""
        self._careful_until_s = self._clock() + self._times.careful_s

    @property
    def without_reason(self) -> bool:
        """Whether several connections in a row ended soon, with no message that may be the reason."""
        return self._unexplained >= _MOST_UNEXPLAINED

    def lost(self, lost: Lost, suspects: Sequence[Sent]) -> Sent | None:
        """Note the end of a connection; return the message that is set aside from now on, if there is one.

        Args:
            lost: The end.
            suspects: The messages that may be the reason.
        """
        if not lost.unexplained:
            self._unexplained = 0
            return None
        self._unexplained = 0 if suspects or lost.lived_s > self._times.short_s else self._unexplained + 1
        if suspects:  # else it stays as careful as it is
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
        """Note that the broker looked at a message and did not hang up."""
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
