"""Which cameras are reduced and restored, and when, on a machine that is simulated: it computes loads, not pictures."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from visaged.pipelines.shedding.controller import KEY_FRAMES as KEY
from visaged.pipelines.shedding.controller import Controller
from visaged.pipelines.shedding.load import CameraLoad, Load
from visaged.pipelines.source.demand import FULL, Demand

TICK_S = 0.5


@dataclass
class Machine:
    """A machine that can analyse `capacity` cameras as configured; key frames of one cost a tenth of that.

    Attributes:
        capacity: In cameras.
        cameras: By name; they see a face where `face_ago_s` is 0.
        pictures: Part of the machine that single pictures take.
        noise: Deviation of the load from tick to tick, as a part of it.
    """

    capacity: float
    cameras: dict[str, CameraLoad]
    pictures: float = 0.0
    noise: float = 0.0
    now_s: float = 1000.0
    lag_s: float = 0.0
    demands: dict[str, Demand] = field(default_factory=dict)
    history: list[tuple[float, dict[str, Demand]]] = field(default_factory=list)
    controller: Controller = field(default_factory=Controller)
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def share(self, name: str) -> float:
        """The part of a camera's frames that is asked for; 0.1 on key frames."""
        demand = self.demands.get(name, FULL)
        return 0.1 if demand.decode == "key_frames" else (demand.fps or 5.0) / 5.0

    def load(self) -> Load:
        wanted = sum(self.share(name) for name in self.cameras) / self.capacity
        wanted *= 1 + self.chance.gauss(0, self.noise)
        free = 1 - min(self.pictures, 0.5)
        self.lag_s = max(0.0, self.lag_s + TICK_S * max(-0.5, min(1.0, wanted / free - 1)))
        if self.lag_s > 1:
            self.lag_s = 0.2  # they skip what they are behind with (`Lags`)
        overtaken = max(0.0, 1 - free / max(wanted, 1e-9))
        busy = min(1.0, wanted + self.pictures)
        return Load(busy, busy, overtaken, self.lag_s, self.pictures)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.now_s += TICK_S
            self.cameras = {
                name: one if one.face_ago_s in (0, math.inf) else replace(one, face_ago_s=one.face_ago_s + TICK_S)
                for name, one in self.cameras.items()
            }
            new = self.controller.step(self.now_s, self.load(), list(self.cameras.values()))
            assert new.keys() == self.cameras.keys()
            if new != self.demands:
                self.history.append((self.now_s, new))
            self.demands = new

    def reduced(self) -> set[str]:
        return {name for name, demand in self.demands.items() if demand != FULL}

    def see(self, name: str, face_ago_s: float) -> None:
        self.cameras[name] = replace(self.cameras[name], face_ago_s=face_ago_s)


def cameras(faces: int, empty: int, **priorities: int) -> dict[str, CameraLoad]:
    names = [f"face{i}" for i in range(faces)] + [f"empty{i}" for i in range(empty)]
    return {
        name: CameraLoad(name, priorities.get(name, 0), face_ago_s=0 if name.startswith("face") else math.inf)
        for name in names
    }


def test_what_the_machine_can_do_is_left_alone() -> None:
    machine = Machine(20, cameras(10, 10), noise=0.05)
    machine.capacity = 21
    machine.run(600)
    assert machine.history == [(1000.5, dict.fromkeys(machine.cameras, FULL))]


@pytest.mark.parametrize("times", [1.2, 2.0, 3.0])
def test_cameras_without_a_face_are_reduced_first(times: float) -> None:
    machine = Machine(20, cameras(round(10 * times), round(10 * times)))
    machine.run(20)
    settled = len(machine.history)
    machine.run(20)
    assert len(machine.history) - settled <= 2, "it has settled"
    assert machine.lag_s == 0
    assert {name for name in machine.reduced() if machine.demands[name] == KEY} <= {f"empty{i}" for i in range(30)}
    assert all(machine.share(name) >= (0.6 if times <= 2 else 0.3) for name in machine.cameras if "face" in name)
    if times == 1.2:
        assert not any("face" in name for name in machine.reduced()), "what cameras without a face save was enough"


def test_the_order_is_priority_and_then_who_has_shown_no_face_for_longest() -> None:
    machine = Machine(100, cameras(0, 10, empty7=-1, empty3=1))
    for index in range(10):
        machine.see(f"empty{index}", 100.0 + index)
    order: list[str] = []
    machine.capacity = 1
    for _ in range(60):
        machine.run(TICK_S)
        new = (machine.cameras[name] for name in machine.reduced() - set(order))
        order += [one.name for one in sorted(new, key=lambda one: (one.priority, -one.face_ago_s))]
    assert order[0] == "empty7"
    assert order[1:-1] == [f"empty{i}" for i in (9, 8, 6, 5, 4, 2, 1, 0)]
    assert order[-1] == "empty3"


def test_then_the_rate_of_the_others_is_lowered_by_priority_and_key_frames_are_the_least() -> None:
    machine = Machine(10, cameras(20, 0, face0=1, face1=-1, face2=2))
    machine.run(40)
    shares = {name: machine.share(name) for name in machine.cameras}
    usual = shares["face3"]
    assert 0.2 < usual < 0.6
    assert {shares[f"face{i}"] for i in range(3, 20)} == {usual}, "evenly"
    assert shares["face0"] == pytest.approx(min(1.0, 2 * usual))
    assert shares["face1"] == pytest.approx(usual / 2) or machine.demands["face1"] == KEY
    assert shares["face2"] == pytest.approx(min(1.0, 4 * usual))
    machine.capacity = 0.5
    machine.run(60)
    assert set(machine.demands.values()) == {KEY}
    history = len(machine.history)
    machine.run(600)
    assert len(machine.history) == history, "there is nothing left to take"


def test_a_face_on_a_key_frame_brings_its_camera_back_at_once_in_place_of_another() -> None:
    machine = Machine(10, cameras(4, 10))
    machine.run(30)
    before = machine.reduced()
    assert 3 <= len(before) < 10
    found = min(before)
    machine.see(found, 0.0)
    machine.run(TICK_S)
    assert machine.demands[found] == FULL
    assert len(machine.reduced()) == len(before)
    assert before - {found} < machine.reduced()
    # When it goes, its camera stays as it is: the others have shown no face for longer.
    machine.see(found, 0.5)
    machine.run(60)
    assert machine.demands[found] == FULL


def test_with_all_others_reduced_a_face_is_taken_in_and_all_share() -> None:
    machine = Machine(10, cameras(9, 10))
    machine.run(40)
    assert all(machine.demands[f"empty{i}"] == KEY for i in range(10))
    for index in range(8):
        machine.see(f"empty{index}", 0.0)
    machine.run(TICK_S)
    assert not any(machine.demands[f"empty{i}"] == KEY for i in range(8))
    machine.run(30)
    assert len({machine.demands[name] for name in machine.cameras if machine.cameras[name].face_ago_s == 0}) == 1
    assert machine.demands["empty8"] == machine.demands["empty9"] == KEY


def test_recovery_is_slow_and_in_reverse_order() -> None:
    machine = Machine(8, cameras(12, 6, empty5=1))
    machine.run(60)
    assert machine.share("face0") < 1
    assert len(machine.reduced()) == 18
    machine.capacity = 40
    machine.history.clear()
    began_s = machine.now_s
    machine.run(300)
    assert machine.reduced() == set()
    assert 20 < machine.history[-1][0] - began_s < 200
    times = [at_s for at_s, _ in machine.history]
    assert all(after - before >= 10 for before, after in pairwise(times))
    restored: list[str] = []
    for _, demands in machine.history:
        whole = [name for name, demand in demands.items() if demand == FULL]
        restored += [name for name in whole if name not in restored]
    assert all("face" in name for name in restored[:12]), "their rate comes first"
    assert restored[12] == "empty5"
    assert restored[12:] == ["empty5", *(f"empty{i}" for i in (4, 3, 2, 1, 0))]


@pytest.mark.parametrize("capacity", [17.0, 18.0, 19.0, 19.5, 20.0, 21.0])
@pytest.mark.parametrize("noise", [0.0, 0.03, 0.1])
def test_a_steady_load_at_the_limit_does_not_flap(capacity: float, noise: float) -> None:
    machine = Machine(capacity, cameras(10, 10), noise=noise)
    machine.run(120)
    machine.history.clear()
    machine.run(1800)
    assert len(machine.history) <= 4, f"{len(machine.history)} changes in half an hour"


def test_tries_that_fail_become_rare() -> None:
    """A machine whose free time is of no use, as where the memory's speed or a decoder's is what lacks."""

    class Slow(Machine):
        def load(self) -> Load:
            load = super().load()
            busy = 0.95 if load.overtaken > 0 else 0.5
            return replace(load, busy=busy, own=busy)

    machine = Slow(10, cameras(10, 10))
    machine.run(60)
    machine.history.clear()
    machine.run(3600)
    changes = [at_s for at_s, _ in machine.history]
    assert sum(at_s > machine.now_s - 1800 for at_s in changes) <= 12
    assert len(changes) <= 40


@pytest.mark.parametrize(
    "load",
    [
        Load(1.0, 1.0),
        Load(0.5, 0.5, overtaken=0.5),
        Load(0.5, 0.5, behind_s=3.0),
    ],
    ids=["busy", "overtaken", "behind"],
)
def test_one_sign_alone_reduces_nothing(load: Load) -> None:
    controller, some = Controller(), list(cameras(1, 3).values())
    for tick in range(100):
        assert set(controller.step(1000 + tick / 2, load, some).values()) == {FULL}


def test_neither_does_a_moment() -> None:
    controller, some = Controller(), list(cameras(1, 3).values())
    for tick in range(100):
        load = Load(1.0, 1.0, 0.5) if tick % 4 < 2 else Load(0.7, 0.7)
        assert set(controller.step(1000 + tick / 2, load, some).values()) == {FULL}


def test_cameras_come_and_go_meanwhile() -> None:
    machine = Machine(10, cameras(8, 8))
    machine.run(40)
    reduced = machine.reduced()
    machine.cameras["new"] = CameraLoad("new", face_ago_s=0.0)
    machine.run(TICK_S)
    assert machine.demands["new"].decode == "all"
    gone = sorted(reduced)[:4]
    for name in gone:
        del machine.cameras[name]
    machine.run(TICK_S)
    assert not machine.demands.keys() & set(gone)
    for name in [name for name in machine.cameras if name != "new"][:10]:
        del machine.cameras[name]
    machine.run(200)
    assert machine.reduced() == set()
    machine.cameras.clear()
    machine.run(20)
    assert machine.demands == {}


def test_pictures_count_as_load_up_to_their_half() -> None:
    machine = Machine(20, cameras(4, 8))
    machine.run(60)
    assert machine.reduced() == set()
    machine.pictures = 0.6  # as much as their clients can make of it: the rest is always in use
    machine.run(60)
    reduced = machine.reduced()
    assert reduced
    assert all("empty" in name for name in reduced)
    assert machine.lag_s == 0
    machine.run(600)
    assert machine.reduced() == reduced
    machine.pictures = 0.0
    machine.run(120)
    assert machine.reduced() == set()
