"""Training the analyzer on the cache of aligned crops that `label` cut.

    python -m visaged.models.training.analyzer.train --cache CROPS --out RUN --init analyzer.onnx --processes 2
    python -m visaged.models.training.analyzer.train --cache CROPS --out RUN2 --resume RUN/last.pt --samples 900000

One process per core draws its own samples and learns with the others (`trainer`). A run can be resumed when there are
more labels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visaged.models.training.analyzer.import_onnx import analyzer_from_onnx
from visaged.models.training.analyzer.labelling.cache import LABELS, Pack, read_packs
from visaged.models.training.analyzer.labelling.crops import MARGIN
from visaged.models.training.analyzer.loss import WEIGHTS, Batch, analyzer_losses, collate, total
from visaged.models.training.analyzer.network import Analyzer, AnalyzerShape, load_checkpoint
from visaged.models.training.analyzer.samples import PACK_WEIGHTS, Sampler
from visaged.models.training.common import command, trainer
from visaged.models.training.common.schedule import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzerTrainConfig(TrainConfig):
    """How a run learns; the checkpoint carries it.

    Attributes:
        heads: weight of each term of the loss.
    """

    heads: dict[str, float]


class AnalyzerTask:
    """The weighted losses of all heads."""

    def __init__(self, weights: dict[str, float]) -> None:
        """Weight the terms of `analyzer_losses` by their names."""
        self._weights = weights

    def images(self, batch: Batch) -> Tensor:
        """Return (B, 3, 112, 112) uint8 BGR, channels last in memory."""
        return batch.images

    def losses(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the terms, and the unweighted terms by name."""
        terms = analyzer_losses({name: value.float() for name, value in outputs.items()}, batch.targets)
        return total(terms, self._weights), terms


def draw_batches(sampler: Sampler, size: int) -> Iterator[Batch]:
    """Draw batches of so many samples without end."""
    while True:
        yield collate([sampler.draw() for _ in range(size)])


def new_model(init: Path | None, packs: dict[str, Pack], sampler: Sampler) -> Analyzer:
    """Return the network that a first run begins with: an exported one grown, or a fresh one."""
    torch.manual_seed(1)
    if init:
        batches = draw_batches(sampler, 64)
        return analyzer_from_onnx(init, AnalyzerShape(), [next(batches).images for _ in range(8)])
    model = Analyzer(AnalyzerShape())
    shapes = [pack.labels["points"] for pack in packs.values()]
    mean = np.nanmean(np.concatenate(shapes)[::7], axis=0) - MARGIN
    model.points.bias.data = torch.from_numpy(mean.reshape(-1).astype(np.float32))
    return model


def train(rank: int, arguments: argparse.Namespace, config: AnalyzerTrainConfig, packs: dict[str, Pack]) -> None:
    """Run one of the processes that train together."""
    if arguments.resume:
        model, checkpoint = load_checkpoint(arguments.resume, averaged=False)
    else:
        sampler = Sampler(packs, config.packs, np.random.default_rng(7))
        model, checkpoint = new_model(arguments.init, packs, sampler), {}
    learner = trainer.Trainer[Batch](rank, arguments, config, model, checkpoint)
    torch.manual_seed(arguments.seed * 1000 + rank)  # dropout
    chance = np.random.default_rng([arguments.seed, rank, int(checkpoint.get("seen", 0))])
    learner.run(AnalyzerTask(config.heads), draw_batches(Sampler(packs, config.packs, chance), config.batch))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="directory of crops and labels")
    parser.add_argument("--labels", type=Path, default=LABELS, help="directory of labels made by eye")
    trainer.add_options(parser, samples=1_500_000, decay_from=1_000_000, batch=64, port=29517, report_every=100)
    parser.add_argument("--packs", type=json.loads, default={}, help="JSON: how often to draw packs, if not as usual")
    parser.add_argument("--heads", type=json.loads, default={}, help="JSON: weights of losses, if not as usual")
    return parser.parse_args()


def main() -> None:
    """Map the crops once and start the processes, which share them."""
    arguments = parse()
    trainer.prepare(arguments)
    config = AnalyzerTrainConfig(
        samples=arguments.samples,
        decay_from=arguments.decay_from,
        batch=arguments.batch,
        learning_rate=arguments.learning_rate,
        warmup_steps=20 if arguments.resume else 150,
        weight_decay=0.03,
        averaging=0.999,
        packs=PACK_WEIGHTS | arguments.packs,
        minutes=arguments.minutes,
        heads=WEIGHTS | arguments.heads,
    )
    # Read here too, so that what is wrong with it is one line of this program and not of a child.
    checkpoint = load_checkpoint(arguments.resume, averaged=False)[1] if arguments.resume else None
    packs = read_packs(arguments.cache, arguments.labels)
    for name, pack in packs.items():
        known = {key: int(np.isfinite(v.reshape(len(v), -1)).any(1).sum()) for key, v in pack.labels.items()}
        print(f"{name}: {len(pack)} crops, {int(pack.val.sum())} held out; labels {known}", flush=True)
    trainer.start(train, arguments, config, packs, checkpoint)


if __name__ == "__main__":
    command.run(main)
