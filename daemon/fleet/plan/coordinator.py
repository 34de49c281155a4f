"""The coordinator of a fleet: hears of the nodes, decides who holds which camera, and tells them.

It has no thread, clock or network of its own: every call hands in the time, and heartbeats drive all that it does. What
must survive it is saved before anybody is told of it. If the store takes nothing, leases are renewed and nothing else
changes.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import replace

from visaged.daemon.config.base import NAME_PATTERN
from visaged.daemon.fleet.plan.documents import Catalogue, Document, FleetError
from visaged.daemon.fleet.plan.leases import NodeRecord
from visaged.daemon.fleet.plan.moves import Step
from visaged.daemon.fleet.plan.nodes import Presence, Presences, counted_s
from visaged.daemon.fleet.plan.orders import Clerk, adopt
from visaged.daemon.fleet.plan.planning import Planner, new_custodies
from visaged.daemon.fleet.plan.store import State, Store, StoreError, decoded, encoded, packed
from visaged.daemon.fleet.plan.viewing import summary_of, view_of
from visaged.daemon.fleet.records import FleetSummary, FleetView, Joined, NodeReport, Orders

log = logging.getLogger(__name__)

_STEP_S = 0.1
"""Least time in seconds between two steps, so that a hundred heartbeats with news make one."""
_LOOK_S = 0.25
"""Time in seconds between two looks at who is silent."""
_SUMMARY_S = 1.0
_RETRY_S = 3.0
"""Time in seconds after which a store that took nothing is tried again; a try may take a second, and nobody is answered
meanwhile."""
_HANDED_MS = 30 * 86_400_000
"""For so long it is kept which tracks of a lost node others have ended; after that it does not tell of them again."""


class Coordinator:
    """Decides who holds which camera. Its methods must be called from one thread.

    Args:
        store: Keeps what must survive.
        version: Version of visaged; nodes of others are refused.
        now_s: Seconds of a monotonic clock, the same in every call.
        wall_ms: Wall clock in ms since 1970.
        document: The configuration, checked; None for the one that was kept.

    Raises:
        FleetError: There is no configuration, or its part about the fleet is not valid.
        StoreError: What was kept cannot be read, or nothing can be kept.
    """

    def __init__(
        self, store: Store, version: str, now_s: float, wall_ms: int, document: Document | None = None
    ) -> None:
        self._store, self._version, self._started_s = store, version, now_s
        kept = store.load()
        if kept is not None:
            self._state, self._catalogue = decoded(kept)
        elif document is not None:
            self._state, self._catalogue = State(), Catalogue(document, {})
        else:
            raise FleetError("there is no fleet of this name yet, and no configuration to begin one with")
        if kept is not None and document is not None:
            self._catalogue = Catalogue(document, self._catalogue.patches)
        self._is_stopping, self._problem = False, ""
        self._planner, self._clerk = Planner(), Clerk()
        self._nodes: dict[str, Presence] = {}
        self._refusals: dict[str, tuple[str, float]] = {}
        self._since: dict[str, float] = {}
        self._summary, self._summary_s = FleetSummary(), -math.inf
        self._has_news, self._stepped_s, self._retry_s = True, -math.inf, -math.inf
        self._packed = packed(self._catalogue)
        state = self._state.copy()
        longest_s = max(state.longest_lease_s, self._catalogue.fleet.lease_s)
        for name in {lease.node for c in state.custodies.values() for lease in (c.holder, c.successor) if lease}:
            # Whether it is alive is not known; all that it holds counts as running from now.
            record = state.nodes[name]
            self._nodes[name] = Presence(name, record.incarnation, record.home, now_s, longest_s)
        state.run = max(state.run + 1, wall_ms)
        state.longest_lease_s = longest_s
        new_custodies(state, self._catalogue)
        self._keep(state)

    def join(self, node: str, incarnation: int, version: str, home: str, now_s: float, wall_ms: int) -> Joined:
        """Let a run of a node in, before it ends the open tracks of its earlier runs.

        What an earlier run of the same home held is free at once. May be called again while the run is starting.

        Args:
            node: Name of the node.
            incarnation: Number of its run.
            version: Its version of visaged.
            home: What tells its state folder from others; see `NodeReport`.
            now_s: Seconds of the monotonic clock.
            wall_ms: Wall clock in ms since 1970.

        Raises:
            StoreError: It cannot be kept that the run was let in; try again.
        """
        why = self._refusal(node, incarnation, version, home, now_s)
        if why:
            return Joined(refused=why)
        presence = self._let_in(node, incarnation, home, now_s)
        presence.is_starting = presence.report is None
        presence.heard_s, presence.lease_s = now_s, self._catalogue.fleet.lease_s
        self._has_news = True
        self._look(now_s, wall_ms)
        ended = tuple(
            (camera, epoch, track)
            for (camera, epoch), handed in self._state.nodes[node].handed.items()
            for track in handed.tracks
        )
        return Joined(ended, self._catalogue.part(())[0])

    def heartbeat(self, report: NodeReport, known_config: str, now_s: float, wall_ms: int) -> Orders:
        """Hear a node, and tell it what it holds from now on.

        Args:
            report: What it says.
            known_config: Version of the configuration that it has; empty for none.
            now_s: Seconds of the monotonic clock.
            wall_ms: Wall clock in ms since 1970.

        Raises:
            StoreError: A node that has not joined cannot be let in.
        """
        fleet = self._catalogue.fleet
        why = self._refusal(report.node, report.incarnation, report.version, report.home, now_s)
        if why:
            return Orders(self._state.run, fleet.lease_s, refused=why, report_in_s=fleet.lease_s / 2)
        presence = self._let_in(report.node, report.incarnation, report.home, now_s)
        if presence.is_news(report):
            self._hear(presence, report)
            presence.heard_s, presence.lease_s = now_s, fleet.lease_s
        self._look(now_s, wall_ms)
        if now_s - self._summary_s >= _SUMMARY_S:
            self._summarise(now_s)
        return self._clerk.orders(presence, self._state, self._catalogue, self._summary, known_config, now_s)

    def excuse(self, away_s: float, now_s: float) -> None:
        """Take no node for lost that could not be heard, because the coordinator itself was stopped.

        Args:
            away_s: For how long.
            now_s: Seconds of the monotonic clock.
        """
        for presence in self._nodes.values():
            if presence.is_alive(now_s - away_s):
                presence.heard_s += away_s

    def view(self, now_s: float, wall_ms: int) -> FleetView:
        """Return the fleet as people see it."""
        self._look(now_s, wall_ms)
        self._summarise(now_s)
        why = {name: text for name, (text, at_s) in self._refusals.items() if now_s - at_s < 60}
        return view_of(
            self._state, self._catalogue, self._nodes, self._planner, self._summary, why, self._version,
            self._problem, self._started_s, now_s,
        )  # fmt: skip

    def document(self) -> tuple[Document, dict[str, Document | None]]:
        """Return the configuration as plain data, and the changes of cameras that were made since."""
        return self._catalogue.document, dict(self._catalogue.patches)

    def configure(self, document: Document) -> None:
        """Run with another configuration, which was checked. Changes of cameras that were made since stay laid over it.

        Raises:
            FleetError: The part about the fleet is not valid.
            StoreError: It cannot be kept; nothing has changed.
        """
        self._run_with(Catalogue(document, self._catalogue.patches))

    def add(self, camera: Document) -> None:
        """Add a camera, whose settings were checked.

        Raises:
            FleetError: It cannot be added.
            StoreError: It cannot be kept; nothing has changed.
        """
        self._run_with(self._catalogue.with_camera(camera))

    def remove(self, name: str) -> None:
        """Remove a camera.

        Raises:
            FleetError: There is no such camera.
            StoreError: It cannot be kept; nothing has changed.
        """
        self._run_with(self._catalogue.without_camera(name))

    def drain(self, node: str) -> None:
        """Have a node give up its cameras one after the other, and take none, until `undrain`.

        Raises:
            FleetError: There is no such node.
            StoreError: It cannot be kept; nothing has changed.
        """
        self._set_draining(node, True)

    def undrain(self, node: str) -> None:
        """Let a node take its share of the cameras again; raises as `drain` does."""
        self._set_draining(node, False)

    def rebalance(self, now_s: float, most: int | None = None) -> int:
        """Level the nodes by planned moves from the fullest to the emptiest.

        Args:
            now_s: Seconds of the monotonic clock.
            most: Most moves; None for as many as a node that comes would take: cameras / nodes + 1.

        Returns:
            The number of moves that are planned; 0 if nothing would become more level.

        Raises:
            StoreError: It cannot be kept; nothing has changed.
        """
        state = self._state.copy()
        nodes = max(1, len(self._planner.machines))
        most = len(self._catalogue.needs) // nodes + 1 if most is None else most
        moves = self._planner.rebalance(state, self._catalogue, Presences(self._nodes, now_s), most)
        self._keep(state)
        return moves

    def stop(self) -> None:
        """Give no camera to anybody any more, because the nodes are about to stop one after the other."""
        self._is_stopping = True

    def _refusal(self, node: str, incarnation: int, version: str, home: str, now_s: float) -> str:
        """Return why a run of a node may not take part; empty if it may."""
        fleet, present = self._catalogue.fleet, self._nodes.get(node)
        is_present = present is not None and present.incarnation == incarnation and present.home == home
        why = ""
        if re.fullmatch(NAME_PATTERN, node) is None:
            why = "its name is not valid: letters, digits, _ . - are possible, at most 64"
        elif version != self._version:
            why = (
                f"it runs visaged {version}, and the fleet's coordinator {self._version}: install the same on all "
                "nodes, and start the fleet again"
            )
        elif fleet.only_listed and node not in fleet.nodes and not is_present:
            why = "it is not listed under fleet.nodes, and fleet.only_listed is true: list it"
        elif present is not None and not is_present and present.is_alive(now_s):
            if present.home != home:
                why = "another machine takes part under this name: give it a name of its own (label visaged-node)"
            elif incarnation < present.incarnation:
                why = "a later run of this node takes part already"
        if why:
            if self._refusals.get(node, ("", 0.0))[0] != why:
                log.warning("node %s is refused: %s", node[:70], why)
            self._refusals[node[:70]] = (why, now_s)
            while len(self._refusals) > 1000:
                del self._refusals[next(iter(self._refusals))]
        return why

    def _let_in(self, node: str, incarnation: int, home: str, now_s: float) -> Presence:
        """Return a run of a node that is not refused; it is noted if it is new."""
        presence = self._nodes.get(node)
        if presence is not None and presence.incarnation == incarnation and presence.home == home:
            return presence
        state = self._state.copy()
        record = state.nodes.setdefault(node, NodeRecord())
        if record.home != home:
            record.handed.clear()  # told of a state folder that is gone
        record.incarnation, record.home = incarnation, home
        self._keep(state)
        log.info("node %s joined with run %d", node, incarnation)
        self._refusals.pop(node, None)
        self._nodes[node] = Presence(node, incarnation, home, now_s, self._catalogue.fleet.lease_s)
        self._has_news = True
        return self._nodes[node]

    def _hear(self, presence: Presence, report: NodeReport) -> None:
        """Note what a node reports. What is changed in the state here may be lost with the coordinator."""
        record, before = self._state.nodes[presence.name], presence.report
        if before is None:
            self._adopt(report)
            if presence.is_starting:
                record.handed.clear()  # its history has been told
        if before is None or before.leaving != report.leaving or presence.told:
            self._has_news = True
        if report.capacity is not None and report.capacity != record.capacity and math.isfinite(report.capacity):
            record.capacity = max(0.0, report.capacity)
            self._has_news = True
        presence.take(report)
        self._clerk.confirm(self._state, presence, report)

    def _adopt(self, report: NodeReport) -> None:
        """Take over the leases that a former coordinator gave, if nothing is known of it."""
        if not self._state.is_settled:
            state = self._state.copy()
            if adopt(state, report):
                self._keep(state)

    def _look(self, now_s: float, wall_ms: int) -> None:
        """Take a step if one is due."""
        wait_s = _STEP_S if self._has_news else _LOOK_S
        if now_s - self._stepped_s < wait_s or now_s < self._retry_s:
            return
        self._stepped_s, self._has_news = now_s, False
        presences = Presences(self._nodes, now_s)
        if not self._state.is_settled and not self._settles(now_s):
            return
        state = self._state.copy()
        changed, state.is_settled = not state.is_settled, True
        changed |= new_custodies(state, self._catalogue)
        changed |= self._planner.plan(state, self._catalogue, self._nodes, presences)
        step = Step(state, presences, wall_ms, self._since, self._planner.standby, not self._is_stopping)
        step.run(self._catalogue.needs.keys())
        changed |= self._clerk.tidy(state, self._nodes, now_s, wall_ms - _HANDED_MS)
        if not (changed or step.changed):
            return
        lease_s = self._catalogue.fleet.lease_s
        state.longest_lease_s = max([lease_s, *(p.lease_s for p in self._nodes.values() if p.is_alive(now_s))])
        try:
            self._keep(state)
        except StoreError as error:
            self._retry_s = now_s + _RETRY_S
            if not self._problem:
                log.error("nothing changes hands while the fleet's state cannot be kept: %s", error)
            self._problem = f"the fleet's state cannot be kept: {error}"
            self._planner.forget()
        else:
            self._problem, self._has_news = "", True

    def _settles(self, now_s: float) -> bool:
        """Return whether a new fleet may give out its cameras: all nodes are there, or had the time to come.

        Without a state it is not known who holds what. A node that is cut off may have leases of a former coordinator.
        """
        fleet, ready = self._catalogue.fleet, [name for name, p in self._nodes.items() if p.report is not None]
        if fleet.only_listed and ready and set(ready) >= fleet.nodes.keys():
            return True
        waited_s, term_s = now_s - self._started_s, counted_s(fleet.lease_s)
        is_one_starting = any(p.is_starting and p.is_alive(now_s) for p in self._nodes.values())
        return bool(ready) and waited_s >= term_s and (not is_one_starting or waited_s >= 3 * term_s)

    def _set_draining(self, node: str, draining: bool) -> None:
        if node not in self._state.nodes:
            names = ", ".join(sorted(self._state.nodes)[:20]) or "none"
            raise FleetError(f"no node {node[:70]!r} has joined; those that have: {names}")
        state = self._state.copy()
        state.nodes[node].draining = draining
        self._keep(state)
        self._has_news = True

    def _run_with(self, catalogue: Catalogue) -> None:
        state = self._state.copy()
        new_custodies(state, catalogue)
        state.longest_lease_s = max(state.longest_lease_s, catalogue.fleet.lease_s)
        for name in self._catalogue.needs.keys() - catalogue.needs.keys():
            custody = state.custodies[name]
            state.custodies[name] = replace(custody, target="", successor=None, letting_go=True)
            state.clearing[name] = "" if custody.holder is None else custody.holder.node
        for name in catalogue.needs.keys() & state.clearing.keys():
            del state.clearing[name]
        self._keep(state, catalogue)
        self._has_news = True

    def _keep(self, state: State, catalogue: Catalogue | None = None) -> None:
        """Save a state, and a configuration, and work with them from now on; raises `StoreError`."""
        document = self._packed if catalogue is None else packed(catalogue)
        self._store.save(encoded(state, document))
        self._state, self._packed = state, document
        self._catalogue = catalogue or self._catalogue
        self._clerk.index(state)

    def _summarise(self, now_s: float) -> None:
        self._summary = summary_of(self._state, self._catalogue, self._nodes, self._planner, now_s)
        self._summary_s = now_s
