"""What training is fed with, beside a GPU too, and how a run goes by time; the shapes of the network."""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.support import packs as made
from visaged.models.training.common.packs import Faces, PackedPicture, is_validation
from visaged.models.training.common.schedule import LAST_SECONDS
from visaged.models.training.detector import feed
from visaged.models.training.detector.config import DetectorTrainConfig
from visaged.models.training.detector.feed import Batch, Composers
from visaged.models.training.detector.gpu import gpu_run
from visaged.models.training.detector.samples.views import Library, Picture
from visaged.models.training.detector.shapes import SHAPES
from visaged.models.types import Image

TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
# Pytest's own threads are no users of what a composing process needs.
FORKS = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

CONFIG = DetectorTrainConfig(
    samples=1000,
    decay_from=400,
    batch=6,
    side=64,
    learning_rate=1.0,
    warmup_steps=10,
    weight_decay=0.0,
    averaging=0.9,
    packs={"portraits": 1.0, "scenes": 1.0},
    large_every=3,
)

PACKS: dict[str, list[tuple[int, int, int, int]]] = {"portraits": [(30, 10, 120, 110)], "scenes": []}


def picture(pack: str, *boxes: tuple[int, int, int, int]) -> Picture:
    image = np.full((120, 160, 3), 90, np.uint8)
    points = [made.paint(image, box) for box in boxes]
    faces = Faces.from_rows(boxes, points, [True] * len(boxes), [True] * len(boxes))
    return Picture.of(PackedPicture(pack, "painted", made.jpeg(image), faces))


@pytest.fixture
def library() -> Library:
    return Library({name: [picture(name, *boxes)] for name, boxes in PACKS.items()}, CONFIG.packs)


@pytest.fixture
def composers(library: Library) -> Iterator[Composers]:
    made_by = Composers(library, CONFIG, (7, 0), 2)
    yield made_by
    made_by.close()


def assert_same(one: Batch, other: Batch) -> None:
    np.testing.assert_array_equal(one.images, other.images)
    for name in ("pictures", "cells", "boxes", "points", "weight"):
        np.testing.assert_array_equal(getattr(one.targets, name), getattr(other.targets, name), err_msg=name)


@FORKS
def test_other_processes_hand_over_what_one_would_compose_itself(library: Library, composers: Composers) -> None:
    shapes = []
    # More steps than there are places for batches, so that each is used again.
    for step, batch in enumerate(islice(composers, 4 * feed.AHEAD + 3)):
        assert_same(batch, feed.step_batch(library, CONFIG, (7, 0), step))
        assert_same(batch, feed.draw_batch(library, CONFIG, np.random.default_rng([7, 0, step]), step % 3 == 2))
        shapes.append(batch.images.shape)
    assert shapes[:3] == [(6, 64, 64, 3), (6, 64, 64, 3), (1, 128, 128, 3)]


@FORKS
def test_what_fails_in_a_composing_process_ends_the_run() -> None:
    empty = {name: [replace(picture(name, *boxes), levels=())] for name, boxes in PACKS.items()}
    broken = Composers(Library(empty, CONFIG.packs), CONFIG, (7, 0), 1)
    try:
        with pytest.raises(RuntimeError, match="the batch of step 0 could not be composed"):
            next(broken)
    finally:
        broken.close()


@FORKS
def test_a_dead_composing_process_ends_the_run(composers: Composers) -> None:
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    with pytest.raises(RuntimeError, match="died with exit code -9"):
        list(islice(composers, 4 * feed.AHEAD))


def test_a_batch_holds_its_pictures_targets_one_after_the_other(library: Library) -> None:
    batch = feed.draw_batch(library, CONFIG, np.random.default_rng(1), large=False)
    targets = batch.targets
    assert batch.images.shape == (6, 64, 64, 3)
    assert targets.weight.shape == (6, 8 * 8 + 4 * 4 + 2 * 2)
    assert len(targets.pictures) == len(targets.cells) == len(targets.boxes) == len(targets.points) > 0
    assert (np.diff(targets.pictures) >= 0).all()
    assert (targets.weight[targets.pictures, targets.cells] >= 1).all()


def test_the_library_is_the_same_however_many_threads_decode(tmp_path: Path) -> None:
    names = [name for name in (f"{i}.jpg" for i in range(40)) if not is_validation("portraits", name)][:9]
    grey: list[Image] = [np.full((60, 60, 3), 10 * i, np.uint8) for i in range(9)]
    rows = [made.row(name, (10, 10, 40, 40), made.POINTS * 40 + 10) for name in names[1:]]
    made.write(tmp_path, "portraits", {n: made.jpeg(g) for n, g in zip(names, grey, strict=True)}, rows)
    hard = tmp_path / "hard.csv"
    hard.write_text(f"pack,image,times\nportraits,{names[0]},3\n", encoding="utf-8")
    one, many = (feed.load_library(tmp_path, {"portraits": 1.0}, None, hard, threads) for threads in (1, 5))
    assert len(one) == len(many) == 11
    assert len(one.faceless) == 3
    for a, b in zip(one.packs[0], many.packs[0], strict=True):
        np.testing.assert_array_equal(a.levels[0], b.levels[0])


def test_without_a_time_limit_the_rate_follows_the_samples() -> None:
    rates = [CONFIG.rate(20, seen, elapsed_s=1e6) for seen in (0, 400, 700, 1000, 2000)]
    assert rates == pytest.approx([1, 1, 0.5, 0, 0])
    assert CONFIG.rate(4, 0, 0) == pytest.approx(0.5)
    assert [CONFIG.is_over(seen, 1e6) for seen in (999, 1000)] == [False, True]


def test_with_a_time_limit_the_rate_and_the_end_follow_the_clock() -> None:
    config = replace(CONFIG, minutes=2.0)
    end = 120 - LAST_SECONDS
    rates = [config.rate(20, 10**9, share * end) for share in (0, 0.4, 0.7, 1.0, 1.1)]
    assert rates == pytest.approx([1, 1, 0.5, 0, 0], abs=1e-9)
    assert not config.is_over(10**9, end - 0.1)
    assert config.is_over(0, end)
    assert replace(CONFIG, minutes=0.01).is_over(0, 0.1), "a limit that is over before it begins"
    assert replace(CONFIG, decay_from=1000, minutes=2.0).rate(20, 0, end - 1) == pytest.approx(1)


@TORCH
def test_the_larger_shape_is_at_most_eight_times_the_work() -> None:
    import torch

    from visaged.models.training.detector.network import Detector

    def multiplications(name: str) -> int:
        model, counts = Detector(SHAPES[name]), list[int]()
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(lambda m, _, out: counts.append(m.weight.numel() * out[0, 0].numel()))
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, 384, 640))
        return sum(counts)

    small, large = multiplications("s"), multiplications("m")
    assert small == 505_432_320
    assert 6 < large / small <= 8


@TORCH
def test_a_device_that_is_not_there_is_refused() -> None:
    import torch

    from visaged.models.training.common.running import device_named

    assert device_named("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device here"):
            device_named("cuda")


def test_the_newest_shipped_detector_is_what_a_run_starts_from(tmp_path: Path) -> None:
    for name in ("detector-v9.onnx", "detector-v10.onnx", "detector-m.onnx", "analyzer-v11.onnx", "detector-v10.md"):
        (tmp_path / name).touch()
    assert gpu_run.newest_shipped(tmp_path).name == "detector-v10.onnx"
    assert gpu_run.newest_shipped().exists()
    with pytest.raises(ValueError, match="has no detector"):
        gpu_run.newest_shipped(tmp_path / "..")


def test_a_run_draws_the_packs_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has none of the packs"):
        gpu_run.pack_weights(tmp_path)
    for name in ("events", "clips", "points68"):
        (tmp_path / f"{name}.tar").touch()
    assert gpu_run.pack_weights(tmp_path) == {"events": 0.38, "clips": 0.06}


def test_a_run_that_has_no_time_to_train_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--minutes must be 1\.33 or more"):
        gpu_run.main(["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--minutes", "1.3"])


def test_what_a_program_prints_is_kept_and_its_time_is_limited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    log = tmp_path / "log"
    assert gpu_run.run_and_keep([sys.executable, "-c", "print('a'); exit(3)"], log, 30) == 3
    assert log.read_text() == capsys.readouterr().out == "a\n"
    waits = "import time; print('b', flush=True); time.sleep(60)"
    assert gpu_run.run_and_keep([sys.executable, "-c", waits], log, 1) < 0
    assert log.read_text() == "b\n"
