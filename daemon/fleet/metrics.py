"""How this node stands in its fleet: told by who talks to the coordinator, shown in `/metrics`, `/readyz` and a line.

Every node shows the numbers of the whole fleet, as the coordinator last told them, so that whichever nodes answer
Prometheus tell of those that do not. They are all the same, and there may be hundreds: queries take the largest,
`max by (fleet) (visaged_fleet_cameras_unplaced)`. A node that was told nothing for `STALE_S` shows none of them, so
that old numbers do not stay the largest for ever. No series is about another node or about one camera: a fleet of 500
nodes and 10,000 cameras would have each of them 500 times.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from visaged.daemon.fleet.records import FleetSummary

STALE_S = 60.0


class FleetMetrics(Collector):
    """What this node knows of itself and its fleet. Its methods may be called from any thread, and none blocks.

    Args:
        fleet: Name of the fleet.
        lease_left_s: Returns the seconds that are left of the lease that ends first, at most 0 if it has ended; None if
            no camera is held.
        held: Returns how many cameras are held and published, and how many are held warm.
        now_s: A clock that counts while the machine sleeps, in seconds.
    """

    def __init__(
        self,
        fleet: str,
        lease_left_s: Callable[[], float | None],
        held: Callable[[], tuple[int, int]],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fleet = fleet
        self._lease_left_s, self._held, self._now_s = lease_left_s, held, now_s
        self._lock = threading.Lock()
        self._heard_s = now_s()  # before the first answer: since when there was none
        self._summary: FleetSummary | None = None
        self._refused = ""
        self._capacity: float | None = None

    def heard(self, summary: FleetSummary, refused: str = "") -> None:
        """Note that the coordinator answered: the fleet's numbers, and why this node may not take part, if so."""
        with self._lock:
            self._heard_s, self._summary, self._refused = self._now_s(), summary, refused

    def set_capacity(self, cameras: float) -> None:
        """Note how many cameras this node is to carry, given or measured."""
        with self._lock:
            self._capacity = cameras

    @property
    def age_s(self) -> float:
        """Seconds since the coordinator last answered, or since the start if it never did."""
        with self._lock:
            return max(0.0, self._now_s() - self._heard_s)

    def document(self) -> dict[str, Any]:
        """Return the standing for `/readyz` and `/v1/node`, as plain data."""
        left, (active, warm) = self._lease_left_s(), self._held()
        with self._lock:
            age_s = max(0.0, self._now_s() - self._heard_s)
            fresh = None if age_s > STALE_S else self._summary
            return {
                "name": self.fleet,
                "state": self._state(left),
                "refused": self._refused or None,
                "coordinator_age_s": round(age_s, 1),
                "lease_left_s": None if left is None else round(left, 1),
                "cameras": {"published": active, "warm": warm},
                "summary": None if fresh is None else dataclasses.asdict(fresh),
            }

    def words(self) -> str:
        """Return the standing in a few words, for people."""
        left, (active, _) = self._lease_left_s(), self._held()
        with self._lock:
            state, age_s = self._state(left), max(0.0, self._now_s() - self._heard_s)
            if state == "refused":
                return f"fleet {self.fleet} refuses this node: {self._refused}"
            if state == "joining":
                return f"fleet {self.fleet}: no answer of its coordinator yet"
            if state == "fenced":
                return f"fleet {self.fleet}: no coordinator for {age_s:.0f} s, nothing is published until it answers"
            return f"fleet {self.fleet} gives it {active} camera{'' if active == 1 else 's'}"

    def _state(self, left: float | None) -> str:
        """Return refused, joining, fenced or member; the lock must be held."""
        if self._refused:
            return "refused"
        if self._summary is None:
            return "joining"
        return "fenced" if left is not None and left <= 0 else "member"

    def collect(self) -> Iterator[Metric]:
        """Yield this node's own numbers, and those of the fleet while they are fresh."""
        left, held = self._lease_left_s(), self._held()
        with self._lock:
            age_s = max(0.0, self._now_s() - self._heard_s)
            summary, capacity = self._summary, self._capacity

        def gauge(name: str, text: str, value: float | None) -> GaugeMetricFamily:
            family = GaugeMetricFamily(f"visaged_fleet_{name}", text, labels=["fleet"])
            if value is not None:
                family.add_metric([self.fleet], value)
            return family

        yield gauge("coordinator_age_seconds", "Since the fleet's coordinator last answered this node", age_s)
        yield gauge(
            "lease_left_seconds", "What is left of the lease of this node that ends first; none if it has none", left
        )
        yield gauge("node_capacity", "Cameras that this node is to carry, given or measured", capacity)
        cameras = GaugeMetricFamily(
            "visaged_fleet_node_cameras", "Cameras that this node holds: published, or warm", labels=["fleet", "held"]
        )
        for how, count in zip(("published", "warm"), held, strict=True):
            cameras.add_metric([self.fleet, how], count)
        yield cameras
        if summary is None or age_s > STALE_S:
            return
        yield gauge("cameras", "Cameras of the whole fleet", summary.cameras)
        yield gauge("cameras_placed", "Cameras of the fleet that a node holds", summary.placed)
        yield gauge("cameras_published", "Cameras of the fleet that a node publishes", summary.active)
        yield gauge("cameras_moving", "Cameras of the fleet that are to change their node, or do", summary.moving)
        yield gauge("cameras_unplaced", "Cameras of the fleet that find no node", summary.unplaced)
        yield gauge("lease_age_seconds", "Since the node that holds cameras and is silent longest was heard of",
                    summary.lease_age_s)  # fmt: skip
        nodes = GaugeMetricFamily("visaged_fleet_nodes", "Nodes of the fleet: up, or away", labels=["fleet", "state"])
        moves = CounterMetricFamily(
            "visaged_fleet_moves",
            "Times that a camera changed its node: planned, or taken over from one that was lost",
            labels=["fleet", "kind"],
        )
        for state, count in (("up", summary.nodes), ("away", summary.nodes_away)):
            nodes.add_metric([self.fleet, state], count)
        for kind, count in (("planned", summary.moves), ("takeover", summary.takeovers)):
            moves.add_metric([self.fleet, kind], count)
        yield nodes
        yield moves
