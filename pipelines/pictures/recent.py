"""Where faces were a moment ago, so that one that the detector misses in a frame is not shown."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from visaged.models.types import FloatArray
from visaged.pipelines.records import FrameResult

RECENT_S = 1.0
"""Seconds of the scene for which a face may still be where it was found."""

# What lies within a box and this share of its size around it is blurred with it (`blur_faces` reaches twice as far).
_MARGIN = 0.125

# Of frames that a camera of 240 fps takes in that time.
_MOST_FRAMES = 256


class RecentFaces:
    """Remembers for every camera where faces were found within the last second.

    Any thread may call any method.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, deque[tuple[float, FloatArray]]] = {}

    def note(self, result: FrameResult) -> None:
        """Note the faces of a frame. Frames of one camera must come in their order."""
        frame = result.frame
        with self._lock:
            found = self._found.setdefault(frame.camera, deque(maxlen=_MOST_FRAMES))
            while found and not 0 <= frame.motion_s - found[0][0] <= RECENT_S:
                found.popleft()
            found.append((frame.motion_s, result.found))

    def boxes(self, result: FrameResult) -> FloatArray:
        """Return (N, 4) boxes, in square pixels of the upright frame, of faces in it and in those just before it."""
        frame = result.frame
        with self._lock:
            before = list(self._found.get(frame.camera, ()))
        boxes = result.found
        for face in result.faces:
            boxes = _joined(boxes, face.shot.box[None])
        for at_s, found in reversed(before):
            if 0 <= frame.motion_s - at_s <= RECENT_S:
                boxes = _joined(boxes, found)
        return boxes

    def forget(self, camera: str) -> None:
        """Forget a camera that was removed."""
        with self._lock:
            self._found.pop(camera, None)


def _joined(boxes: FloatArray, more: FloatArray) -> FloatArray:
    """Return boxes with those of `more` that add something: a face at rest is not to be blurred for every frame."""
    margin = _MARGIN * (boxes[:, 2:] - boxes[:, :2])
    low, high = boxes[:, :2] - margin, boxes[:, 2:] + margin
    inside = np.all((low <= more[:, None, :2]) & (more[:, None, 2:] <= high), axis=2)
    return np.concatenate([boxes, more[~inside.any(axis=1)]])
