"""Faces cut out upright: a similarity transform takes the five points onto a template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from visaged.models.types import FloatArray, Image

Matrix = NDArray[np.float64]
"""A (2, 3) affine transform of column vectors (x, y, 1)."""

# Below this scale plain bilinear sampling skips pixels; the picture is averaged down to 1.5 x the crop's scale first.
_ALIASING_SCALE = 0.6


class Pixels(Protocol):
    """A picture whose pixels are converted only where they are asked for."""

    @property
    def width(self) -> int:
        """Pixels across."""
        ...

    @property
    def height(self) -> int:
        """Pixels down."""
        ...

    def region(self, left: int, top: int, right: int, bottom: int) -> Image:
        """Return the (bottom - top, right - left, 3) uint8 BGR pixels of a region that lies inside the picture."""
        ...


class ImagePixels:
    """A picture that is already an (H, W, 3) uint8 BGR array."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.height, self.width = image.shape[:2]

    def region(self, left: int, top: int, right: int, bottom: int) -> Image:
        """Return the pixels of a region, without copying."""
        return self._image[top:bottom, left:right]


def similarity(points: ArrayLike, template: ArrayLike) -> Matrix:
    """Return the least-squares similarity (rotation, one scale, shift; no mirror) that takes points onto a template.

    Closed form in two dimensions of Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", IEEE PAMI 1991.

    Args:
        points: (N, 2) pixels of the picture.
        template: (N, 2) pixels of the crop.
    """
    source, target = np.asarray(points, np.float64), np.asarray(template, np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    a, b = source - source_mean, target - target_mean
    spread = max((a * a).sum(), 1e-9)
    cosine = (a * b).sum() / spread
    sine = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / spread
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    return np.hstack([rotation, (target_mean - rotation @ source_mean)[:, None]])


def invert(matrix: Matrix) -> Matrix:
    """Return the transform that undoes another."""
    inverse = np.linalg.inv(matrix[:, :2])
    return np.hstack([inverse, -inverse @ matrix[:, 2:]])


def transform(points: ArrayLike, matrix: Matrix) -> FloatArray:
    """Return (..., 2) points moved by a transform, float32."""
    moved = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return moved.astype(np.float32)


class Aligner:
    """Cuts crops of one size by one template.

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

    def crop(self, pixels: Pixels, matrix: Matrix) -> Image:
        """Return the (size, size, 3) uint8 BGR crop; what lies outside of the picture is black."""
        size = self.size
        corners = transform([[0, 0], [size, 0], [0, size], [size, size]], invert(matrix))
        # A border of two pixels, so that interpolation sees the same neighbours as in the whole picture.
        left, top = np.maximum(np.floor(corners.min(0)).astype(int) - 2, 0)
        right, bottom = np.minimum(np.ceil(corners.max(0)).astype(int) + 2, [pixels.width, pixels.height])
        if right - left < 2 or bottom - top < 2:
            return np.zeros((size, size, 3), np.uint8)
        region = pixels.region(int(left), int(top), int(right), int(bottom))
        matrix = matrix.copy()
        matrix[:, 2] += matrix[:, :2] @ np.array([left, top], np.float64)
        scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        if scale < _ALIASING_SCALE:
            height, width = region.shape[:2]
            small = max(1, round(width * scale * 1.5)), max(1, round(height * scale * 1.5))
            region = cv2.resize(region, small, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
            ratio = np.array(small) / [width, height]
            matrix[:, 2] += matrix[:, :2] @ (0.5 / ratio - 0.5)  # pixels' centres, not their corners, are whole numbers
            matrix[:, :2] /= ratio
        return cv2.warpAffine(  # type: ignore[return-value]
            region, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
        )
