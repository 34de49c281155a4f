"""Where faces are cut out upright: a similarity transform takes the five points onto a template."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visaged.models.types import FloatArray

Matrix = NDArray[np.float64]
"""A (2, 3) affine transform of column vectors (x, y, 1)."""


def similarity(points: ArrayLike, template: ArrayLike) -> Matrix:
    """Return the least-squares similarity (rotation, one scale, shift; no mirror) that takes points onto a template.

    Closed form in two dimensions of Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", IEEE PAMI 1991.

    Args:
        points: (N, 2) pixels of the picture.
        template: (N, 2) pixels of the crop.
    """
    # In plain complex numbers: numpy takes three times as long for so few points, twice for every face.
    source = [complex(x, y) for x, y in np.asarray(points, np.float64).tolist()]
    target = [complex(x, y) for x, y in np.asarray(template, np.float64).tolist()]
    source_mean, target_mean = sum(source) / len(source), sum(target) / len(target)
    spread, product = 0.0, 0j
    for a, b in zip(source, target, strict=True):
        from_mean = (a - source_mean).conjugate()
        spread += abs(from_mean) ** 2
        product += from_mean * (b - target_mean)
    turn = product / max(spread, 1e-9) or 1e-6 + 0j  # all points in one place: some transform that can be undone
    shift = target_mean - turn * source_mean
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def invert(matrix: Matrix) -> Matrix:
    """Return the transform that undoes another."""
    # In plain numbers: numpy's way to a 2 x 2 inverse takes ten times as long, for every face.
    (a, b, x), (c, d, y) = matrix.tolist()
    determinant = a * d - b * c
    a, b, c, d = d / determinant, -b / determinant, -c / determinant, a / determinant
    return np.array([[a, b, -a * x - b * y], [c, d, -c * x - d * y]])


def transform(points: ArrayLike, matrix: Matrix) -> FloatArray:
    """Return (..., 2) points moved by a transform, float32."""
    moved = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return moved.astype(np.float32)


class Aligner:
    """Says where crops of one size lie, by one template.

    Args:
        template: Where the five points go, in crop pixels.
        size: Side of the crop in pixels.
    """

    def __init__(self, template: Sequence[tuple[float, float]], size: int) -> None:
        self._template = np.array(template, np.float64)
        self.size = size

    def matrix(self, landmarks: ArrayLike) -> Matrix:
        """Return the transform from the picture to the crop for (5, 2) landmarks."""
        return similarity(landmarks, self._template)
