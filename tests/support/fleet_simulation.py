"""A fleet in simulated time: the real coordinator, and nodes that obey it, through faults of all kinds.

What is checked at every moment: an epoch belongs to one run of one node for ever, and what is published of a camera has
epochs that never fall; no two runs publish for one camera at the same time. At the end, when all faults are mended:
every camera that has room is published within a bounded time, and every track that began has exactly one end, unless
it is still open, or the first to end it was lost before it could say so.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from visaged.daemon.fleet.plan.coordinator import Coordinator
from visaged.daemon.fleet.plan.documents import FleetError
from visaged.daemon.fleet.plan.nodes import counted_s
from visaged.daemon.fleet.plan.store import StoreError
from visaged.daemon.fleet.records import CameraReport, Joined, NodeReport, Orders

VERSION = "1"
TICK_S = 0.25
TIMEOUT_S = 1.5
BUILD_S = 3.0
WALL_MS = 1_700_000_000_000
FAULTS = (
    "kill", "restart", "freeze", "freeze", "cut_out", "cut_in", "cut", "leave", "coordinator", "away", "drain",
    "undrain", "rebalance", "add", "remove", "store", "dark",
)  # fmt: skip


class Broken(AssertionError):
    """An invariant does not hold."""


class MemoryStore:
    """Keeps bytes in memory, and refuses to while it is told to."""

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.is_full = False
        self.saves = 0

    def load(self) -> bytes | None:
        return self.data

    def save(self, data: bytes) -> None:
        if self.is_full:
            raise StoreError("the store takes nothing")
        self.saves += 1
        self.data = data


@dataclass(slots=True)
class Holding:
    """A camera in the hands of a node."""

    epoch: int
    streams_at_s: float
    active: bool = False
    seq: int = 0
    next_track: int = 1
    open: dict[int, bytes] = field(default_factory=dict)


class Process:
    """A run of a node, which obeys the coordinator."""

    def __init__(self, world: World, node: Node, incarnation: int) -> None:
        self.world, self.node, self.incarnation = world, node, incarnation
        self.joined = self.is_frozen = self.is_leaving = self.is_dead = False
        self.ready_at_s = float("inf")
        self.held: dict[str, Holding] = {}
        self.lease_until = float("-inf")  # by the node's own clock
        self.beat = self.answered = 0
        self.config, self.cameras = "", set[str]()

    @property
    def has_lease(self) -> bool:
        return self.node.clock(self.world.now) < self.lease_until

    def publishes(self, camera: str) -> bool:
        held = self.held.get(camera)
        return held is not None and held.active and self.has_lease and not (self.is_frozen or self.is_dead)

    def publish(self, camera: str, held: Holding, event: str, track: int, of_epoch: int | None = None) -> bytes:
        held.seq += 1
        self.world.published(self, camera, held.epoch, event, track, of_epoch or held.epoch)
        return orjson.dumps({"camera": camera, "epoch": held.epoch, "track_id": track, "node": self.node.name})

    def live(self, rng: random.Random) -> None:
        """Let faces come and go before the cameras."""
        for camera, held in self.held.items():
            if not self.publishes(camera):
                continue
            if len(held.open) < 3 and rng.random() < 0.15:
                track, held.next_track = held.next_track, held.next_track + 1
                held.open[track] = self.publish(camera, held, "begin", track)
                self.node.history.add((camera, held.epoch, track))
            elif held.open and rng.random() < 0.1:
                self.end(camera, held, next(iter(held.open)))

    def end(self, camera: str, held: Holding, track: int) -> None:
        del held.open[track]
        self.node.history.discard((camera, held.epoch, track))
        self.publish(camera, held, "end", track)

    def let_go(self, camera: str, ended: tuple[int, ...] = ()) -> None:
        held = self.held.pop(camera)
        for track in list(held.open):
            self.node.history.discard((camera, held.epoch, track))
            if track not in ended:
                self.world.spooled(self, camera, held.epoch, track)

    def report(self) -> NodeReport:
        now = self.world.now
        self.beat += 1
        cameras = tuple(
            CameraReport(
                camera,
                held.epoch,
                "streaming" if now >= held.streams_at_s and camera not in self.world.dark else "connecting",
                self.publishes(camera),
                held.seq,
                held.next_track,
                tuple(held.open.values()),
            )
            for camera, held in self.held.items()
        )
        return NodeReport(
            self.node.name, self.incarnation, VERSION, capacity=self.node.capacity, cameras=cameras,
            leaving=self.is_leaving, home=self.node.name, beat=self.beat,
        )  # fmt: skip

    def obey(self, orders: Orders, beat: int, sent: float) -> None:
        if self.is_dead or beat != self.beat:
            return
        self.answered = beat
        if orders.refused:
            raise Broken(f"{self.node.name} is refused: {orders.refused}")
        if orders.config is not None:
            self.cameras = {camera["name"] for camera in orjson.loads(orders.config)["cameras"]}
        self.config = orders.config_version
        if self.is_leaving:
            return
        granted = {grant.camera: grant for grant in orders.grants}
        if granted.keys() - self.cameras:
            raise Broken("a camera is granted whose configuration was not sent")
        lost = {one.camera: one for one in orders.revoked}
        for camera in list(self.held):
            revoked = lost.get(camera)
            if revoked is not None and revoked.epoch == self.held[camera].epoch:
                self.let_go(camera, revoked.ended)
            elif camera not in granted or granted[camera].epoch != self.held[camera].epoch:
                self.let_go(camera)
        self.lease_until = max(self.lease_until, sent + orders.lease_s)
        for camera, grant in granted.items():
            held = self.held.get(camera)
            if held is None:
                held = self.held[camera] = Holding(grant.epoch, self.world.now + self.world.rng.uniform(0.5, 3))
            held.next_track = max(held.next_track, grant.next_track)
            if grant.active and not held.active and self.has_lease:
                held.active = True
                for orphan in grant.orphans:
                    self.publish(camera, held, "end", orphan.track, orphan.epoch)
            elif held.active and not grant.active:
                raise Broken("a grant that was active is not any more")


class Node:
    """A machine: its clock, its state folder, and the process that runs there."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self.rate, self.offset = rng.choice((1.0, 1.01, 0.992)), rng.uniform(0, 1e6)
        self.capacity = float(rng.randint(3, 8))
        self.history: set[tuple[str, int, int]] = set()
        self.incarnation = WALL_MS + rng.randint(-600_000, 600_000)
        self.process: Process | None = None
        self.sends = self.hears = True

    def clock(self, now: float) -> float:
        return now * self.rate + self.offset


class World:
    """The fleet, its faults, and what is checked."""

    def __init__(self, seed: int, nodes: int = 5, cameras: int = 12, lease_s: float = 6.0) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.nodes = {f"n{i}": Node(f"n{i}", self.rng) for i in range(nodes)}
        self.dark: set[str] = set()
        self.store = MemoryStore()
        self.coordinator: Coordinator | None = None
        self.base_s, self.skew_ms = 0.0, 0
        self.runs = 0
        self.lease_s = lease_s
        self.document: dict[str, Any] = {
            "mqtt": {"host": "broker"},
            "cameras": [self._camera(f"c{i}") for i in range(cameras)],
            "fleet": {"lease_s": lease_s, "nodes": {"n0": {"site": "a"}, "n1": {"site": "a"}}},
        }
        self.owners: dict[tuple[str, int], tuple[str, int]] = {}
        self.newest: dict[str, int] = {}
        self.begun: dict[tuple[str, int, int], float] = {}
        self.ends: dict[tuple[str, int, int], list[tuple[str, int]]] = {}
        self.lapsed: set[tuple[str, int]] = set()
        self.events = 0

    def _camera(self, name: str) -> dict[str, Any]:
        wish = self.rng.choice(({}, {}, {}, {"site": "a"}, {"nodes": ["n1", "n2"]}))
        return {"name": name, "url": f"rtsp://{name}/", "fleet": wish}

    # Time

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay_s, next(self._count), action))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self._queue)
            action()
            self.events += 1
        self.now = end

    # The coordinator

    def start_coordinator(self) -> None:
        self.runs += 1
        self.base_s = self.rng.uniform(0, 1e6) - self.now
        self.skew_ms = self.rng.randint(-300_000, 300_000)
        document = self.document if self.store.data is None else None
        self.coordinator = Coordinator(self.store, VERSION, *self.clocks(), document)

    def clocks(self) -> tuple[float, int]:
        return self.now + self.base_s, WALL_MS + int(self.now * 1000) + self.skew_ms

    # The nodes

    def start(self, node: Node) -> None:
        node.incarnation += self.rng.randint(1, 100_000)
        process = node.process = Process(self, node, node.incarnation)
        node.sends = node.hears = True
        self.at(self.rng.uniform(0.1, 1), lambda: self._join(process))
        self.at(self.rng.uniform(0, TICK_S), lambda: self._tick(process))

    def kill(self, node: Node) -> None:
        if node.process is not None:
            node.process.is_dead = True
            self.lapsed.add((node.name, node.process.incarnation))
        node.process = None

    def leave(self, node: Node) -> None:
        """End a node's process as SIGTERM does."""
        process = node.process
        if process is None or process.is_frozen or not process.joined:
            return
        process.is_leaving = True

        def stop() -> None:
            if process.is_dead:
                return
            if process.has_lease:
                for camera in list(process.held):
                    process.let_go(camera)
                self._send(process)
            self.at(0.3, lambda: self.kill(node) if node.process is process else None)

        self._send(process)
        self.at(self.rng.uniform(0.5, 3), stop)

    def _join(self, process: Process) -> None:
        if process.is_dead or process.joined:
            return
        answer: Joined | None = None
        if self.coordinator is not None and process.node.sends:
            try:
                answer = self.coordinator.join(
                    process.node.name, process.incarnation, VERSION, process.node.name, *self.clocks()
                )
            except StoreError:
                answer = None
        if answer is None or not process.node.hears:
            self.at(0.5, lambda: self._join(process))
            return
        if answer.refused:
            raise Broken(f"{process.node.name} is refused: {answer.refused}")
        process.joined = True

        def built() -> None:
            if process.is_dead:
                return
            for camera, epoch, track in sorted(process.node.history):
                if (camera, epoch, track) not in answer.ended:
                    self.spooled(process, camera, epoch, track)
            process.node.history.clear()
            self._beat(process)

        self.at(self.rng.uniform(0.5, BUILD_S), built)

    def _beat(self, process: Process) -> None:
        if process.is_dead:
            return
        if process.is_frozen:
            self.at(0.1, lambda: self._beat(process))
            return
        self._send(process)

    def _send(self, process: Process) -> None:
        report, sent, config = process.report(), process.node.clock(self.now), process.config
        beat = process.beat
        if process.node.sends and self.rng.random() < 0.99:
            self.at(self._delay(), lambda: self._arrive(process, report, config, beat, sent))

        def give_up() -> None:
            if process.beat == beat and process.answered != beat:
                self._beat(process)

        self.at(TIMEOUT_S, give_up)

    def _arrive(self, process: Process, report: NodeReport, config: str, beat: int, sent: float) -> None:
        if self.coordinator is None:
            return
        try:
            orders = self.coordinator.heartbeat(report, config, *self.clocks())
        except StoreError:
            return
        if process.node.hears and self.rng.random() < 0.99:
            self.at(self._delay(), lambda: self._answered(process, orders, beat, sent))

    def _answered(self, process: Process, orders: Orders, beat: int, sent: float) -> None:
        if process.is_frozen and not process.is_dead:
            self.at(0.1, lambda: self._answered(process, orders, beat, sent))
            return
        if process.is_dead or beat != process.beat:
            return
        process.obey(orders, beat, sent)
        self.at(orders.report_in_s, lambda: self._beat(process) if process.beat == beat else None)

    def _delay(self) -> float:
        return self.rng.uniform(0.001, 0.05) if self.rng.random() < 0.97 else self.rng.uniform(0.05, 1.2)

    def _tick(self, process: Process) -> None:
        if process.is_dead:
            return
        if not process.is_frozen:
            if process.held and not process.has_lease:
                self.lapsed.add((process.node.name, process.incarnation))
            process.live(self.rng)
        self.check_holders()
        self.at(TICK_S, lambda: self._tick(process))

    # What is checked

    def published(self, process: Process, camera: str, epoch: int, event: str, track: int, of_epoch: int) -> None:
        owner = (process.node.name, process.incarnation)
        if self.owners.setdefault((camera, epoch), owner) != owner:
            raise Broken(f"epoch {epoch} of {camera} has two owners")
        if epoch < self.newest.get(camera, 0):
            raise Broken(f"{camera}: epoch {epoch} is published after {self.newest[camera]}")
        self.newest[camera] = epoch
        self._count_event(camera, event, track, of_epoch, owner)

    def spooled(self, process: Process, camera: str, epoch: int, track: int) -> None:
        """Note an end that a node tells of what it lost: it waits in the spool, and has the epoch of that time."""
        self._count_event(camera, "end", track, epoch, (process.node.name, process.incarnation))

    def _count_event(self, camera: str, event: str, track: int, epoch: int, by: tuple[str, int]) -> None:
        key = (camera, epoch, track)
        if event == "begin":
            if key in self.begun:
                raise Broken(f"{key} begins twice")
            self.begun[key] = self.now
        else:
            self.ends.setdefault(key, []).append(by)

    def check_holders(self) -> None:
        holders: dict[str, Node] = {}
        for node in self.nodes.values():
            for camera in node.process.held if node.process is not None else ():
                if node.process is not None and node.process.publishes(camera):
                    if camera in holders:
                        raise Broken(f"{self.now:.2f}: {camera} is published by {holders[camera].name} and {node.name}")
                    holders[camera] = node

    def check_tracks(self) -> None:
        still = {
            (camera, held.epoch, track)
            for node in self.nodes.values()
            if node.process is not None
            for camera, held in node.process.held.items()
            for track in held.open
        }
        # The next run of a node ends what its history has open, and others have not ended.
        kept = {key for node in self.nodes.values() if node.process is None for key in node.history}
        for key in self.begun:
            by = self.ends.get(key, [])
            if not by and key not in still | kept:
                raise Broken(f"the end of {key} was lost")
            if by and key in still:
                raise Broken(f"{key} was ended by {by}, and goes on")
            if len(by) > 1 and not set(by[:-1]) <= self.lapsed:
                raise Broken(f"{key} was ended by {by}")
        if self.ends.keys() - self.begun.keys():
            raise Broken("what never began was ended")

    def settle(self) -> None:
        """Check that all is well within some seconds: now and then heartbeats are late, and successors get ready."""
        for _ in range(20):
            try:
                return self.check_placed()
            except Broken:
                self.run(1)
        return self.check_placed()

    def check_placed(self) -> None:
        assert self.coordinator is not None
        view = self.coordinator.view(*self.clocks())
        unplaced = {one.name for one in view.unplaced}
        if len(unplaced) + len(view.cameras) != view.summary.cameras:
            raise Broken("a camera is neither placed nor unplaced")
        for camera in view.cameras:
            process = self.nodes[camera.node].process
            if process is None or not process.publishes(camera.name) or camera.warm:
                raise Broken(f"{camera} is not settled; {view}")
        for name in unplaced:
            self._check_unplaced(name, view)

    def _check_unplaced(self, name: str, view: Any) -> None:
        assert self.coordinator is not None
        need = self.coordinator._catalogue.needs[name]
        sites = {"n0": "a", "n1": "a"}
        for node in view.nodes:
            fits = (need.site in (None, sites.get(node.name))) and (need.nodes is None or node.name in need.nodes)
            if fits and node.state == "up" and node.used + need.weight <= node.capacity:
                raise Broken(f"{name} has no place, and {node} has room")


def history(seed: int, rounds: int = 3, nodes: int = 5, cameras: int = 12) -> World:
    """Play a history of faults, and check it.

    Args:
        seed: Number of the history.
        rounds: How often there are faults, and then none for a while.
        nodes: Number of nodes.
        cameras: Number of cameras.
    """
    world = World(seed, nodes, cameras)
    world.start_coordinator()
    for node in world.nodes.values():
        world.start(node)
    world.run(25)
    world.settle()
    for _ in range(rounds):
        for _ in range(world.rng.randint(2, 7)):
            _fault(world)
            world.run(world.rng.choice((0.3, 1, 2, 4, 8)))
        _mend(world)
        world.run(4 * counted_s(world.lease_s) + 30)
        world.settle()
        world.check_tracks()
    return world


def _fault(world: World) -> None:
    rng = world.rng
    node = rng.choice(list(world.nodes.values()))
    kind = rng.choice(FAULTS)
    coordinator = world.coordinator
    if kind in ("kill", "restart"):
        world.kill(node)
        if kind == "restart":
            world.at(rng.uniform(0.1, 4), lambda: world.start(node) if node.process is None else None)
    elif kind == "freeze" and node.process is not None:
        process = node.process
        process.is_frozen = True
        world.lapsed.add((node.name, process.incarnation))
        world.at(rng.uniform(0.5, 20), lambda: setattr(process, "is_frozen", False))
    elif kind.startswith("cut"):
        node.sends, node.hears = kind == "cut_in", kind == "cut_out"
    elif kind == "leave":
        world.leave(node)
    elif kind == "coordinator":
        world.start_coordinator() if not world.store.is_full else None
    elif kind == "away":
        world.coordinator = None
    elif kind == "store":
        world.store.is_full = not world.store.is_full
    elif kind == "dark":
        world.dark = {f"c{rng.randrange(8)}" for _ in range(rng.randrange(3))}
    elif coordinator is not None:
        try:
            if kind == "drain":
                coordinator.drain(node.name)
            elif kind == "undrain":
                coordinator.undrain(node.name)
            elif kind == "rebalance":
                coordinator.rebalance(world.clocks()[0])
            elif kind == "add":
                coordinator.add(world._camera(f"x{rng.randrange(5)}"))
            elif kind == "remove":
                coordinator.remove(f"{rng.choice('cx')}{rng.randrange(5)}")
        except (FleetError, StoreError):
            pass


def _mend(world: World) -> None:
    world.store.is_full = False
    world.dark = set()
    if world.coordinator is None:
        world.start_coordinator()
    for node in world.nodes.values():
        node.sends = node.hears = True
        if node.process is None:
            world.start(node)
        else:
            node.process.is_frozen = False
