"""Whether something moved between two key frames: block by block, on the detector's canvas.

The mean of a block of 8 x 8 pixels, each of which is the mean of several of the camera's, has nearly none of a sensor's
noise. What is left differs from block to block (a tree, a screen), and is learned while nothing is found. A change of
the light on the whole picture is taken out first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from visaged.models.types import Image

Motion = Literal["still", "some", "moved"]

_BLOCK = 8
# Differences of a block's mean, of 256 levels: what counts as motion, and below what a block counts as still. To each
# is added a multiple of what is usual there.
_MOVED, _MOVED_TIMES = 6.0, 4.0
_STILL, _STILL_TIMES = 1.5, 2.0
_USUAL = 0.5
_LEARN = 0.1
# Levels between the dark and the light parts of a picture from which its contrast can be compared.
_LEAST_SPREAD = 8.0
# Blocks beside each other (of 9) in which there must be motion; what is smaller than that is no person.
_LEAST_MOVED, _LEAST_SOME = 3, 2


@dataclass(frozen=True, slots=True)
class _Grid:
    """The blocks of a picture.

    Attributes:
        means: (rows, columns) float32.
        middle: Their median.
        spread: From the 20th to the 80th percentile.
    """

    means: NDArray[np.float32]
    middle: float
    spread: float

    @classmethod
    def of(cls, picture: Image) -> _Grid:
        height, width = picture.shape[:2]
        size = max(1, width // _BLOCK), max(1, height // _BLOCK)
        means = cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
        low, middle, high = np.percentile(means, (20, 50, 80))
        return cls(means.astype(np.float32), float(middle), float(high - low))

    def difference(self, before: _Grid) -> NDArray[np.float32]:
        """Return how much each block differs, without what changed all over the picture."""
        plain = cv2.absdiff(self.means, before.means)
        gain = min(2.0, max(0.5, self.spread / before.spread)) if before.spread > _LEAST_SPREAD else 1.0
        if abs(self.middle - before.middle) < 1 and abs(gain - 1) < 0.02:
            return np.asarray(plain, np.float32)
        lit = cv2.absdiff(self.means, gain * (before.means - before.middle) + self.middle)
        return np.asarray(lit if np.median(lit) < np.median(plain) else plain, np.float32)


class Blocks:
    """Compares the key frames of one camera, in order."""

    def __init__(self) -> None:
        self._last: _Grid | None = None
        self._searched: _Grid | None = None
        self._usual: NDArray[np.float32] | None = None
        self._moved: NDArray[np.float32] | None = None

    def forget(self) -> None:
        """Forget the pictures, but not what usually moves."""
        self._last = self._searched = None

    def was_nothing(self) -> None:
        """Learn from the motion that was seen last, after which nothing was found."""
        if self._moved is not None and self._usual is not None and self._moved.shape == self._usual.shape:
            self._usual += _LEARN * (self._moved - self._usual)
        self._moved = None

    def compare(self, picture: Image) -> Motion:
        """Return whether something moved.

        Args:
            picture: (H, W, 3) uint8 BGR, as large as the others.

        Returns:
            `moved` since the last key frame; `still` where nothing differs from the last one that was `searched`.
        """
        grid = _Grid.of(picture)
        last, self._last = self._last, grid
        if last is None or last.means.shape != grid.means.shape:
            self._searched = None
            return "some"
        usual = self._usual
        if usual is None or usual.shape != grid.means.shape:
            usual = self._usual = np.full(grid.means.shape, _USUAL, np.float32)
        difference = grid.difference(last)
        if _together(difference > _MOVED + _MOVED_TIMES * usual, _LEAST_MOVED):
            self._moved = difference
            return "moved"
        usual += _LEARN * (difference - usual)
        if self._searched is None:
            return "some"
        limit = _STILL + _STILL_TIMES * usual
        return "some" if _together(grid.difference(self._searched) > limit, _LEAST_SOME) else "still"

    def searched(self) -> None:
        """Note that the detector is given the newest picture."""
        self._searched = self._last

    def not_searched(self) -> None:
        """Note that it never came to that."""
        self._searched = None


def _together(mask: NDArray[np.bool_], least: int) -> bool:
    """Return whether some 3 x 3 blocks have so many in the mask."""
    if not mask.any():
        return False
    return bool(cv2.boxFilter(mask.astype(np.float32), -1, (3, 3), normalize=False).max() >= least - 0.5)
