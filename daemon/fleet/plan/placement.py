"""Which node has which camera: weighted rendezvous hashing, under capacity, labels, and what is already placed.

Rendezvous hashing (D. Thaler, C. V. Ravishankar: "Using name-based mappings to increase hit rates", IEEE/ACM
Transactions on Networking 6(1), 1998) gives every pair of camera and node a score by a hash; a camera prefers the node
with the highest. Weights enter by the logarithmic method: with h evenly in (0, 1), the score -weight / ln(h) is highest
for each node with a probability in proportion to its weight (J. Resch: "New hashing algorithms for data storage", SNIA
Storage Developer Conference, 2015). As in "Consistent hashing with bounded loads" (V. Mirrokni, M. Thorup, M.
Zadimoghaddam, SODA 2018), a camera takes the best node of those that are not fuller than the average.

What is placed stays where it is. So a node that goes moves its own cameras alone, and a node that comes takes no more
than its share of the rest.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_MASK = (1 << 64) - 1
_EPSILON = 1e-9  # of sums of weights


@dataclass(frozen=True, slots=True)
class Machine:
    """A node that may hold cameras.

    Attributes:
        name: Its name.
        capacity: Weight of the cameras that it can hold.
        site: Where it stands; None if that is not said.
        takes: Whether it takes cameras. Otherwise it keeps those that it has, until they find another place.
        keeps: Whether it keeps the cameras that it has. Otherwise they are placed elsewhere, where there is room.
    """

    name: str
    capacity: float
    site: str | None = None
    takes: bool = True
    keeps: bool = True


@dataclass(frozen=True, slots=True)
class Need:
    """What a camera asks of the node that holds it.

    Attributes:
        camera: Its name.
        weight: Its share of the node's capacity.
        site: The only site whose nodes may hold it; None for any.
        nodes: The only nodes that may hold it; None for any.
        priority: Where there is too little room, cameras with a higher one are placed first.
    """

    camera: str
    weight: float = 1.0
    site: str | None = None
    nodes: frozenset[str] | None = None
    priority: int = 0

    def allows(self, machine: Machine) -> bool:
        """Return whether a node may hold the camera."""
        return (self.site is None or self.site == machine.site) and (self.nodes is None or machine.name in self.nodes)


def score(camera: str, machine: Machine) -> float:
    """Return how much a camera prefers a node, by the logarithmic method; 0 for a node without capacity."""
    return _scored(_hash(camera) ^ _hash(machine.name), machine.capacity)


def _scored(bits: int, weight: float) -> float:
    """Return the score that belongs to 64 bits, which are first mixed so that each depends on all."""
    mixed = bits * 0x9E3779B97F4A7C15 & _MASK
    mixed = (mixed ^ (mixed >> 32)) * 0xD6E8FEB86659FD93 & _MASK
    return -weight / math.log(((mixed >> 12) + 0.5) / (1 << 52))


class Placement:
    """Who holds what. It begins as it was handed in, without what is no longer possible; its methods change it.

    Args:
        needs: The cameras.
        machines: The nodes.
        current: Nodes by names of cameras, as they are placed now.

    Attributes:
        owners: Nodes by names of cameras.
        unplaced: Why each of the other cameras has no place; after `place`.
    """

    def __init__(self, needs: Iterable[Need], machines: Iterable[Machine], current: Mapping[str, str]) -> None:
        self._needs = {need.camera: need for need in needs}
        self._machines = {machine.name: machine for machine in sorted(machines, key=lambda m: m.name)}
        self._seeds = {name: _hash(name) for name in self._machines}
        self._used = dict.fromkeys(self._machines, 0.0)
        self._held: dict[str, dict[str, Need]] = {name: {} for name in self._machines}
        self._takers: dict[tuple[str | None, frozenset[str] | None], list[Machine]] = {}
        self.owners: dict[str, str] = {}
        self.unplaced: dict[str, str] = {}
        for camera, need in self._needs.items():
            owner = self._machines.get(current.get(camera, ""))
            if owner is not None and need.allows(owner):
                self._put(need, owner.name)

    def used(self, machine: str) -> float:
        """Return the weight of the cameras that a node holds."""
        return self._used[machine]

    def place(self) -> None:
        """Find a place for every camera that has none, and for those of nodes that do not keep theirs.

        Cameras of higher priority come first, then the heavier, then by a hash: always the same ones are left over.
        """
        self.unplaced = {}
        leaving = {c for m in self._machines.values() if not m.keeps for c in self._held[m.name]}
        wanting = [need for camera, need in self._needs.items() if camera not in self.owners or camera in leaving]
        hopeless: set[tuple[object, ...]] = set()
        for need in sorted(wanting, key=lambda n: (-n.priority, -n.weight, _hash(n.camera))):
            target = self._best(need)
            kind = (need.site, need.nodes, need.weight)
            if target is None and need.camera not in leaving and kind not in hopeless:
                target = self._make_room(need)
                if target is None:
                    hopeless.add(kind)
            if target is not None:
                self._put(need, target.name)
            elif need.camera not in leaving:
                self.unplaced[need.camera] = self._why(need)

    def attract(self, names: Iterable[str]) -> int:
        """Move cameras to nodes that have come, to each its share of what it may hold and no more.

        Returns:
            The number of moves.
        """
        moves = 0
        for name in sorted(names):
            machine = self._machines.get(name)
            if machine is not None and machine.takes and machine.capacity > 0:
                moves += self._fill(machine)
        return moves

    def rebalance(self, most: int) -> int:
        """Move cameras from the fullest nodes to the emptiest, each once at most, until that levels nothing more.

        Args:
            most: Most moves.

        Returns:
            The number of moves.
        """
        moved: set[str] = set()
        while len(moved) < most and (camera := self._level_once(moved)) is not None:
            moved.add(camera)
        return len(moved)

    def _best(self, need: Need, besides: str = "") -> Machine | None:
        """Return the best node with room for a camera: of those not fuller than their average, the one it prefers."""
        used, weight = self._used, need.weight - _EPSILON
        possible = self._possible(need)
        capacity = sum(m.capacity for m in possible)
        average = sum([used[m.name] for m in possible]) / capacity + _EPSILON if capacity > 0 else 0.0
        roomy = [m for m in possible if used[m.name] + weight <= m.capacity and m.name != besides]
        even = [m for m in roomy if used[m.name] <= average * m.capacity]
        bits, seeds = _hash(need.camera), self._seeds
        return max(even or roomy, key=lambda m: _scored(bits ^ seeds[m.name], m.capacity), default=None)

    def _make_room(self, need: Need) -> Machine | None:
        """Move a camera that may be elsewhere, so that one that may not finds a place; return its node, or None."""
        if not any(self._used[m.name] < m.capacity - _EPSILON for m in self._machines.values() if m.takes):
            return None
        for machine in sorted(self._possible(need), key=functools.partial(score, need.camera), reverse=True):
            missing = self._used[machine.name] + need.weight - machine.capacity
            if need.weight > machine.capacity + _EPSILON:
                continue
            for other in sorted(self._held[machine.name].values(), key=lambda n: (n.weight, _hash(n.camera))):
                # One as free as this camera would only change the place that is missing.
                if other.weight < missing - _EPSILON or (other.site, other.nodes) == (need.site, need.nodes):
                    continue
                target = self._best(other, besides=machine.name)
                if target is not None:
                    self._put(other, target.name)
                    return machine
        return None

    def _fill(self, machine: Machine) -> int:
        candidates = {
            name: [need for need in held.values() if need.allows(machine)]
            for name, held in self._held.items()
            if name != machine.name
        }
        kinds = {(need.site, need.nodes): need for needs in candidates.values() for need in needs}
        reach = {m.name: m for need in kinds.values() for m in self._possible(need)}
        capacity = sum(m.capacity for m in reach.values())
        share = machine.capacity * sum(self._used[name] for name in reach) / capacity if capacity > 0 else 0.0
        fullest = [(-self._load(name), name) for name, needs in candidates.items() if needs]
        heapq.heapify(fullest)
        moves = 0
        while fullest:
            load, name = heapq.heappop(fullest)
            fitting = [need for need in candidates[name] if self._may_take(machine, need, share, -load)]
            if not fitting:
                continue
            need = max(fitting, key=lambda n: (score(n.camera, machine), n.camera))
            self._put(need, machine.name)
            moves += 1
            candidates[name].remove(need)
            heapq.heappush(fullest, (-self._load(name), name))
        return moves

    def _may_take(self, machine: Machine, need: Need, most: float, load: float) -> bool:
        """Return whether a camera may move to a node: it gets no more than `most`, and less full than who gives is."""
        after = self._used[machine.name] + need.weight
        return after <= min(most + need.weight / 2, machine.capacity) + _EPSILON and (
            after / machine.capacity < load - _EPSILON
        )

    def _level_once(self, moved: set[str]) -> str | None:
        """Move one more camera; return it, or None if that levels nothing."""
        by_load = sorted((n for n, m in self._machines.items() if m.capacity > 0 or self._held[n]), key=self._load)
        for fullest in reversed(by_load):
            for name in by_load:
                machine = self._machines[name]
                if not machine.takes or machine.capacity <= 0:
                    continue
                if self._load(name) >= self._load(fullest):
                    break
                fitting = [
                    need
                    for need in self._held[fullest].values()
                    if need.camera not in moved
                    and need.allows(machine)
                    and self._may_take(machine, need, math.inf, self._load(fullest))
                ]
                if fitting:
                    need = max(fitting, key=lambda n: (score(n.camera, machine), n.camera))
                    self._put(need, name)
                    return need.camera
        return None

    def _possible(self, need: Need) -> Sequence[Machine]:
        """Return the nodes that take cameras and may hold this one, whether they have room or not."""
        kind = (need.site, need.nodes)
        if kind not in self._takers:
            self._takers[kind] = [m for m in self._machines.values() if m.takes and m.capacity > 0 and need.allows(m)]
        return self._takers[kind]

    def _load(self, name: str) -> float:
        capacity = self._machines[name].capacity
        return self._used[name] / capacity if capacity > 0 else math.inf

    def _put(self, need: Need, name: str) -> None:
        before = self.owners.get(need.camera)
        if before is not None:
            del self._held[before][need.camera]
            self._used[before] = sum(n.weight for n in self._held[before].values())
        self.owners[need.camera] = name
        self._held[name][need.camera] = need
        self._used[name] += need.weight

    def _why(self, need: Need) -> str:
        possible = self._possible(need)
        if not possible:
            named = f"none of its nodes ({', '.join(sorted(need.nodes))})" if need.nodes is not None else "no node"
            return f"{named}{f' at site {need.site}' if need.site is not None else ''} is up and takes cameras"
        largest = max(m.capacity for m in possible)
        if need.weight > largest + _EPSILON:
            return f"its weight is {need.weight:g}, and the largest node that may hold it has a capacity of {largest:g}"
        room = max(0.0, max(m.capacity - self._used[m.name] for m in possible))
        return (
            f"no room: its weight is {need.weight:g}, and of the {len(possible)} nodes that may hold it none has more "
            f"than {room:g} left"
        )


@functools.lru_cache(maxsize=65_536)
def _hash(name: str) -> int:
    """Return 64 bits that depend on a name alone, on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
