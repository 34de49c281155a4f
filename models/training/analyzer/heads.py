"""What the network is asked and in which units: known to training, evaluation and export alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZE = 112
"""Edge of the network's input in pixels."""

EMOTIONS = ("angry", "calm", "disgusted", "happy", "sad", "scared", "surprised")
GLASSES = ("none", "glasses", "sunglasses")
AGES = 101
"""The age head spreads a probability over 0..100 years."""
POINTS = 106

MIRROR_106: NDArray[np.intp] = np.array(
    [
        *(*range(32, -1, -1), *range(42, 32, -1), 43, 44, 45, 46, *range(51, 46, -1), 61, 60, 59, 58, 63, 62),
        *(55, 54, 53, 52, 57, 56, *range(71, 63, -1), 75, 76, 77, 72, 73, 74, 79, 78, 81, 80, 83, 82),
        *(*range(90, 83, -1), *range(95, 90, -1), 100, 99, 98, 97, 96, 103, 102, 101, 105, 104),
    ],
    np.intp,
)
"""Point i of a mirrored face is point MIRROR_106[i] of the face."""

HEADS = {
    "age": AGES,
    "female": 1,
    "emotion": len(EMOTIONS),
    "mask": 1,
    "glasses": len(GLASSES),
    "beard": 1,
    "hat": 1,
    "eyes": 2,
    "pose": 3,
    "attractiveness": 1,
    "quality": 1,
    "blur": 1,
}
"""Outputs of each head. `eyes`: the person's right, left eye open; `pose`: yaw, pitch, roll in units of POSE_UNIT."""
POSE_UNIT = 20.0

QUALITY_SIZES = (112, 64, 40, 28, 20)
"""Edges in pixels to which a crop is shrunk before its quality is judged."""
