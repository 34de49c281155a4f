"""The sizes of the detector by name."""

from __future__ import annotations

from dataclasses import dataclass

STRIDES = (8, 16, 32)

OUTPUTS_PER_CELL = 15
"""Score logit, 4 distances before softplus, 5 points."""


@dataclass(frozen=True, slots=True)
class DetectorShape:
    """The shape of the network.

    Attributes:
        channels: output channels of the five stages, at strides 2, 4, 8, 16, 32.
        blocks: residual blocks of the stages at strides 8, 16, 32.
        pyramid: channels of the pyramid.
        context: blocks behind the last stage that widen its view.
    """

    channels: tuple[int, int, int, int, int] = (16, 32, 48, 64, 64)
    blocks: tuple[int, int, int] = (1, 1, 2)
    pyramid: int = 48
    context: int = 2


SHAPES = {
    "s": DetectorShape(),
    # Twice every width, so that a trained `s` can be widened into it (`widen`), and more blocks: 7.8 times the work.
    "m": DetectorShape((32, 64, 96, 128, 128), (3, 3, 4), 96, 2),
}
"""The networks that `train --shape` knows: `s` for one CPU core, `m` for a GPU."""
