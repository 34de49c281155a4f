"""A pool of detector canvases."""

from __future__ import annotations

import threading

from visaged.models.preprocess import Canvas
from visaged.models.types import Image


class CanvasPool:
    """Reuses detector canvases, because new memory for every frame costs page faults.

    Canvases stay black outside of the picture as long as all pictures of the pool have one shape.
    """

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._free: list[Image] = []
        self._lock = threading.Lock()

    def take(self) -> Image:
        """Return a canvas, (canvas.height, canvas.width, 3) uint8."""
        with self._lock:
            if self._free:
                return self._free.pop()
        return self._canvas.blank()

    def give(self, image: Image) -> None:
        """Take a canvas back; the caller must not use it again."""
        with self._lock:
            self._free.append(image)
