"""The limits of a listener."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_BYTES_S = 4_000
"""Bytes a second in which a client must send a body and take an answer on average, or be cut off."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a listener, and of each of its connections.

    Attributes:
        head_s: Longest time in seconds to the end of a request's headers.
        silence_s: Longest time in seconds in which the kernel takes less of an answer than the least rate.
        idle_s: Longest time in seconds between an answer and the next request.
        connections: Most open connections.
        connections_each: Most open connections of an address of another machine.
        least_bytes_s: Least rate in bytes a second in which an answer is taken.
    """

    head_s: float = 10.0
    silence_s: float = 60.0
    idle_s: float = 15
    connections: int = 500
    connections_each: int = 100
    least_bytes_s: float = LEAST_BYTES_S
