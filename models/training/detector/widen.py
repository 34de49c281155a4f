"""Starting a network of twice the width from a trained one: it computes the same, and then has room to learn more.

Every channel is there twice, and what a convolution takes from a channel is split at random between its two copies
(after Net2Net, Chen and others, 2016): the function is the same, but the copies get different gradients and part ways.
Residual blocks that the smaller network lacks start as identities.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visaged.models.training.detector.network import Detector
from visaged.models.training.detector.shapes import DetectorShape

LEAST_SHARE = 0.2
"""The smaller copy's share in what a convolution takes from a channel is drawn from here up."""


def widened(model: Detector, config: DetectorShape, seed: int = 1) -> Detector:
    """Build a network that is twice as wide as a trained one and says the same.

    Args:
        model: the trained network.
        config: the shape to build: twice the channels everywhere, as many blocks or more.
        seed: seed of the random split.

    Raises:
        ValueError: the shape is another.
    """
    small = model.config
    twice = (*(2 * c for c in small.channels), 2 * small.pyramid)
    if (*config.channels, config.pyramid) != twice or any(
        after < before
        for before, after in zip((*small.blocks, small.context), (*config.blocks, config.context), strict=True)
    ):
        raise ValueError(f"{small} cannot be widened to {config}: it takes twice the channels and no fewer blocks")
    torch.manual_seed(seed)
    wide = Detector(config)
    state, chance = wide.state_dict(), torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        state[name] = _doubled(value, state[name].shape, chance)
    wide.load_state_dict(state)
    return wide


def _doubled(value: Tensor, shape: torch.Size, chance: torch.Generator) -> Tensor:
    """Repeat a parameter's outputs, and split its inputs between their copies."""
    if value.ndim and shape[0] == 2 * value.shape[0]:
        value = torch.cat([value, value])
    if value.ndim > 1 and shape[1] == 2 * value.shape[1]:
        share = LEAST_SHARE + (1 - 2 * LEAST_SHARE) * torch.rand(value.shape, generator=chance)
        value = torch.cat([value * share, value * (1 - share)], 1)
    return value
