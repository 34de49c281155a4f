"""The fleet in numbers, and as people see it."""

from __future__ import annotations

from collections.abc import Mapping

from visaged.daemon.fleet.plan.documents import Catalogue
from visaged.daemon.fleet.plan.leases import Custody, NodeRecord
from visaged.daemon.fleet.plan.nodes import Presence, Presences
from visaged.daemon.fleet.plan.planning import Planner
from visaged.daemon.fleet.plan.store import State
from visaged.daemon.fleet.records import CameraView, FleetSummary, FleetView, NodeView, UnplacedView


def summary_of(
    state: State, catalogue: Catalogue, nodes: Mapping[str, Presence], planner: Planner, now_s: float
) -> FleetSummary:
    """Return the fleet in numbers."""
    alive = {name: presence for name, presence in nodes.items() if presence.is_alive(now_s)}
    placed = active = moving = 0
    holders = set()
    for name, custody in state.custodies.items():
        holder = custody.holder
        presence = None if holder is None else alive.get(holder.node)
        if holder is None or presence is None or presence.incarnation != holder.incarnation:
            continue
        holders.add(holder.node)
        placed += 1
        moving += holder.node != custody.target and bool(custody.target)
        known = presence.cameras.get(name)
        active += known is not None and known.active and known.epoch == holder.epoch
    ages_s = [now_s - nodes[name].heard_s for name in holders]
    return FleetSummary(
        cameras=len(catalogue.needs),
        placed=placed,
        active=active,
        unplaced=len(planner.unplaced),
        moving=moving,
        nodes=sum(nodes[name].report is not None for name in alive),
        nodes_away=len(nodes.keys() - alive),
        moves=state.moves,
        takeovers=state.takeovers,
        lease_age_s=max(ages_s, default=0.0),
    )


def view_of(
    state: State,
    catalogue: Catalogue,
    nodes: Mapping[str, Presence],
    planner: Planner,
    summary: FleetSummary,
    refusals: Mapping[str, str],
    version: str,
    problem: str,
    started_s: float,
    now_s: float,
) -> FleetView:
    """Return the fleet as people see it.

    Args:
        state: What is known of the cameras.
        catalogue: The configuration.
        nodes: The nodes that were heard of.
        planner: Where the cameras should be.
        summary: The fleet in numbers.
        refusals: Why nodes were refused lately, by their names.
        version: Version of the coordinator.
        problem: What keeps it from working; empty for nothing.
        started_s: When its run began, in seconds of the monotonic clock.
        now_s: The time, likewise.
    """
    held: dict[str, int] = {}
    for custody in state.custodies.values():
        for lease in (custody.holder, custody.successor):
            if lease is not None:
                held[lease.node] = held.get(lease.node, 0) + 1
    names = sorted(nodes.keys() | catalogue.fleet.nodes.keys() | refusals.keys())
    presences = Presences(nodes, now_s)
    cameras = [
        _camera(name, state.custodies[name], presences) for name in sorted(catalogue.needs) if name in state.custodies
    ]
    return FleetView(
        fleet=catalogue.fleet.name,
        coordinator=state.run,
        age_s=now_s - started_s,
        lease_s=catalogue.fleet.lease_s,
        version=version,
        summary=summary,
        nodes=tuple(
            _node(name, state.nodes.get(name), catalogue, nodes.get(name), planner, held, refusals, now_s)
            for name in names
        ),
        cameras=tuple(camera for camera in cameras if camera.node),
        unplaced=tuple(UnplacedView(name, why) for name, why in sorted(planner.unplaced.items())),
        problem=problem,
    )


def _camera(name: str, custody: Custody, presences: Presences) -> CameraView:
    holder, successor = custody.holder, custody.successor
    if holder is None or presences.is_over(name, holder):
        return CameraView(name, custody.target, warm="" if successor is None else successor.node)
    presence = presences.of(holder)
    known = None if presence is None else presence.known(name, holder)
    return CameraView(
        name,
        holder.node,
        holder.epoch,
        "" if known is None else known.state,
        known is not None and known.active,
        "" if successor is None else successor.node,
    )


def _node(
    name: str,
    record: NodeRecord | None,
    catalogue: Catalogue,
    presence: Presence | None,
    planner: Planner,
    held: Mapping[str, int],
    refusals: Mapping[str, str],
    now_s: float,
) -> NodeView:
    listed = catalogue.fleet.nodes.get(name)
    capacity = record.capacity if record is not None else None
    if listed is not None and listed.capacity is not None:
        capacity = listed.capacity
    report = None if presence is None else presence.report
    return NodeView(
        name,
        site=(listed.site or "") if listed is not None else "",
        state=_state(record, presence, held.get(name, 0), name in refusals, now_s),
        capacity=catalogue.fleet.default_capacity if capacity is None else capacity,
        used=planner.used.get(name, 0.0),
        cameras=held.get(name, 0),
        url="" if report is None else report.url,
        version="" if report is None else report.version,
        seen_s=None if presence is None else max(0.0, now_s - presence.heard_s),
        why=refusals.get(name) or ("" if report is None else report.problem),
    )


def _state(record: NodeRecord | None, presence: Presence | None, held: int, is_refused: bool, now_s: float) -> str:
    if presence is None:
        return "refused" if is_refused else "absent"
    if not presence.is_alive(now_s):
        return "refused" if is_refused else "away"
    if presence.report is None:
        return "starting"
    if presence.report.leaving:
        return "leaving"
    if record is not None and record.draining:
        return "draining" if held else "drained"
    return "up"
