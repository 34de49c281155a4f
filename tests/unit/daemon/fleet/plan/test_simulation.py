"""Histories of faults with the real coordinator; see `tests.support.fleet_simulation` for what is checked in them."""

from __future__ import annotations

import pytest

from tests.support import fleet_simulation


@pytest.mark.parametrize("seed", range(8))
def test_a_history_of_faults(seed: int) -> None:
    world = fleet_simulation.history(seed)
    assert len(world.begun) > 100
    assert world.runs > 1 or world.lapsed


def test_a_histories_checks_see_what_they_look_for() -> None:
    world = fleet_simulation.World(1)
    world.start_coordinator()
    for node in world.nodes.values():
        world.start(node)
    world.run(60)
    world.check_placed()
    world.check_tracks()
    process = next(n.process for n in world.nodes.values() if n.process is not None and n.process.held)
    camera, held = next(iter(process.held.items()))
    other = next(n.process for n in world.nodes.values() if n.process is not None and camera not in n.process.held)
    with pytest.raises(fleet_simulation.Broken, match="has two owners"):
        other.publish(camera, held, "begin", 9999)
    with pytest.raises(fleet_simulation.Broken, match="after"):
        world.published(process, camera, held.epoch - 1, "begin", 9999, held.epoch - 1)
    other.held[camera] = held
    with pytest.raises(fleet_simulation.Broken, match=f"{camera} is published by"):
        world.check_holders()
    del other.held[camera]
    world.begun[camera, held.epoch, 5000] = 0.0
    with pytest.raises(fleet_simulation.Broken, match="was lost"):
        world.check_tracks()
