"""Finds out whether the embedded broker works: a client that sends itself a message through it, again and again."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import NamedTuple

from visaged.daemon.broker import packets
from visaged.daemon.broker.packets import Answer, Kind, Packet, ProtocolError, Publish
from visaged.pipelines.runtime.progress import beat

log = logging.getLogger(__name__)

_EVERY_S = 5.0
_TIMEOUT_S = 5.0
# Subscribers to `#` do not get it, as its first level begins with $.
_TOPIC = "$visaged/probe"
_MOST_BYTES = 1024


class BrokerHealth(NamedTuple):
    """Whether the broker works.

    Attributes:
        works: Whether the last message came back in time; None before the first.
        error: Why it did not; empty if it did.
    """

    works: bool | None
    error: str


class BrokerProbe:
    """Connects to a broker, subscribes, publishes, and waits for the message, every few seconds.

    Args:
        address: Host and port of the broker.
        login: User name and password of the daemon's own clients.
        every_s: Pause between two tries, in seconds.
        timeout_s: Longest time for a try, in seconds.
    """

    def __init__(
        self,
        address: tuple[str, int],
        login: tuple[str, str],
        every_s: float = _EVERY_S,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self._address, self._login = address, login
        self._every_s, self._timeout_s = every_s, timeout_s
        self._health = BrokerHealth(None, "")

    @property
    def health(self) -> BrokerHealth:
        """The result of the last try."""
        return self._health

    def run(self, stopping: threading.Event) -> None:
        """Try until `stopping` is set, and log when the result changes."""
        while not stopping.is_set():
            beat()
            health = self._try()
            if stopping.is_set():
                return
            if not health.works and self._health.works is not False:
                log.error("the embedded MQTT broker does not work: %s; restart visaged if it stays so", health.error)
            elif health.works and self._health.works is False:
                log.info("the embedded MQTT broker works again")
            self._health = health
            beat()
            stopping.wait(self._every_s)

    def _try(self) -> BrokerHealth:
        deadline_s = time.monotonic() + self._timeout_s
        try:
            with socket.create_connection(self._address, self._timeout_s) as connection:
                _Exchange(connection, deadline_s).run(self._login)
        except TimeoutError:
            return BrokerHealth(False, f"it did not answer within {self._timeout_s:g} s")
        except (OSError, ProtocolError) as error:
            return BrokerHealth(False, str(error))
        return BrokerHealth(True, "")


class _Exchange:
    """One connection of the probe.

    Args:
        connection: The socket.
        deadline_s: Monotonic seconds at which the exchange must be over.
    """

    def __init__(self, connection: socket.socket, deadline_s: float) -> None:
        self._socket = connection
        self._deadline_s = deadline_s
        self._buffer = bytearray()

    def run(self, login: tuple[str, str]) -> None:
        """Send a message and receive it; raises OSError or `ProtocolError` if that fails."""
        self._socket.sendall(packets.connect("", login, 0))
        if self._receive(Kind.CONNACK).body != bytes((0, Answer.ACCEPTED)):
            raise ProtocolError("it refused the probe's connection")
        self._socket.sendall(packets.subscribe(1, [(_TOPIC, 0)]))
        if self._receive(Kind.SUBACK).body[2:] != b"\0":
            raise ProtocolError("it refused the probe's subscription")
        payload = b"%.6f" % self._deadline_s
        self._socket.sendall(packets.publish(Publish(_TOPIC, payload, 0, False)))
        if packets.read_publish(self._receive(Kind.PUBLISH)).payload != payload:
            raise ProtocolError("it passed on another message than the probe's")
        self._socket.sendall(packets.empty(Kind.DISCONNECT))

    def _receive(self, kind: Kind) -> Packet:
        while (packet := packets.take(self._buffer, lambda kind: _MOST_BYTES)) is None:
            left_s = self._deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
            data = self._socket.recv(4096)
            if not data:
                raise ProtocolError("it closed the probe's connection")
            self._buffer += data
        if packet.kind is not kind:
            raise ProtocolError(f"it sent {packet.kind.name} instead of {kind.name}")
        return packet
