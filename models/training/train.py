"""Training the detector on picture packs.

    python -m visaged.models.training.train --data DIR --out RUN --init detector.onnx --processes 2
    python -m visaged.models.training.train --data DIR --out RUN2 --resume RUN/last.pt --samples 900000

Every process draws its own samples and takes its own steps' gradients; they are averaged before each step, so that all
cores are busy whichever of drawing and learning is slower. The learning rate is constant after a warm-up and falls to
zero as a cosine from `--decay-from` to `--samples`: a run can be prolonged, given other data, or wound up at any
checkpoint. The weights that count are an exponential average.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed as dist
from numpy.random import Generator
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from visaged.models.training import command, packs
from visaged.models.training.compose import compose
from visaged.models.training.import_onnx import detector_from_onnx
from visaged.models.training.loss import Targets, assign, cell_centres, detection_loss, flatten
from visaged.models.training.network import Detector, NetworkConfig, load_checkpoint
from visaged.models.training.running import (
    WeightAverage,
    average_gradients,
    build_optimizer,
    join_processes,
    learning_rate,
    save,
    wait_while_paused,
)
from visaged.models.training.views import Library, Picture

PACK_WEIGHTS = {"events": 0.38, "street_masks": 0.17, "scenes": 0.29, "portraits": 0.10, "ages": 0.06}
PACK_LIMITS = {"ages": 2500}

LARGE_SIDES = 2
"""A step of large samples has them this many times as long and wide, and as many fewer as have the same pixels."""
CLOSE_UPS, LARGE_CLOSE_UPS = 0.12, 0.4
"""Shares of close-ups among the samples: a face of 640 pixels is learned on the large ones alone."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a run learns; the checkpoint carries it.

    Attributes:
        samples: total number, counted from the first run on.
        decay_from: number of samples from which on the learning rate falls.
        batch: samples per process and step.
        side: edge of a sample in pixels, a multiple of 32.
        learning_rate: after the warm-up.
        warmup_steps: of this run.
        weight_decay: of convolution weights; biases and normalisation have none.
        averaging: share of the old average that a step keeps.
        weights: how often each pack is drawn.
        large_every: one step in so many has large samples; 0 for none.
    """

    samples: int
    decay_from: int
    batch: int
    side: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    averaging: float
    weights: dict[str, float]
    large_every: int = 4

    def is_large(self, step: int) -> bool:
        """Say whether a step has large samples, the same in all processes."""
        return self.large_every > 0 and step % self.large_every == self.large_every - 1

    def rate(self, step: int, seen: int) -> float:
        """Return the learning rate at a step of this run, with `seen` samples in all runs."""
        progress = (seen - self.decay_from) / max(self.samples - self.decay_from, 1)
        return learning_rate(self.learning_rate, step, self.warmup_steps, progress)


def load_library(directory: Path, weights: dict[str, float], labels: Path | None, hard: Path | None) -> Library:
    """Decode the training side of all packs.

    Args:
        directory: where the packs lie.
        weights: how often each pack is drawn.
        labels: a directory with CSVs of other labels by pack name, or none.
        hard: a CSV that says how often to draw some pictures of their pack, or none.
    """
    times: dict[tuple[str, str], int] = {}
    if hard:
        with hard.open(newline="") as file:
            times = {(row["pack"], row["image"]): int(row["times"]) for row in csv.DictReader(file)}
    pictures: dict[str, list[Picture]] = {}
    for pack in weights:
        other = labels / f"{pack}.csv" if labels and (labels / f"{pack}.csv").exists() else None
        pictures[pack] = []
        for packed in packs.read_pack(
            directory,
            pack,
            labels=other,
            keep=lambda name, pack=pack: not packs.is_validation(pack, name),  # type: ignore[misc]
            limit=PACK_LIMITS.get(pack),
        ):
            packed = replace(packed, faces=packs.without_parts(packed.faces))
            pictures[pack] += [Picture.of(packed)] * times.get((pack, packed.name), 1)
        if not pictures[pack]:
            raise ValueError(f"pack {pack} of {directory} has no picture to train on")
    return Library(pictures, weights)


def draw_batch(library: Library, config: TrainConfig, rng: Generator, large: bool) -> tuple[Tensor, list[Targets]]:
    """Return images (B, 3, S, S) uint8 BGR, channels last in memory, and their targets."""
    side, count, close_ups = config.side, config.batch, CLOSE_UPS
    if large:
        side, count, close_ups = side * LARGE_SIDES, max(1, count // LARGE_SIDES**2), LARGE_CLOSE_UPS
    samples = [compose(library, side, rng, close_ups) for _ in range(count)]
    images = torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2)
    return images, [assign(s.boxes, s.points, s.doubtful, side, side) for s in samples]


def train(rank: int, arguments: argparse.Namespace, config: TrainConfig, library: Library) -> None:
    """Run one of the processes that train together."""
    join_processes(rank, arguments.processes, arguments.port)

    checkpoint: dict[str, Any] = {}
    if arguments.resume:
        model, checkpoint = load_checkpoint(arguments.resume, averaged=False)
    elif arguments.init:
        calibration = np.random.default_rng(7)
        batches = [draw_batch(library, config, calibration, config.is_large(i))[0] for i in range(16)]
        model = detector_from_onnx(arguments.init, NetworkConfig(), batches)
    else:
        torch.manual_seed(1)
        model = Detector(NetworkConfig())
    model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = build_optimizer(model, config.learning_rate, config.weight_decay)
    seen = int(checkpoint.get("seen", 0))
    updates = seen // (config.batch * arguments.processes)
    average = WeightAverage(checkpoint.get("averaged") or model.state_dict(), config.averaging, updates)
    if checkpoint.get("optimizer"):
        optimizer.load_state_dict(checkpoint["optimizer"])
    rng = np.random.default_rng([arguments.seed, rank, seen])
    sides = (config.side, config.side * LARGE_SIDES)
    centres = [torch.from_numpy(cell_centres(side, side)) for side in sides]

    keep_next = seen + arguments.keep_every
    sums, started, saved, step = np.zeros(5), time.monotonic(), time.monotonic(), 0
    while seen < config.samples:
        wait_while_paused(arguments.pause_file)
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step, seen)
        large = config.is_large(step)
        images, targets = draw_batch(library, config, rng, large)
        with torch.autocast("cpu", torch.bfloat16, enabled=not arguments.float32):
            maps = model(images.float())
        losses = detection_loss(flatten(maps), targets, centres[large])
        torch.autograd.backward(sum(losses, torch.zeros(())))
        average_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update(model)
        step, seen = step + 1, seen + config.batch * arguments.processes
        sums += [*(part.item() for part in losses), sum(len(t.cells) for t in targets) / len(targets), 1]

        last = seen >= config.samples
        if rank == 0 and (last or time.monotonic() - saved > arguments.save_every_s):
            saved = time.monotonic()
            content = {
                "network": model.config.to_dict(),
                "training": asdict(config),
                "seen": seen,
                "model": model.state_dict(),
                "averaged": average.state,
                "optimizer": optimizer.state_dict(),
            }
            save(arguments.out / "last.pt", content)
            if seen >= keep_next:
                keep_next = seen + arguments.keep_every
                save(arguments.out / f"{seen // 1000:06d}k.pt", content)
        if rank == 0 and (last or sums[4] == 200):
            score, box, point, cells = sums[:4] / sums[4]
            pace = sums[4] * config.batch * arguments.processes / (time.monotonic() - started)
            print(
                f"{seen} samples, {pace:.0f}/s, score {score:.4f} box {box:.4f} points {point:.4f} "
                f"cells {cells:.0f} rate {config.rate(step, seen):.6f}",
                flush=True,
            )
            sums[:], started = 0, time.monotonic()
    dist.destroy_process_group()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of packs")
    parser.add_argument("--labels", type=Path, help="directory of CSVs to use in place of the packs' own")
    parser.add_argument("--hard", type=Path, help="CSV of pictures to draw more often, written by `mine`")
    parser.add_argument("--out", type=Path, required=True, help="directory for checkpoints")
    parser.add_argument("--init", type=Path, help="an exported detector to start from")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--samples", type=int, default=2_000_000)
    parser.add_argument("--decay-from", type=int, default=1_400_000)
    parser.add_argument("--batch", type=int, default=16, help="samples per process and step")
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument(
        "--large-every", type=int, default=4, help="one step in so many has samples twice as large; 0: none"
    )
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--weights", type=json.loads, default=PACK_WEIGHTS, help="JSON: how often each pack is drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=29511, help="on which the processes meet, on the loopback")
    parser.add_argument("--pause-file", type=Path, help="training sleeps while this file exists")
    parser.add_argument("--save-every-s", type=float, default=120)
    parser.add_argument("--keep-every", type=int, default=100_000, help="keep a checkpoint every so many samples")
    parser.add_argument("--float32", action="store_true", help="no bfloat16: faster on cores without avx512_bf16")
    return parser.parse_args()


def main() -> None:
    """Load the pictures once and start the processes, which share them."""
    arguments = parse()
    # One thread each, set before the fork: a pool of threads does not survive it.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = TrainConfig(
        samples=arguments.samples,
        decay_from=arguments.decay_from,
        batch=arguments.batch,
        side=arguments.side,
        learning_rate=arguments.learning_rate,
        warmup_steps=200,
        weight_decay=0.02,
        averaging=0.999,
        weights=arguments.weights,
        large_every=arguments.large_every,
    )
    if arguments.resume:
        load_checkpoint(arguments.resume, averaged=False)  # what is wrong with it is better told here than by a child
    library = load_library(arguments.data, config.weights, arguments.labels, arguments.hard)
    print(f"{len(library)} pictures, {len(library.faceless)} of them without a face", flush=True)
    start_processes(train, (arguments, config, library), arguments.processes, start_method="fork")  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    command.run(main)
