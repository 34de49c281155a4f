r"""Training networks on samples that are composed on the device that learns.

    python -m visaged.models.training.analyzer.gpu.learn --cache CROPS --out LARGE --learn t0=t --learn t1=t \
        --seconds 200
    python -m visaged.models.training.analyzer.gpu.learn --cache CROPS --out RUN --learn small=s --seconds 200 \
        --teacher LARGE/t0.pt --teacher LARGE/t1.pt

All networks of one command see the same batches, so that these, and what the teachers say of them, are computed once.
With `--teacher` it waits until the files `t0.done`, `t1.done` lie beside the checkpoints: another process may be
writing them. A checkpoint is written every minute, and figures of the held-out crops printed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visaged.models.training.analyzer.gpu.camera import Chance
from visaged.models.training.analyzer.gpu.compose import Composer
from visaged.models.training.analyzer.gpu.faces import Faces, fill, on_device
from visaged.models.training.analyzer.gpu.judge import Judge, read_places, short
from visaged.models.training.analyzer.gpu.learner import Learner
from visaged.models.training.analyzer.gpu.lessons import MIXED_SHARE, Mixing, said_by
from visaged.models.training.analyzer.import_onnx import analyzer_from_onnx
from visaged.models.training.analyzer.labelling.cache import LABELS, Pack, read_packs
from visaged.models.training.analyzer.labelling.crops import MARGIN
from visaged.models.training.analyzer.loss import TAUGHT_WEIGHTS, WEIGHTS
from visaged.models.training.analyzer.network import SHAPES, Analyzer, load_checkpoint
from visaged.models.training.common import command
from visaged.models.training.common.running import device_named, process_age
from visaged.models.training.common.schedule import learning_rate

SHARES = {"ages": 0.33, "emotions": 0.41, "portraits": 0.14, "street_masks": 0.06, "mask_crops": 0.06}
HEADS = WEIGHTS | TAUGHT_WEIGHTS | {"emotion": 2.0}
_WARMUP = 300
_DECAY_FROM = 0.1
"""Share of the run from which on the rate falls."""
_CALIBRATING = 4
"""Batches whose statistics a network that begins with an exported one gets."""


def new_model(text: str, composer: Composer, faces: Faces, seed: int) -> Analyzer:
    """Return a network by `SHAPE`, fresh, or by `SHAPE:FILE`, begun with an exported one; raises `ValueError`."""
    name, _, init = text.partition(":")
    if name not in SHAPES:
        raise ValueError(f"there is no shape {name!r}; known: {', '.join(SHAPES)}")
    if init:
        batches = [composer.draw().images.cpu() for _ in range(_CALIBRATING)]
        return analyzer_from_onnx(Path(init), SHAPES[name], batches)
    torch.manual_seed(seed)
    model = Analyzer(SHAPES[name])
    mean = faces.targets["points"][~faces.val].nanmean(0) - MARGIN
    model.points.bias.data = mean.reshape(-1).cpu()
    return model


def wait_for(teachers: list[Path], limit_s: float) -> list[Analyzer]:
    """Return the networks when all are complete; raises `ValueError` if that takes longer."""
    end = time.monotonic() + limit_s
    while missing := [path for path in teachers if not path.with_suffix(".done").exists()]:
        if time.monotonic() > end:
            raise ValueError(f"{missing[0]} was not complete in time")
        time.sleep(0.2)
    return [load_checkpoint(path)[0].eval().requires_grad_(False) for path in teachers]


class Run:
    """One process's training: its networks, its time, and what it prints.

    Args:
        arguments: the command line.
        faces: all crops.
        packs: the same as packs.
        learners: the networks.
        composer: draws batches.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        faces: Faces,
        packs: dict[str, Pack],
        learners: list[Learner],
        composer: Composer,
    ) -> None:
        self._arguments, self._faces, self._packs = arguments, faces, packs
        self._learners, self._composer = learners, composer
        self._judge: Judge | None = None
        self._device = faces.images.device
        self._training = {"seconds": arguments.seconds, "batch": arguments.batch, "rate": arguments.rate}

    def run(self, teachers: list[Analyzer], started: float) -> None:
        """Learn until the time or the steps are over; write checkpoints and figures."""
        arguments, begun = self._arguments, time.monotonic()
        end = started + arguments.seconds
        chance = Chance(self._device, arguments.seed + 1)
        mixing = Mixing(self._composer.counts, chance, arguments.mixed, arguments.seed)
        sums: dict[str, Tensor] = {}
        step, reported, saved = 0, (begun, 0), begun
        while True:
            now = time.monotonic()
            done = max((now - begun) / max(end - begun, 1e-3), step / arguments.steps if arguments.steps else 0)
            if done >= 1 or now >= end:
                break
            progress = (done - _DECAY_FROM) / (1 - _DECAY_FROM)
            rate = learning_rate(arguments.rate, step, _WARMUP, progress)
            lesson = mixing.draw(self._composer.draw())
            taught = said_by(teachers, lesson.images)
            for learner in self._learners:
                terms = learner.learn(lesson.images, lambda raw: lesson.loss(raw, HEADS, taught), rate)  # noqa: B023 (called at once)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value.detach()  # type: ignore[operator]
            step += 1
            if now - reported[0] >= arguments.report_every_s:
                self._report(step, step - reported[1], now - reported[0], sums, rate)
                reported, sums = (time.monotonic(), step), {}
            if now - saved >= arguments.save_every_s:
                self._save(step, time.monotonic() - begun)
                saved = time.monotonic()
        self._save(step, time.monotonic() - begun, last=True)

    def _report(self, step: int, steps: int, seconds: float, sums: dict[str, Tensor], rate: float) -> None:
        terms = " ".join(f"{name} {float(value) / steps:.4g}" for name, value in sums.items())
        pace = steps * self._arguments.batch / seconds
        name = self._learners[-1].name
        print(f"{name}: step {step}, {pace:.0f} samples/s, rate {rate:.5f}, {terms}", flush=True)

    def _save(self, step: int, elapsed_s: float, *, last: bool = False) -> None:
        arguments = self._arguments
        if self._judge is None and (last or arguments.held_out is None or arguments.held_out.exists()):
            places = read_places(arguments.held_out) if arguments.held_out and arguments.held_out.exists() else None
            self._judge = Judge(self._faces, self._packs, places)
        for learner in self._learners:
            path = learner.save(arguments.out, self._training, step * arguments.batch)
            if last:
                path.with_suffix(".done").touch()
        for learner in self._learners if self._judge else ():
            figures = self._judge.figures(learner.averaged)  # type: ignore[union-attr]
            print(f"{learner.name}: after {elapsed_s:.0f} s, {step} steps: {short(figures)}", flush=True)
            if last:
                line = {"name": learner.name, "steps": step, "batch": arguments.batch, "share": arguments.share}
                with arguments.figures.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line | {"seconds": round(elapsed_s)} | figures) + "\n")


def parse(command_line: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="directory of crops and labels")
    parser.add_argument("--labels", type=Path, default=LABELS, help="directory of labels made by eye")
    parser.add_argument("--out", type=Path, required=True, help="directory for checkpoints")
    parser.add_argument("--figures", type=Path, required=True, help="file to which figures are added, a JSON a line")
    parser.add_argument("--learn", action="append", required=True, metavar="NAME=SHAPE[:ONNX]", help="may be repeated")
    parser.add_argument("--filler", type=Path, help="exported network that answers where nobody has labelled")
    parser.add_argument("--teacher", type=Path, action="append", default=[], help="checkpoint to learn from; repeated")
    parser.add_argument("--held-out", type=Path, help="by `judge`; without it, they are looked for")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--seconds", type=float, required=True, help="from the start of the process on")
    parser.add_argument("--steps", type=int, help="end after so many, if that is sooner; the rate falls with them")
    parser.add_argument("--share", type=float, default=1.0, help="of the pictures that are learnt from")
    parser.add_argument("--mixed", type=float, default=MIXED_SHARE, help="share of faces laid over each other")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report-every-s", type=float, default=20)
    parser.add_argument("--save-every-s", type=float, default=60)
    return parser.parse_args(command_line)


def main(command_line: list[str] | None = None) -> None:
    """Bring everything to the device and learn."""
    started = time.monotonic() - process_age()
    arguments = parse(command_line)
    if wrong := [text for text in arguments.learn if "=" not in text]:
        raise ValueError(f"--learn takes NAME=SHAPE, not {wrong[0]}")
    device = device_named(arguments.device)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    arguments.out.mkdir(parents=True, exist_ok=True)
    packs = read_packs(arguments.cache, arguments.labels)
    faces = on_device(packs, device, arguments.share)
    if arguments.filler:
        clean = [faces.clean(places).to(torch.uint8).cpu() for places in _some(faces)]
        fill(faces, packs, analyzer_from_onnx(arguments.filler, SHAPES["s"], clean).to(device))
    composer = Composer(faces, SHARES, arguments.batch, Chance(device, arguments.seed))
    learners = []
    for number, text in enumerate(arguments.learn):
        name, shape = text.split("=", 1)
        model = new_model(shape, composer, faces, 100 * arguments.seed + number)
        learners.append(Learner(name, model.to(device), arguments.weight_decay))
    print(f"{', '.join(arguments.learn)}: ready after {time.monotonic() - started:.0f} s", flush=True)
    teachers = wait_for(arguments.teacher, started + arguments.seconds - time.monotonic())
    run = Run(arguments, faces, packs, learners, composer)
    run.run([teacher.to(device, memory_format=torch.channels_last) for teacher in teachers], started)  # type: ignore[call-overload]


def _some(faces: Faces) -> list[Tensor]:
    """Return places of some crops to train on, in batches."""
    places = (~faces.val).nonzero()[:, 0].cpu().numpy()
    chosen = np.random.default_rng(0).permutation(places)[: 64 * _CALIBRATING]
    return list(torch.from_numpy(chosen).to(faces.val.device).split(64))


if __name__ == "__main__":
    command.run(main)
