"""The same face from small to as large as the picture, for `through_product`: size alone must not hide a face.

Everything is made from the demo's own pictures, whose terms allow anything (`daemon/demo/CREDITS.md`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from visaged.models.training.evaluation.failures import DEMO, frame_at
from visaged.models.training.evaluation.worsen import Portrait
from visaged.models.types import FloatArray, Image

SIDE = 1000
"""Edge of the square pictures, pixels."""

SHARES = tuple(float(share) for share in np.linspace(0.08, 1.0, 30))
"""Longer sides of the face in parts of the picture's."""

# Boxes are written down, not found, so that every network is asked the same. Left, top, right, bottom, pixels.
_COLLINS = (179.0, 55.0, 270.0, 180.0)
_HOPPER_S, _HOPPER_PART, _HOPPER = 20.6, (225, 60, 680, 720), (291.0, 246.0, 496.0, 504.0)
_EMPTY_S, _EMPTY_PART = 0.0, (240, 0, 960, 720)


@dataclass(frozen=True, slots=True)
class Step:
    """One picture of the sweep.

    Attributes:
        title: what is shown on what.
        share: the face's longer side in parts of the picture's.
        image: (SIDE, SIDE, 3) uint8 BGR.
        box: (4,) float32, where the face is, pixels.
    """

    title: str
    share: float
    image: Image
    box: FloatArray


def show(face: Portrait, share: float, ground: Image) -> tuple[Image, FloatArray]:
    """Lay a portrait on a square picture, the face's centre on its middle.

    Args:
        face: the portrait; its points are not looked at.
        share: the longer side of the face's box in parts of the picture's side.
        ground: (S, S, 3) uint8 BGR, seen where the portrait does not reach.

    Returns:
        The picture, (S, S, 3) uint8 BGR, and the face's box in it, (4,) float32 pixels.
    """
    side = ground.shape[0]
    factor = share * side / float((face.box[2:] - face.box[:2]).max())
    scaled = face.scaled(face.size * factor)
    x, y = (side // 2 - round(float(v)) for v in scaled.box.reshape(2, 2).mean(0))
    height, width = scaled.image.shape[:2]
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + width, side), min(y + height, side)
    image = ground.copy()
    image[top:bottom, left:right] = scaled.image[top - y : bottom - y, left - x : right - x]
    return image, (scaled.box + np.array([x, y, x, y])).astype(np.float32)


def portraits() -> dict[str, Portrait]:
    """Return the demo's two persons with their faces' boxes; points are unknown (NaN)."""
    picture = DEMO / "person.jpg"
    collins = cv2.imread(str(picture))
    if collins is None:
        raise ValueError(f"{picture} cannot be read")
    left, top, right, bottom = _HOPPER_PART
    hopper = frame_at(DEMO / "demo.mp4", _HOPPER_S)[top:bottom, left:right]
    return {
        "Collins": _portrait(np.asarray(collins, np.uint8), np.array(_COLLINS)),
        "Hopper": _portrait(hopper, np.array(_HOPPER) - [left, top, left, top]),
    }


def grounds(clip: Path = DEMO / "demo.mp4") -> dict[str, Image]:
    """Return what portraits are laid on, (SIDE, SIDE, 3) uint8 BGR each: plain grey, and the demo's empty lobby."""
    left, top, right, bottom = _EMPTY_PART
    lobby = frame_at(clip, _EMPTY_S)[top:bottom, left:right]
    return {
        "grey": np.full((SIDE, SIDE, 3), 128, np.uint8),
        "a scene": np.asarray(cv2.resize(lobby, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.uint8),
    }


def steps(shares: Sequence[float] = SHARES) -> Iterator[Step]:
    """Yield all pictures of the sweep, those of one portrait on one ground together, in the order of `shares`."""
    backs = grounds()
    for person, face in portraits().items():
        for name, ground in backs.items():
            for share in shares:
                yield Step(f"{person} on {name}", share, *show(face, share, ground))


def _portrait(image: Image, box: FloatArray) -> Portrait:
    return Portrait(image, box.astype(np.float32), np.full((5, 2), np.nan, np.float32))
