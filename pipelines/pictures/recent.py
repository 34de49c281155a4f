"""Where faces were a moment ago, so that one that the detector misses in a frame is not shown."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from visaged.models.types import FloatArray
from visaged.pipelines.records import FrameResult

RECENT_S = 1.0
"""Seconds of the scene for which a face may still be where it was found."""

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
        recent = [boxes for at_s, boxes in before if 0 <= frame.motion_s - at_s <= RECENT_S]
        faces = [face.shot.box[None] for face in result.faces]
        return np.concatenate([np.empty((0, 4), np.float32), result.found, *faces, *recent])

    def forget(self, camera: str) -> None:
        """Forget a camera that was removed."""
        with self._lock:
            self._found.pop(camera, None)
