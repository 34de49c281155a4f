r"""Training the analyzer on the cache of aligned crops that `label` cut.

    python -m visaged.models.training.analyzer.train --cache CROPS --out RUN --init analyzer.onnx --processes 2
    python -m visaged.models.training.analyzer.train --cache CROPS --out RUN2 --resume RUN/last.pt --samples 900000

On the CPU one process per core draws its own samples and learns with the others (`trainer`). With `--device cuda` one
process learns, and `--processes` others draw for it. A run can be resumed when there are more labels.

A small network learns more from a larger one than from the labels alone; the second command learns from the first's:

    python -m visaged.models.training.analyzer.train --cache CROPS --out LARGE --shape l --device cuda --minutes 4
    python -m visaged.models.training.analyzer.train --cache CROPS --out RUN --init analyzer.onnx \
        --teacher LARGE/last.pt --device cuda --minutes 5
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
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from visaged.models.training.analyzer.import_onnx import analyzer_from_onnx
from visaged.models.training.analyzer.labelling.cache import LABELS, Pack, read_packs
from visaged.models.training.analyzer.labelling.crops import MARGIN
from visaged.models.training.analyzer.loss import (
    TAUGHT_WEIGHTS,
    WEIGHTS,
    Batch,
    analyzer_losses,
    collate,
    taught_losses,
    total,
)
from visaged.models.training.analyzer.network import SHAPES, Analyzer, AnalyzerShape, load_checkpoint
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

    def __init__(self, weights: dict[str, float], teacher: Analyzer | None = None) -> None:
        """Weight the terms of `analyzer_losses`, and with a teacher those of `taught_losses`, by their names."""
        self._weights, self._teacher = weights, teacher

    def images(self, batch: Batch) -> Tensor:
        """Return (B, 3, 112, 112) uint8 BGR, channels last in memory."""
        return batch.images

    def losses(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the terms, and the unweighted terms by name."""
        said = {name: value.float() for name, value in outputs.items()}
        terms = analyzer_losses(said, batch.targets)
        if self._teacher is not None:
            kind = batch.images.device.type
            with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
                taught = self._teacher(batch.images.float())
            terms |= taught_losses(said, {name: value.float() for name, value in taught.items()})
        return total(terms, self._weights), terms


def draw_batches(sampler: Sampler, size: int) -> Iterator[Batch]:
    """Draw batches of so many samples without end."""
    while True:
        yield collate([sampler.draw() for _ in range(size)])


class Drawn(IterableDataset[Batch]):
    """Batches without end for the processes of a `DataLoader`, each with a chance of its own."""

    def __init__(self, packs: dict[str, Pack], config: AnalyzerTrainConfig, key: tuple[int, ...]) -> None:
        """Draw as `config` says; the chance of process `i` is `key` and `i`."""
        self._packs, self._config, self._key = packs, config, key

    def __iter__(self) -> Iterator[Batch]:
        """Draw batches in one of the processes."""
        worker = get_worker_info()
        chance = np.random.default_rng([*self._key, worker.id if worker else 0])
        return draw_batches(Sampler(self._packs, self._config.packs, chance), self._config.batch)


def beside_a_gpu(drawn: Drawn, processes: int) -> Iterator[Batch]:
    """Return batches that so many processes draw ahead; to be called before CUDA is used, since they are forked."""
    return iter(
        DataLoader(drawn, batch_size=None, num_workers=processes, prefetch_factor=2, multiprocessing_context="fork")
    )


def new_model(init: Path | None, shape: AnalyzerShape, packs: dict[str, Pack], sampler: Sampler) -> Analyzer:
    """Return the network that a first run begins with: an exported one grown, or a fresh one."""
    torch.manual_seed(1)
    if init:
        batches = draw_batches(sampler, 64)
        return analyzer_from_onnx(init, shape, [next(batches).images for _ in range(8)])
    model = Analyzer(shape)
    shapes = [pack.labels["points"] for pack in packs.values()]
    mean = np.nanmean(np.concatenate(shapes)[::7], axis=0) - MARGIN
    model.points.bias.data = torch.from_numpy(mean.reshape(-1).astype(np.float32))
    return model


def train(rank: int, arguments: argparse.Namespace, config: AnalyzerTrainConfig, packs: dict[str, Pack]) -> None:
    """Run one of the processes that train together."""
    resumed = load_checkpoint(arguments.resume, averaged=False) if arguments.resume else None
    seen = int(resumed[1]["seen"]) if resumed else 0
    drawn = Drawn(packs, config, (arguments.seed, rank, seen))
    batches = beside_a_gpu(drawn, arguments.processes) if arguments.device == "cuda" else iter(drawn)
    if resumed:
        model, checkpoint = resumed
    else:
        sampler = Sampler(packs, config.packs, np.random.default_rng(7))
        model, checkpoint = new_model(arguments.init, SHAPES[arguments.shape], packs, sampler), {}
    learner = trainer.Trainer[Batch](rank, arguments, config, model, checkpoint)
    teacher = load_checkpoint(arguments.teacher)[0].to(learner.device).eval() if arguments.teacher else None
    torch.manual_seed(arguments.seed * 1000 + rank)  # dropout
    learner.run(AnalyzerTask(config.heads, teacher), (batch.to(learner.device) for batch in batches))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="directory of crops and labels")
    parser.add_argument("--labels", type=Path, default=LABELS, help="directory of labels made by eye")
    trainer.add_options(parser, samples=1_500_000, decay_from=1_000_000, batch=64, port=29517, report_every=100)
    parser.add_argument("--shape", choices=list(SHAPES), default="s", help="of a network that no checkpoint describes")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--teacher", type=Path, help="checkpoint of a network to learn from too")
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
        heads=WEIGHTS | TAUGHT_WEIGHTS | arguments.heads,
    )
    # Read here too, so that what is wrong with it is one line of this program and not of a child.
    checkpoint = load_checkpoint(arguments.resume, averaged=False)[1] if arguments.resume else None
    if arguments.teacher:
        load_checkpoint(arguments.teacher)
    packs = read_packs(arguments.cache, arguments.labels)
    for name, pack in packs.items():
        known = {key: int(np.isfinite(v.reshape(len(v), -1)).any(1).sum()) for key, v in pack.labels.items()}
        print(f"{name}: {len(pack)} crops, {int(pack.val.sum())} held out; labels {known}", flush=True)
    trainer.start(train, arguments, config, packs, checkpoint)


if __name__ == "__main__":
    command.run(main)
