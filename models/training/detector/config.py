"""How a run of the detector learns."""

from __future__ import annotations

from dataclasses import dataclass

from visaged.models.training.common.schedule import TrainConfig

LARGE_SIDES = 2
"""A step of large samples has them this many times as long and wide, and as many fewer as have the same pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorTrainConfig(TrainConfig):
    """How a run learns; the checkpoint carries it.

    Attributes:
        side: edge of a sample in pixels, a multiple of 32.
        large_every: one step in so many has large samples; 0 for none.
    """

    side: int
    large_every: int = 4

    def is_large(self, step: int) -> bool:
        """Return whether a step has large samples, the same in all processes."""
        return self.large_every > 0 and step % self.large_every == self.large_every - 1

    def batch_shape(self, large: bool) -> tuple[int, int]:
        """Return the number of samples of a step and their side in pixels."""
        if large:
            return max(1, self.batch // LARGE_SIDES**2), self.side * LARGE_SIDES
        return self.batch, self.side
