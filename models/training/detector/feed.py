"""What training is fed with: the decoded packs, batches of samples, and processes that compose them ahead of a GPU.

Composing a sample of 320 pixels and its targets takes some 9 ms of a core, where a GPU learns it in less than one. So
beside a GPU, processes that need neither PyTorch nor CUDA compose whole batches with their targets into shared memory.
A step's batch depends on the seed and the step alone, not on which process made it or how many there are.
"""

from __future__ import annotations

import csv
import mmap
import multiprocessing as mp
import os
import queue
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from visaged.models.training.common import packs
from visaged.models.training.detector.assignment import BatchTargets, assign
from visaged.models.training.detector.config import DetectorTrainConfig
from visaged.models.training.detector.samples.compose import Sample, compose
from visaged.models.training.detector.samples.views import Library, Picture

PACK_WEIGHTS = {"events": 0.38, "street_masks": 0.17, "scenes": 0.29, "portraits": 0.10, "ages": 0.06}
PACK_LIMITS = {"ages": 2500}

CLOSE_UPS, LARGE_CLOSE_UPS = 0.12, 0.4
"""Shares of close-ups among the samples: a face of 640 pixels is learned on the large ones alone."""

AHEAD = 2
"""Batches that may wait or be in the making for each process that composes."""

_LOOK_S = 2.0
"""How often a process that waits looks whether the other side still lives."""


def pack_labels(labels: Path | None, pack: str) -> Path | None:
    """Return the CSV of a directory of other labels that is for a pack, or none."""
    return labels / f"{pack}.csv" if labels and (labels / f"{pack}.csv").exists() else None


def training_pictures(directory: Path, pack: str, labels: Path | None) -> Iterator[packs.PackedPicture]:
    """Yield the pictures of a pack that training draws, with the labels that it draws them with.

    Args:
        directory: where the packs lie.
        pack: the pack's name.
        labels: a directory with CSVs of other labels by pack name, or none.
    """
    for packed in packs.read_pack(
        directory,
        pack,
        labels=pack_labels(labels, pack),
        keep=lambda name: not packs.is_validation(pack, name),
        limit=PACK_LIMITS.get(pack),
    ):
        yield replace(packed, faces=packs.without_parts(packed.faces))


def read_hard(path: Path) -> dict[tuple[str, str], int]:
    """Read how often to draw some pictures, by pack and name, as `mine` wrote it."""
    with path.open(newline="") as file:
        return {(row["pack"], row["image"]): int(row["times"]) for row in csv.DictReader(file)}


def load_library(
    directory: Path, weights: dict[str, float], labels: Path | None, hard: Path | None, threads: int = 1
) -> Library:
    """Decode the training side of all packs.

    Args:
        directory: where the packs lie.
        weights: how often each pack is drawn.
        labels: a directory with CSVs of other labels by pack name, or none.
        hard: a CSV that says how often to draw some pictures of their pack, or none.
        threads: how many decode.
    """
    times = read_hard(hard) if hard else {}
    pictures: dict[str, list[Picture]] = {}
    with ThreadPoolExecutor(threads) as pool:
        for pack in weights:
            packed = list(training_pictures(directory, pack, labels))
            if not packed:
                raise ValueError(f"pack {pack} of {directory} has no picture to train on")
            decoded = pool.map(Picture.of, packed)
            pictures[pack] = [
                picture
                for one, picture in zip(packed, decoded, strict=True)
                for _ in range(times.get((pack, one.name), 1))
            ]
    return Library(pictures, weights)


@dataclass(frozen=True, slots=True)
class Batch:
    """Composed samples and what the network should say of them.

    Attributes:
        images: (B, S, S, 3) uint8 BGR.
        targets: what the cells of the B pictures should say.
    """

    images: NDArray[np.uint8]
    targets: BatchTargets

    @classmethod
    def of(cls, samples: list[Sample]) -> Batch:
        """Stack samples of one size and assign their faces to cells."""
        side = samples[0].image.shape[0]
        targets = [assign(s.boxes, s.points, s.doubtful, side, side) for s in samples]
        return cls(np.stack([s.image for s in samples]), BatchTargets.of(targets))


def draw_batch(library: Library, config: DetectorTrainConfig, rng: Generator, large: bool) -> Batch:
    """Compose one batch."""
    count, side = config.batch_shape(large)
    return Batch.of([compose(library, side, rng, LARGE_CLOSE_UPS if large else CLOSE_UPS) for _ in range(count)])


def own_batches(library: Library, config: DetectorTrainConfig, rng: Generator) -> Iterator[Batch]:
    """Compose the batches of all steps, one when asked for it, in the process that learns."""
    step = 0
    while True:
        yield draw_batch(library, config, rng, config.is_large(step))
        step += 1


def step_batch(library: Library, config: DetectorTrainConfig, key: tuple[int, ...], step: int) -> Batch:
    """Compose the batch of one step of a run whose chance is `key`, which depends on nothing else."""
    return draw_batch(library, config, np.random.default_rng([*key, step]), config.is_large(step))


class Composers:
    """Processes that compose the batches of all steps in order, ahead of the one that learns.

    A batch's images lie in memory that all share and stay valid until the next batch is asked for.
    """

    def __init__(self, library: Library, config: DetectorTrainConfig, key: tuple[int, ...], processes: int) -> None:
        """Fork the processes; to be called before CUDA is used, of which a forked process must know nothing."""
        shapes = [config.batch_shape(large) for large in (False, True)]
        self._slot_bytes = max(count * side * side * 3 for count, side in shapes)
        slots = max(2, AHEAD * processes)
        self._memory = np.frombuffer(mmap.mmap(-1, slots * self._slot_bytes), np.uint8)
        # Fork: the pictures are gigabytes, which a forked process shares.
        context: Any = mp.get_context("fork")
        self._tasks, self._results = context.Queue(), context.Queue()
        self._processes = [
            context.Process(target=self._compose, args=(library, config, key, os.getpid()), daemon=True)
            for _ in range(processes)
        ]
        for process in self._processes:
            process.start()
        # Which process makes a batch is left to who is free: large samples take longer than small ones.
        self._next_task, self._next_step = 0, 0
        self._early: dict[int, tuple[int, tuple[int, ...], BatchTargets]] = {}
        self._lent: int | None = None
        for slot in range(slots):
            self._order(slot)

    def _order(self, slot: int) -> None:
        self._tasks.put((self._next_task, slot))
        self._next_task += 1

    def _place(self, slot: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return the shared memory of a slot as images of that shape."""
        first = slot * self._slot_bytes
        return self._memory[first : first + int(np.prod(shape))].reshape(shape)

    def _compose(self, library: Library, config: DetectorTrainConfig, key: tuple[int, ...], parent: int) -> None:
        """Compose what is ordered until the learning process is gone."""
        while True:
            try:
                step, slot = self._tasks.get(timeout=_LOOK_S)
            except queue.Empty:
                if os.getppid() != parent:
                    return
                continue
            try:
                batch = step_batch(library, config, key, step)
                self._place(slot, batch.images.shape)[:] = batch.images
                self._results.put((step, slot, batch.images.shape, batch.targets))
            except Exception:
                self._results.put((step, None, (), traceback.format_exc()))

    def __iter__(self) -> Iterator[Batch]:
        """Return itself: there is no end of batches."""
        return self

    def __next__(self) -> Batch:
        """Return the next step's batch and have the memory of the last one filled anew.

        Raises:
            RuntimeError: A process failed or died.
        """
        if self._lent is not None:
            self._order(self._lent)
        while self._next_step not in self._early:
            try:
                step, slot, shape, targets = self._results.get(timeout=_LOOK_S)
            except queue.Empty:
                if dead := [p.exitcode for p in self._processes if not p.is_alive()]:
                    raise RuntimeError(f"a composing process died with exit code {dead[0]}") from None
                continue
            if slot is None:
                raise RuntimeError(f"the batch of step {step} could not be composed:\n{targets}")
            self._early[step] = slot, shape, targets
        self._lent, shape, targets = self._early.pop(self._next_step)
        self._next_step += 1
        return Batch(self._place(self._lent, shape), targets)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        for channel in (self._tasks, self._results):
            channel.close()
            channel.cancel_join_thread()
