"""What the networks find in a camera's frames, as far as it concerns how its stream is read.

Inference workers write it, and the thread that reads the camera asks: whether it may rest, or has to look closely.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from visaged.models.types import Detections, FloatArray
from visaged.pipelines.records import Answer

# Overlap (IoU) from which two boxes are taken for the same thing.
_SAME = 0.4
# How often something is found at a place, without a face that is followed there, until it is known there.
_KNOWN_AFTER = 3
_MOST_KNOWN = 64


@dataclass(slots=True)
class _Place:
    box: FloatArray
    times: int


class Attention:
    """What was found in one camera's frames. Any thread may call any method.

    Things that look somewhat like a face, such as a pattern on a wall, are found at the same place over and over. While
    all frames are analysed, they are learned, and are no news any more.

    Args:
        sure: Confidence from which a detection is a face wherever it is, 0..1: the least with which tracks begin. What
            is found at a known place with less would wake the camera for ever, and never be tracked.
        clock: Returns monotonic seconds.

    Attributes:
        present: Number of tracks after the newest frame.
        news_s: When there was a track, or something was found that was not known, monotonic seconds.
    """

    def __init__(self, sure: float = 0.5, clock: Callable[[], float] = time.monotonic) -> None:
        self._sure = sure
        self._clock = clock
        self._lock = threading.Lock()
        self._places: list[_Place] = []
        self.present = 0
        self.news_s = -math.inf

    def note(self, found: FloatArray, present: int) -> None:
        """Note what was found in a frame that was tracked.

        Args:
            found: (N, 4) float32, the boxes of all detections.
            present: Number of tracks after it.
        """
        self.present = present
        if present:
            self.news_s = self._clock()
        elif len(found):
            with self._lock:
                are_known = [self._learn(box) for box in found]
                if not all(are_known):
                    self.news_s = self._clock()

    def judge(self, found: Detections) -> Answer:
        """Return what the detections in a frame that is not tracked mean: a face, perhaps one, or nothing new."""
        if np.any(found.confidences >= self._sure):
            return "face"
        with self._lock:
            known = [place.box for place in self._places if place.times >= _KNOWN_AFTER]
        return "nothing" if all(_overlap(box, known) for box in found.boxes) else "doubtful"

    def _learn(self, box: FloatArray) -> bool:
        """Return whether something is known to be found there."""
        for place in self._places:
            if _overlap(box, [place.box]):
                place.box, place.times = box, place.times + 1
                return place.times > _KNOWN_AFTER
        self._places = [*self._places[1 - _MOST_KNOWN :], _Place(box, 1)]
        return False


def _overlap(box: FloatArray, others: list[FloatArray]) -> bool:
    """Return whether a box overlaps with one of the others so much that it is the same thing."""
    for other in others:
        low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
        shared = float(np.prod(np.maximum(0.0, high - low)))
        union = float(np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2])) - shared
        if shared > _SAME * union:
            return True
    return False
