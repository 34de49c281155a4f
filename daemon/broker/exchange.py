"""Passes messages on: who subscribed to what, what is retained, and who may publish where."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol

from visaged.daemon.broker.limits import UNIT_BYTES, Limits
from visaged.daemon.broker.outgoing import Backlog, Outgoing
from visaged.daemon.broker.packets import FAILED, Publish
from visaged.daemon.broker.topics import Subscriptions, is_filter, is_topic
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)


class Complaints:
    """Logs what clients do wrong, at a limited rate for each kind of fault, so that none hides another."""

    def __init__(self) -> None:
        self._logs: defaultdict[str, LimitedLog] = defaultdict(lambda: LimitedLog(log))

    def __call__(self, kind: str, text: str, *args: object) -> None:
        """Log `text % args` after the name of the broker, or count it.

        Args:
            kind: Kind of the fault; there must be few different ones.
            text: Format of the text.
            args: Its arguments.
        """
        self._logs[kind]("the embedded MQTT broker " + text, *args)


class Client(Protocol):
    """A connected client, as the exchange sees it."""

    is_own: bool
    outgoing: Outgoing
    filters: dict[str, int]

    def send(self) -> None:
        """Send what is in `outgoing`, as far as the client takes it."""
        ...

    def __hash__(self) -> int: ...


class Exchange:
    """The subscriptions and the retained messages.

    Only the daemon publishes to its own topics and to those that begin with `$`. What others publish there is dropped,
    as MQTT 3.1.1 has no answer that refuses a message, and logged.

    Args:
        prefix: First part of the daemon's topics.
        limits: Bounds of the broker.
        devices: Beginning of the daemon's topics for Home Assistant; None if there are none. Others may publish beside
            them, as Home Assistant itself does.
    """

    def __init__(self, prefix: str, limits: Limits, devices: str | None = None) -> None:
        self._prefix = prefix
        self._starts = ("$", f"{prefix}/") if devices is None else ("$", f"{prefix}/", devices)
        self._limits = limits
        self._subscriptions: Subscriptions[Client] = Subscriptions()
        # Sizes of the retained messages that are not the daemon's, and their sum.
        self._foreign: dict[str, int] = {}
        self._foreign_bytes = 0
        self.retained: dict[str, Publish] = {}
        self.backlog = Backlog()
        self.complain = Complaints()

    def is_valid(self, topic: str, is_own: bool) -> bool:
        """Return whether messages may have a topic, whoever may publish there."""
        return is_topic(topic) and (is_own or self._is_short(topic))

    def may_publish(self, client: Client, topic: str) -> bool:
        """Return whether a client may publish to a valid topic."""
        of_daemon = topic.startswith(self._starts) or topic == self._prefix
        return client.is_own or not of_daemon

    def publish(self, client: Client, message: Publish) -> int:
        """Pass a message of a client on, and retain it if it is to be.

        Args:
            client: The client, which may publish to the topic.
            message: The message, with a valid topic.

        Returns:
            How much work that was, in units.
        """
        found, looked = self._subscriptions.matching(message.topic)
        for subscriber, qos in found.items():
            if not subscriber.outgoing.put(message, qos):
                self.complain("slow", "dropped a message for %s, which is too slow: too many wait for it", subscriber)
            subscriber.send()
        if message.retain:
            self._retain(client, message)
        return looked + len(found) * (len(message.payload) // UNIT_BYTES)

    def subscribe(self, client: Client, text: str, qos: int) -> int:
        """Add a filter of a client, which is sent the retained messages that match; return its code in SUBACK."""
        if not is_filter(text) or not self._is_short(text):
            return FAILED
        if text not in client.filters and len(client.filters) >= self._limits.filters:
            self.complain("filters", "refused a filter of %s, which has %d already", client, len(client.filters))
            return FAILED
        qos = min(qos, 1)
        client.filters[text] = qos
        self._subscriptions.add(text, client, qos)
        client.outgoing.want(text, qos)
        return qos

    def unsubscribe(self, client: Client, filters: Iterable[str]) -> None:
        """Remove filters of a client; those that it does not have are passed over."""
        for text in filters:
            if client.filters.pop(text, None) is not None:
                self._subscriptions.remove(text, client)

    def _is_short(self, text: str) -> bool:
        return len(text) <= self._limits.topic_chars and text.count("/") < self._limits.levels

    def _retain(self, client: Client, message: Publish) -> None:
        topic = message.topic
        if not message.payload:
            self.retained.pop(topic, None)
            self._foreign_bytes -= self._foreign.pop(topic, 0)
        elif client.is_own or self._has_room(client, topic, len(topic) + len(message.payload)):
            self.retained[topic] = message

    def _has_room(self, client: Client, topic: str, size: int) -> bool:
        total = self._foreign_bytes - self._foreign.get(topic, 0) + size
        is_one_more = topic not in self._foreign
        if total > self._limits.retained_bytes or len(self._foreign) + is_one_more > self._limits.retained:
            text = "did not retain a message of %s: it keeps %d of its clients, with %d bytes"
            self.complain("retained", text, client, len(self._foreign), self._foreign_bytes)
            return False
        self._foreign[topic], self._foreign_bytes = size, total
        return True
