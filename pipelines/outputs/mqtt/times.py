"""Time limits by which the MQTT output judges a broker that ends connections."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds after which conclusions are drawn from a connection.

    Attributes:
        reconnect_s: First pause before a new connection; pauses double up to the configured longest.
        steady_s: Life of a connection after which pauses begin again with the shortest.
        probe_s: Wait before the first message of a connection after a hang-up, so that a broker that ends connections
            at once is not taken for one that ends them because of that message.
        proven_s: Least life of a connection whose end counts against the message that was in flight.
        careful_s: Time after a reconnect during which only one message at a time is sent, if the broker had hung up.
        short_s: Life of a connection below which its end, without a message in flight, counts as unexplained.
        retry_s: Time after which a message that was set aside is tried again.
    """

    reconnect_s: float = 1.0
    steady_s: float = 5.0
    probe_s: float = 1.5
    proven_s: float = 1.0
    careful_s: float = 30.0
    short_s: float = 15.0
    retry_s: float = 600.0
