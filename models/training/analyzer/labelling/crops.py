"""The faces of the picture packs and their aligned crops.

Every pack has its own way of saying where faces are and what is known about them; `read_faces` makes one kind of
`Face` of all. A crop is `CROP` pixels wide: the network's input of 112 in its middle, `MARGIN` more on every side, so
that training can shift, turn and scale without leaving it.
"""

from __future__ import annotations

import csv
import math
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from visaged.models.alignment import Matrix, invert, similarity, transform
from visaged.models.training.common.packs import POINT_COLUMNS

Image = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
Labels = dict[str, float | str | list[float]]

SIZE = 112
MARGIN = 24
CROP = SIZE + 2 * MARGIN
FIVE = np.array([[40.95, 46.08], [70.90, 45.92], [56.03, 63.12], [43.72, 80.65], [68.52, 80.51]])
"""Where the five points lie in the network's input: ArcFace's template (InsightFace), shrunk to 85 % for more of the
head. The same numbers stand in the manifest of the networks."""

TEMPLATE = FIVE + MARGIN
EYE_DISTANCE = float(FIVE[1, 0] - FIVE[0, 0])

VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
"""Columns of the FERPlus votes, in their own order."""

COVERED_PACKS = ("street_masks", "mask_crops")
"""Packs in which many faces wear a mask."""

RACES = ("white", "black", "asian", "indian", "other")
"""UTKFace's numbers."""

_ALIASING_SCALE = 0.6
_SHEET_CELL = 48
_LEAST_SCORE = 0.6
_LEAST_SCORE_OF_CHIPS = 0.55
_LEAST_PORTRAIT = 60.0
_LEAST_STREET = 16.0


@dataclass(frozen=True, slots=True)
class Face:
    """One face of a pack.

    Attributes:
        name: the picture's name; several faces of one picture share it.
        image: (H, W, 3) uint8 BGR, the whole picture; shared.
        grey: the picture has no colours.
        five: (5, 2) float32 pixels, left to right in the picture: eyes, tip of the nose, mouth corners.
        labels: what the pack knows: age, female, race, votes, attractiveness, mask.
    """

    name: str
    image: Image
    grey: bool
    five: FloatArray
    labels: Labels = field(default_factory=dict)

    def matrix(self) -> Matrix:
        """Return the similarity that takes the picture's pixels to the crop's."""
        return similarity(self.five, TEMPLATE)


def matrix_scale(matrix: Matrix) -> float:
    """Return how many target pixels a source pixel becomes."""
    return math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))


def chain(first: Matrix, second: Matrix) -> Matrix:
    """Return the transform that does `first`, then `second`."""
    linear = second[:, :2] @ first[:, :2]
    return np.hstack([linear, (second[:, :2] @ first[:, 2] + second[:, 2])[:, None]])


def cut(image: Image, matrix: Matrix, width: int, height: int | None = None) -> Image:
    """Return the (height, width, 3) uint8 BGR part that `matrix` shows; the border repeats outside of the picture.

    As `visaged.models.surface.HostSurface.crops`, but for the border: a much larger face is averaged down first.
    """
    height = height or width
    corners = transform([[0, 0], [width, 0], [0, height], [width, height]], invert(matrix))
    edge = np.array([image.shape[1], image.shape[0]])
    low = np.clip(np.floor(corners.min(0)).astype(int) - 2, 0, edge - 2)
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 2, low + 2, edge)
    region = image[low[1] : high[1], low[0] : high[0]]
    matrix = matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ low.astype(np.float64)
    scale = matrix_scale(matrix)
    if scale < _ALIASING_SCALE:
        small = [max(1, round(side * scale * 1.5)) for side in (region.shape[1], region.shape[0])]
        ratio = np.array(small) / [region.shape[1], region.shape[0]]
        region = np.asarray(cv2.resize(region, small, interpolation=cv2.INTER_AREA), np.uint8)
        matrix[:, 2] += matrix[:, :2] @ (0.5 / ratio - 0.5)  # pixels' centres, not their corners, are whole numbers
        matrix[:, :2] /= ratio
    warped = cv2.warpAffine(region, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


_CENTRES = np.stack(np.meshgrid(np.arange(CROP), np.arange(CROP)), -1).reshape(-1, 2).astype(np.float64)


def inside(face: Face, matrix: Matrix) -> NDArray[np.uint8]:
    """Return which pixels of the crop lie in the picture: (CROP * CROP / 8,) uint8 of `numpy.packbits`."""
    at = transform(_CENTRES, invert(matrix))
    height, width = face.image.shape[:2]
    return np.packbits((at > -0.5).all(1) & (at[:, 0] < width - 0.5) & (at[:, 1] < height - 0.5))


def _rows(path: Path, key: str) -> dict[str, list[dict[str, str]]]:
    rows = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            rows[row[key]].append(row)
    return rows


def _pictures(path: Path) -> Iterator[tuple[str, Image]]:
    with tarfile.open(path) as tar:
        for member in tar:
            if not member.isfile():
                continue
            content = tar.extractfile(member)
            assert content is not None
            image = cv2.imdecode(np.frombuffer(content.read(), np.uint8), cv2.IMREAD_COLOR)
            if image is None:
                raise ValueError(f"{path}: {member.name} is not a readable picture")
            yield member.name, np.asarray(image, np.uint8)


def _five(row: dict[str, str]) -> FloatArray | None:
    if not row["x1"]:
        return None
    return np.array([float(row[c]) for c in POINT_COLUMNS], np.float32).reshape(5, 2)


class Finder(Protocol):
    """Finds the five points on chips that hold one face and come without points."""

    def __call__(self, name: str, image: Image, side: int) -> FloatArray | None:
        """Return (5, 2) points of the chip, or None; `side` is a good size to look at."""
        ...


class YuNetFinder:
    """YuNet on the chip enlarged or shrunk, with a border; the best face wins."""

    def __init__(self, model: Path) -> None:
        self._net = cv2.FaceDetectorYN.create(str(model), "", (320, 320), _LEAST_SCORE_OF_CHIPS, 0.4, 100)

    def __call__(self, name: str, image: Image, side: int) -> FloatArray | None:
        """Return the points of the best face."""
        scale, border = side / max(image.shape[:2]), side // 5
        how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)
        large = cv2.copyMakeBorder(large, border, border, border, border, cv2.BORDER_REPLICATE)
        self._net.setInputSize((large.shape[1], large.shape[0]))
        found = self._net.detect(large)[1]
        if found is None:
            return None
        five = found[found[:, 14].argmax(), 4:14].reshape(5, 2)
        return np.asarray((five - border + 0.5) / scale - 0.5, np.float32)


class KnownFinder:
    """The points that an earlier pass found."""

    def __init__(self, names: NDArray[np.str_], five: FloatArray) -> None:
        self._five = {str(name): points for name, points in zip(names, five, strict=True)}

    def __call__(self, name: str, image: Image, side: int) -> FloatArray | None:
        """Return the points by the chip's name."""
        return self._five.get(name)


def _ages(data: Path, find: Finder) -> Iterator[Face]:
    rows = _rows(data / "ages.csv", "image")
    for name, image in _pictures(data / "ages.tar"):
        row = rows[name][0]
        five = _five(row)
        if five is not None and float(row["score"]) >= _LEAST_SCORE:
            labels: Labels = {"age": float(row["age"]), "female": float(row["gender"])}
            labels["race"] = RACES[int(row["race"])]
            yield Face(name, image, False, five, labels)


def _portraits(data: Path, find: Finder) -> Iterator[Face]:
    """The largest face of each picture: it is the one that was rated."""
    rows = _rows(data / "portraits.csv", "image")
    for name, image in _pictures(data / "portraits.tar"):
        row = max(rows[name], key=lambda row: float(row["w"] or 0) * float(row["h"] or 0))
        five = _five(row)
        if five is None or float(row["score"]) < _LEAST_SCORE or float(row["w"]) < _LEAST_PORTRAIT:
            continue
        sex, race = row["label"].split("/")
        labels: Labels = {"female": float(sex == "female"), "race": race}
        labels["attractiveness"] = float(row["attractive"] or math.nan)
        yield Face(name, image, False, five, labels)


def _street_masks(data: Path, find: Finder) -> Iterator[Face]:
    """Faces that people boxed; the others carry no label."""
    masks = {"with_mask": 1.0, "without_mask": 0.0, "mask_weared_incorrect": math.nan}
    rows = _rows(data / "street_masks.csv", "image")
    for name, image in _pictures(data / "street_masks.tar"):
        for row in rows[name]:
            five = _five(row)
            if row["source"] == "human" and five is not None and float(row["w"]) >= _LEAST_STREET:
                yield Face(name, image, False, five, {"mask": masks[row["label"]]})


def _mask_crops(data: Path, find: Finder) -> Iterator[Face]:
    rows = _rows(data / "mask_crops.csv", "image")
    for name, image in _pictures(data / "mask_crops.tar"):
        five = find(name, image, 200)
        if five is not None:
            yield Face(name, image, False, five, {"mask": float(rows[name][0]["mask"])})


def _emotions(data: Path, find: Finder) -> Iterator[Face]:
    rows = _rows(data / "emotions.csv", "sheet")
    for sheet, image in _pictures(data / "emotions.tar"):
        for row in rows[sheet]:
            top, left = int(row["row"]) * _SHEET_CELL, int(row["col"]) * _SHEET_CELL
            chip = image[top : top + _SHEET_CELL, left : left + _SHEET_CELL]
            name = f"{sheet}:{row['row']}:{row['col']}"
            five = find(name, chip, 4 * _SHEET_CELL)
            if five is not None:
                votes = [float(row[v]) for v in VOTES]
                yield Face(name, chip, True, five, {"votes": votes})


PACKS: dict[str, Callable[[Path, Finder], Iterator[Face]]] = {
    "portraits": _portraits,
    "street_masks": _street_masks,
    "mask_crops": _mask_crops,
    "ages": _ages,
    "emotions": _emotions,
}
"""The packs, the quick ones first."""


def read_faces(pack: str, data: Path, find: Finder) -> Iterator[Face]:
    """Yield a pack's faces, in a fixed order.

    Args:
        pack: one of `PACKS`.
        data: the directory of `PACK.tar` and `PACK.csv`.
        find: asked for the points where the pack has none.
    """
    return PACKS[pack](data, find)
