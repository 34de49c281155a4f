"""How much of a camera's stream is wanted: said by what watches over the whole machine, read by the camera's thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Decode = Literal["all", "key_frames", "none"]


@dataclass(frozen=True, slots=True)
class Demand:
    """What is wanted of a camera's stream now; replaced as a whole.

    Only live sources are reduced to key frames; recordings are analysed whole.

    Attributes:
        decode: Which pictures are decoded; none while a thread that is far behind catches up.
        fps: Frames a second to analyse on average, where that is less than configured; None for as many as configured.
            Where a hardware decoder decodes, they are spread evenly; elsewhere see `source.times.thinning`.
    """

    decode: Decode = "all"
    fps: float | None = None

    def capped(self, fps: float | None) -> float | None:
        """Return the rate to analyse at, of a camera that is configured for `fps` frames a second (None: every one)."""
        if fps is None or self.fps is None:
            return self.fps if fps is None else fps
        return min(fps, self.fps)

    def share(self, fps: float | None) -> float:
        """Return the part, 0..1, that is wanted of the frames of a camera configured for `fps` (None: every one)."""
        return 1.0 if self.fps is None else min(1.0, self.fps / (fps or EVERY_FPS))


EVERY_FPS = 25.0
"""What stands for every frame, in frames a second."""

FULL = Demand()
"""All that is configured."""
