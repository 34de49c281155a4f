"""Which rows or columns of a plane those of a smaller one are made of, and with which weights.

They describe along one axis what `cv2.resize` does along both: averaging (`INTER_AREA`) to half the length, and linear
interpolation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Taps:
    """What the places of one axis are made of.

    Attributes:
        places: (length, T) int32, places on the other axis.
        weights: (length, T) float32; each row's sum is 1.
    """

    places: NDArray[np.int32]
    weights: NDArray[np.float32]

    def of(self, other: Taps) -> Taps:
        """Return what the places are made of, where those that they are made of are made by `other`."""
        length = len(self.places)
        weights = self.weights[:, :, None] * other.weights[self.places]
        return Taps(other.places[self.places].reshape(length, -1), weights.reshape(length, -1))

    def repeated(self, times: int) -> Taps:
        """Return every place so many times, one after another."""
        return Taps(self.places.repeat(times, 0), self.weights.repeat(times, 0))


def linear(length: int, wanted: int) -> Taps:
    """Return linear interpolation from `length` places to `wanted`, between the places' centres."""
    at = ((np.arange(wanted) + 0.5) * (length / wanted) - 0.5).astype(np.float32)  # OpenCV's precision
    first = np.floor(at)
    part, first = at - first, first.astype(np.int32)
    places = np.clip(np.stack([first, first + 1], 1), 0, length - 1).astype(np.int32)
    return Taps(places, np.stack([1 - part, part], 1))


def averaged(length: int, wanted: int) -> Taps:
    """Return averages of what lies within each of `wanted` equal parts of `length` places."""
    edges = np.arange(wanted + 1) * (length / wanted)
    reach = int(np.ceil(length / wanted)) + (length % wanted > 0)
    places = np.floor(edges[:-1, None]).astype(np.int64) + np.arange(reach)
    shared = np.minimum(edges[1:, None], places + 1) - np.maximum(edges[:-1, None], places)
    weights = np.clip(shared, 0, None) * (wanted / length)
    return Taps(np.minimum(places, length - 1).astype(np.int32), weights.astype(np.float32))


def halved_and_linear(length: int, wanted: int) -> Taps:
    """Return halving by averaging until the length is less than twice the one wanted, and then interpolation."""
    halves = Taps(np.arange(length, dtype=np.int32)[:, None], np.ones((length, 1), np.float32))
    while length >= 2 * wanted:
        halves, length = averaged(length, length // 2).of(halves), length // 2
    return linear(length, wanted).of(halves)
