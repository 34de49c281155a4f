"""MQTT packets: those of the standard are read and written, and all others are refused."""

from __future__ import annotations

import random

import pytest

from tests.support.mqtt_bytes import DISCONNECT, PINGREQ, connect, number, packet, publish, subscribe, text
from visaged.daemon.broker import packets
from visaged.daemon.broker.packets import Connect, Kind, Packet, ProtocolError, Publish


def take(data: bytes, most: int = 1000) -> Packet:
    buffer = bytearray(data)
    found = packets.take(buffer, lambda kind: most)
    assert found is not None
    assert not buffer
    return found


def read(data: bytes) -> object:
    """Read a packet as the broker does."""
    found = take(data, 100_000)
    match found.kind:
        case Kind.CONNECT:
            return packets.read_connect(found)
        case Kind.PUBLISH:
            return packets.read_publish(found)
        case Kind.SUBSCRIBE:
            return packets.read_subscribe(found)
        case Kind.UNSUBSCRIBE:
            return packets.read_unsubscribe(found)
    return packets.read_number(found)


def test_packets_are_taken_in_order_whatever_pieces_they_come_in() -> None:
    stream = publish("a", bytes(300)) + PINGREQ + subscribe("b/#") + DISCONNECT
    for size in (1, 2, 3, 7, 1000):
        buffer, kinds = bytearray(), []
        for start in range(0, len(stream), size):
            buffer += stream[start : start + size]
            while (found := packets.take(buffer, lambda kind: 1000)) is not None:
                kinds.append(found.kind)
        assert kinds == [Kind.PUBLISH, Kind.PINGREQ, Kind.SUBSCRIBE, Kind.DISCONNECT]


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16383, 16384, 2097151, 2097152])
def test_lengths(length: int) -> None:
    message = Publish("t", bytes(length), 0, False)
    assert packets.read_publish(take(packets.publish(message), length + 3)) == message


def test_a_packet_that_is_too_large_is_refused_by_its_first_bytes() -> None:
    head = packet(0x30, bytes(1001))[:3]
    with pytest.raises(ProtocolError, match="a PUBLISH packet has 1001 bytes; at most 1000 are taken"):
        packets.take(bytearray(head), lambda kind: 1000)


@pytest.mark.parametrize(
    "head",
    [
        b"\x30\xff\xff\xff\xff", b"\x30\x80\x80\x80\x80\x01", b"\x00", b"\xf0", b"\xf0\x00", b"\x80", b"\x60\x02",
        b"\x11", b"\xc1\x00", b"G", b"POST / HTTP/1.1\r\n", b"\xc0\x01", b"\x40\x03",
    ],
)  # fmt: skip
def test_fixed_headers_that_do_not_exist(head: bytes) -> None:
    with pytest.raises(ProtocolError):
        packets.take(bytearray(head), lambda kind: 300_000_000)


def test_connect() -> None:
    will = Publish("w", b"gone", 1, True)
    data = connect("me", keepalive_s=30, clean=False, will=("w", b"gone"), login=("user", "word"))
    assert read(data) == Connect(4, "me", False, 30, will, ("user", b"word"))
    assert read(connect("", version=4)) == Connect(4)
    assert read(packets.connect("me", ("user", "word"), 9)) == Connect(4, "me", True, 9, None, ("user", b"word"))


@pytest.mark.parametrize(("name", "version", "read_as"), [("MQTT", 5, 5), ("MQTT", 3, 3), ("MQIsdp", 3, 3),
                                                          ("MQIsdp", 4, 3), ("MQTT", 132, 132)])  # fmt: skip
def test_connect_in_another_version_is_read_no_further(name: str, version: int, read_as: int) -> None:
    assert read(packet(0x10, text(name) + bytes((version,)) + b"whatever")) == Connect(read_as)


HEAD = text("MQTT") + b"\x04"


@pytest.mark.parametrize(
    "data",
    [
        packet(0x10, b""),
        packet(0x10, text("HTTP") + b"\x04\x02\0\0" + text("x")),
        packet(0x10, HEAD),
        packet(0x10, HEAD + b"\x03\0\0" + text("x")),  # the reserved flag
        packet(0x10, HEAD + b"\x42\0\0" + text("x") + text("word")),  # a password without a name
        packet(0x10, HEAD + b"\x12\0\0" + text("x")),  # QoS of no will
        packet(0x10, HEAD + b"\x22\0\0" + text("x")),  # retain of no will
        packet(0x10, HEAD + b"\x1e\0\0" + text("x") + text("w") + text("")),  # QoS 3 of a will
        packet(0x10, HEAD + b"\x06\0\0" + text("x") + text("w")),  # a will without a message
        packet(0x10, HEAD + b"\x02\0\0" + text(b"\xff\xfe")),
        packet(0x10, HEAD + b"\x02\0\0" + text("a\0b")),
        packet(0x10, HEAD + b"\x02\0\0" + text(b"\xed\xa0\x80")),  # half of a surrogate pair
        packet(0x10, HEAD + b"\x02\0\0" + number(9) + b"x"),
        packet(0x10, HEAD + b"\x02\0\0" + text("x") + b"more"),
        packet(0x30, b""),
        packet(0x30, b"\0\x05abc"),
        packet(0x30, text(b"\xff")),
        packet(0x38, text("a")),  # DUP with QoS 0
        packet(0x36, text("a") + number(1)),  # QoS 3
        packet(0x32, text("a")),
        packet(0x32, text("a") + number(0)),
        packet(0x40, b""),
        packet(0x40, number(0)),
        packet(0x40, number(1) + b"x"),
        packet(0x62, b"\x01"),
        packet(0x82, number(1)),
        packet(0x82, number(0) + text("a") + b"\0"),
        packet(0x82, number(1) + text("a")),
        packet(0x82, number(1) + text("a") + b"\x03"),
        packet(0x82, number(1) + text("a") + b"\0" + b"\0"),
        packet(0xA2, number(1)),
        packet(0xA2, number(1) + text("a") + b"\0"),
        packet(0xC0, b"x"),
        packet(0xE0, b"x"),
        packet(0x40, b"x"),
    ],
)
def test_bodies_that_are_not_mqtt(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(data)


def test_answers() -> None:
    assert packets.connack(packets.Answer.ACCEPTED) == b"\x20\x02\0\0"
    assert packets.connack(packets.Answer.BAD_VERSION, 3) == b"\x20\x02\0\x01"
    assert packets.connack(packets.Answer.BAD_VERSION, 5) == b"\x20\x03\0\x84\0"
    assert packets.numbered(Kind.PUBREL, 258) == b"\x62\x02\x01\x02"
    assert packets.suback(1, [0, 1, packets.FAILED]) == b"\x90\x05\0\x01\0\x01\x80"
    assert packets.subscribe(1, [("a", 1)]) == subscribe("a", qos=1)


def test_no_bytes_make_anything_but_a_packet_or_a_protocol_error() -> None:
    chance = random.Random(1)
    whole = [connect("me", will=("w", b"x"), login=("a", "b")), publish("a/b", b"x", qos=2), subscribe("a", "b/#")]
    for _ in range(5000):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            read(bytes(data))
        except (ProtocolError, AssertionError):  # the latter for what is not one whole packet
            pass
