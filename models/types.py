"""The values that networks produce, as plain numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Image = NDArray[np.uint8]
"""A picture: (H, W, 3) uint8 BGR unless a docstring says otherwise."""


@dataclass(frozen=True, slots=True)
class Detections:
    """Faces found in one picture, in that picture's pixels, best first.

    Attributes:
        boxes: (N, 4) float32, left, top, right, bottom.
        confidences: (N,) float32, 0..1.
        landmarks: (N, 5, 2) float32, x and y of right eye, left eye, nose, right and left mouth corner of the person
            (left to right in the picture).
    """

    boxes: FloatArray
    confidences: FloatArray
    landmarks: FloatArray

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.confidences)

    def __getitem__(self, index: Any) -> Detections:
        """Return the faces that a numpy mask, slice or index array picks."""
        return Detections(self.boxes[index], self.confidences[index], self.landmarks[index])

    @classmethod
    def empty(cls) -> Detections:
        """Return no faces."""
        return cls(
            np.zeros((0, 4), np.float32),
            np.zeros((0,), np.float32),
            np.zeros((0, 5, 2), np.float32),
        )
