"""MQTT packets as bytes, also those that no client sends."""

from __future__ import annotations

import struct


def packet(first: int, body: bytes) -> bytes:
    """A packet with its length."""
    head, length = bytearray((first,)), len(body)
    while True:
        head.append(length & 0x7F | (0x80 if length > 0x7F else 0))
        length >>= 7
        if not length:
            return bytes(head) + body


def text(value: str | bytes) -> bytes:
    """A text with its length; bytes need not be UTF-8."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(data)) + data


def number(value: int) -> bytes:
    """A number of two bytes."""
    return struct.pack("!H", value)


def connect(
    client_id: str = "client",
    *,
    keepalive_s: int = 0,
    clean: bool = True,
    will: tuple[str, bytes] | None = None,
    login: tuple[str, str] | None = None,
    version: int = 4,
) -> bytes:
    """A CONNECT packet; a will has QoS 1 and is retained."""
    flags = clean << 1 | (0x2C if will else 0) | (0xC0 if login else 0)
    rest = b"".join(text(part) for part in (client_id, *(will or ()), *(login or ())))
    return packet(0x10, text("MQTT") + struct.pack("!BBH", version, flags, keepalive_s) + rest)


def publish(topic: str, payload: bytes = b"", *, qos: int = 0, retain: bool = False, id: int = 1) -> bytes:
    """A PUBLISH packet."""
    return packet(0x30 | qos << 1 | retain, text(topic) + (number(id) if qos else b"") + payload)


def subscribe(*filters: str, qos: int = 0, id: int = 1) -> bytes:
    """A SUBSCRIBE packet."""
    return packet(0x82, number(id) + b"".join(text(one) + bytes((qos,)) for one in filters))


CONNACK = b"\x20\x02\x00\x00"
PINGREQ, PINGRESP, DISCONNECT = b"\xc0\x00", b"\xd0\x00", b"\xe0\x00"
