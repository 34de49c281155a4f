"""Networks that training starts from, exported or smaller ones: they compute what they did, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from visaged.models.manifest import WEIGHTS  # noqa: E402 (after the skip)
from visaged.models.training.analyzer.export import ExportedOutputs  # noqa: E402
from visaged.models.training.analyzer.export import export as export_analyzer  # noqa: E402
from visaged.models.training.analyzer.import_onnx import analyzer_from_onnx  # noqa: E402
from visaged.models.training.analyzer.network import Analyzer, AnalyzerShape  # noqa: E402
from visaged.models.training.detector.export import export as export_detector  # noqa: E402
from visaged.models.training.detector.import_onnx import detector_from_onnx, stem_channels  # noqa: E402
from visaged.models.training.detector.network import Detector  # noqa: E402
from visaged.models.training.detector.shapes import SHAPES, DetectorShape  # noqa: E402
from visaged.models.training.detector.widen import widened  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter

DETECTOR = DetectorShape(blocks=(1, 1, 2), context=0)
LARGER_DETECTOR = DetectorShape(blocks=(1, 2, 3), context=2)
ANALYZER = AnalyzerShape(blocks=(1, 2, 2), spatial=16)
LARGER_ANALYZER = replace(ANALYZER, blocks=(1, 3, 3), spatial=32)


def as_if_trained(model: Any, side: int) -> Any:
    """Leave no block the identity, and give every normalisation its inputs' statistics."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.2, 0.4)
            module.momentum = 1.0
        if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
            torch.nn.init.normal_(module.bias)  # the exporter writes equal ones once
    with torch.no_grad():
        model.train()(torch.rand(4, 3, side, side) * 255)
    return model.eval()


def pixels(side: int) -> Any:
    torch.manual_seed(1)
    return torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8)


@pytest.fixture
def detector(tmp_path: Path) -> tuple[Any, Path]:
    torch.manual_seed(0)
    model = as_if_trained(Detector(DETECTOR), 128)
    export_detector(model, tmp_path / "detector.onnx")
    return model, tmp_path / "detector.onnx"


@pytest.fixture
def analyzer(tmp_path: Path) -> tuple[Any, Path]:
    torch.manual_seed(0)
    model = as_if_trained(Analyzer(ANALYZER), 112)
    export_analyzer(ExportedOutputs(model, 1.0), tmp_path / "analyzer.onnx")
    return model, tmp_path / "analyzer.onnx"


@pytest.mark.parametrize("shape", [DETECTOR, LARGER_DETECTOR])
def test_an_imported_detector_computes_what_it_did(detector: tuple[Any, Path], shape: DetectorShape) -> None:
    before, path = detector
    assert stem_channels(path) == 16
    images = pixels(128)
    model = detector_from_onnx(path, shape, [images])
    with torch.no_grad():
        old, new, training = before(images.float()), model.eval()(images.float()), model.train()(images.float())
    for one, other, in_training in zip(old, new, training, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
        # In training a normalisation takes its batch's own statistics: they must be those it was given.
        assert float((one - in_training).abs().mean()) < 0.02 * float(one.std())


@pytest.mark.parametrize("shape", [ANALYZER, LARGER_ANALYZER])
def test_an_imported_analyzer_computes_what_it_did(analyzer: tuple[Any, Path], shape: AnalyzerShape) -> None:
    before, path = analyzer
    images = pixels(112)
    model = analyzer_from_onnx(path, shape, [images])
    with torch.no_grad():
        old, new = before(images.float()), model.eval()(images.float())
    assert list(old) == list(new)
    for name, value in old.items():
        # Large matrices are stored in half precision.
        torch.testing.assert_close(value, new[name], rtol=1e-2, atol=1e-2, msg=name)


@pytest.mark.parametrize(
    "load",
    [
        lambda path: detector_from_onnx(path, DETECTOR, [pixels(64)]),
        lambda path: analyzer_from_onnx(path, ANALYZER, [pixels(112)]),
    ],
    ids=["detector", "analyzer"],
)
def test_what_is_not_the_export_of_such_a_network_is_refused(
    load: Callable[[Path], Any], detector: tuple[Any, Path], analyzer: tuple[Any, Path], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="No such file"):
        load(tmp_path / "gone.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ValueError, match=r"text\.onnx is no ONNX file"):
        load(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ValueError, match=r"empty\.onnx is no export of this training"):
        load(tmp_path / "empty.onnx")
    for path in WEIGHTS.glob("*.onnx"):
        with pytest.raises(ValueError, match=rf"{path.name} (is of another network|holds)"):
            load(path)


def test_a_file_of_more_blocks_or_other_widths_is_refused(detector: tuple[Any, Path]) -> None:
    _, path = detector
    with pytest.raises(ValueError, match="it has 2 convolutions more"):
        detector_from_onnx(path, replace(DETECTOR, blocks=(1, 1, 1)), [pixels(64)])
    with pytest.raises(ValueError, match=r"holds \(64, 64, 3, 3\) where the network has \(80, 64, 3, 3\)"):
        detector_from_onnx(path, replace(DETECTOR, channels=(16, 32, 48, 64, 80)), [pixels(64)])


def test_a_widened_network_computes_the_same_and_can_part_from_it() -> None:
    torch.manual_seed(0)
    small = as_if_trained(Detector(SHAPES["s"]), 128)
    large = widened(small, SHAPES["m"])
    images = torch.rand(2, 3, 128, 128) * 255
    with torch.no_grad():
        for one, other in zip(small(images), large.eval()(images), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    sum(level.square().mean() for level in large.train()(images)).backward()
    gradient = large.stages[0][0][0].weight.grad
    first, second = gradient[:48], gradient[48:]
    assert float((first - second).abs().mean() / first.abs().mean()) > 0.05
    with pytest.raises(ValueError, match="twice the channels"):
        widened(small, replace(SHAPES["m"], blocks=(0, 3, 4)))
