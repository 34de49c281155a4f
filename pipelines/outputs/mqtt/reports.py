"""What the link to an MQTT broker reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Limits:
    """What the broker takes on a connection; MQTT 5 brokers say so when they accept it, others have the defaults.

    Attributes:
        in_flight: QoS 1 messages without an acknowledgement (Receive Maximum).
        packet_bytes: Bytes of one packet (Maximum Packet Size); None for no limit.
        qos: Highest QoS (Maximum QoS); 2 is not used here.
        retain: Whether it keeps retained messages (Retain Available).
    """

    in_flight: int = 65535
    packet_bytes: int | None = None
    qos: int = 1
    retain: bool = True


class Opened(NamedTuple):
    """The broker accepted a connection.

    Attributes:
        connection: Its number, counted from 1.
        limits: What the broker takes on it.
    """

    connection: int
    limits: Limits


class Settled(NamedTuple):
    """The broker acknowledged or refused a QoS 1 message, or a QoS 0 message was written to the socket.

    Attributes:
        number: Of the message, as `send` returned it.
        refused: The broker's reason when it refused the message; empty when it took it.
    """

    number: int
    refused: str


class Lost(NamedTuple):
    """A connection that was accepted has ended.

    Attributes:
        at_s: Monotonic seconds.
        lived_s: Seconds since it was accepted.
        unexplained: Whether the other side ended it without a reason that excludes a message as the cause.
    """

    at_s: float
    lived_s: float
    unexplained: bool


def limits_of(properties: Any) -> Limits:
    """Return what CONNACK's properties say; they are absent in MQTT 3.1.1."""
    return Limits(
        getattr(properties, "ReceiveMaximum", 65535),
        getattr(properties, "MaximumPacketSize", None),
        min(1, getattr(properties, "MaximumQoS", 1)),
        bool(getattr(properties, "RetainAvailable", True)),
    )
