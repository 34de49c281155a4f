"""What is measured of cameras and machine comes out as demands, metrics, and a line in the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import pytest

from visaged.pipelines.batcher import Batcher
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.shedding.load import CameraLoad
from visaged.pipelines.shedding.processor import Usage
from visaged.pipelines.shedding.shedding import Shedding
from visaged.pipelines.source.demand import FULL, Demand


class Machine:
    """A machine with two cores and four cameras, of which one shows a face; time passes by `run`.

    Attributes:
        busy: Part of the cores that the process uses.
        overtaken: Part of the frames that are overtaken.
    """

    def __init__(self) -> None:
        self.now_s = self.spent_s = 100.0
        self.busy = self.overtaken = 0.0
        self.cameras = [CameraLoad(name) for name in "abc"] + [CameraLoad("face", face_ago_s=0.0)]
        self.demands: dict[str, Demand] = {}
        self.metrics = Metrics()
        usage = Usage(2.0, lambda: self.now_s, lambda: self.spent_s)
        batcher = Batcher(1, 0.0, 1)
        self.shedding = Shedding(self, batcher, None, self.metrics, lambda: self.now_s, usage)

    def loads(self) -> list[CameraLoad]:
        return self.cameras

    def demand(self, demands: Mapping[str, Demand]) -> None:
        self.demands = dict(demands)

    def run(self, seconds: float, busy: float, overtaken: float, lag_s: float = 0.0) -> None:
        for _ in range(round(seconds / 0.5)):
            self.now_s += 0.5
            self.spent_s += busy
            self.cameras = [
                replace(one, offered=one.offered + 20, overtaken=one.overtaken + round(20 * overtaken), lag_s=lag_s)
                for one in self.cameras
            ]
            self.shedding.tick()

    def count(self, to: str) -> float | None:
        return self.metrics.registry.get_sample_value("visaged_cameras_reduced", {"to": to})


def test_it_is_told_once_when_it_begins_and_once_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    machine = Machine()
    machine.run(30, busy=0.7, overtaken=0.0)
    assert set(machine.demands.values()) == {FULL}
    assert (machine.count("key_frames"), machine.count("fps")) == (0, 0)
    machine.run(40, busy=1.0, overtaken=0.5)
    assert machine.count("key_frames") == 4, "it did not help, so that all are at the least"
    assert len(caplog.messages) == 1
    assert "4 of 4 are reduced" in caplog.text or "3 of 4 are reduced" in caplog.text
    machine.run(400, busy=0.2, overtaken=0.0)
    assert set(machine.demands.values()) == {FULL}
    assert (machine.count("key_frames"), machine.count("fps")) == (0, 0)
    assert len(caplog.messages) == 2
    assert "as configured again" in caplog.messages[1]


def test_cameras_that_are_far_behind_skip_for_a_while() -> None:
    machine = Machine()
    machine.run(5, busy=1.0, overtaken=0.0)
    machine.run(0.5, busy=1.0, overtaken=0.0, lag_s=0.55)
    assert {demand.decode for demand in machine.demands.values()} == {"none"}
    machine.run(1, busy=1.0, overtaken=0.0)
    assert "none" not in {demand.decode for demand in machine.demands.values()}


def test_a_camera_that_was_replaced_counts_from_0() -> None:
    machine = Machine()
    machine.run(5, busy=1.0, overtaken=0.0)
    machine.cameras = [replace(one, offered=0, overtaken=0) for one in machine.cameras]
    machine.run(5, busy=1.0, overtaken=0.0)
    assert set(machine.demands.values()) == {FULL}
    machine.cameras = []
    machine.run(5, busy=1.0, overtaken=0.0)
    assert machine.demands == {}
