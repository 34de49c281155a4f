"""Packets to the embedded broker; a client beside them has to be served as always."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from typing import Any

from tests.fuzz.findings import Complaint, Kind
from tests.fuzz.kept import words
from tests.fuzz.targets.base import DaemonTarget
from tests.fuzz.wire import exchange

_CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05probe"
_TOPIC = "visaged/fuzz/status"
_SUBSCRIBE = b"\x82\x18\x00\x01\x00\x13" + _TOPIC.encode() + b"\x01"
_PROBE_S = 10.0


class MqttTarget(DaemonTarget):
    """Sends packets to the embedded broker."""

    name = "mqtt"
    words = words(name)

    def send(self, data: bytes) -> list[Complaint]:
        """Send packets on a connection of their own. What the broker answers is its library's affair."""
        try:
            exchange(self._daemon.mqtt_port, data, quiet_s=0.05)
        except OSError as error:
            return [Complaint(Kind.UNWELL, f"no connection to the broker: {error}")]
        return []

    def settle(self) -> list[Complaint]:
        """Return whether the broker serves a new client with the daemon's own status."""
        return judge_status(_retained_status(self._daemon.mqtt_port))


def judge_status(message: tuple[str, bytes] | None) -> list[Complaint]:
    """Return what is wrong with the first message (topic and payload) to who subscribed to the daemon's status."""
    if message is None:
        return [Complaint(Kind.UNWELL, f"the broker gave a new client no status within {_PROBE_S} s")]
    topic, payload = message
    document: Any = None
    with contextlib.suppress(ValueError):
        document = json.loads(payload)
    if topic != _TOPIC or not isinstance(document, dict) or document.get("state") != "online":
        return [Complaint(Kind.ANSWER, f"not the daemon's status any more, on {topic}: {payload[:80]!r}")]
    return []


def _retained_status(port: int) -> tuple[str, bytes] | None:
    """Subscribe to the daemon's status; return the first message, None where there is none in time."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), _PROBE_S) as connection:
        connection.settimeout(_PROBE_S)
        connection.sendall(_CONNECT + _SUBSCRIBE)
        with connection.makefile("rb") as stream:
            while (packet := _packet(stream)) is not None:
                kind, body = packet
                if kind & 0xF0 == 0x30:
                    (length,) = struct.unpack_from(">H", body)
                    payload = body[2 + length + (2 if kind & 0x06 else 0) :]
                    return body[2 : 2 + length].decode("utf-8", "replace"), payload
    return None


def _packet(stream: Any) -> tuple[int, bytes] | None:
    """Read a packet; return its first byte and what follows its length, None at the end."""
    kind = stream.read(1)
    length = shift = 0
    while kind and (byte := stream.read(1)):
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if not byte[0] & 0x80:
            return kind[0], stream.read(length)
    return None
