"""What a daemon is told that is a node of a fleet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from visaged.pipelines.outputs.leases import Fence
from visaged.pipelines.records import EndReason


@dataclass(frozen=True)
class Membership:
    """The part of a daemon in a fleet.

    Attributes:
        fleet: Name of the fleet.
        fence: The leases of the cameras.
        has: Returns whether a camera of the configuration is to run here now.
        on_removed: Called with a camera that does not run any more, after its last event was submitted.
        reasons: Why the tracks of cameras end that do not run any more.
        ended: Camera, epoch and track of tracks of earlier runs that other nodes have ended, or will.
    """

    fleet: str
    fence: Fence
    has: Callable[[str], bool]
    on_removed: Callable[[str], None]
    reasons: Callable[[], Mapping[str, EndReason]]
    ended: frozenset[tuple[str, int, int]] = field(default_factory=frozenset)
