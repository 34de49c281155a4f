"""What the nodes are told, and what is learnt from what they report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from visaged.daemon.fleet.plan.documents import Catalogue
from visaged.daemon.fleet.plan.leases import Lease
from visaged.daemon.fleet.plan.nodes import Presence
from visaged.daemon.fleet.plan.store import State
from visaged.daemon.fleet.records import FleetSummary, Grant, NodeReport, Orders, Revoked

_HEARTBEATS = 6
"""Heartbeats of a node in the time of a lease."""
_SOON_S = 0.1
"""Time in seconds between heartbeats of a node while it waits for a camera that is let go, or lets one go."""


class Clerk:
    """Writes the orders of each node."""

    def __init__(self) -> None:
        self._cameras: dict[str, list[str]] = {}
        self._configs: dict[str, tuple[Catalogue, tuple[str, ...], bytes, str]] = {}
        self._cleared: dict[str, tuple[str, float]] = {}  # who clears what, and since when

    def index(self, state: State) -> None:
        """Note which nodes have which cameras; to be called with every new state."""
        self._cameras = {}
        for name, custody in state.custodies.items():
            for lease in (custody.holder, custody.successor):
                if lease is not None:
                    self._cameras.setdefault(lease.node, []).append(name)

    def orders(
        self,
        presence: Presence,
        state: State,
        catalogue: Catalogue,
        summary: FleetSummary,
        known_config: str,
        now_s: float,
    ) -> Orders:
        """Return what a node is told, and note that it was."""
        grants, revoked, hurries = [], {}, False
        for name in self._cameras.get(presence.name, ()):
            custody = state.custodies[name]
            holder, successor = custody.holder, custody.successor
            hurries |= custody.letting_go
            if holder is not None and _is_of(holder, presence) and (name, holder.epoch) not in presence.let_go:
                if custody.letting_go:
                    revoked[name] = Revoked(name, holder.epoch)
                else:
                    grants.append(Grant(name, holder.epoch, True, custody.next_track, custody.owed))
            elif successor is not None and _is_of(successor, presence):
                grants.append(Grant(name, successor.epoch, False, custody.next_track))
        granted = {grant.camera: grant.epoch for grant in grants}
        handed = state.nodes[presence.name].handed
        for name, report in presence.cameras.items():
            if granted.get(name) != report.epoch and name not in revoked:
                ended = handed.get((name, report.epoch))
                revoked[name] = Revoked(name, report.epoch, () if ended is None else ended.tracks)
        for name, one in revoked.items():
            if name in presence.cameras or presence.told.get(name) != one.epoch:
                presence.told[name] = one.epoch
        config, version = self._config(presence.name, catalogue, tuple(sorted(granted)))
        lease_s = catalogue.fleet.lease_s
        return Orders(
            state.run,
            lease_s,
            tuple(grants),
            tuple(revoked.values()),
            self._to_clear(presence, state, now_s),
            None if version == known_config else config,
            version,
            report_in_s=min(_SOON_S, lease_s / _HEARTBEATS) if hurries else lease_s / _HEARTBEATS,
            summary=summary,
        )

    def confirm(self, state: State, presence: Presence, report: NodeReport) -> None:
        """Note what a node has done: orphans that it has ended, what it no longer has, epochs that it knows."""
        for one in report.cameras:
            custody = state.custodies.get(one.camera)
            if custody is None:
                continue
            if custody.owed and one.active and custody.holder == Lease(presence.name, presence.incarnation, one.epoch):
                custody = state.custodies[one.camera] = replace(custody, owed=())
            if one.epoch > custody.last_epoch:
                state.custodies[one.camera] = replace(custody, last_epoch=one.epoch)
        handed = state.nodes[presence.name].handed
        for name, epoch in list(handed):
            reported = presence.cameras.get(name)
            if reported is None or reported.epoch != epoch:
                del handed[name, epoch]

    def tidy(self, state: State, nodes: Mapping[str, Presence], now_s: float, oldest_ms: int) -> bool:
        """Forget what need not be told any more; return whether anything was."""
        changed = False
        for name, (node, since_s) in list(self._cleared.items()):
            if name not in state.clearing:
                del self._cleared[name]
            elif now_s - since_s >= nodes[node].lease_s:
                del state.clearing[name], self._cleared[name]
                changed = True
        for presence in nodes.values():
            for name, epoch in list(presence.let_go):
                custody = state.custodies.get(name)
                if custody is None or custody.holder is None or custody.holder.epoch != epoch:
                    del presence.let_go[name, epoch]
        for record in state.nodes.values():
            for key in [key for key, handed in record.handed.items() if handed.at_ms < oldest_ms]:
                del record.handed[key]
                changed = True
        return changed

    def _to_clear(self, presence: Presence, state: State, now_s: float) -> tuple[str, ...]:
        """Return what a node is to clear: what it held itself, and what nobody holds any more."""
        names = []
        for name, last in state.clearing.items():
            custody = state.custodies.get(name)
            is_free = custody is None or custody.holder is None
            if last == presence.name or is_free:
                node, _ = self._cleared.setdefault(name, (presence.name, now_s))
                if node == presence.name:
                    names.append(name)
        return tuple(names)

    def _config(self, node: str, catalogue: Catalogue, cameras: tuple[str, ...]) -> tuple[bytes, str]:
        kept = self._configs.get(node)
        if kept is None or kept[0] is not catalogue or kept[1] != cameras:
            kept = self._configs[node] = (catalogue, cameras, *catalogue.part(cameras))
        return kept[2], kept[3]


def adopt(state: State, report: NodeReport) -> bool:
    """Take over leases that a node has, if nothing else is known of the cameras; return whether there were any.

    A node that publishes has a lease that has not ended, and no other node had one for that camera at that time.
    """
    adopted = False
    for one in report.cameras:
        custody = state.custodies.get(one.camera)
        if custody is not None and one.active and one.epoch > custody.last_epoch:
            lease = Lease(report.node, report.incarnation, one.epoch)
            state.custodies[one.camera] = replace(custody.with_holder(lease), target=report.node)
            adopted = True
    return adopted


def _is_of(lease: Lease, presence: Presence) -> bool:
    return lease.node == presence.name and lease.incarnation == presence.incarnation
