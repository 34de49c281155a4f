"""The sizes of the detector by name, and the work that each is."""

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


def multiply_adds(config: DetectorShape, height: int, width: int) -> int:
    """Return the multiplications of all convolutions for a picture of height x width pixels, multiples of 32."""

    def smoothing(channels: int) -> int:
        return 25 * channels + channels**2

    c1, c2, *deep = config.channels
    total = 9 * 3 * c1 * (height // 2) * (width // 2) + 9 * c1 * c2 * (height // 4) * (width // 4)
    before = c2
    for channels, blocks, stride in zip(deep, config.blocks, STRIDES, strict=True):
        cell = 9 * before * channels + blocks * 2 * 9 * channels**2
        cell += channels * config.pyramid + 2 * smoothing(config.pyramid) + OUTPUTS_PER_CELL * config.pyramid
        if stride == STRIDES[-1]:
            cell += config.context * smoothing(channels)
        total += cell * (height // stride) * (width // stride)
        before = channels
    return total
