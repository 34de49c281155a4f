"""Which packets are decoded at a lower rate."""

from __future__ import annotations

import pytest

from visaged.pipelines.source.demand import FULL, Demand
from visaged.pipelines.source.times.thinning import Thinning


def decoded(thinning: Thinning, demand: Demand, seconds: float, group: int, cheap: bool = False) -> list[int]:
    """Return the numbers of the packets, 25 a second, that are decoded."""
    heed = thinning.heed
    return [n for n in range(round(25 * seconds)) if heed(demand, n / 25, n % group == 0, cheap) == "all"]


def test_all_is_decoded_unless_less_is_wanted() -> None:
    thinning = Thinning(5.0)
    assert decoded(thinning, FULL, 10, 50) == list(range(250))
    assert thinning.fps == 5.0
    assert decoded(thinning, Demand(fps=8.0), 10, 50) == list(range(250))


def test_the_first_part_of_each_group_is_decoded_once_groups_are_known() -> None:
    thinning = Thinning(5.0)
    numbers = decoded(thinning, Demand(fps=2.0), 8, 50)
    assert numbers == [*range(50), *(n for n in range(50, 200) if n % 50 < 20)]
    assert thinning.fps == 5.0, "of those that are decoded, as many as configured"


def test_every_frame_stands_for_25_a_second() -> None:
    thinning = Thinning(None)
    numbers = decoded(thinning, Demand(fps=5.0), 4, 50)
    assert numbers == [*range(50), *range(50, 60)]
    assert thinning.fps is None


@pytest.mark.parametrize(
    ("group", "cheap"), [(50, True), (150, False), (1, False)], ids=["hardware", "long groups", "key frames alone"]
)
def test_elsewhere_frames_are_spread_evenly(group: int, cheap: bool) -> None:
    thinning = Thinning(5.0)
    assert decoded(thinning, Demand(fps=2.0), 10, group, cheap) == list(range(250))
    assert thinning.fps == 2.0


def test_packets_without_stamps_are_decoded() -> None:
    thinning = Thinning(5.0)
    assert {thinning.heed(Demand(fps=1.0), None, n % 50 == 0, False) for n in range(200)} == {"all"}


def test_key_frames_are_key_frames_at_any_rate() -> None:
    thinning = Thinning(5.0)
    assert {thinning.heed(Demand("key_frames", 2.0), n / 25, n % 50 == 0, False) for n in range(200)} == {"key_frames"}
    assert thinning.fps == 2.0
    assert thinning.heed(FULL, 8.0, True, False) == "all"
    assert thinning.fps == 5.0
