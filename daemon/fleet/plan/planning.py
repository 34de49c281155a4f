"""Where the cameras should be: told anew when nodes come, go or change, and when the configuration does."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from visaged.daemon.fleet.plan.documents import Catalogue
from visaged.daemon.fleet.plan.leases import Custody
from visaged.daemon.fleet.plan.nodes import Presence, Presences
from visaged.daemon.fleet.plan.placement import Machine, Placement
from visaged.daemon.fleet.plan.store import State

log = logging.getLogger(__name__)


class Planner:
    """Decides which node should have each camera.

    Attributes:
        unplaced: Why each camera without a place has none.
        standby: Nodes that get ready for the cameras of nodes that are silent, by camera.
        used: Weight of the cameras that have their place at each node.
        machines: The nodes, as they were last counted with.
    """

    def __init__(self) -> None:
        self.unplaced: dict[str, str] = {}
        self.standby: dict[str, str] = {}
        self.used: dict[str, float] = {}
        self.machines: list[Machine] = []
        self._catalogue: Catalogue | None = None
        self._silent: frozenset[str] = frozenset()
        self._at_home: dict[str, bool] | None = None

    def plan(self, state: State, catalogue: Catalogue, nodes: Mapping[str, Presence], presences: Presences) -> bool:
        """Decide where the cameras should be, if something has changed since; return whether a target was changed.

        Args:
            state: What is known of the cameras; gets the targets.
            catalogue: The configuration.
            nodes: The nodes that were heard of.
            presences: The same at this time.
        """
        machines = self._counted(state, catalogue, nodes, presences)
        silent = frozenset(m.name for m in machines if m.name not in presences.steady)
        if machines == self.machines and catalogue is self._catalogue and silent == self._silent:
            return False
        placement = Placement(catalogue.needs.values(), machines, self._current(state, presences, machines))
        placement.place()
        measured = {m.name: _is_measured(m.name, state, catalogue) for m in machines}
        if self._at_home is not None:
            newcomers = [
                m.name
                for m in machines
                if m.takes and m.keeps and self._at_home.get(m.name) in (None, not measured[m.name])
            ]
            moves = placement.attract(newcomers)
            if moves:
                log.info("nodes that came (%s) get %d cameras of others", ", ".join(newcomers), moves)
        self._note(placement, machines, catalogue, silent, measured)
        self._get_ready(state, catalogue)
        return self._assign(state, placement)

    def forget(self) -> None:
        """Decide anew next time, because what was decided could not be kept."""
        self._catalogue = None

    def rebalance(self, state: State, catalogue: Catalogue, presences: Presences, most: int) -> int:
        """Level the nodes by at most so many moves; return their number."""
        current = self._current(state, presences, self.machines)
        placement = Placement(catalogue.needs.values(), self.machines, current)
        moves = placement.rebalance(most)
        self._assign(state, placement)
        self.used = {m.name: placement.used(m.name) for m in self.machines}
        return moves

    def _counted(
        self, state: State, catalogue: Catalogue, nodes: Mapping[str, Presence], presences: Presences
    ) -> list[Machine]:
        fleet = catalogue.fleet
        machines = []
        for name, presence in sorted(nodes.items()):
            if not presence.is_alive(presences.now_s):
                continue
            listed, record = fleet.nodes.get(name), state.nodes[name]
            known = record.capacity if listed is None or listed.capacity is None else listed.capacity
            keeps = not (
                record.draining or presences.is_leaving(name) or (fleet.only_listed and name not in fleet.nodes)
            )
            machines.append(
                Machine(
                    name,
                    fleet.default_capacity if known is None else known,
                    None if listed is None else listed.site,
                    takes=keeps and presences.is_ready(name),
                    keeps=keeps,
                )
            )
        return machines

    def _current(self, state: State, presences: Presences, machines: list[Machine]) -> dict[str, str]:
        """Return where the cameras are, or are on their way to."""
        names = {machine.name for machine in machines}
        current = {}
        for camera, custody in state.custodies.items():
            at = custody.target
            if at not in names:
                leases = [lease for lease in (custody.successor, custody.holder) if lease is not None]
                at = next((lease.node for lease in leases if not presences.is_over(camera, lease)), "")
            if at:
                current[camera] = at
        return current

    def _note(
        self,
        placement: Placement,
        machines: list[Machine],
        catalogue: Catalogue,
        silent: frozenset[str],
        measured: dict[str, bool],
    ) -> None:
        new = placement.unplaced.keys() - self.unplaced.keys()
        for camera in sorted(new)[:10]:
            log.warning("camera %s finds no place: %s", camera, placement.unplaced[camera])
        if len(new) > 10:
            log.warning("%d more cameras find no place", len(new) - 10)
        self.unplaced, self.machines, self._catalogue, self._silent = placement.unplaced, machines, catalogue, silent
        self.used = {m.name: placement.used(m.name) for m in machines}
        before = self._at_home or {}
        # A node that is silent for a moment, or starts, is no newcomer when it is heard of again.
        self._at_home = {
            m.name: measured[m.name] if m.takes else before.get(m.name, measured[m.name])
            for m in machines
            if m.keeps and (m.takes or m.name in before or placement.used(m.name) > 0)
        }

    def _get_ready(self, state: State, catalogue: Catalogue) -> None:
        """Find places for what the silent nodes hold, as if they were lost."""
        self.standby = {}
        silent = self._silent
        if not silent:
            return
        others = [m for m in self.machines if m.name not in silent]
        current = {}
        for camera, custody in state.custodies.items():
            successor = "" if custody.successor is None else custody.successor.node
            current[camera] = successor if custody.target in silent else custody.target
        placement = Placement(catalogue.needs.values(), others, current)
        placement.place()
        self.standby = {
            camera: placement.owners[camera]
            for camera, custody in state.custodies.items()
            if custody.target in silent and camera in placement.owners
        }

    def _assign(self, state: State, placement: Placement) -> bool:
        changed = False
        for camera, custody in state.custodies.items():
            target = placement.owners.get(camera, "")
            if target != custody.target:
                state.custodies[camera] = replace(custody, target=target)
                changed = True
        return changed


def new_custodies(state: State, catalogue: Catalogue) -> bool:
    """Add what is missing for cameras that are new in the configuration; return whether something was added."""
    new = catalogue.needs.keys() - state.custodies.keys()
    for camera in sorted(new):
        state.custodies[camera] = Custody()
        state.clearing.pop(camera, None)
    return bool(new)


def _is_measured(name: str, state: State, catalogue: Catalogue) -> bool:
    listed = catalogue.fleet.nodes.get(name)
    return state.nodes[name].capacity is not None or (listed is not None and listed.capacity is not None)
