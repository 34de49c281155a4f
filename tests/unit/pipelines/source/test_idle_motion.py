"""Motion between two key frames, on pictures with a sensor's noise."""

from __future__ import annotations

import numpy as np
import pytest

from visaged.models.types import Image
from visaged.pipelines.source.idle.motion import Blocks

RNG = np.random.default_rng(0)
ROOM = np.clip(
    np.linspace(40, 170, 640)[None, :, None] + RNG.integers(-30, 30, (45, 80, 3)).repeat(8, 0).repeat(8, 1), 0, 255
)


def shot(light: float = 1.0, offset: float = 0.0, noise: float = 4.0) -> Image:
    """Return the room as a camera sees it."""
    return np.clip(ROOM * light + offset + RNG.normal(0, noise, ROOM.shape), 0, 255).astype(np.uint8)


def with_person(picture: Image, left: int, width: int = 40, height: int = 90) -> Image:
    picture = picture.copy()
    picture[200 : 200 + height, left : left + width] = (60, 80, 150)
    return picture


def settled() -> Blocks:
    blocks = Blocks()
    assert blocks.compare(shot()) == "some", "there is nothing to compare with"
    blocks.searched()
    for _ in range(10):
        assert blocks.compare(shot()) == "still", "noise is no motion"
    return blocks


@pytest.mark.parametrize("width", [24, 40, 120])
def test_a_person_moves(width: int) -> None:
    blocks = settled()
    assert blocks.compare(with_person(shot(), 300, width)) == "moved"


def test_light_that_changes_everywhere_is_no_motion() -> None:
    blocks = settled()
    for light, offset in ((1.15, 0), (0.8, 0), (1.0, 20), (0.9, -10)):
        assert blocks.compare(shot(light, offset)) != "moved"


def test_what_changes_slowly_is_searched_again() -> None:
    blocks = settled()
    seen = []
    for step in range(1, 12):
        picture = shot().astype(np.int16)
        picture[200:290, 300:340] += 2 * step
        seen.append(blocks.compare(np.clip(picture, 0, 255).astype(np.uint8)))
    assert "moved" not in seen
    assert "some" in seen


def test_what_always_moves_is_learned() -> None:
    blocks = settled()
    answers = []
    for _ in range(40):
        picture = shot()
        picture[100:180, 500:600] = np.clip(picture[100:180, 500:600] + RNG.normal(0, 25), 0, 255)
        answers.append(blocks.compare(picture))
        blocks.was_nothing()
    assert answers[:10].count("moved") > answers[-10:].count("moved")
    assert blocks.compare(with_person(shot(), 100)) == "moved"


def test_a_new_size_is_looked_at() -> None:
    blocks = settled()
    assert blocks.compare(shot()[:320]) == "some"
