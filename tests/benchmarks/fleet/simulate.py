"""What 10,000 cameras on 500 nodes ask of the coordinator, and how it does in histories of faults; all on one core.

The coordinator is the real one. The nodes do what they are told at once, and one camera in five has an open track.
Times are the processor's.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import time
from dataclasses import replace
from typing import Any

import orjson

from tests.support import fleet_simulation
from tests.support.fleet_simulation import MemoryStore
from visaged.daemon.fleet.plan.coordinator import Coordinator
from visaged.daemon.fleet.plan.nodes import counted_s
from visaged.daemon.fleet.records import CameraReport, NodeReport, Orders

LEASE_S = 6.0
BEAT_S = LEASE_S / 6
BODY = orjson.dumps({"track_id": 1, "event": "update", "face": "x" * 900})
"""About as large as an event."""


class Fleet:
    """A coordinator and nodes that obey it."""

    def __init__(self, cameras: int, nodes: int) -> None:
        self.now_s, self.cpu_s, self.calls = 0.0, 0.0, 0
        self.slowest_s, self.sent, self.told = 0.0, 0, 0
        self.store = MemoryStore()
        self.capacity = 1.2 * cameras / nodes
        document: dict[str, Any] = {
            "mqtt": {"host": "broker.lan"},
            "cameras": [
                {"name": f"camera-{i:05}", "url": f"rtsp://10.{i >> 16}.{i >> 8 & 255}.{i & 255}:554/stream2",
                 "username": "viewer", "password_env": "CAMERAS", "fps": 5}
                for i in range(cameras)
            ],
            "fleet": {"lease_s": LEASE_S, "default_capacity": self.capacity},
        }  # fmt: skip
        self.coordinator = Coordinator(self.store, "1", 0.0, 10**12, document)
        self.configs: dict[str, str] = {}
        self.reports: dict[str, NodeReport] = {}
        for i in range(nodes):
            self.join(f"node-{i:03}")

    def join(self, name: str) -> None:
        """Let a node in."""
        self.coordinator.join(name, 1, "1", name, *self.clocks())
        self.reports[name] = NodeReport(name, 1, "1", f"http://{name}:8080", self.capacity, home=name)

    def clocks(self) -> tuple[float, int]:
        """Return the coordinator's clocks."""
        return self.now_s, 10**12 + int(self.now_s * 1000)

    def turn(self, weigh: bool = False) -> None:
        """Have every node report once, evenly over the time between two heartbeats, and do as it is told."""
        for name in list(self.reports):
            self.now_s += BEAT_S / len(self.reports)
            report = self.reports[name]
            began_s = time.process_time()
            orders = self.coordinator.heartbeat(report, self.configs.get(name, ""), *self.clocks())
            took_s = time.process_time() - began_s
            self.cpu_s, self.slowest_s, self.calls = self.cpu_s + took_s, max(self.slowest_s, took_s), self.calls + 1
            if weigh:
                self.sent += len(pickle.dumps(report, 5))
                self.told += len(pickle.dumps(orders, 5))
            self.configs[name] = orders.config_version
            self.reports[name] = replace(report, cameras=held(orders), beat=report.beat + 1)

    def measured(self, turns: int, weigh: bool = False) -> tuple[float, float]:
        """Return processor time in seconds for each second, and that of the slowest heartbeat."""
        self.cpu_s = self.slowest_s = 0.0
        self.sent = self.told = 0
        for _ in range(turns):
            self.turn(weigh)
        return self.cpu_s / turns / BEAT_S, self.slowest_s


def held(orders: Orders) -> tuple[CameraReport, ...]:
    """Return what a node that has obeyed says of its cameras."""
    return tuple(
        CameraReport(g.camera, g.epoch, "streaming", g.active, 1, 2, (BODY,) if g.camera[-1] in "05" else ())
        for g in orders.grants
    )


def large(cameras: int, nodes: int) -> None:
    """Print what a large fleet costs."""
    fleet = Fleet(cameras, nodes)
    while not fleet.coordinator.view(*fleet.clocks()).summary.placed and fleet.now_s < 60:
        fleet.cpu_s = fleet.slowest_s = 0.0
        fleet.turn()
    print(f"first placement of {cameras} cameras on {nodes} nodes: {fleet.slowest_s:.2f} s")
    fleet.measured(3)
    saves = fleet.store.saves
    cpu_s, slowest_s = fleet.measured(10, weigh=True)
    seconds = 10 * BEAT_S
    print(
        f"heartbeats, {nodes} every {BEAT_S:g} s: {cpu_s:.3f} s of processor time a second, the slowest "
        f"{slowest_s * 1000:.1f} ms; reports {fleet.sent / seconds / 1e6:.2f} MB/s, orders "
        f"{fleet.told / seconds / 1e6:.2f} MB/s; {fleet.store.saves - saves} saves"
    )
    print(f"store: {len(fleet.store.data or b'') / 1e6:.2f} MB")
    before = fleet.coordinator.view(*fleet.clocks())
    fleet.join("newcomer")
    cpu_s, slowest_s = fleet.measured(60)
    summary = fleet.coordinator.view(*fleet.clocks()).summary
    print(
        f"a node comes: {summary.moves} moves (at most {cameras / (nodes + 1) + 1:.1f}), the slowest heartbeat "
        f"{slowest_s * 1000:.0f} ms, {cpu_s:.3f} s of processor time a second over {60 * BEAT_S:g} s"
    )
    lost = fleet.reports.pop("node-000")
    saves, cpu_s = fleet.store.saves, 0.0
    began_s = fleet.now_s
    cpu_s, slowest_s = fleet.measured(int(counted_s(LEASE_S) / BEAT_S) + 3)
    after = fleet.coordinator.view(*fleet.clocks()).summary
    print(
        f"a node with {len(lost.cameras)} cameras dies: {after.takeovers} taken over and {after.active} of {cameras} "
        f"published after {fleet.now_s - began_s:.0f} s, the slowest heartbeat {slowest_s * 1000:.0f} ms, "
        f"{fleet.store.saves - saves} saves"
    )
    moved = {c.name: c.node for c in before.cameras}
    others = sum(
        c.node not in ("newcomer", moved[c.name]) and moved[c.name] != "node-000"
        for c in fleet.coordinator.view(*fleet.clocks()).cameras
    )
    print(f"cameras of other nodes that moved at that: {others}")


def histories(count: int, first: int) -> None:
    """Play histories of faults, and print what there was in them."""
    began_s = time.process_time()
    worlds = [fleet_simulation.history(seed) for seed in range(first, first + count)]
    tracks = sum(len(world.begun) for world in worlds)
    twice = sum(len(by) > 1 for world in worlds for by in world.ends.values())
    print(
        f"{count} histories of faults, {sum(world.now for world in worlds) / 3600:.1f} h in all: "
        f"{sum(world.events for world in worlds)} steps, {sum(world.runs for world in worlds)} coordinators, "
        f"{len({(w, o) for w, world in enumerate(worlds) for o in world.owners})} epochs, each of one owner; {tracks} "
        f"tracks, 0 without an end, {twice} ended by a second node because the first was lost before it could say so; "
        f"never two that publish; {time.process_time() - began_s:.0f} s of processor time, median of saves "
        f"{statistics.median(world.store.saves for world in worlds):.0f}"
    )


def main(options: list[str]) -> None:
    """Print what the coordinator of a large fleet does."""
    parser = argparse.ArgumentParser(prog="fleet --simulate")
    parser.add_argument("--cameras", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--histories", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="number of the first history")
    given = parser.parse_args(options)
    large(given.cameras, given.nodes)
    if given.histories:
        histories(given.histories, given.first)
