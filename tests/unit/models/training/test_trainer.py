"""The loop that trains both networks: a run goes on where its checkpoint left it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from visaged.models.training.common.schedule import TrainConfig

torch = pytest.importorskip("torch", reason="needs PyTorch")

from visaged.models.training.common import trainer  # noqa: E402 (it needs PyTorch too)

CONFIG = TrainConfig(
    samples=16,
    decay_from=16,
    batch=2,
    learning_rate=0.1,
    warmup_steps=1,
    weight_decay=0.01,
    averaging=0.9,
    packs={},
)


@dataclass(frozen=True)
class Shape:
    width: int = 3


class Mean:
    """A batch is the value that the mean of the outputs should have."""

    def images(self, batch: float) -> Any:
        return torch.full((CONFIG.batch, 3, 4, 4), batch).to(torch.uint8)

    def losses(self, outputs: Any, batch: float) -> tuple[Any, dict[str, Any]]:
        distance = (outputs.float().mean() - batch).square()
        return distance, {"distance": distance, "batch": torch.tensor(batch)}


def network() -> Any:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 1, 1))
    model.config = Shape()
    return model


def batches(first: int) -> Iterator[float]:
    step = first
    while True:
        yield float(step % 5)
        step += 1


def options(out: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    trainer.add_options(parser, samples=1, decay_from=1, batch=1, port=1, report_every=3)
    arguments = parser.parse_args(["--out", str(out), "--processes", "1", "--float32", "--save-every-s", "0", *more])
    trainer.prepare(arguments)
    return arguments


def run(out: Path, samples: int, checkpoint: dict[str, Any], *more: str) -> dict[str, Any]:
    """Train to so many samples; return the last checkpoint."""
    config = replace(CONFIG, samples=samples)
    model = network()
    if checkpoint:
        model.load_state_dict(checkpoint["model"])
    learner = trainer.Trainer[float](0, options(out, *more), config, model, checkpoint)
    learner.run(Mean(), batches(int(checkpoint.get("seen", 0)) // CONFIG.batch))
    content: dict[str, Any] = torch.load(out / "last.pt", weights_only=True)
    return content


def test_a_resumed_run_ends_as_one_that_was_never_interrupted(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 16, {})
    half = run(tmp_path / "half", 8, {})
    resumed = run(tmp_path / "resumed", 16, half)
    assert [part["seen"] for part in (whole, half, resumed)] == [16, 8, 16]
    for kind in ("model", "averaged"):
        for name, value in whole[kind].items():
            assert torch.equal(value, resumed[kind][name]), (kind, name)
        assert not torch.equal(whole[kind]["0.weight"], half[kind]["0.weight"])
    assert whole["network"] == {"width": 3}
    assert whole["training"]["batch"] == 2


def test_reports_average_the_steps_since_the_last_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, 10, {})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("6 samples, ")
    assert "batch 1, rate 0.1" in first, "the mean of 0, 1, 2"
    assert second.startswith("10 samples, ")
    assert "batch 3.5, rate 0.1" in second, "the mean of 3, 4"


def test_checkpoints_are_kept_every_so_many_samples(tmp_path: Path) -> None:
    config = replace(CONFIG, samples=3000, batch=500)
    learner = trainer.Trainer[float](0, options(tmp_path, "--keep-every", "1500"), config, network(), {})
    learner.run(Mean(), batches(0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001k.pt", "000003k.pt", "last.pt"]


def test_a_slim_checkpoint_has_the_averaged_weights_alone(tmp_path: Path) -> None:
    slim = run(tmp_path / "slim", 8, {}, "--slim")
    assert slim["optimizer"] is None
    assert torch.equal(slim["model"]["0.weight"], slim["averaged"]["0.weight"])
    assert run(tmp_path / "resumed", 16, slim)["seen"] == 16


def test_a_run_without_a_next_step_is_refused(tmp_path: Path) -> None:
    def never(*_: object) -> None:
        raise AssertionError("started")

    with pytest.raises(ValueError, match="nothing is left to do: 16 samples were seen"):
        trainer.start(never, options(tmp_path), CONFIG, None, {"seen": 16})
    late = options(tmp_path)
    late.started = time.monotonic() - 3600
    config = replace(CONFIG, minutes=2.0)
    with pytest.raises(ValueError, match="nothing is left to do"):
        trainer.start(never, late, config, None, None)
