"""MQTT brokers that behave as some real ones do and mosquitto does not: they hang up on what they do not allow."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

CONNECT, PUBLISH, PUBACK, SUBSCRIBE, PINGREQ = 1, 3, 4, 8, 12


@dataclass(frozen=True)
class Publish:
    """A PUBLISH packet."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    size: int
    number: int
    since_connect: int
    """PUBLISH packets of this connection before it."""


def never(publish: Publish) -> bool:
    """Allows everything."""
    return False


@dataclass
class ClosingBroker:
    """Accepts clients without subscriptions, acknowledges what it takes, and hangs up on what it does not allow.

    Attributes:
        hangs_up_on: Whether it ends the connection at a message, without a word.
        accepts: Whether it accepts a CONNECT packet; one that it does not accept is answered by hanging up.
        refuses_subscriptions: Whether it ends the connection at a SUBSCRIBE packet; else that is not answered.
        closes_at_once: Ends every connection right after accepting it.
        version: MQTT 4 (3.1.1) or 5.
        properties: Of CONNACK in MQTT 5, encoded.
        goodbye: Sent before it hangs up, for example DISCONNECT with a reason.
        holds: While set, nothing is acknowledged.
    """

    hangs_up_on: Callable[[Publish], bool] = never
    accepts: Callable[[bytes], bool] = lambda connect: True
    refuses_subscriptions: bool = False
    closes_at_once: bool = False
    version: int = 4
    properties: bytes = b""
    goodbye: bytes = b""
    holds: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.taken: list[Publish] = []
        self.refused: list[Publish] = []
        self.connects: list[bytes] = []
        self.most_unacknowledged = 0
        self.subscriptions = 0
        self._clients: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def count(self, ending: str) -> int:
        """How many messages it took on topics with an ending."""
        return sum(publish.topic.endswith(ending) for publish in self.taken)

    def refusals(self) -> Counter[str]:
        """How often it hung up, by topic."""
        return Counter(publish.topic for publish in self.refused)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self._clients.append(client)
                self._start(lambda client=client: self._serve(client))  # type: ignore[misc]

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, EOFError):
            published = 0
            held: list[bytes] = []
            while True:
                head, body, size = _packet(client)
                kind = head >> 4
                if kind == CONNECT:
                    self.connects.append(body)
                    if not self.accepts(body):
                        return
                    client.sendall(self._connack())
                    if self.closes_at_once:
                        client.sendall(self.goodbye)
                        return
                elif kind == SUBSCRIBE:
                    self.subscriptions += 1
                    if self.refuses_subscriptions:
                        return
                elif kind == PINGREQ:
                    client.sendall(b"\xd0\x00")
                elif kind == PUBLISH:
                    publish = self._publish(head, body, size, published)
                    published += 1
                    if self.hangs_up_on(publish):
                        self.refused.append(publish)
                        client.sendall(self.goodbye)
                        return
                    self.taken.append(publish)
                    if publish.qos:
                        held.append(b"\x40\x02" + publish.number.to_bytes(2, "big"))
                        self.most_unacknowledged = max(self.most_unacknowledged, len(held))
                if not self.holds.is_set():
                    client.sendall(b"".join(held))
                    held.clear()

    def _connack(self) -> bytes:
        if self.version == 4:
            return b"\x20\x02\x00\x00"
        return bytes([0x20, 3 + len(self.properties), 0, 0, len(self.properties)]) + self.properties

    def _publish(self, head: int, body: bytes, size: int, published: int) -> Publish:
        end = 2 + int.from_bytes(body[:2], "big")
        topic, qos = body[2:end].decode(), head >> 1 & 3
        number = int.from_bytes(body[end : end + 2], "big") if qos else 0
        end += 2 if qos else 0
        payload = body[end + (self.version == 5) :]
        return Publish(topic, payload, qos, bool(head & 1), size, number, published)


def _packet(client: socket.socket) -> tuple[int, bytes, int]:
    """Return the first byte of a packet, its body, and its size as a whole."""
    head = _exactly(client, 1)[0]
    length = shift = 0
    size = 1
    while True:
        (digit,) = _exactly(client, 1)
        size += 1
        length |= (digit & 127) << shift
        shift += 7
        if digit < 128:
            return head, _exactly(client, length), size + length


def _exactly(client: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = client.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return bytes(data)
