"""How patient the MQTT output is with a broker that ends connections."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds after which something is concluded from a connection.

    Attributes:
        reconnect_s: The first pause before a new connection; it doubles up to the configuration's longest.
        steady_s: A connection that lived so long was a good one: pauses begin anew.
        probe_s: How long the first message of a careful connection waits, so that a broker that ends a connection at
            once is not taken for one that ends it because of that message.
        proven_s: A connection that ended sooner proves nothing against the message that was on its way.
        careful_s: How long after the last hang-up one message at a time is sent.
        short_s: A connection without a message on its way that ended sooner ended for a reason of its own.
        retry_s: How long messages that the broker hung up on are set aside.
    """

    reconnect_s: float = 1.0
    steady_s: float = 5.0
    probe_s: float = 1.5
    proven_s: float = 1.0
    careful_s: float = 30.0
    short_s: float = 15.0
    retry_s: float = 600.0
