"""Who holds a camera, and under which epoch: what has to survive the coordinator, and how it changes.

A lease is a camera in the hands of one run of one node, under an epoch that no other lease ever has. A camera has at
most two: that of its holder, who publishes, and that of a successor, who streams already and publishes nothing. The
successor takes over when the holder has let go, or its lease has ended; so at no time two of them publish.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import orjson

from visaged.daemon.fleet.records import CameraReport, Orphan

TRACKS_APART = 1000
"""How far the numbers of a new owner's tracks are from the last known of the owner before: it may have had more."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A camera in the hands of one run of one node.

    Attributes:
        node: Name of the node.
        incarnation: Number of the node's run.
        epoch: Epoch of all that it publishes for the camera.
    """

    node: str
    incarnation: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Custody:
    """What is known of a camera.

    Attributes:
        target: The node that should hold it; empty if it has no place.
        last_epoch: The largest epoch that was ever given out for it, or seen.
        next_track: Numbers of the tracks of the holder, and of the successor, begin here at the least.
        holder: Who holds it, or held it last; None if nobody ever did, or nothing is left to be done about that.
        successor: Who takes over from the holder.
        letting_go: Whether the holder was told to let go.
        owed: Tracks of lost owners that the holder has to end, and has not said to have ended.
    """

    target: str = ""
    last_epoch: int = 0
    next_track: int = 1
    holder: Lease | None = None
    successor: Lease | None = None
    letting_go: bool = False
    owed: tuple[Orphan, ...] = ()

    def with_holder(self, lease: Lease) -> Custody:
        """Return it with a holder and no successor."""
        epoch = max(self.last_epoch, lease.epoch)
        return replace(self, holder=lease, successor=None, letting_go=False, last_epoch=epoch)

    def with_successor(self, lease: Lease | None) -> Custody:
        """Return it with another successor, or with none."""
        epoch = self.last_epoch if lease is None else max(self.last_epoch, lease.epoch)
        return replace(self, successor=lease, last_epoch=epoch)

    def after(self, known: CameraReport | None, orphans: Iterable[Orphan] = ()) -> Custody:
        """Return it for an owner after the present holder.

        Args:
            known: What the holder last said of the camera; None if that is not known.
            orphans: Tracks of the holder that the next owner has to end.
        """
        if self.holder is None:
            return self
        last = self.next_track if known is None else max(self.next_track, known.next_track)
        return replace(self, next_track=last + TRACKS_APART, owed=(*self.owed, *orphans))


@dataclass(slots=True)
class Handed:
    """Tracks of a node's earlier lease of a camera that others have ended, or will.

    Attributes:
        tracks: Numbers of the tracks.
        at_ms: When that was decided; wall clock in ms since 1970.
    """

    tracks: tuple[int, ...]
    at_ms: int


@dataclass(slots=True)
class NodeRecord:
    """What is kept of a node.

    Attributes:
        incarnation: Number of its newest run that was let in.
        home: What tells its state folder from others; empty if it does not say.
        draining: Whether somebody asked for it to give up its cameras.
        capacity: Cameras of weight 1 that it last said it can analyse; None if it never did.
        handed: What others end for it, by camera and epoch.
    """

    incarnation: int = 0
    home: str = ""
    draining: bool = False
    capacity: float | None = None
    handed: dict[tuple[str, int], Handed] = field(default_factory=dict)


def next_epoch(custody: Custody, floor: int, wall_ms: int, incarnation: int) -> int:
    """Return the epoch of a new lease: larger than all that were given out for the camera, and than the clocks.

    Args:
        custody: What is known of the camera.
        floor: The largest epoch of cameras that are known no more.
        wall_ms: The coordinator's wall clock in ms since 1970.
        incarnation: The run of the node that gets it. Alone, the node numbered its messages by that.
    """
    return max(custody.last_epoch + 1, floor + 1, wall_ms, incarnation + 1)


def orphans_of(lease: Lease, known: CameraReport | None) -> tuple[Orphan, ...]:
    """Return the tracks that were open when a lease was lost, as far as its last report tells."""
    if known is None or known.epoch != lease.epoch:
        return ()
    tracks = {}
    for body in known.open:
        try:
            track = orjson.loads(body)["track_id"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            continue  # nothing that a consumer could have taken for a track
        if isinstance(track, int):
            tracks[track] = Orphan(lease.node, lease.epoch, track, body)
    return tuple(tracks.values())
