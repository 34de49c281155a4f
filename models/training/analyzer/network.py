"""The analyzer: a plain residual trunk, two views of its last map, one linear head per attribute.

The mean over the last map holds what does not depend on a place (age, gender); a narrow map, flattened, keeps places
(lids, brows, lips, the outline). The 106 points are a linear shape model whose coefficients are read from that map: a
full matrix would hold a seventh of all weights and learn the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody reads)
from torch import Tensor, nn

from visaged.models.training.analyzer.heads import HEADS, POINTS, SIZE
from visaged.models.training.common.pixels import MEAN, SCALE
from visaged.models.training.common.running import load_network
from visaged.models.training.detector.network import Residual, convolution


@dataclass(frozen=True, slots=True)
class AnalyzerShape:
    """The shape of the network.

    Attributes:
        channels: output channels of the four stages, at strides 2, 4, 8, 16.
        blocks: residual blocks of the stages at strides 4, 8, 16.
        spatial: channels of the map that keeps places.
        shape: coefficients of the points' shape model.
        global_features: read from the mean of the last map.
        local_features: read from the map that keeps places.
        dropout: share of the features that a training step leaves out.
    """

    channels: tuple[int, int, int, int] = (24, 40, 80, 144)
    blocks: tuple[int, int, int] = (1, 3, 3)
    spatial: int = 32
    shape: int = 48
    global_features: int = 192
    local_features: int = 96
    dropout: float = 0.3


SHAPES = {
    "s": AnalyzerShape(),
    "m": AnalyzerShape(channels=(32, 48, 96, 176)),
    "t": AnalyzerShape(
        channels=(32, 64, 128, 256),
        blocks=(2, 3, 3),
        spatial=64,
        global_features=384,
        local_features=192,
        dropout=0.5,
    ),
    "l": AnalyzerShape(
        channels=(48, 96, 192, 320),
        blocks=(2, 4, 4),
        spatial=64,
        global_features=384,
        local_features=192,
        dropout=0.5,
    ),
}
"""By the names of the command line: `s` is shipped, `m` is half as much work more. For teaching them: `t`, three times
the work, whose channels suit a GPU, and `l`, some seven times."""


class Analyzer(nn.Module):
    """(B, 3, 112, 112) BGR 0..255 to raw outputs by head, and `points` (B, 106, 2) in crop pixels."""

    def __init__(self, config: AnalyzerShape) -> None:
        """Build the network with fresh weights."""
        super().__init__()
        self.config = config
        c1, c2, c3, c4 = config.channels
        self.trunk = nn.Sequential(
            convolution(3, c1, stride=2),
            convolution(c1, c2, stride=2),
            *(Residual(c2) for _ in range(config.blocks[0])),
            convolution(c2, c3, stride=2),
            *(Residual(c3) for _ in range(config.blocks[1])),
            convolution(c3, c4, stride=2),
            *(Residual(c4) for _ in range(config.blocks[2])),
        )
        self.overall = nn.Linear(c4, config.global_features)
        self.spatial = convolution(c4, config.spatial, 1)
        places = config.spatial * (SIZE // 16) ** 2
        self.local = nn.Linear(places, config.local_features)
        self.shape = nn.Linear(places, config.shape)
        self.points = nn.Linear(config.shape, 2 * POINTS)
        self.dropout = nn.Dropout(config.dropout)
        features = config.global_features + config.local_features
        self.heads = nn.ModuleDict({name: nn.Linear(features, outputs) for name, outputs in HEADS.items()})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Map pixels 0..255 to the raw outputs."""
        return self.read((image - MEAN) * SCALE)

    def read(self, x: Tensor) -> dict[str, Tensor]:
        """Map normalised pixels to the raw outputs; export begins here."""
        places, features = self.features(x)
        features = self.dropout(features)
        outputs = {name: head(features) for name, head in self.heads.items()}
        outputs["points"] = self.points(self.shape(places)).view(-1, POINTS, 2)
        return outputs

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map normalised pixels to the flattened places (B, spatial * 49) and the heads' inputs (B, F)."""
        x = self.trunk(x)  # (B, c4, 7, 7)
        places = self.spatial(x).flatten(1)
        overall = F.relu(self.overall(x.mean((2, 3))))
        return places, torch.cat([overall, F.relu(self.local(places))], 1)


def load_checkpoint(path: Path, *, averaged: bool = True) -> tuple[Analyzer, dict[str, Any]]:
    """Build the network that a checkpoint describes, with its averaged weights or those training goes on from."""
    return load_network(path, lambda shape: Analyzer(AnalyzerShape(**shape)), "averaged" if averaged else "model")
