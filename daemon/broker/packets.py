"""The packets of MQTT 3.1.1, read and written without state.

Everything that the standard forbids in a packet is refused, so that what comes out of here needs no second look.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum


class ProtocolError(ValueError):
    """A packet is not MQTT 3.1.1, or too large; the text says why, and holds nothing of the packet."""


class Kind(IntEnum):
    """The types of packets."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


class Answer(IntEnum):
    """The return codes of CONNACK."""

    ACCEPTED = 0
    BAD_VERSION = 1
    BAD_CLIENT_ID = 2
    UNAVAILABLE = 3
    NOT_AUTHORIZED = 5


FAILED = 0x80
"""Code in SUBACK for a filter that was refused."""
_VERSION = 4
_FLAGS = {Kind.PUBREL: 2, Kind.SUBSCRIBE: 2, Kind.UNSUBSCRIBE: 2}
_LENGTHS = {
    **dict.fromkeys((Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP), 2),
    **dict.fromkeys((Kind.PINGREQ, Kind.PINGRESP, Kind.DISCONNECT), 0),
}
_REFUSED_BY_5 = bytes((Kind.CONNACK << 4, 3, 0, 0x84, 0))  # MQTT 5's "unsupported protocol version"


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet whose body was not read yet.

    Attributes:
        kind: Its type.
        flags: The lower four bits of its first byte.
        body: Everything after the fixed header.
    """

    kind: Kind
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Publish:
    """A message as it is published.

    Attributes:
        topic: Its topic.
        payload: Its payload.
        qos: Its quality of service, 0 to 2.
        retain: Whether it is to be retained.
        number: Packet identifier; 0 with QoS 0.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    number: int = 0


@dataclass(frozen=True, slots=True)
class Connect:
    """What a client wants.

    Attributes:
        version: Version of the protocol, 4 for MQTT 3.1.1. If it is another, nothing else was read.
        client_id: Client identifier; may be empty.
        clean: Whether the session ends with the connection.
        keepalive_s: Keep-alive in seconds; 0 for none.
        will: Message that is published when the connection is lost; None for none.
        login: User name and password; None for what is absent.
    """

    version: int
    client_id: str = ""
    clean: bool = True
    keepalive_s: int = 0
    will: Publish | None = None
    login: tuple[str | None, bytes | None] = (None, None)


def take(buffer: bytearray, most_bytes: Callable[[Kind], int]) -> Packet | None:
    """Return the first packet in a buffer and remove it there; None if it is not complete.

    Args:
        buffer: Bytes as they came in.
        most_bytes: Returns the largest body of a type of packets; a larger one is refused by its fixed header.

    Raises:
        ProtocolError: The bytes are no packet, or one that is too large.
    """
    length, size = 0, 1
    while True:
        if len(buffer) <= size:
            if not buffer:
                return None
            _kind(buffer[0])
            return None
        digit = buffer[size]
        length |= (digit & 0x7F) << 7 * (size - 1)
        size += 1
        if digit < 0x80:
            break
        if size > 4:
            raise ProtocolError("the length of a packet has more than four bytes")
    kind = _kind(buffer[0])
    if length != _LENGTHS.get(kind, length):
        raise ProtocolError(f"a {kind.name} packet has {length} bytes and not {_LENGTHS[kind]}")
    if length > most_bytes(kind):
        raise ProtocolError(f"a {kind.name} packet has {length} bytes; at most {most_bytes(kind)} are taken")
    if len(buffer) < size + length:
        return None
    packet = Packet(kind, buffer[0] & 0x0F, bytes(memoryview(buffer)[size : size + length]))
    del buffer[: size + length]
    return packet


def _kind(first: int) -> Kind:
    try:
        kind = Kind(first >> 4)
    except ValueError:
        raise ProtocolError("a packet has a reserved type") from None
    if kind is not Kind.PUBLISH and first & 0x0F != _FLAGS.get(kind, 0):
        raise ProtocolError(f"a {kind.name} packet has flags that are reserved")
    return kind


class _Body:
    """Reads the fields of a packet's body in order."""

    def __init__(self, packet: Packet) -> None:
        self._data = packet.body
        self._kind = packet.kind
        self._at = 0

    def take(self, count: int) -> bytes:
        data = self._data[self._at : self._at + count]
        if len(data) < count:
            raise ProtocolError(f"a {self._kind.name} packet is too short")
        self._at += count
        return data

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def identifier(self) -> int:
        number = self.number()
        if number == 0:
            raise ProtocolError(f"a {self._kind.name} packet has the identifier 0")
        return number

    def data(self) -> bytes:
        return self.take(self.number())

    def text(self) -> str:
        try:
            text = self.data().decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise ProtocolError(f"a {self._kind.name} packet has a text that is not UTF-8, or has a NUL in it")
        return text

    def rest(self) -> bytes:
        return self.take(self.left())

    def left(self) -> int:
        return len(self._data) - self._at

    def end(self) -> None:
        if self.left():
            raise ProtocolError(f"a {self._kind.name} packet is too long")


def read_connect(packet: Packet) -> Connect:
    """Return what a CONNECT packet asks for; raises `ProtocolError`."""
    body = _Body(packet)
    name, version = body.text(), body.byte()
    if name not in ("MQTT", "MQIsdp"):  # the latter is that of MQTT 3.1
        raise ProtocolError("a CONNECT packet has another protocol's name")
    if (name, version) != ("MQTT", _VERSION):
        return Connect(version if name == "MQTT" else 3)
    flags, keepalive_s, client_id = body.byte(), body.number(), body.text()
    has_name, has_password, will_retain, will_qos = flags & 0x80, flags & 0x40, flags & 0x20, flags >> 3 & 3
    has_will = flags & 0x04
    if flags & 1 or (has_password and not has_name) or will_qos == 3 or (not has_will and flags & 0x38):
        raise ProtocolError("a CONNECT packet has flags that contradict each other")
    will = Publish(body.text(), body.data(), will_qos, bool(will_retain)) if has_will else None
    login = body.text() if has_name else None, body.data() if has_password else None
    body.end()
    return Connect(version, client_id, bool(flags & 2), keepalive_s, will, login)


def read_publish(packet: Packet) -> Publish:
    """Return the message of a PUBLISH packet, whose topic was not checked; raises `ProtocolError`."""
    body = _Body(packet)
    qos = packet.flags >> 1 & 3
    if qos == 3 or (qos == 0 and packet.flags & 8):
        raise ProtocolError("a PUBLISH packet has flags that contradict each other")
    topic = body.text()
    number = body.identifier() if qos else 0
    return Publish(topic, body.rest(), qos, bool(packet.flags & 1), number)


def read_number(packet: Packet) -> int:
    """Return the identifier in a packet that holds nothing else, such as PUBACK; raises `ProtocolError`."""
    return _Body(packet).identifier()


def read_subscribe(packet: Packet) -> tuple[int, list[tuple[str, int]]]:
    """Return the identifier of a SUBSCRIBE packet and its filters with their QoS; raises `ProtocolError`."""
    body = _Body(packet)
    number = body.identifier()
    wanted: list[tuple[str, int]] = []
    while body.left() or not wanted:
        wanted.append((body.text(), body.byte()))
        if wanted[-1][1] > 2:
            raise ProtocolError("a SUBSCRIBE packet has a QoS above 2")
    return number, wanted


def read_unsubscribe(packet: Packet) -> tuple[int, list[str]]:
    """Return the identifier of an UNSUBSCRIBE packet and its filters; raises `ProtocolError`."""
    body = _Body(packet)
    number = body.identifier()
    filters: list[str] = []
    while body.left() or not filters:
        filters.append(body.text())
    return number, filters


def connect(client_id: str, login: tuple[str, str], keepalive_s: int) -> bytes:
    """Return a CONNECT packet for a clean session."""
    head = _text("MQTT") + struct.pack("!BBH", _VERSION, 0xC2, keepalive_s)
    return _packet(Kind.CONNECT, 0, head + _text(client_id) + _text(login[0]) + _text(login[1]))


def connack(answer: Answer, version: int = _VERSION) -> bytes:
    """Return a CONNACK packet for a client of any version; the session is never one from before."""
    if answer is Answer.BAD_VERSION and version == 5:
        return _REFUSED_BY_5
    return _packet(Kind.CONNACK, 0, bytes((0, answer)))


def publish(message: Publish) -> bytes:
    """Return a PUBLISH packet."""
    number = struct.pack("!H", message.number) if message.qos else b""
    return _packet(Kind.PUBLISH, message.qos << 1 | message.retain, _text(message.topic) + number + message.payload)


def numbered(kind: Kind, number: int) -> bytes:
    """Return a packet that holds an identifier alone, such as PUBACK."""
    return _packet(kind, _FLAGS.get(kind, 0), struct.pack("!H", number))


def subscribe(number: int, wanted: Sequence[tuple[str, int]]) -> bytes:
    """Return a SUBSCRIBE packet for filters with their QoS."""
    filters = b"".join(_text(text) + bytes((qos,)) for text, qos in wanted)
    return _packet(Kind.SUBSCRIBE, 2, struct.pack("!H", number) + filters)


def suback(number: int, codes: Sequence[int]) -> bytes:
    """Return a SUBACK packet with a code for each filter."""
    return _packet(Kind.SUBACK, 0, struct.pack("!H", number) + bytes(codes))


def empty(kind: Kind) -> bytes:
    """Return a packet without a body, such as PINGRESP."""
    return _packet(kind, 0, b"")


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("!H", len(data)) + data


def _packet(kind: Kind, flags: int, body: bytes) -> bytes:
    head, length = bytearray((kind << 4 | flags,)), len(body)
    while True:
        head.append(length & 0x7F | (0x80 if length > 0x7F else 0))
        length >>= 7
        if not length:
            return bytes(head) + body
