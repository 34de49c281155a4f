"""Placement, on clusters that a seeded generator makes up: what must hold for all of them."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from visaged.daemon.fleet.plan.placement import Machine, Need, Placement, score

SEEDS = range(60)


def cluster(rng: random.Random) -> tuple[list[Need], list[Machine]]:
    sites = ["a", "b", None]
    machines = [
        Machine(f"n{i}", rng.choice((0.0, 2.0, 4.0, 8.0, 14.5)), rng.choice(sites)) for i in range(rng.randint(1, 9))
    ]
    needs = [
        Need(
            f"c{i}",
            rng.choice((0.5, 1.0, 1.0, 1.0, 2.0, 6.0)),
            rng.choice(("a", None, None)),
            frozenset(rng.sample([m.name for m in machines], rng.randint(1, len(machines))))
            if rng.random() < 0.3
            else None,
            rng.choice((0, 0, 1)),
        )
        for i in range(rng.randint(0, 60))
    ]
    return needs, machines


def placed(needs: list[Need], machines: list[Machine], current: dict[str, str] | None = None) -> Placement:
    placement = Placement(needs, machines, current or {})
    placement.place()
    return placement


def equal(cameras: int, nodes: int, capacity: float = 100.0) -> tuple[list[Need], list[Machine]]:
    return [Need(f"c{i}") for i in range(cameras)], [Machine(f"n{i}", capacity) for i in range(nodes)]


def moved(before: dict[str, str], after: dict[str, str]) -> int:
    return sum(after.get(camera) != node for camera, node in before.items())


@pytest.mark.parametrize("seed", SEEDS)
def test_no_node_gets_what_it_may_not_hold_or_more_than_it_can(seed: int) -> None:
    needs, machines = cluster(random.Random(seed))
    placement = placed(needs, machines)
    by_name = {machine.name: machine for machine in machines}
    used: Counter[str] = Counter()
    for need in needs:
        owner = placement.owners.get(need.camera)
        assert (owner is None) == (need.camera in placement.unplaced)
        if owner is not None:
            assert need.allows(by_name[owner])
            used[owner] += need.weight
    assert all(
        used[m.name] <= m.capacity + 1e-6 and used[m.name] == pytest.approx(placement.used(m.name)) for m in machines
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_who_is_left_over_finds_room_nowhere_and_is_told_why(seed: int) -> None:
    needs, machines = cluster(random.Random(seed))
    placement = placed(needs, machines)
    for need in needs:
        if need.camera in placement.unplaced:
            assert placement.unplaced[need.camera]
            room = [m.capacity - placement.used(m.name) for m in machines if m.capacity and need.allows(m)]
            assert all(one < need.weight - 1e-9 for one in room)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_in_which_all_is_named_does_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    needs, machines = cluster(rng)
    first = placed(needs, machines)
    rng.shuffle(needs)
    rng.shuffle(machines)
    again = placed(needs, machines)
    assert (first.owners, first.unplaced) == (again.owners, again.unplaced)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_placed_stays(seed: int) -> None:
    needs, machines = cluster(random.Random(seed))
    before = placed(needs, machines)
    again = placed(needs, machines, before.owners)
    assert again.owners == before.owners


@pytest.mark.parametrize("seed", SEEDS)
def test_a_node_that_goes_moves_its_own_cameras_alone(seed: int) -> None:
    rng = random.Random(seed)
    cameras, nodes = rng.randint(1, 80), rng.randint(2, 9)
    needs, machines = equal(cameras, nodes)
    before = placed(needs, machines).owners
    after = placed(needs, machines[1:], before)
    assert not after.unplaced
    assert all(after.owners[camera] == node for camera, node in before.items() if node != "n0")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_node_that_comes_takes_its_share_and_no_more(seed: int) -> None:
    rng = random.Random(seed)
    cameras, nodes = rng.randint(0, 200), rng.randint(1, 12)
    needs, machines = equal(cameras, nodes, capacity=rng.choice((20.0, 300.0)))
    before = placed(needs, machines).owners
    after = placed(needs, [*machines, Machine("new", machines[0].capacity)], before)
    late = len(after.owners) - len(before)  # found no place before
    moves = after.attract(["new"])
    assert moves == moved(before, after.owners) <= cameras / (nodes + 1) + 1
    assert all(node in (before.get(camera), "new") for camera, node in after.owners.items())
    if not late:
        assert after.used("new") >= cameras // (nodes + 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_in_any_cluster_a_node_that_comes_takes_from_fuller_ones_alone(seed: int) -> None:
    needs, machines = cluster(random.Random(seed))
    before = placed(needs, machines[1:])
    after = Placement(needs, machines, before.owners)
    newcomer = machines[0]
    after.attract([newcomer.name])
    assert after.used(newcomer.name) <= newcomer.capacity
    for camera, node in before.owners.items():
        assert after.owners[camera] in (node, newcomer.name)


@pytest.mark.parametrize("seed", SEEDS)
def test_rebalancing_is_bounded_levels_and_ends(seed: int) -> None:
    needs, machines = cluster(random.Random(seed))
    crowd = placed(needs, machines[:1])
    placement = placed(needs, machines, crowd.owners)
    before = dict(placement.owners)
    assert placement.rebalance(2) == moved(before, placement.owners) <= 2
    assert any(placement.rebalance(1000) == 0 for _ in range(10))
    used = {m.name: placement.used(m.name) for m in machines}
    assert all(used[m.name] <= m.capacity + 1e-6 for m in machines)


def test_the_first_placement_is_even() -> None:
    needs, machines = equal(100, 5)
    assert set(Counter(placed(needs, machines).owners.values()).values()) == {20}


def test_nodes_get_cameras_in_proportion_to_their_capacity() -> None:
    machines = [Machine("small", 10.0), Machine("large", 30.0)]
    placement = placed([Need(f"c{i}") for i in range(20)], machines)
    assert (placement.used("small"), placement.used("large")) == (5.0, 15.0)


def test_scores_follow_the_weights() -> None:
    machines = [Machine("a", 1.0), Machine("b", 3.0)]
    wins = Counter(max(machines, key=lambda m: score(f"c{i}", m)).name for i in range(4000))
    assert wins["a"] / 4000 == pytest.approx(0.25, abs=0.03)


def test_scores_are_the_same_in_every_run() -> None:
    assert score("quay", Machine("harbour-1", 14.0)) == pytest.approx(222.18, abs=0.01)


def test_a_camera_moves_to_make_room_for_one_that_can_be_nowhere_else() -> None:
    machines = [Machine("a", 1.0), Machine("b", 2.0)]
    needs = [Need("free"), Need("bound", nodes=frozenset({"a"}))]
    placement = placed(needs, machines, {"free": "a"})
    assert placement.owners == {"bound": "a", "free": "b"}


def test_cameras_of_a_node_that_drains_stay_there_while_there_is_no_room_elsewhere() -> None:
    needs, _ = equal(4, 0)
    machines = [Machine("old", 4.0, takes=False, keeps=False), Machine("new", 3.0)]
    placement = placed(needs, machines, dict.fromkeys((need.camera for need in needs), "old"))
    assert Counter(placement.owners.values()) == {"new": 3, "old": 1}
    assert not placement.unplaced


def test_the_same_cameras_are_always_left_over_and_those_of_low_priority_first() -> None:
    needs = [Need(f"c{i}", priority=i % 2) for i in range(8)]
    left = placed(needs, [Machine("a", 4.0)]).unplaced.keys()
    assert left == {f"c{i}" for i in range(0, 8, 2)} == placed(needs[::-1], [Machine("b", 4.0)]).unplaced.keys()


@pytest.mark.parametrize(
    ("need", "why"),
    [
        (Need("c", nodes=frozenset({"x", "y"})), "none of its nodes (x, y) is up and takes cameras"),
        (Need("c", site="s"), "no node at site s is up and takes cameras"),
        (Need("c", weight=5), "its weight is 5, and the largest node that may hold it has a capacity of 4"),
        (
            Need("c", weight=4),
            "no room: its weight is 4, and of the 1 nodes that may hold it none has more than 3 left",
        ),
    ],
)
def test_a_camera_without_a_place_says_why(need: Need, why: str) -> None:
    placement = placed([need, Need("other")], [Machine("a", 4.0)], {"other": "a"})
    assert placement.unplaced == {"c": why}
