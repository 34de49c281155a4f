"""The search for what is carried, and what is said of a machine that others use."""

from __future__ import annotations

import pytest

from visaged.daemon.bench.cameras import FPS, Try, _Search
from visaged.daemon.bench.machine import Disturbance
from visaged.daemon.bench.rig import Measured

CORES = 2


def tried(cameras: int, truth: int) -> Try:
    """Return how it would go on a machine that carries `truth` cameras."""
    good = cameras <= truth
    dropped = 0 if good else 10 * cameras
    cpu = 3.0 * CORES * min(1.0, 0.9 * cameras / max(truth, 1))
    measured = Measured(3.0, 75.0 * cameras, 15.0 * cameras - dropped, dropped, cpu, None, 0.0, 0.0, None, None)
    return Try(cameras, good, 25.0, FPS if good else 0.8 * FPS, dropped, measured)


@pytest.mark.parametrize("truth", [0, 1, 2, 3, 9, 30, 200])
@pytest.mark.parametrize("error", [0.3, 1.0, 1.5])
def test_the_search_finds_what_is_carried_however_wrong_the_first_guess_is(truth: int, error: float) -> None:
    search = _Search(error * max(truth, 0.5), CORES)
    for _ in range(40):
        cameras = search.next()
        if cameras is None:
            break
        search.add(tried(cameras, truth))
    assert search.next() is None
    assert truth - max(1, 0.03 * truth) < search.carried <= truth or search.carried == truth
    assert search.too_many is not None
    assert search.too_many > truth


@pytest.mark.parametrize(
    ("disturbance", "said"),
    [
        (Disturbance(0.02, 0.0, 0.05), None),
        (Disturbance(0.9, 0.0, 0.01), "other programs took 0.9 of 2 cores"),
        (Disturbance(0.9, 0.0, 0.6), None),  # there are cores to spare
        (Disturbance(0.0, 0.07, 0.0), "hypervisor gave 7%"),
    ],
)
def test_a_busy_machine_is_told_of(disturbance: Disturbance, said: str | None) -> None:
    complaint = disturbance.complaint(CORES)
    assert (complaint is None) if said is None else (complaint is not None and said in complaint)
