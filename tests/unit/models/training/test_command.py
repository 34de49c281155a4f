"""The programs of the training tell what is wrong with their arguments in a line, without a traceback."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from visaged.models.session import nvidia_driver_present
from visaged.models.training.common import command

TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
NO_GPU = pytest.mark.skipif(nvidia_driver_present(), reason="needs a machine without a GPU")


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", f"visaged.models.training.{name}", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        (
            "labelling.mine",
            ["--data", "{gone}", "--pack", "scenes", "--model", "{text}", "--out", "{out}"],
            "cannot be loaded as",
        ),
        ("common.duplicates", ["--data", "{gone}", "--out", "{out}"], "No such file"),
        ("common.duplicates", ["--data", "{damaged}", "--out", "{out}"], "could not be opened"),
        ("analyzer.evaluation.evaluate", ["--cache", "{gone}", "--model", "a={text}"], "cannot be loaded as a network"),
        (
            "analyzer.evaluation.evaluate",
            ["--cache", "{gone}", "--model", "a.onnx"],
            "--model takes NAME=FILE, not a.onnx",
        ),
        ("analyzer.evaluation.evaluate", ["--cache", "{gone}", "--model", "a={network}"], "gone holds no crops"),
        (
            "analyzer.evaluation.evaluate",
            ["--cache", "{gone}", "--model", "a={network}", "--run", "a=openvino:float32"],
            "gone holds no crops",
        ),
        ("analyzer.evaluation.draw_points", ["{gone}", "{out}"], "No such file"),
        pytest.param("detector.export", ["{text}", "{out}"], "is no checkpoint of this network", marks=TORCH),
        pytest.param("detector.export", ["{gone}", "{out}"], "No such file", marks=TORCH),
        pytest.param("detector.train", ["--data", "{gone}", "--out", "{out}"], "No such file", marks=TORCH),
        ("detector.gpu.travel", ["--data", "{gone}", "--out", "{out}"], "gone has none of the packs"),
        ("detector.gpu.gpu_run", ["--data", "{gone}", "--out", "{out}"], "gone has none of the packs"),
        pytest.param(
            "detector.train",
            ["--data", "{gone}", "--out", "{out}", "--device", "cuda"],
            "there is no CUDA device here",
            marks=[TORCH, NO_GPU],
        ),
        pytest.param("analyzer.train", ["--cache", "{gone}", "--out", "{out}"], "gone holds no crops", marks=TORCH),
    ],
)
def test_what_is_wrong_is_told_in_a_line(name: str, arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("no network")
    (tmp_path / "damaged").mkdir()
    for pack in ("street_masks", "events", "portraits", "scenes"):
        (tmp_path / "damaged" / f"{pack}.csv").write_text("image\n")
        (tmp_path / "damaged" / f"{pack}.tar").write_text("no archive")
    network = Path(command.__file__).parents[2] / "weights" / "detector-v4.onnx"
    places = {"gone": tmp_path / "gone", "out": tmp_path / "out", "damaged": tmp_path / "damaged"}
    done = run(name, *(text.format(text=tmp_path / "text.txt", network=network, **places) for text in arguments))
    assert done.returncode == command.EXIT_WRONG_INPUT, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistake_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        command.run(lambda: 1 // 0)
    with pytest.raises(SystemExit) as left:
        command.run(lambda: None)
    assert not left.value.code


def test_files_are_named() -> None:
    assert command.named_files(["a=b=c.onnx", "d=/e"]) == {"a": Path("b=c.onnx"), "d": Path("/e")}
    with pytest.raises(ValueError, match="NAME=FILE, not x"):
        command.named_files(["a=b", "x"])


@TORCH
def test_a_resumed_run_keeps_its_average() -> None:
    import torch

    from visaged.models.training.common.running import WeightAverage

    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    fresh, resumed = (WeightAverage({"weight": torch.zeros(1, 1)}, 0.999, updates) for updates in (0, 50_000))
    fresh.update(model)
    resumed.update(model)
    assert float(fresh.state["weight"]) > 0.5
    assert float(resumed.state["weight"]) == pytest.approx(0.001, rel=1e-3)


def test_quality_is_asked_at_the_size_that_a_view_shows() -> None:
    from visaged.models.training.analyzer.evaluation.figures import quality_at
    from visaged.models.training.analyzer.evaluation.views import VIEWS
    from visaged.models.training.analyzer.heads import QUALITY_SIZES, SIZE

    values = np.array([[0.9, 0.7, 0.5, 0.3, 0.1], [np.nan] * 5], np.float32)
    for size, expected in zip(QUALITY_SIZES, values[0], strict=True):
        np.testing.assert_allclose(quality_at(values, size), [expected, np.nan], rtol=1e-6)
    assert [view.size for view in VIEWS] == [SIZE, SIZE, 45, 34]
    assert 0.3 < quality_at(values, VIEWS[3].size)[0] < 0.5


def test_what_a_model_runs_on_is_read_from_the_command_line() -> None:
    models = {"a": Path("a.onnx"), "b": Path("b.onnx")}
    found = command.runtimes(["b=openvino:bfloat16"], models)
    assert (found["a"].provider, found["b"].provider, found["b"].precision) == ("cpu", "openvino", "bfloat16")
    for wrong in ("c=cpu", "a", "a=gpu", "a=openvino:int8"):
        with pytest.raises(ValueError, match="--run takes"):
            command.runtimes([wrong], models)
