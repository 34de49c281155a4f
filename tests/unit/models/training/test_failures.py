"""The cards' pictures of known failures can be made anew, and say what the networks said."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from visaged.models.training.evaluation import failures

MOST_BYTES = 150_000


def test_the_pictures_are_drawn_by_one_command(tmp_path: Path) -> None:
    assert failures.main(["--out", str(tmp_path / "new")]) == 0
    for name in ("detector", "analyzer"):
        path = tmp_path / "new" / f"{name}-failures.jpg"
        assert path.stat().st_size < MOST_BYTES
        image = cv2.imread(str(path))
        assert image is not None
        assert image.shape[1] == failures.COLUMNS * (failures.TILE + 8) + 8


def test_the_first_wrong_step_is_shown() -> None:
    assert failures.first_wrong([1, 2, 3, 4], lambda step: step >= 3) == (3, 2, True)
    assert failures.first_wrong([1, 2], lambda step: True) == (1, None, True)
    assert failures.first_wrong([1, 2], lambda step: False) == (2, 2, False)


def test_captions_of_wrong_answers_are_red() -> None:
    tile = np.zeros((failures.TILE, failures.TILE, 3), np.uint8)
    lines = ("face", "true: a face", "said: nothing", "")
    right, wrong = (failures.sheet("x", [failures.Tile(tile, lines, is_wrong)]) for is_wrong in (False, True))

    def red(image: np.ndarray) -> int:
        return int(((image[..., 2] > 200) & (image[..., 1] < 150)).sum())

    assert red(right) == 0 < red(wrong)


@pytest.mark.parametrize("arguments", [["--detector", "none"], ["--analyzer", "none"]])
def test_an_unknown_network_is_told(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert failures.main([*arguments, "--out", str(tmp_path)]) == 2
    assert "named 'none'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
