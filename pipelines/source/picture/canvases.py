"""Canvases for the detector that are used again."""

from __future__ import annotations

import threading

from visaged.models.preprocess import Canvas
from visaged.models.types import Image


class CanvasPool:
    """Detector canvases used again and again: fresh megabytes for every frame cost page faults.

    Canvases come back black outside of the picture as long as all pictures of the pool have one shape.
    """

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._free: list[Image] = []
        self._lock = threading.Lock()

    def take(self) -> Image:
        """Return a canvas, (H, W, 3) uint8."""
        with self._lock:
            if self._free:
                return self._free.pop()
        return self._canvas.blank()

    def give(self, image: Image) -> None:
        """Take a canvas back; the caller must not use it again."""
        with self._lock:
            self._free.append(image)
