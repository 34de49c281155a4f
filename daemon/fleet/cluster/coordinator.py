"""The coordinator actor: the fleet's decisions, made by `daemon/fleet/plan`, behind Ray.

It is light on purpose: no OpenCV, no networks, no settings are loaded in it, so that Ray has it running again about a
second after its end. All that it decides is kept in Ray's store before it is told. Its methods are coroutines, so that
heartbeats of hundreds of nodes are answered by one thread; what may block is done in another.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time

from visaged.daemon.fleet.cluster.keeper import Keeper, monotonic
from visaged.daemon.fleet.cluster.store import RayStore
from visaged.daemon.fleet.cluster.versions import Versions
from visaged.daemon.fleet.plan.coordinator import Coordinator
from visaged.daemon.fleet.records import FleetView, Joined, NodeReport, Orders

log = logging.getLogger(__name__)

_TURN_S = 1.0
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
        self._store = RayStore(fleet)
        # Held for the time of a decision, which is milliseconds, or longer while Ray's head process does not answer.
        self._lock = threading.Lock()
        self._plan = Coordinator(fleet, self._versions.visaged, self._store, monotonic(), wall_ms())
        self._keeper = Keeper(fleet, self._note)
        self._troubles: dict[str, str] = {}
        self._stopping = threading.Event()
        self._turning = threading.Thread(target=self._turn, name="turns", daemon=True)
        self._turning.start()

    async def versions(self) -> Versions:
        """Return the versions in this process."""
        return self._versions

    async def enter(self, node: str, versions: Versions) -> tuple[bytes, str]:
        """Return the configuration for a node that has just started, or why it may not take part."""
        refused = versions.against(self._versions)
        self._note(node, refused)
        if refused:
            return b"", refused
        with self._lock:
            return self._plan.config(node), ""

    async def join(self, report: NodeReport) -> Joined:
        """Take a node into the fleet; see `Member.join`."""
        with self._lock:
            return self._plan.join(report, monotonic(), wall_ms())

    async def heartbeat(self, report: NodeReport, known_config: str) -> Orders:
        """Take a node's report, and return its orders."""
        with self._lock:
            orders = self._plan.heartbeat(report, known_config, monotonic(), wall_ms())
        if not orders.refused:
            self._troubles.pop(report.node, None)
        return orders

    async def trouble(self, node: str, text: str) -> None:
        """Note why a node cannot take part; an empty text ends that."""
        self._note(node, text)

    async def view(self) -> FleetView:
        """Return the fleet as people see it."""
        with self._lock:
            return self._plan.view(monotonic(), dict(self._troubles))

    async def document(self) -> bytes:
        """Return the configuration in force as JSON, with cameras that were added and without those removed."""
        with self._lock:
            return self._plan.document()

    async def configure(self, document: bytes, identity: str, replace: bool) -> None:
        """Take a configuration; raises `Refused` (as all that follow) if it is not the fleet's to take."""
        with self._lock:
            self._plan.configure(document, identity, replace, monotonic(), wall_ms())

    async def add(self, camera: bytes) -> None:
        """Add a camera to those of the configuration, or change it."""
        with self._lock:
            self._plan.add(camera, monotonic(), wall_ms())

    async def remove(self, camera: str) -> None:
        """Remove a camera."""
        with self._lock:
            self._plan.remove(camera, monotonic(), wall_ms())

    async def drain(self, node: str) -> None:
        """Have a node give up its cameras one by one."""
        with self._lock:
            self._plan.drain(node, monotonic(), wall_ms())

    async def undrain(self, node: str) -> None:
        """Let a node take cameras again."""
        with self._lock:
            self._plan.undrain(node, monotonic(), wall_ms())

    async def rebalance(self) -> None:
        """Move cameras to where they would be placed in a new fleet."""
        with self._lock:
            self._plan.rebalance(monotonic(), wall_ms())

    async def stop(self) -> None:
        """End all nodes in order, and forget the fleet; whoever calls it then kills this actor."""
        self._stopping.set()
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._turning.join(_NODES_END_S)
        self._keeper.stop(_NODES_END_S)
        self._store.clear()

    def _turn(self) -> None:
        while not self._stopping.wait(_TURN_S):
            try:
                self._keeper.turn(monotonic())
                with self._lock:
                    self._plan.tick(monotonic(), wall_ms())
            except Exception:  # Ray's head process is away, or a fault of ours; leases must be looked at in either case
                log.exception("looking after the fleet failed; it is tried again")

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
