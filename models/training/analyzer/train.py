"""Training the analyzer on the cache of aligned crops that `label` cut.

    python -m visaged.models.training.analyzer.train --cache CROPS --out RUN --init analyzer.onnx --processes 2
    python -m visaged.models.training.analyzer.train --cache CROPS --out RUN2 --resume RUN/last.pt --samples 900000

As the detector's training: one process per core, averaged gradients, averaged weights, a constant learning rate that
falls as a cosine from `--decay-from` to `--samples`. A run can be resumed when there are more labels.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from visaged.models.training.analyzer.import_onnx import analyzer_from_onnx
from visaged.models.training.analyzer.labelling.cache import LABELS, Pack, read_packs
from visaged.models.training.analyzer.labelling.crops import MARGIN
from visaged.models.training.analyzer.loss import WEIGHTS, Batch, analyzer_losses, collate, total
from visaged.models.training.analyzer.network import Analyzer, AnalyzerShape, load_checkpoint
from visaged.models.training.analyzer.samples import PACK_WEIGHTS, Sampler
from visaged.models.training.common import command
from visaged.models.training.common.running import (
    WeightAverage,
    average_gradients,
    build_optimizer,
    join_processes,
    save,
    wait_while_paused,
)
from visaged.models.training.common.schedule import learning_rate


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a run learns; the checkpoint carries it.

    Attributes:
        samples: total number, counted from the first run on.
        decay_from: number of samples from which on the learning rate falls.
        batch: samples per process and step.
        learning_rate: after the warm-up.
        warmup_steps: of this run.
        weight_decay: of kernels and matrices; biases and normalisation have none.
        averaging: share of the old average that a step keeps.
        packs: how often each pack is drawn.
        heads: weight of each term of the loss.
    """

    samples: int
    decay_from: int
    batch: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    averaging: float
    packs: dict[str, float]
    heads: dict[str, float]

    def rate(self, step: int, seen: int) -> float:
        """Return the learning rate at a step of this run, with `seen` samples in all runs."""
        progress = (seen - self.decay_from) / max(self.samples - self.decay_from, 1)
        return learning_rate(self.learning_rate, step, self.warmup_steps, progress)


def draw_batch(sampler: Sampler, size: int) -> Batch:
    """Draw a batch."""
    return collate([sampler.draw() for _ in range(size)])


def new_model(init: Path | None, packs: dict[str, Pack], sampler: Sampler) -> Analyzer:
    """Return the network that a first run begins with: an exported one grown, or a fresh one."""
    torch.manual_seed(1)
    if init:
        return analyzer_from_onnx(init, AnalyzerShape(), [draw_batch(sampler, 64).images for _ in range(8)])
    model = Analyzer(AnalyzerShape())
    shapes = [pack.labels["points"] for pack in packs.values()]
    mean = np.nanmean(np.concatenate(shapes)[::7], axis=0) - MARGIN
    model.points.bias.data = torch.from_numpy(mean.reshape(-1).astype(np.float32))
    return model


def train(rank: int, arguments: argparse.Namespace, config: TrainConfig, packs: dict[str, Pack]) -> None:
    """Run one of the processes that train together."""
    join_processes(rank, arguments.processes, arguments.port)
    checkpoint: dict[str, Any] = {}
    if arguments.resume:
        model, checkpoint = load_checkpoint(arguments.resume, averaged=False)
    else:
        model = new_model(arguments.init, packs, Sampler(packs, config.packs, np.random.default_rng(7)))
    seen = int(checkpoint.get("seen", 0))
    model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = build_optimizer(model, config.learning_rate, config.weight_decay)
    updates = seen // (config.batch * arguments.processes)
    average = WeightAverage(checkpoint.get("averaged") or model.state_dict(), config.averaging, updates)
    if checkpoint:
        optimizer.load_state_dict(checkpoint["optimizer"])
    torch.manual_seed(arguments.seed * 1000 + rank)  # dropout
    sampler = Sampler(packs, config.packs, np.random.default_rng([arguments.seed, rank, seen]))

    keep_next = seen + arguments.keep_every
    sums: dict[str, float] = defaultdict(float)
    started, saved, step, drawing = time.monotonic(), time.monotonic(), 0, 0.0
    while seen < config.samples:
        wait_while_paused(arguments.pause_file)
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step, seen)
        before = time.monotonic()
        batch = draw_batch(sampler, config.batch)
        drawing += time.monotonic() - before
        with torch.autocast("cpu", torch.bfloat16, enabled=not arguments.float32):
            outputs = model(batch.images.float())
        losses = analyzer_losses({name: value.float() for name, value in outputs.items()}, batch.targets)
        torch.autograd.backward(total(losses, config.heads))
        average_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update(model)
        step, seen = step + 1, seen + config.batch * arguments.processes
        sums["steps"] += 1
        for name, value in losses.items():
            sums[name] += value.item()

        last = seen >= config.samples
        if rank == 0 and (last or time.monotonic() - saved > arguments.save_every_s):
            saved = time.monotonic()
            content = {
                "network": asdict(model.config),
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
        if rank == 0 and (last or sums["steps"] == arguments.report_every):
            passed, steps = time.monotonic() - started, sums.pop("steps")
            terms = " ".join(f"{name} {value / steps:.3f}" for name, value in sums.items())
            pace = steps * config.batch * arguments.processes / passed
            rate = config.rate(step, seen)
            print(
                f"{seen} samples, {pace:.0f}/s ({drawing / passed:.0%} drawing), {terms}, rate {rate:.6f}", flush=True
            )
            sums.clear()
            started, drawing = time.monotonic(), 0.0
    dist.destroy_process_group()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="directory of crops and labels")
    parser.add_argument("--labels", type=Path, default=LABELS, help="directory of labels made by eye")
    parser.add_argument("--out", type=Path, required=True, help="directory for checkpoints")
    parser.add_argument("--init", type=Path, help="an exported analyzer to start from")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--samples", type=int, default=1_500_000)
    parser.add_argument("--decay-from", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=64, help="samples per process and step")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--packs", type=json.loads, default={}, help="JSON: how often to draw packs, if not as usual")
    parser.add_argument("--heads", type=json.loads, default={}, help="JSON: weights of losses, if not as usual")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=29517, help="on which the processes meet, on the loopback")
    parser.add_argument("--pause-file", type=Path, help="training sleeps while this file exists")
    parser.add_argument("--save-every-s", type=float, default=120)
    parser.add_argument("--keep-every", type=int, default=100_000, help="keep a checkpoint every so many samples")
    parser.add_argument("--report-every", type=int, default=100, help="steps")
    parser.add_argument("--float32", action="store_true", help="no bfloat16: faster on cores without avx512_bf16")
    return parser.parse_args()


def main() -> None:
    """Map the crops once and start the processes, which share them."""
    arguments = parse()
    # One thread each, set before the fork: a pool of threads does not survive it.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = TrainConfig(
        samples=arguments.samples,
        decay_from=arguments.decay_from,
        batch=arguments.batch,
        learning_rate=arguments.learning_rate,
        warmup_steps=20 if arguments.resume else 150,
        weight_decay=0.03,
        averaging=0.999,
        packs=PACK_WEIGHTS | arguments.packs,
        heads=WEIGHTS | arguments.heads,
    )
    if arguments.resume:
        load_checkpoint(arguments.resume, averaged=False)  # what is wrong with it is better told here than by a child
    packs = read_packs(arguments.cache, arguments.labels)
    for name, pack in packs.items():
        known = {key: int(np.isfinite(v.reshape(len(v), -1)).any(1).sum()) for key, v in pack.labels.items()}
        print(f"{name}: {len(pack)} crops, {int(pack.val.sum())} held out; labels {known}", flush=True)
    start_processes(train, (arguments, config, packs), arguments.processes, start_method="fork")  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    command.run(main)
