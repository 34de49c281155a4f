"""The detector: a plain residual trunk, a top-down pyramid, one small head per stride.

Sized for one CPU core under ONNX Runtime: full 3x3 convolutions with channel counts that are multiples of 16 run at the
vector units' speed there, while depthwise ones are bound by memory; so the trunk is plain and only the pyramid's
smoothing is depthwise. A second residual block at stride 32 sees few cells and costs little. Two dilated blocks behind
it widen the view from 415 to 927 pixels, more than a canvas: without them a face over some 350 pixels was not found.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.nn.functional as F  # noqa: N812 (the name everybody reads)
from torch import Tensor, nn

from visaged.models.training.common.pixels import MEAN, SCALE
from visaged.models.training.common.running import load_network
from visaged.models.training.detector.shapes import OUTPUTS_PER_CELL, STRIDES, DetectorShape


def convolution(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    relu: bool = True,
) -> nn.Sequential:
    """Build convolution, batch normalisation and, unless `relu` is false, ReLU."""
    padding = kernel // 2 * dilation
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """Two convolutions beside the identity: 3x3 both, or for context a wide depthwise and a pointwise one."""

    def __init__(self, channels: int, *, context: bool = False) -> None:
        """Build the block; it starts as the identity, so that blocks can be added to a trained network.

        Args:
            channels: channels of the input and of the output.
            context: 5x5 depthwise with a dilation of 2: at stride 32 it sees 128 pixels more on each side, which
                a face that fills the picture needs, and costs next to nothing on so few cells.
        """
        super().__init__()
        if context:
            self.first = convolution(channels, channels, 5, dilation=2, groups=channels)
            self.second = convolution(channels, channels, 1, relu=False)
        else:
            self.first = convolution(channels, channels)
            self.second = convolution(channels, channels, relu=False)
        normalisation = self.second[1]
        assert isinstance(normalisation, nn.BatchNorm2d)
        nn.init.zeros_(normalisation.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return F.relu(x + self.second(self.first(x)))


def smoothing(channels: int) -> nn.Sequential:
    """Build a depthwise 5x5 and a pointwise convolution: a wide view for few operations."""
    return nn.Sequential(convolution(channels, channels, 5, groups=channels), convolution(channels, channels, 1))


def last_layer(channels: int) -> nn.Conv2d:
    """Build a head's pointwise convolution, which at first gives every cell a score of 0.01: few hold a face."""
    layer = nn.Conv2d(channels, OUTPUTS_PER_CELL, 1)
    assert layer.bias is not None
    nn.init.normal_(layer.weight, 0, 0.01)
    nn.init.zeros_(layer.bias)
    nn.init.constant_(layer.bias[:1], -4.6)
    return layer


class Detector(nn.Module):
    """(B, 3, H, W) BGR 0..255 to raw maps (B, 15, H/s, W/s) for s = 8, 16, 32; H and W are multiples of 32."""

    def __init__(self, config: DetectorShape) -> None:
        """Build the network with fresh weights."""
        super().__init__()
        self.config = config
        c1, c2, c3, c4, c5 = config.channels
        self.stem = nn.Sequential(convolution(3, c1, stride=2), convolution(c1, c2, stride=2))
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(before, after, stride=2), *(Residual(after) for _ in range(blocks)))
            for before, after, blocks in zip((c2, c3, c4), (c3, c4, c5), config.blocks, strict=True)
        )
        self.context = nn.Sequential(*(Residual(c5, context=True) for _ in range(config.context)))
        width = config.pyramid
        self.lateral = nn.ModuleList(convolution(c, width, 1) for c in (c3, c4, c5))
        self.smooth = nn.ModuleList(smoothing(width) for _ in STRIDES)
        self.head = nn.ModuleList(nn.Sequential(smoothing(width), last_layer(width)) for _ in STRIDES)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map pixels 0..255 to the raw maps."""
        return self.maps((image - MEAN) * SCALE)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Map normalised pixels to the raw maps; export begins here."""
        x = self.stem(x)  # (B, c2, H/4, W/4)
        trunk = []
        for stage in self.stages:
            x = stage(x)
            trunk.append(x)  # (B, c3, H/8, W/8), (B, c4, H/16, W/16), (B, c5, H/32, W/32)
        at32 = self.lateral[2](self.context(trunk[2]))  # (B, width, H/32, W/32), and so on downwards
        at16 = self.lateral[1](trunk[1]) + F.interpolate(at32, scale_factor=2.0, mode="nearest")
        at8 = self.lateral[0](trunk[0]) + F.interpolate(at16, scale_factor=2.0, mode="nearest")
        levels = zip(self.head, self.smooth, (at8, at16, at32), strict=True)
        return [head(smooth(level)) for head, smooth, level in levels]


def load_checkpoint(path: Path, *, averaged: bool = True) -> tuple[Detector, dict[str, Any]]:
    """Build the network that a checkpoint describes, with its averaged weights or those training goes on from."""
    # Checkpoints of before there was context say nothing of it.
    return load_network(
        path, lambda shape: Detector(DetectorShape(**({"context": 0} | shape))), "averaged" if averaged else "model"
    )
