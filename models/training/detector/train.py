"""Training the detector on picture packs.

    python -m visaged.models.training.detector.train --data DIR --out RUN --init detector.onnx --processes 2
    python -m visaged.models.training.detector.train --data DIR --out RUN2 --resume RUN/last.pt --samples 900000

On the CPU `--processes` draw their own samples and learn together (`trainer`), so that all cores are busy whichever of
drawing and learning is slower. With `--device cuda` one process learns, and `--processes` others compose for it
(`feed`). A run can be prolonged, given other data, or wound up at any checkpoint. With `--minutes` the run ends in that
time, and the shares of it count that `--decay-from` and `--samples` have of each other. `--shape m` with `--init` of a
network of shape `s` starts from that one, widened.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visaged.models.training.common import command, trainer
from visaged.models.training.common.running import to_device
from visaged.models.training.detector.assignment import cell_centres
from visaged.models.training.detector.config import DetectorTrainConfig
from visaged.models.training.detector.feed import (
    PACK_WEIGHTS,
    Batch,
    Composers,
    draw_batch,
    load_library,
    own_batches,
)
from visaged.models.training.detector.import_onnx import detector_from_onnx, stem_channels
from visaged.models.training.detector.loss import detection_loss, flatten
from visaged.models.training.detector.network import Detector, load_checkpoint
from visaged.models.training.detector.samples.views import Library
from visaged.models.training.detector.shapes import SHAPES
from visaged.models.training.detector.widen import widened


class DetectorTask:
    """The losses of score, box and points over all cells."""

    def __init__(self, config: DetectorTrainConfig, device: torch.device) -> None:
        """Bring the cells' centres to the device, for samples of both sizes."""
        sides = [config.batch_shape(large)[1] for large in (False, True)]
        self._centres = {side: to_device(cell_centres(side, side), device) for side in sides}
        self._device = device

    def images(self, batch: Batch) -> Tensor:
        """Return (B, 3, S, S) uint8 BGR, channels last in memory."""
        return to_device(batch.images, self._device).permute(0, 3, 1, 2)

    def losses(self, outputs: list[Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the losses; each of them, and how many cells of a picture have a face, by name."""
        centres = self._centres[batch.images.shape[1]]
        score, box, points = detection_loss(flatten(outputs), batch.targets, centres)
        cells = torch.full((), len(batch.targets.cells) / len(batch.images), device=self._device)
        return score + box + points, {"score": score, "box": box, "points": points, "cells": cells}


def first_model(arguments: argparse.Namespace, config: DetectorTrainConfig, library: Library) -> Detector:
    """Build the network that a run without a checkpoint starts from."""
    shape = SHAPES[arguments.shape]
    if arguments.init is None:
        torch.manual_seed(1)
        return Detector(shape)
    calibration = np.random.default_rng(7)
    few = replace(config, batch=min(config.batch, 16))
    drawn = (draw_batch(library, few, calibration, few.is_large(i)).images for i in range(16))
    batches = [torch.from_numpy(images).permute(0, 3, 1, 2) for images in drawn]
    if stem_channels(arguments.init) == shape.channels[0]:
        return detector_from_onnx(arguments.init, shape, batches)
    return widened(detector_from_onnx(arguments.init, SHAPES["s"], batches), shape)


def train(rank: int, arguments: argparse.Namespace, config: DetectorTrainConfig, library: Library) -> None:
    """Run one of the processes that train together, on a GPU the only one."""
    resumed = load_checkpoint(arguments.resume, averaged=False) if arguments.resume else None
    seen = int(resumed[1]["seen"]) if resumed else 0
    batches: Iterator[Batch]
    if arguments.device == "cuda":
        batches = Composers(library, config, (arguments.seed, seen), arguments.processes)
    else:
        batches = own_batches(library, config, np.random.default_rng([arguments.seed, rank, seen]))
    model, checkpoint = resumed or (first_model(arguments, config, library), {})
    learner = trainer.Trainer[Batch](rank, arguments, config, model, checkpoint)
    learner.run(DetectorTask(config, learner.device), batches)
    if isinstance(batches, Composers):
        batches.close()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of packs")
    parser.add_argument("--labels", type=Path, help="directory of CSVs to use in place of the packs' own")
    parser.add_argument("--hard", type=Path, help="CSV of pictures to draw more often, written by `mine`")
    trainer.add_options(parser, samples=2_000_000, decay_from=1_400_000, batch=16, port=29511, report_every=200)
    parser.add_argument("--shape", choices=list(SHAPES), default="s", help="of a network that no checkpoint describes")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument(
        "--large-every", type=int, default=4, help="one step in so many has samples twice as large; 0: none"
    )
    parser.add_argument("--weights", type=json.loads, default=PACK_WEIGHTS, help="JSON: how often each pack is drawn")
    return parser.parse_args()


def main() -> None:
    """Load the pictures once and start the processes, which share them."""
    arguments = parse()
    trainer.prepare(arguments)
    config = DetectorTrainConfig(
        samples=arguments.samples,
        decay_from=arguments.decay_from,
        batch=arguments.batch,
        learning_rate=arguments.learning_rate,
        warmup_steps=200,
        weight_decay=0.02,
        averaging=0.999,
        packs=arguments.weights,
        minutes=arguments.minutes,
        side=arguments.side,
        large_every=arguments.large_every,
    )
    # Read here too, so that what is wrong with it is one line of this program and not of a child.
    checkpoint = load_checkpoint(arguments.resume, averaged=False)[1] if arguments.resume else None
    library = load_library(arguments.data, config.packs, arguments.labels, arguments.hard, arguments.processes)
    print(f"{len(library)} pictures, {len(library.faceless)} of them without a face", flush=True)
    trainer.start(train, arguments, config, library, checkpoint)


if __name__ == "__main__":
    command.run(main)
