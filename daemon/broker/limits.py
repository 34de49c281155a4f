"""What the clients of the embedded broker may use of it."""

from __future__ import annotations

from dataclasses import dataclass

UNIT_BYTES = 4096
"""Bytes whose copying counts as one unit of work."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the embedded broker. What says nothing of the daemon does not hold for the daemon's own connections.

    Attributes:
        clients: Most clients that are connected; beyond it, one that is silent or behind for long makes room, or none
            is let in.
        silent_s: Seconds after which a client counts as silent for long. Clients with a keep-alive send something then.
        behind_s: Seconds after which a client counts as behind for long: it has sent more than its turns suffice for.
            It may be gone, which shows only once all of that is read, and that can take an hour.
        strangers: Most connections that have not sent CONNECT yet; beyond it, the oldest is closed.
        connect_s: Longest time in seconds from the connection to the end of CONNECT.
        packet_s: Longest time in seconds from the first to the last byte of any later packet.
        message_bytes: Largest PUBLISH packet, without its fixed header.
        own_message_bytes: Largest PUBLISH packet of the daemon, without its fixed header.
        control_bytes: Largest packet of any other type, without its fixed header; the daemon's too.
        topic_chars: Most characters of a topic or filter.
        levels: Most levels of a topic or filter. Filters with `+` can double what a message has to be compared with at
            every level: the worst ones take 3 ms with 10 levels, and 45 ms with 16. The daemon's topics have 5.
        filters: Most filters of a client.
        retained: Most retained messages.
        retained_bytes: Most bytes of retained messages, with their topics.
        unreleased: Most QoS 2 messages of a client for which it has not sent PUBREL.
        waiting: Most messages that wait for a subscriber; further ones are dropped for it.
        waiting_bytes: Most bytes of messages that wait for a subscriber.
        waiting_share_bytes: Bytes of messages that may wait for a subscriber however many wait for others.
        waiting_total_bytes: Most bytes of messages that wait for all subscribers; beyond it each has only its share.
        in_flight: Most messages that a subscriber has not acknowledged; more wait.
        unread_s: Longest time in seconds that a client may leave its socket full.
        unacknowledged_s: Longest time in seconds that a subscriber may acknowledge nothing while messages wait for it.
        buffer_bytes: Bytes that are handed to a client's socket ahead; the kernel buffers more.
        own_units_per_s: Units of work a second that any client may cause at any time. A packet is one unit, and so is
            each part of the broker's tables that it makes the broker look at, and every 4 KiB that it has to copy.
        turn: Units of work that a client may cause in a row; the daemon too, before others have their turn.
        units_per_s: Units of work a second for all clients that want more than that, together.
    """

    clients: int = 64
    silent_s: float = 90.0
    behind_s: float = 5.0
    strangers: int = 200
    connect_s: float = 5.0
    packet_s: float = 30.0
    message_bytes: int = 256 * 1024
    own_message_bytes: int = 16 * 1024 * 1024
    control_bytes: int = 16 * 1024
    topic_chars: int = 1000
    levels: int = 10
    filters: int = 100
    retained: int = 1000
    retained_bytes: int = 4_000_000
    unreleased: int = 100
    waiting: int = 4000
    waiting_bytes: int = 8_000_000
    waiting_share_bytes: int = 500_000
    waiting_total_bytes: int = 64_000_000
    in_flight: int = 20
    unread_s: float = 5.0
    unacknowledged_s: float = 20.0
    buffer_bytes: int = 64 * 1024
    own_units_per_s: int = 200
    turn: int = 100
    units_per_s: int = 20_000
