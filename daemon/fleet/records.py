"""What travels between the nodes of a fleet, its coordinator, and those who ask how it does: plain data.

Nodes and coordinator are of one version (`Orders.refused` otherwise), so that these records need no versions of their
own. They hold no settings apart from `Orders.config` and `Joined.config`, and no passwords but those written there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CameraReport:
    """What a node says of a camera that it holds.

    Attributes:
        camera: Name of the camera.
        epoch: Epoch under which the node holds it.
        state: State of the camera, as its status topic tells it: `connecting`, `streaming`, ...
        active: Whether the node publishes for it. Otherwise it is warm: it streams, and nothing is published. True
            also says that the ends of all `Grant.orphans` of this epoch have been composed.
        seq: Number of the newest event of this epoch; 0 if there was none.
        next_track: Number that the next track will have.
        open: The newest event of each track that is open, as the JSON in which it was published.
    """

    camera: str
    epoch: int
    state: str
    active: bool
    seq: int = 0
    next_track: int = 1
    open: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What a node says of itself, with every heartbeat.

    Attributes:
        node: Name of the node.
        incarnation: Number of the node's run. It is kept in the state folder and only grows.
        version: Version of visaged.
        url: URL of the node's HTTP server, without a slash at its end; empty if it has none.
        capacity: Cameras of weight 1 that it can analyse; None while that is not known.
        cameras: What it holds, active or warm. A camera that is missing here is let go: nothing is published for it any
            more, and the ends of its tracks have been composed, or are told by `Revoked.ended` to be another's.
        leaving: Whether the node is about to stop, and takes no cameras any more. Its last report has no cameras, after
            it has ended their tracks. If its lease has ended by then, others may have ended them: it sends no last
            report, and its history keeps them open for the next run, which is told by `Joined`.
        home: What tells this node's state folder from that of every other node, such as a random text kept in it. A
            later run with the same home is the same node started again, which proves that the earlier run is dead.
        beat: Counts the reports of this run from 1, so that one that comes late is not taken for news; 0: not counted.
        problem: Why cameras that it was granted cannot run there, such as a password that is missing; empty if all can.
    """

    node: str
    incarnation: int
    version: str
    url: str = ""
    capacity: float | None = None
    cameras: tuple[CameraReport, ...] = ()
    leaving: bool = False
    home: str = ""
    beat: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A track that was open when its owner was lost.

    Attributes:
        node: The owner that was lost.
        epoch: The epoch under which it held the camera.
        track: Number of the track.
        body: The newest event of the track that is known, as JSON.
    """

    node: str
    epoch: int
    track: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to hold a camera. A node holds exactly the cameras that the newest orders grant it.

    Attributes:
        camera: Name of the camera.
        epoch: Epoch under which the node holds it. No other owner has had it, or will.
        active: Whether the node publishes. Otherwise it opens the camera and streams, and publishes nothing until a
            later grant of the same epoch is active.
        next_track: Numbers of new tracks begin here at the least.
        orphans: Tracks of lost owners that this node ends with reason `moved`, once for an epoch, when it becomes
            active. They are told until a report says that the camera is active.
    """

    camera: str
    epoch: int
    active: bool
    next_track: int = 1
    orphans: tuple[Orphan, ...] = ()


@dataclass(frozen=True, slots=True)
class Revoked:
    """A camera that the node held, or still reports, and holds no longer. Told until it is not reported any more.

    If it is in `Orders.clear` too, it has left the configuration; otherwise another node has it, or will.

    Attributes:
        camera: Name of the camera.
        epoch: Epoch under which the node held it.
        ended: Numbers of the tracks that the new owner ends. The node ends its other open ones, in this epoch.
    """

    camera: str
    epoch: int
    ended: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FleetSummary:
    """The fleet in numbers.

    Attributes:
        cameras: Cameras of the configuration.
        placed: Cameras that a node holds under a lease that has not ended.
        active: Cameras for which a node has said that it publishes.
        unplaced: Cameras that find no place.
        moving: Planned moves that are wanted or in progress.
        nodes: Nodes that are up, those that are draining included.
        nodes_away: Nodes that hold or held cameras and are not heard of.
        moves: Planned moves that were completed since the fleet began.
        takeovers: Cameras that were given to another node because their owner was lost, since the fleet began.
        lease_age_s: Seconds since the last heartbeat of the node that has been silent longest and holds leases.
    """

    cameras: int = 0
    placed: int = 0
    active: int = 0
    unplaced: int = 0
    moving: int = 0
    nodes: int = 0
    nodes_away: int = 0
    moves: int = 0
    takeovers: int = 0
    lease_age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Orders:
    """The coordinator's answer to a heartbeat. The answer to a report that is not the node's newest means nothing.

    Attributes:
        coordinator: Number of the coordinator's run; it only grows.
        lease_s: Seconds for which all grants hold, counted by the node from when it sent the report, by its own clock.
        grants: All that the node holds.
        revoked: What it reported, or was granted, and holds no longer.
        clear: Cameras that left the fleet. What is retained of them at the broker is to be cleared.
        config: The configuration as JSON, if the node's version of it is old: without the node's own overrides, and
            with the granted cameras alone. It belongs to the grants beside it: apply it first.
        config_version: Version of the configuration, to be sent with the next heartbeat. It changes with the grants.
        refused: Why the node may not take part, and what to do; empty normally. It then holds nothing.
        report_in_s: Seconds from sending this report to when the next is due. Short while a camera changes hands.
        summary: The fleet in numbers.
    """

    coordinator: int
    lease_s: float
    grants: tuple[Grant, ...] = ()
    revoked: tuple[Revoked, ...] = ()
    clear: tuple[str, ...] = ()
    config: bytes | None = None
    config_version: str = ""
    refused: str = ""
    report_in_s: float = 1.0
    summary: FleetSummary = FleetSummary()


@dataclass(frozen=True, slots=True)
class Joined:
    """The coordinator's answer to a node that joins; asked for before the node's history ends its open tracks.

    Attributes:
        ended: Camera, epoch and track of tracks of this node's earlier runs that others have ended, or will.
        config: The configuration as JSON, without the node's own overrides and without cameras; empty if refused.
        refused: Why the node may not take part, and what to do; empty normally.
    """

    ended: tuple[tuple[str, int, int], ...] = ()
    config: bytes = b""
    refused: str = ""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as people see it.

    Attributes:
        name: Its name.
        site: Its site; empty if it has none.
        state: `starting` (it has joined, and not reported yet), `up`, `draining`, `drained` (it is up, and holds
            nothing), `leaving`, `away` (it is not heard of), `absent` (it is in the configuration, and never joined) or
            `refused`.
        capacity: Cameras of weight 1 that count as its capacity.
        used: Weight of the cameras that have their place there.
        cameras: Number of the cameras that it holds, active or warm.
        url: URL of its HTTP server; empty if there is none, or it is not known.
        version: Its version of visaged; empty if it is not known.
        seen_s: Seconds since it was last heard of; None if it never was.
        why: Why it is refused, or what else is wrong with it; empty normally.
    """

    name: str
    site: str = ""
    state: str = "up"
    capacity: float = 0.0
    used: float = 0.0
    cameras: int = 0
    url: str = ""
    version: str = ""
    seen_s: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class CameraView:
    """A camera that has a place, as people see it.

    Attributes:
        name: Its name.
        node: The node that holds it, or that will; never empty.
        epoch: Epoch under which it is held; 0 while it is not held yet.
        state: Its state as its owner told it; empty if it has not told it.
        active: Whether its owner publishes.
        warm: The node that streams it already and takes it over soon; empty if it does not move.
    """

    name: str
    node: str
    epoch: int = 0
    state: str = ""
    active: bool = False
    warm: str = ""


@dataclass(frozen=True, slots=True)
class UnplacedView:
    """A camera that finds no place, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class FleetView:
    """The fleet as people see it.

    Attributes:
        fleet: Name of the fleet.
        coordinator: Number of the coordinator's run.
        age_s: Seconds since that run began.
        lease_s: Seconds that a lease lasts.
        version: Version of the coordinator.
        summary: The fleet in numbers.
        nodes: The nodes, by name.
        cameras: The cameras that have a place, by name.
        unplaced: The cameras without one, by name.
        problem: What keeps the coordinator from working, such as a store that takes nothing; empty normally.
    """

    fleet: str
    coordinator: int
    age_s: float
    lease_s: float
    version: str
    summary: FleetSummary
    nodes: tuple[NodeView, ...] = ()
    cameras: tuple[CameraView, ...] = ()
    unplaced: tuple[UnplacedView, ...] = ()
    problem: str = ""
