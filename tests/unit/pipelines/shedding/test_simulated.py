"""Shedding as a whole on a simulated machine that carries seven cameras, or eight with results that come late."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.overloaded_machine import FPS, OverloadedMachine

SETTLE_S, MEASURE_S = 25.0, 20.0


def measured(cameras: int, **how: Any) -> OverloadedMachine:
    machine = OverloadedMachine(cameras, **how)
    machine.run(SETTLE_S)
    machine.forget()
    machine.run(MEASURE_S)
    return machine


def kept(machine: OverloadedMachine) -> float:
    """The least part of its frames that a camera with a face keeps."""
    return min(cam.analysed / MEASURE_S / FPS for cam in machine.cams if cam.has_face)


def test_what_the_machine_carries_is_not_reduced_for_a_moment() -> None:
    machine = OverloadedMachine(7)
    machine.run(SETTLE_S)
    assert max(machine.reduced) == 0
    assert machine.age_s(0.95) < 0.15


@pytest.mark.parametrize("group_s", [1.0, 2.0, 4.0])
def test_at_twice_that_faces_keep_most_and_results_are_new(group_s: float) -> None:
    machine = measured(14, group_s=group_s)
    assert kept(machine) >= 0.6
    assert machine.age_s(0.95) < 0.3
    assert all(cam.key_frames >= MEASURE_S / group_s - 1 for cam in machine.cams)


@pytest.mark.parametrize(
    ("cameras", "how", "least", "age_s"),
    [
        (28, {}, 0.3, 0.3),
        (14, {"all_faces": True}, 0.4, 0.3),
        (14, {"analyse_s": 0.05}, 0.3, 0.3),
        (56, {"cores": 8, "every_s": 0.05}, 0.8, 0.3),
        # To decode all key frames takes 0.22 s.
        (14, {"every_s": 0.0}, 0.6, 0.45),
        # Whether the others give way is tried again and again.
        (14, {"others": 0.8}, 0.4, 0.45),
    ],
    ids=["four times", "all have faces", "slow networks", "many cores", "key frames in step", "other programs"],
)
def test_results_are_new_whatever_lacks(cameras: int, how: dict[str, Any], least: float, age_s: float) -> None:
    machine = measured(cameras, **how)
    assert machine.age_s(0.95) < age_s
    assert kept(machine) >= least


def test_a_stream_that_is_too_much_for_one_thread_stays_at_most_half_a_second_behind() -> None:
    machine = measured(1, all_faces=True, decode_s=0.045)
    assert machine.age_s(0.95) < 0.5
    assert kept(machine) >= 0.25
