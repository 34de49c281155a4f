"""Faces cut out upright: a similarity transform takes the five points onto a template."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from visaged.models.types import FloatArray, Image

Matrix = NDArray[np.float64]
"""A (2, 3) affine transform of column vectors (x, y, 1)."""


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
        (a, b, x), (c, d, y) = matrix.tolist()
        # Plain bilinear sampling skips pixels below half the size, so the picture is averaged down first: by a whole
        # number, which OpenCV does several times as fast as by others.
        factor = max(1, int(1.0 / math.sqrt(abs(a * d - b * c))))
        (p, q, left), (r, s, top) = invert(matrix).tolist()
        # A border of two pixels, so that interpolation sees the same neighbours as in the whole picture.
        horizontal = _span(left, p * size, q * size, 2 * factor, factor, pixels.width)
        vertical = _span(top, r * size, s * size, 2 * factor, factor, pixels.height)
        if horizontal is None or vertical is None:
            return np.zeros((size, size, 3), np.uint8)
        region = pixels.region(horizontal[0], vertical[0], horizontal[1], vertical[1])
        x, y = x + a * horizontal[0] + b * vertical[0], y + c * horizontal[0] + d * vertical[0]
        if factor > 1:
            small = region.shape[1] // factor, region.shape[0] // factor
            whole = region[: small[1] * factor, : small[0] * factor]
            region = cv2.resize(whole, small, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
            half = (factor - 1) / 2  # pixels' centres, not their corners, are whole numbers
            x, y = x + (a + b) * half, y + (c + d) * half
        inside = np.array([[a * factor, b * factor, x], [c * factor, d * factor, y]])
        return cv2.warpAffine(  # type: ignore[return-value]
            region, inside, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
        )


def _span(start: float, one: float, other: float, border: int, factor: int, edge: int) -> tuple[int, int] | None:
    """Return from where to where a crop reaches along one axis of the picture, in whole multiples of `factor`.

    Args:
        start: Where the crop's first corner lies.
        one: Distance from the first corner to the next one.
        other: Distance from the first corner to the last one.
        border: Pixels beside the crop that are needed too.
        factor: The length becomes a multiple of this, so that nothing is lost at an edge of the picture, unless the
            crop reaches both edges.
        edge: Pixels of the picture along this axis.
    """
    ends = (start, start + one, start + other, start + one + other)
    low, high = max(math.floor(min(ends)) - border, 0), min(math.ceil(max(ends)) + border, edge)
    high = min(high + (low - high) % factor, edge)
    low = max(low - (low - high) % factor, 0)
    return None if high - low < 2 * factor else (low, high)
