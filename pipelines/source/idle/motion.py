"""Whether something moved between two key frames: block by block, on the detector's canvas.

The mean of a block of 8 x 8 pixels, each of which is the mean of several of the camera's, has nearly none of a sensor's
noise. What is left differs from block to block (a tree, a screen), and is learned while nothing is found. A change of
the light on the whole picture is taken out first.
"""

from __future__ import annotations

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
# Blocks beside each other (of 9) in which there must be motion; what is smaller than that is no person.
_LEAST_MOVED, _LEAST_SOME = 3, 2


class Blocks:
    """Compares the key frames of one camera, in order."""

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None
        self._searched: NDArray[np.float32] | None = None
        self._usual: NDArray[np.float32] | None = None

    def forget(self) -> None:
        """Forget the pictures, but not what usually moves."""
        self._last = self._searched = None

    def compare(self, picture: Image) -> Motion:
        """Return whether something moved.

        Args:
            picture: (H, W, 3) uint8 BGR, as large as the others.

        Returns:
            `moved` since the last key frame; `still` where nothing differs from the last one that was `searched`.
        """
        height, width = picture.shape[:2]
        size = max(1, width // _BLOCK), max(1, height // _BLOCK)
        means = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).mean(axis=2).astype(np.float32)
        last, self._last = self._last, means
        if last is None or last.shape != means.shape:
            self._searched = None
            return "some"
        usual = self._usual
        if usual is None or usual.shape != means.shape:
            usual = self._usual = np.full(means.shape, _USUAL, np.float32)
        difference = _difference(means, last)
        if _together(difference > _MOVED + _MOVED_TIMES * usual, _LEAST_MOVED):
            return "moved"
        usual += _LEARN * (difference - usual)
        if self._searched is None:
            return "some"
        limit = _STILL + _STILL_TIMES * usual
        return "some" if _together(_difference(means, self._searched) > limit, _LEAST_SOME) else "still"

    def searched(self, found: bool = False) -> None:
        """Note that the detector was given the newest picture, or that it never came to that."""
        self._searched = None if found else self._last


def _difference(now: NDArray[np.float32], before: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how much each block differs, without what changed all over the picture."""
    plain = np.abs(now - before)
    low_now, middle_now, high_now = np.percentile(now, (20, 50, 80))
    low, middle, high = np.percentile(before, (20, 50, 80))
    gain = (high_now - low_now) / (high - low) if high - low > 8 else 1.0
    lit = np.abs(now - middle_now - min(2.0, max(0.5, gain)) * (before - middle))
    return np.asarray(lit if np.median(lit) < np.median(plain) else plain, np.float32)


def _together(mask: NDArray[np.bool_], least: int) -> bool:
    """Return whether some 3 x 3 blocks have so many in the mask."""
    if not mask.any():
        return False
    return bool(cv2.boxFilter(mask.astype(np.float32), -1, (3, 3), normalize=False).max() >= least - 0.5)
