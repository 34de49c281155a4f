"""Frames of videos as a training pack: what a person said of a stretch decides what its finds are."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from visaged.models.training.evaluation.decode import Found
from visaged.models.training.labelling import clips

FOUND: Found = (
    np.array([[10, 10, 50, 60], [100, 100, 300, 340]], np.float32),
    np.array([0.9, 0.5], np.float32),
    np.zeros((2, 5, 2), np.float32),
)


def test_what_a_stretch_shows_decides() -> None:
    assert len(clips.label("none", FOUND)) == 0
    one = clips.label("one", FOUND)
    np.testing.assert_array_equal(one.boxes, FOUND[0][:1])  # the surest, not the largest
    assert one.sure.all()
    doubtful = clips.label("doubtful", FOUND)
    assert len(doubtful) == 2
    assert not doubtful.sure.any()


def test_the_own_list_is_readable_and_its_stretches_do_not_overlap() -> None:
    stretches = clips.read_stretches(clips.STRETCHES)
    assert stretches
    for name, parts in stretches.items():
        for before, after in itertools.pairwise(parts):
            assert before.from_s < before.to_s <= after.from_s, name


@pytest.mark.parametrize("row", ["a,0,x,none", "a,0,5,some", "a,0"])
def test_a_wrong_line_is_named(tmp_path: Path, row: str) -> None:
    path = tmp_path / "clips.csv"
    path.write_text(f"clip,from_s,to_s,faces\na,0,5,one\n{row}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 3"):
        clips.read_stretches(path)
