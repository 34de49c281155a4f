"""The training of both networks: processes that learn together, their steps, checkpoints and reports.

On the CPU every process draws its own samples and computes its own gradients, which are averaged before each step; on a
GPU one process learns. What the networks do not share, their batches and losses, is in a `Task`. The learning rate is
constant after a warm-up and falls to zero as a cosine (`schedule`). The weights that count are an exponential average.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import cv2
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from visaged.models.training.common.running import (
    WeightAverage,
    average_gradients,
    build_optimizer,
    device_named,
    join_processes,
    process_age,
    same_for_all,
    save,
    wait_while_paused,
)
from visaged.models.training.common.schedule import TrainConfig

Batch = TypeVar("Batch")
BatchIn = TypeVar("BatchIn", contravariant=True)

_MOST_GRADIENT = 5.0
"""Longer gradients are shortened to this norm."""


class Task(Protocol[BatchIn]):
    """What one network learns from."""

    def images(self, batch: BatchIn) -> Tensor:
        """Return the images of a batch on the training device, (B, 3, H, W) uint8 BGR."""
        ...

    def losses(self, outputs: Any, batch: BatchIn) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar to minimise, and scalars to report by name, always the same names in the same order.

        Args:
            outputs: what the network returned for the images of the batch.
            batch: holds the targets.
        """
        ...


def add_options(
    parser: argparse.ArgumentParser, *, samples: int, decay_from: int, batch: int, port: int, report_every: int
) -> None:
    """Add the options of every training to a command line; the arguments are their defaults."""
    parser.add_argument("--out", type=Path, required=True, help="directory for checkpoints")
    parser.add_argument("--init", type=Path, help="an exported network to start from")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--minutes", type=float, help="end after so long in all; the rate then follows the time")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="that learn on the CPU, or compose beside a GPU"
    )
    parser.add_argument("--samples", type=int, default=samples)
    parser.add_argument("--decay-from", type=int, default=decay_from)
    parser.add_argument("--batch", type=int, default=batch, help="samples per process and step")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=port, help="on which the processes meet, on the loopback")
    parser.add_argument("--pause-file", type=Path, help="training sleeps while this file exists")
    parser.add_argument("--save-every-s", type=float, default=120)
    parser.add_argument("--keep-every", type=int, default=100_000, help="keep a checkpoint every so many samples")
    parser.add_argument("--report-every", type=int, default=report_every, help="steps")
    parser.add_argument(
        "--slim", action="store_true", help="checkpoints of the averaged weights alone: a quarter of the size"
    )
    parser.add_argument("--float32", action="store_true", help="no bfloat16: faster on cores without avx512_bf16")
    parser.set_defaults(device="cpu")


def prepare(arguments: argparse.Namespace) -> None:
    """Make the directory for checkpoints, and this process ready to be forked.

    Raises:
        ValueError: there is no such device.
    """
    arguments.started = time.monotonic() - process_age()
    device_named(arguments.device)  # fails here, before minutes are spent on reading samples
    # One thread each, set before the fork: a pool of threads does not survive it.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)


def start(
    train: Callable[..., None],
    arguments: argparse.Namespace,
    config: TrainConfig,
    data: Any,
    checkpoint: dict[str, Any] | None,
) -> None:
    """Start the processes that learn: forks that share the data, or on a GPU this one.

    Args:
        train: called in each with its rank, the arguments, the config and the data.
        arguments: the command line.
        config: how the run learns.
        data: what samples are drawn from.
        checkpoint: what the run goes on from, or None.

    Raises:
        ValueError: the run has no next step.
    """
    seen = int(checkpoint["seen"]) if checkpoint else 0
    elapsed_s = time.monotonic() - arguments.started
    if config.is_over(seen, elapsed_s):
        raise ValueError(
            f"nothing is left to do: {seen} samples were seen, and {elapsed_s:.0f} s went by before the start; "
            "give more --samples or --minutes"
        )
    if arguments.device == "cuda":
        train(0, arguments, config, data)
    else:
        start_processes(train, (arguments, config, data), arguments.processes, start_method="fork")  # type: ignore[no-untyped-call]


class Trainer(Generic[Batch]):
    """One of the processes that train a network together."""

    def __init__(
        self,
        rank: int,
        arguments: argparse.Namespace,
        config: TrainConfig,
        model: nn.Module,
        checkpoint: dict[str, Any],
    ) -> None:
        """Bring the network to the device, and the optimizer and the average to where a checkpoint left them.

        Args:
            rank: number of this process; 0 saves and reports.
            arguments: the options of `add_options`, and when the program was `started`.
            config: how the run learns.
            model: the network; its `config` is a dataclass that describes its shape.
            checkpoint: what the run goes on from; empty for a first run.
        """
        self.device = device_named(arguments.device)
        torch.backends.cudnn.benchmark = self.device.type == "cuda"
        self._rank, self._arguments, self._config = rank, arguments, config
        self._learners = 1 if self.device.type == "cuda" else arguments.processes
        self._model = model.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self._optimizer = build_optimizer(self._model, config.learning_rate, config.weight_decay)
        if checkpoint.get("optimizer"):
            self._optimizer.load_state_dict(checkpoint["optimizer"])
        self._step, self._seen = 0, int(checkpoint.get("seen", 0))
        averaged = {name: value.to(self.device) for name, value in checkpoint.get("averaged", {}).items()}
        updates = self._seen // (config.batch * self._learners)
        self._average = WeightAverage(averaged or self._model.state_dict(), config.averaging, updates)
        self._keep_next = self._seen + arguments.keep_every
        self._saved_at = time.monotonic()

    def run(self, task: Task[Batch], batches: Iterator[Batch]) -> None:
        """Learn until the run is over.

        Args:
            task: the images and the losses of a batch.
            batches: never ends; each process has its own.
        """
        if self._learners > 1:
            join_processes(self._rank, self._learners, self._arguments.port)
        progress = _Progress()
        elapsed_s = self._elapsed_s()
        last = False
        while not last:
            wait_while_paused(self._arguments.pause_file)
            for group in self._optimizer.param_groups:
                group["lr"] = self._config.rate(self._step, self._seen, elapsed_s)
            batch = progress.draw(batches)
            progress.add(self._learn(task, batch))
            self._step += 1
            self._seen += self._config.batch * self._learners
            elapsed_s = self._elapsed_s()
            last = self._config.is_over(self._seen, elapsed_s)
            if self._rank == 0 and (last or time.monotonic() - self._saved_at > self._arguments.save_every_s):
                self._save()
            if last or progress.steps == self._arguments.report_every:
                if self._rank == 0:
                    rate = self._config.rate(self._step, self._seen, elapsed_s)
                    text = progress.text(self._config.batch * self._learners)
                    print(f"{self._seen} samples, {text}, rate {rate:.6f}", flush=True)
                progress = _Progress()
        if self._learners > 1:
            dist.destroy_process_group()

    def _learn(self, task: Task[Batch], batch: Batch) -> dict[str, Tensor]:
        """Take one step; return the scalars to report."""
        images = task.images(batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=not self._arguments.float32):
            outputs = self._model(images.float())
        loss, terms = task.losses(outputs, batch)
        torch.autograd.backward(loss)
        if self._learners > 1:
            average_gradients(self._model)
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), _MOST_GRADIENT)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._average.update(self._model)
        return terms

    def _elapsed_s(self) -> float:
        """Return the seconds since the program was started."""
        since = time.monotonic() - self._arguments.started
        # All processes must agree on the last step, or one waits for ever for the others' gradients.
        return same_for_all(since) if self._learners > 1 and self._config.minutes is not None else since

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        slim = self._arguments.slim
        content = {
            "network": asdict(self._model.config),
            "training": asdict(self._config),
            "seen": self._seen,
            "model": self._average.state if slim else self._model.state_dict(),
            "averaged": self._average.state,
            "optimizer": None if slim else self._optimizer.state_dict(),
        }
        save(self._arguments.out / "last.pt", content)
        if self._seen >= self._keep_next:
            self._keep_next = self._seen + self._arguments.keep_every
            save(self._arguments.out / f"{self._seen // 1000:06d}k.pt", content)


class _Progress:
    """What a report says of the steps since the last one."""

    def __init__(self) -> None:
        self.steps = 0
        self._started, self._drawing_s = time.monotonic(), 0.0
        self._names: list[str] = []
        self._sums: Tensor | None = None

    def draw(self, batches: Iterator[Batch]) -> Batch:
        """Return the next batch, and note how long it took."""
        before = time.monotonic()
        batch = next(batches)
        self._drawing_s += time.monotonic() - before
        return batch

    def add(self, terms: dict[str, Tensor]) -> None:
        """Count a step. Its numbers stay on the device: to read one waits for the GPU."""
        values = torch.stack(list(terms.values())).detach().double()
        self._names = list(terms)
        self._sums = values if self._sums is None else self._sums + values
        self.steps += 1

    def text(self, samples_per_step: int) -> str:
        """Return the pace, the share of time that drawing took, and the mean of each term."""
        assert self._sums is not None
        passed = time.monotonic() - self._started
        means = (self._sums / self.steps).tolist()
        terms = " ".join(f"{name} {value:.4g}" for name, value in zip(self._names, means, strict=True))
        pace = self.steps * samples_per_step / passed
        return f"{pace:.0f}/s ({self._drawing_s / passed:.0%} drawing), {terms}"
