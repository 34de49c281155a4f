"""Training the detector on picture packs.

    python -m visaged.models.training.detector.train --data DIR --out RUN --init detector.onnx --processes 2
    python -m visaged.models.training.detector.train --data DIR --out RUN2 --resume RUN/last.pt --samples 900000

On the CPU every process draws its own samples and takes its own steps' gradients; they are averaged before each step,
so that all cores are busy whichever of drawing and learning is slower. With `--device cuda` one process learns, and
`--processes` others compose for it (`feed`). The learning rate is constant after a warm-up and falls to zero as a
cosine from `--decay-from` to `--samples`: a run can be prolonged, given other data, or wound up at any checkpoint. With
`--minutes` the run ends in that time, and the same shares of it count. The weights that count are an exponential
average. `--shape m` with `--init` of a network of shape `s` starts from that one, widened.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from visaged.models.training.common import command
from visaged.models.training.common.running import (
    WeightAverage,
    average_gradients,
    build_optimizer,
    device_named,
    join_processes,
    process_age,
    same_for_all,
    save,
    to_device,
    wait_while_paused,
)
from visaged.models.training.common.schedule import TrainConfig
from visaged.models.training.detector.assignment import cell_centres
from visaged.models.training.detector.feed import (
    PACK_WEIGHTS,
    Batch,
    Composers,
    batch_shape,
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


def first_model(arguments: argparse.Namespace, config: TrainConfig, library: Library) -> Detector:
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


def train(rank: int, arguments: argparse.Namespace, config: TrainConfig, library: Library) -> None:
    """Run one of the processes that train together, on a GPU the only one."""
    on_gpu = arguments.device == "cuda"
    learners = 1 if on_gpu else arguments.processes
    if learners > 1:
        join_processes(rank, learners, arguments.port)

    checkpoint: dict[str, Any] = {}
    if arguments.resume:
        model, checkpoint = load_checkpoint(arguments.resume, averaged=False)
    seen = int(checkpoint.get("seen", 0))
    batches: Iterator[Batch]
    if on_gpu:
        batches = Composers(library, config, (arguments.seed, seen), arguments.processes)
    else:
        batches = own_batches(library, config, np.random.default_rng([arguments.seed, rank, seen]))
    if not arguments.resume:
        model = first_model(arguments, config, library)
    device = device_named(arguments.device)
    torch.backends.cudnn.benchmark = on_gpu
    model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = build_optimizer(model, config.learning_rate, config.weight_decay)
    updates = seen // (config.batch * learners)
    averaged = {name: value.to(device) for name, value in checkpoint.get("averaged", {}).items()}
    average = WeightAverage(averaged or model.state_dict(), config.averaging, updates)
    if checkpoint.get("optimizer"):
        optimizer.load_state_dict(checkpoint["optimizer"])
    sides = [batch_shape(config, large)[1] for large in (False, True)]
    centres = [to_device(cell_centres(side, side), device) for side in sides]

    def elapsed() -> float:
        since = time.monotonic() - arguments.started
        # All processes must agree on the last step, or one waits for ever for the others' gradients.
        return same_for_all(since) if learners > 1 and config.minutes is not None else since

    keep_next = seen + arguments.keep_every
    sums, cells, count = torch.zeros(3, dtype=torch.float64, device=device), 0.0, 0
    started, saved, step = time.monotonic(), time.monotonic(), 0
    elapsed_s = elapsed()
    last = False
    while not last:
        wait_while_paused(arguments.pause_file)
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step, seen, elapsed_s)
        large = config.is_large(step)
        batch = next(batches)
        images = to_device(batch.images, device).permute(0, 3, 1, 2)  # (B, 3, S, S), channels last in memory
        with torch.autocast(device.type, torch.bfloat16, enabled=not arguments.float32):
            maps = model(images.float())
        losses = detection_loss(flatten(maps), batch.targets, centres[large])
        torch.autograd.backward(sum(losses, torch.zeros((), device=device)))
        if learners > 1:
            average_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update(model)
        step, seen, count = step + 1, seen + config.batch * learners, count + 1
        # Only added up here: to read a number waits for the GPU.
        sums += torch.stack(losses).detach().double()
        cells += len(batch.targets.cells) / len(batch.images)

        elapsed_s = elapsed()
        last = config.is_over(seen, elapsed_s)
        if rank == 0 and (last or time.monotonic() - saved > arguments.save_every_s):
            saved = time.monotonic()
            content = {
                "network": asdict(model.config),
                "training": asdict(config),
                "seen": seen,
                "model": average.state if arguments.slim else model.state_dict(),
                "averaged": average.state,
                "optimizer": None if arguments.slim else optimizer.state_dict(),
            }
            save(arguments.out / "last.pt", content)
            if seen >= keep_next:
                keep_next = seen + arguments.keep_every
                save(arguments.out / f"{seen // 1000:06d}k.pt", content)
        if rank == 0 and (last or count == 200):
            score, box, point = (sums / count).tolist()
            pace = count * config.batch * learners / (time.monotonic() - started)
            print(
                f"{seen} samples, {pace:.0f}/s, score {score:.4f} box {box:.4f} points {point:.4f} "
                f"cells {cells / count:.0f} rate {config.rate(step, seen, elapsed_s):.6f}",
                flush=True,
            )
            sums.zero_()
            started, cells, count = time.monotonic(), 0.0, 0
    if isinstance(batches, Composers):
        batches.close()
    if learners > 1:
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
    parser.add_argument("--shape", choices=list(SHAPES), default="s", help="of a network that no checkpoint describes")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--minutes", type=float, help="end after so long in all; the rate then follows the time")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="that learn on the CPU, or compose beside a GPU"
    )
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
    parser.add_argument(
        "--slim", action="store_true", help="checkpoints of the averaged weights alone: a quarter of the size"
    )
    parser.add_argument("--float32", action="store_true", help="no bfloat16: faster on cores without avx512_bf16")
    return parser.parse_args()


def main() -> None:
    """Load the pictures once and start the processes, which share them."""
    arguments = parse()
    arguments.started = time.monotonic() - process_age()
    device_named(arguments.device)  # told before minutes are spent on decoding
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
        minutes=arguments.minutes,
    )
    seen = 0
    if arguments.resume:  # what is wrong with it is better told here than by a child
        seen = int(load_checkpoint(arguments.resume, averaged=False)[1].get("seen", 0))
    library = load_library(arguments.data, config.weights, arguments.labels, arguments.hard, arguments.processes)
    print(f"{len(library)} pictures, {len(library.faceless)} of them without a face", flush=True)
    elapsed_s = time.monotonic() - arguments.started
    if config.is_over(seen, elapsed_s):
        raise ValueError(
            f"nothing is left to do: {seen} samples were seen, and {elapsed_s:.0f} s went by before the start"
        )
    if arguments.device == "cuda":
        train(0, arguments, config, library)
    else:
        start_processes(train, (arguments, config, library), arguments.processes, start_method="fork")  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    command.run(main)
