"""The reports of the link to an MQTT broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the broker on a connection; MQTT 5 brokers send them with CONNACK, others have the defaults.

    Attributes:
        in_flight: Most QoS 1 messages that are not acknowledged (Receive Maximum).
        packet_bytes: Largest packet in bytes (Maximum Packet Size); None for no limit.
        qos: Highest QoS (Maximum QoS), at most 1; 2 is not used here.
        retain: Whether the broker keeps retained messages (Retain Available).
    """

    in_flight: int = 65535
    packet_bytes: int | None = None
    qos: int = 1
    retain: bool = True


class Opened(NamedTuple):
    """The broker accepted a connection.

    Attributes:
        connection: Number of the connection, counted from 1.
        limits: Limits of the broker on this connection.
    """

    connection: int
    limits: Limits


class Settled(NamedTuple):
    """The broker acknowledged or refused a QoS 1 message, or a QoS 0 message was written to the socket.

    Attributes:
        number: Number of the message, as `send` returned it.
        refused: Reason of the broker if it refused the message; empty if it took the message.
    """

    number: int
    refused: str


class Subscribed(NamedTuple):
    """The broker answered a subscription.

    Attributes:
        refused: Reason of the broker if it refused the subscription; empty if it accepted it.
    """

    refused: str


class Heard(NamedTuple):
    """There were messages, one or more, as `listen` was told to wait for."""


class Lost(NamedTuple):
    """A connection that was accepted has ended.

    Attributes:
        at_s: Monotonic seconds when the connection ended.
        lived_s: Seconds from its acceptance to its end.
        unexplained: Whether the broker may have ended the connection because of a message.
    """

    at_s: float
    lived_s: float
    unexplained: bool


def limits_of(properties: Any) -> Limits:
    """Return the limits in the properties of CONNACK; they are absent in MQTT 3.1.1."""
    return Limits(
        getattr(properties, "ReceiveMaximum", 65535),
        getattr(properties, "MaximumPacketSize", None),
        min(1, getattr(properties, "MaximumQoS", 1)),
        bool(getattr(properties, "RetainAvailable", True)),
    )
