"""Comparing the points with those that people set on `points68`, which no teacher of this project labelled."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from visaged.models.alignment import similarity, transform
from visaged.models.training.analyzer.heads import SIZE
from visaged.models.training.analyzer.labelling.crops import FIVE
from visaged.models.training.common.packs import read_pack

FloatArray = NDArray[np.float32]

SAME_PLACE = {16: 8, 46: 30, 47: 31, 51: 35, 52: 36, 55: 39, 58: 42, 61: 45, 84: 48, 90: 54}
"""Points of the 106 that mean the same as one of the 68: chin, tip and wings of the nose, corners of eyes and mouth."""

_FIVE = (range(36, 42), range(42, 48), (30,), (48,), (54,))


def read_points68(directory: Path) -> tuple[NDArray[np.uint8], FloatArray]:
    """Return aligned crops (N, 112, 112, 3) uint8 BGR and the 68 points (N, 68, 2) in their pixels."""
    columns = [f"{axis}{i + 1}" for i in range(68) for axis in "xy"]
    with (directory / "points68.csv").open(newline="") as file:
        truth = {
            row["image"]: np.array([float(row[c]) for c in columns], np.float32).reshape(68, 2)
            for row in csv.DictReader(file)
        }
    crops, points = [], []
    for packed in read_pack(directory, "points68"):
        all_points, image = truth[packed.name], packed.decode()
        five = np.stack([all_points[list(group)].mean(0) for group in _FIVE])
        matrix = similarity(five, FIVE)
        scale = float(np.sqrt(np.linalg.det(matrix[:, :2])))
        if scale < 0.6:  # as the product does: a much larger face is averaged down first
            image = np.asarray(cv2.resize(image, None, fx=1.5 * scale, fy=1.5 * scale, interpolation=cv2.INTER_AREA))
            matrix[:, 2] += matrix[:, :2] @ np.full(2, 0.5 / (1.5 * scale) - 0.5)
            matrix[:, :2] /= 1.5 * scale
        crops.append(np.asarray(cv2.warpAffine(image, matrix, (SIZE, SIZE)), np.uint8))
        points.append(transform(all_points, similarity(five, FIVE)))
    return np.stack(crops), np.stack(points)


def point_error(found: FloatArray, truth: FloatArray) -> float:
    """Return the mean distance of the shared points in percent of the distance of the outer eye corners.

    Args:
        found: (N, 106, 2).
        truth: (N, 68, 2).
    """
    distance = np.linalg.norm(found[:, list(SAME_PLACE)] - truth[:, list(SAME_PLACE.values())], axis=2).mean(1)
    return 100 * float((distance / np.linalg.norm(truth[:, 45] - truth[:, 36], axis=1)).mean())
