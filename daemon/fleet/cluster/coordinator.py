"""The coordinator actor: the fleet's decisions, made by `daemon/fleet/plan`, behind Ray.

Ray keeps it on the head node; `FleetClient.start` says why. It is light on purpose: no OpenCV and no networks are
loaded in it, so that Ray has it running again about a second after its end. All that it decides is kept in Ray's store
before it is told. Its methods are coroutines, so that one thread answers the heartbeats of hundreds of nodes; what may
block for longer is done in another.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import threading
import time
from typing import Any

from visaged.daemon.fleet.cluster.keeper import NAMESAKE, Keeper
from visaged.daemon.fleet.cluster.store import RayStore
from visaged.daemon.fleet.cluster.versions import Versions
from visaged.daemon.fleet.node.holding import lasting_s
from visaged.daemon.fleet.plan.coordinator import Coordinator
from visaged.daemon.fleet.plan.documents import FleetError
from visaged.daemon.fleet.plan.store import StoreError
from visaged.daemon.fleet.records import FleetView, Joined, NodeReport, NodeView, Orders

log = logging.getLogger(__name__)

_TURN_S = 1.0
_AWAY_S = 2.0
"""A process that has done nothing for longer was stopped, or its machine was suspended."""
_NODES_END_S = 12.0
"""Longest time in seconds that nodes are given to end in order."""


class CoordinatorActor:
    """The actor; its methods are called by Ray, from nodes and from the command line.

    Args:
        fleet: Name of the fleet.
    """

    def __init__(self, fleet: str) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._fleet = fleet
        self._versions = Versions.here()
        self._state, self._source, self._newest = (RayStore(fleet, what) for what in ("state", "source", "run"))
        self._run_ms = wall_ms()
        # Held for a decision, which takes milliseconds, or a second while Ray's head process does not answer.
        self._lock = threading.Lock()
        self._ran_s = lasting_s()
        self._plan: Coordinator | None = None
        self._problem = "the fleet has no configuration yet: hand it one by `visaged fleet run --config FILE`"
        self._keeper = Keeper(fleet, self._note)
        self._troubles: dict[str, str] = {}
        self._stopping = threading.Event()
        self._begin()
        self._turning = threading.Thread(target=self._turn, name="turns", daemon=True)
        self._turning.start()

    async def versions(self) -> Versions:
        """Return the versions in this process."""
        return self._versions

    async def enter(self, node: str, versions: Versions) -> tuple[bytes, str]:
        """Return the configuration for a node that has just started, without cameras; or why it may not take part."""
        refused = versions.against(self._versions)
        self._note(node, refused)
        if refused:
            return b"", refused
        with self._lock:
            document, _ = self._running().document()
        return json.dumps(document | {"cameras": []}).encode(), ""

    async def join(self, report: NodeReport) -> Joined:
        """Let a run of a node in; see `Coordinator.join`."""
        with self._lock:
            plan, who = self._running(), (report.node, report.incarnation, report.version, report.home)
            return plan.join(*who, self._now(), wall_ms())

    async def heartbeat(self, report: NodeReport, known_config: str) -> Orders:
        """Take a node's report, and return its orders."""
        with self._lock:
            orders = self._running().heartbeat(report, known_config, self._now(), wall_ms())
        self._note(report.node, "")
        return orders

    async def trouble(self, node: str, text: str) -> None:
        """Note why a node cannot take part; an empty text ends that."""
        self._note(node, text)

    async def view(self) -> FleetView:
        """Return the fleet as people see it."""
        with self._lock:
            view = self._running().view(self._now(), wall_ms())
        nodes = {node.name: node for node in view.nodes}
        for name in self._keeper.namesakes:
            nodes[name] = dataclasses.replace(nodes.get(name, NodeView(name)), why=NAMESAKE)
        for name, why in self._troubles.items():
            nodes[name] = dataclasses.replace(nodes.get(name, NodeView(name)), state="refused", why=why)
        return dataclasses.replace(view, fleet=self._fleet, nodes=tuple(nodes[name] for name in sorted(nodes)))

    async def document(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the configuration as plain data, and the changes of its cameras that were made since."""
        with self._lock:
            document, patches = self._running().document()
            return document, dict(patches)

    async def configure(self, document: dict[str, Any], source: str, replace: bool) -> None:
        """Take a configuration, which was checked.

        Args:
            document: The configuration as plain data.
            source: Names the file, and the machine it is on.
            replace: Take it although the fleet has that of another file.

        Raises:
            FleetError: It is not the fleet's to take.
            StoreError: It cannot be kept; nothing has changed.
        """
        with self._lock:
            before = (self._source.load() or b"").decode()
            if before and before != source and not replace:
                raise FleetError(
                    f"fleet {self._fleet} runs on this cluster with the configuration {before}; to go on with this one "
                    "instead, add --replace; for a fleet beside it, give fleet.name another value"
                )
            if self._plan is None:
                if replace:
                    self._state.clear()
                self._plan = Coordinator(self._state, self._versions.visaged, lasting_s(), wall_ms(), document)
            else:
                self._plan.configure(document)
            self._source.save(source.encode())

    async def add(self, camera: dict[str, Any]) -> None:
        """Add a camera, which was checked; raises `FleetError`, `StoreError`, as all that follow."""
        with self._lock:
            self._running().add(camera)

    async def remove(self, camera: str) -> None:
        """Remove a camera."""
        with self._lock:
            self._running().remove(camera)

    async def drain(self, node: str) -> None:
        """Have a node give up its cameras one by one."""
        with self._lock:
            self._running().drain(node)

    async def undrain(self, node: str) -> None:
        """Let a node take cameras again."""
        with self._lock:
            self._running().undrain(node)

    async def rebalance(self) -> int:
        """Level the nodes by planned moves; return how many."""
        with self._lock:
            return self._running().rebalance(self._now())

    async def stop(self) -> None:
        """End all nodes in order, and forget the fleet; whoever calls it then kills this actor."""
        self._stopping.set()
        with self._lock:
            if self._plan is not None:
                self._plan.stop()
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._turning.join(_NODES_END_S)
        self._keeper.stop(_NODES_END_S)
        self._state.clear()
        self._source.clear()
        self._newest.clear()

    def _now(self) -> float:
        """Return seconds of the clock of leases, for the plan; must be called with the lock held."""
        before_s, self._ran_s = self._ran_s, lasting_s()
        away_s = self._ran_s - before_s
        if away_s > _AWAY_S and self._plan is not None:
            # Reports wait to be read, and what is known of the nodes is as old: nothing is decided by that.
            log.warning("this process did nothing for %.1f s; nodes are given that time on top", away_s)
            self._plan.excuse(away_s, self._ran_s)
        return self._ran_s

    def _running(self) -> Coordinator:
        if self._plan is None:
            raise FleetError(self._problem)
        return self._plan

    def _begin(self) -> None:
        """Go on with what was kept. Ray does not try an actor again whose constructor fails, so this does not raise."""
        try:
            if self._state.load() is not None:
                self._plan = Coordinator(self._state, self._versions.visaged, lasting_s(), wall_ms())
        except (StoreError, FleetError) as error:
            self._problem = str(error)
            log.error("the fleet cannot go on: %s", error)

    def _turn(self) -> None:
        while not self._stopping.wait(_TURN_S):
            try:
                self._make_way()
                with self._lock:
                    self._now()
                    if self._plan is None:
                        self._begin()
                if self._plan is not None:
                    self._keeper.turn(lasting_s(), self._may_take_part)
            except Exception:  # Ray's head process is away, or it is a fault of ours; the next turn may go well
                log.exception("looking after the nodes failed; it is tried again")

    def _make_way(self) -> None:
        """End the process if Ray has started a later one meanwhile, as it took this one for dead."""
        kept = int(self._newest.load() or 0)
        if kept > self._run_ms:
            log.critical("ended, because another coordinator of this fleet has been started")
            os._exit(1)
        if kept < self._run_ms:
            self._newest.save(b"%d" % self._run_ms)

    def _may_take_part(self, node: str) -> bool:
        with self._lock:
            fleet = self._running().document()[0].get("fleet") or {}
        return not fleet.get("only_listed") or node in fleet.get("nodes", {})

    def _note(self, node: str, text: str) -> None:
        if text and self._troubles.get(node) != text:
            log.warning("node %s cannot take part: %s", node, text)
        if text:
            self._troubles[node] = text
        else:
            self._troubles.pop(node, None)


def wall_ms() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000
