"""A fleet of three nodes on a real Ray cluster: placement, moves, faults. After each test all cameras stream."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.broker import MosquittoBroker
from tests.support.fleet import Account, Fleet, account, all_stream, all_up, camera, owners
from tests.support.ray_cluster import RayCluster
from tests.support.requirements import MOSQUITTO, require
from tests.support.subscriber import Message, Subscriber
from visaged.daemon.fleet.records import FleetView

pytestmark = [pytest.mark.timed, pytest.mark.slow]

CAMERAS = ("cam0", "cam1", "cam2")
BOUND = "bound"
"""A camera that node c alone may hold."""


@dataclass
class House:
    """The fleet with its cluster and its messages."""

    cluster: RayCluster
    fleet: Fleet
    subscriber: Subscriber

    def next_of(self, name: str, after: int, wanted: Callable[[Message], bool] = lambda _: True) -> Message:
        """The next message of a camera's frames, after the first so many of all messages."""
        wait_for = self.subscriber.wait_for_all
        messages = wait_for(lambda all_: any(_is_frame_of(name, one) and wanted(one) for one in all_[after:]))
        return next(one for one in messages[after:] if _is_frame_of(name, one) and wanted(one))

    def heard(self) -> int:
        """How many messages there are."""
        return len(self.subscriber.messages)

    def account(self) -> Account:
        """What all messages tell."""
        return account(self.subscriber.messages)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, demo_clip: Path) -> Iterator[House]:
    require(MOSQUITTO)
    folder = tmp_path_factory.mktemp("fleet")
    nodes = {"a": {}, "b": {}, "c": {"site": "harbour"}}
    seen = {"url": str(demo_clip), "loop": True, "fps": 2}
    cameras = [{"name": name, **seen} for name in CAMERAS]
    cameras.append({"name": BOUND, **seen, "fleet": {"site": "harbour"}})
    broker = MosquittoBroker(folder / "broker")
    with RayCluster(list(nodes)) as cluster, broker, Subscriber(broker, "visaged/#") as subscriber:
        fleet = Fleet(cluster, broker, folder, nodes, cameras)
        fleet.run()
        fleet.wait_for(all_up, 90)
        yield House(cluster, fleet, subscriber)


@pytest.fixture(autouse=True)
def all_is_well(house: House) -> Iterator[None]:
    """After each test all cameras stream, and no message of an old owner came between those of a new one."""
    yield
    if not house.fleet.is_over:
        house.fleet.wait_for(all_stream, 60)
    found = house.account()
    assert found.interleaved == []
    assert found.missing == 0
    assert found.ended_twice == set()


def test_every_camera_is_published_by_the_node_that_holds_it(house: House) -> None:
    told = house.fleet.command("status", "--json")
    assert told.returncode == 0, told.stderr
    held = {one["name"]: one["node"] for one in json.loads(told.stdout)["cameras"]}
    assert set(held) == {*CAMERAS, BOUND}
    assert held[BOUND] == "c"
    assert len(set(held.values())) > 1
    for name, node in held.items():
        assert house.next_of(name, house.heard()).json()["node"] == node


def test_a_second_configuration_of_the_same_name_is_refused(house: House) -> None:
    other = house.fleet.path.with_name("other.yaml")
    other.write_text(json.dumps(house.fleet.document | {"cameras": []}))
    told = house.fleet.command("run", "--config", str(other), "--detach")
    assert told.returncode == 2
    assert str(house.fleet.path) in told.stderr
    assert "--replace" in told.stderr
    assert len(house.fleet.view().cameras) == 4


def test_a_camera_is_added_and_removed(house: House, demo_clip: Path) -> None:
    config = house.fleet.path.with_name("gate.yaml")
    config.write_text(json.dumps({"name": "gate", "url": str(demo_clip), "loop": True, "fps": 2}))
    told = house.fleet.command("add", str(config))
    assert told.returncode == 0, told.stderr
    house.fleet.wait_for(lambda view: "gate" in owners(view) and all_stream(view))
    house.next_of("gate", 0)
    house.fleet.ask("remove", "gate")
    heard = house.heard()
    house.subscriber.wait_for_all(
        lambda all_: any(one.topic == "visaged/gate/status" and not one.payload for one in all_[heard:])
    )
    assert "gate" not in owners(house.fleet.view())


def test_a_drained_node_gives_up_its_cameras_without_a_gap(house: House) -> None:
    before = house.fleet.view()
    node = camera(before, CAMERAS[0]).node
    heard = house.heard()
    house.fleet.ask("drain", node)
    after = house.fleet.wait_for(lambda view: all_stream(view) and owners(view)[CAMERAS[0]] != node)
    if node != "c":  # its bound camera has nowhere to go
        house.fleet.wait_for(lambda view: any(one.name == node and one.state == "drained" for one in view.nodes))
    new = camera(after, CAMERAS[0])
    first = house.next_of(CAMERAS[0], heard, lambda one: one.json()["epoch"] == new.epoch)
    messages = house.subscriber.messages
    frames = [one for one in messages[: messages.index(first)] if _is_frame_of(CAMERAS[0], one)]
    assert frames[-1].json()["epoch"] == camera(before, CAMERAS[0]).epoch < new.epoch
    assert first.received_at - frames[-1].received_at < 3.0
    house.fleet.ask("undrain", node)


def test_a_coordinator_that_is_killed_disturbs_no_camera(house: House) -> None:
    before = house.fleet.view()
    house.cluster.coordinator().kill()
    heard = house.heard()
    for name in CAMERAS:
        house.next_of(name, heard)
    after = house.fleet.wait_for(lambda view: view.coordinator > before.coordinator and all_stream(view))
    assert {(one.name, one.epoch) for one in after.cameras} == {(one.name, one.epoch) for one in before.cameras}


def test_a_head_process_that_is_killed_disturbs_no_camera(house: House) -> None:
    before = house.fleet.view()
    house.cluster.restart_head()
    heard = house.heard()
    for name in CAMERAS:
        house.next_of(name, heard)
    after = house.fleet.wait_for(all_stream)
    assert {(one.name, one.epoch) for one in after.cameras} == {(one.name, one.epoch) for one in before.cameras}
    house.fleet.ask("drain", "a")  # what is decided can be kept again
    house.fleet.ask("undrain", "a")


def test_a_node_that_freezes_and_thaws_stays_silent(house: House) -> None:
    before = house.fleet.view()
    old = camera(before, CAMERAS[1])
    process = house.cluster.node_actor(old.node)
    process.send_signal(signal.SIGSTOP)
    try:
        after = house.fleet.wait_for(
            lambda view: camera(view, CAMERAS[1]).node != old.node and _streams(view, CAMERAS[1])
        )
        new = camera(after, CAMERAS[1])
        house.next_of(CAMERAS[1], 0, lambda one: one.json()["epoch"] == new.epoch)
    finally:
        process.send_signal(signal.SIGCONT)
    assert new.epoch > old.epoch
    house.fleet.wait_for(all_up)


def test_cameras_of_a_node_that_is_killed_go_on_elsewhere(house: House) -> None:
    before = house.fleet.view()
    lost = {one.name: one.epoch for one in before.cameras if one.node == "c"}
    assert BOUND in lost
    open_there = {one for one in house.account().unended if lost.get(one[0]) == one[1]}
    house.cluster.kill("c")
    after = house.fleet.wait_for(lambda view: len(view.unplaced) == 1 and "c" not in owners(view).values())
    assert after.unplaced[0].name == BOUND  # too few nodes for it, and the rest goes on
    assert "harbour" in after.unplaced[0].why or "away" in after.unplaced[0].why
    elsewhere = lost.keys() - {BOUND}
    after = house.fleet.wait_for(lambda view: all(_streams(view, name) for name in elsewhere))
    assert all(camera(after, name).epoch > epoch for name, epoch in lost.items() if name in elsewhere)
    moved = {track for track in open_there if track[0] in elsewhere}
    house.subscriber.wait_for_all(lambda all_: not moved & account(all_).unended)
    house.cluster.add("c")
    house.fleet.wait_for(all_stream, 60)
    house.subscriber.wait_for_all(lambda all_: not open_there & account(all_).unended)


def test_a_second_machine_of_a_name_is_told_and_disturbs_no_camera(house: House) -> None:
    before = owners(house.fleet.view())
    house.cluster.add("twin", label="a")
    try:
        view = house.fleet.wait_for(lambda view: any("have this name" in one.why for one in view.nodes))
        assert {one.name: one.state for one in view.nodes if one.why} == {"a": "up"}
        assert owners(view) == before
    finally:
        house.cluster.kill("twin")
    house.fleet.wait_for(lambda view: not any(one.why for one in view.nodes))


def test_a_fleet_that_is_stopped_ends_its_nodes_in_order(house: House) -> None:
    told = house.fleet.command("stop")
    house.fleet.is_over = True
    assert told.returncode == 0, told.stderr
    house.subscriber.wait_for_all(lambda all_: not account(all_).unended)
    told = house.fleet.command("status")
    assert told.returncode == 3
    assert "no fleet runs on this cluster" in told.stderr


def _streams(view: FleetView, name: str) -> bool:
    held = [one for one in view.cameras if one.name == name]
    return bool(held) and held[0].active and held[0].state == "streaming"


def _is_frame_of(name: str, message: Message) -> bool:
    return message.topic == f"visaged/{name}/faces"
