"""Networks of others that do not do what their manifest entry says: each is refused in words that help."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from tests.support import tiny_networks
from visaged.daemon.cli.main import app
from visaged.models.analyzer import Analyzer
from visaged.models.decoders import DECODERS, Batch
from visaged.models.detector import Detector
from visaged.models.errors import ModelError
from visaged.models.manifest import AnalyzerEntry, Manifest
from visaged.models.self_test import self_test
from visaged.models.session import SessionConfig

CPU = SessionConfig(provider="cpu")


def detector_entry(style: str, **changes: Any) -> dict[str, Any]:
    scale = {key: tiny_networks.SCALES[style][key] for key in ("colour", "mean", "scale")}
    return {
        "name": "red",
        "task": "detector",
        "file": "red.onnx",
        "input": {"name": "in", "layout": "NCHW", "dtype": "float32"} | scale,
        "decoder": style,
        "strides": [8, 16, 32],
    } | changes


def refusal_of_detector(folder: Path, style: str, **changes: Any) -> str:
    """Return what is said of `red.onnx` in the folder with this entry."""
    path = tiny_networks.manifest(folder, detector_entry(style, **changes))
    with pytest.raises(ModelError) as caught:
        self_test(Detector.load(Manifest(path), "red", CPU))
    return str(caught.value)


def change_weight(path: Path, name: str, value: float) -> None:
    """Set all numbers of one of a network's weights."""
    network = onnx.load(str(path))
    (weight,) = (w for w in network.graph.initializer if w.name == name)
    weight.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(weight), value), name))
    onnx.save(network, str(path))


@pytest.mark.parametrize("style", ["scrfd", "yunet"])
def test_what_does_as_its_entry_says_passes(tmp_path: Path, style: str) -> None:
    tiny_networks.detector(tmp_path / "red.onnx", style)
    self_test(Detector.load(Manifest(tiny_networks.manifest(tmp_path, detector_entry(style))), "red", CPU))


def test_a_file_of_one_picture_passes_when_its_entry_says_so(tmp_path: Path) -> None:
    tiny_networks.detector(tmp_path / "red.onnx", "scrfd", batch_axis=False)
    said = refusal_of_detector(tmp_path, "scrfd")
    assert "fails on 3 x 320x192 pixels" in said
    assert "max_batch: 1" in said
    path = tiny_networks.manifest(tmp_path, detector_entry("scrfd", max_batch=1))
    self_test(Detector.load(Manifest(path), "red", CPU))


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"layout": "NHWC", "dtype": "float32"}, r"fails on 1 x 320x192 pixels: .*layout, dtype, size"),
        ({"layout": "NCHW", "dtype": "uint8"}, r"Unexpected input data type.*layout, dtype, size"),
    ],
)
def test_pixels_in_another_form(tmp_path: Path, form: dict[str, Any], said: str) -> None:
    tiny_networks.detector(tmp_path / "red.onnx", "yunet")
    text = refusal_of_detector(tmp_path, "yunet", input={"name": "in"} | form).replace("\n", " ")
    assert re.search(said, text), text


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        # Boxes and points exchanged, and the levels in another order.
        (
            {"bbox": ["kps_8", "kps_16", "kps_32"]},
            "the output bbox of stride 8 has shape (1, 1920, 10), but 1 x 320x192 pixels need",
        ),
        ({"score": ["score_16", "score_8", "score_32"]}, "the output score of stride 8 has shape (1, 480, 1)"),
    ],
)
def test_outputs_that_are_others(tmp_path: Path, outputs: dict[str, list[str]], said: str) -> None:
    tiny_networks.detector(tmp_path / "red.onnx", "scrfd")
    text = refusal_of_detector(tmp_path, "scrfd", outputs=outputs)
    assert said in text
    assert "check the entry's decoder, strides and outputs" in text


def test_a_canvas_that_cuts_a_cell_is_refused_by_the_manifest(tmp_path: Path) -> None:
    tiny_networks.detector(tmp_path / "red.onnx", "yunet")
    form = detector_entry("yunet")["input"] | {"multiple_of": 16}
    assert "input.multiple_of 16 must be a multiple of every stride" in refusal_of_detector(
        tmp_path, "yunet", input=form
    )


@pytest.mark.parametrize("value", [float("nan"), 40.0])
def test_scores_that_are_no_probabilities(tmp_path: Path, value: float) -> None:
    tiny_networks.detector(tmp_path / "red.onnx", "scrfd")
    change_weight(tmp_path / "red.onnx", "offset", value)
    said = refusal_of_detector(tmp_path, "scrfd")
    assert "they must lie within 0..1: the export lacks its sigmoid" in said


@pytest.mark.parametrize("kind", ["box", "points"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_face_that_is_nowhere(kind: str, value: float) -> None:
    raw = {("score", 8): np.zeros((1, 2, 2), np.float32)}
    raw |= {("box", 8): np.ones((1, 2, 2, 4), np.float32), ("points", 8): np.ones((1, 2, 2, 10), np.float32)}
    raw[kind, 8][0, 1, 1, 2] = value
    decode = DECODERS["distances"].decode
    (found,) = decode(raw, [8], Batch(1, 16, 16), 0.5)
    assert len(found) == 0, "what is no face may say what it likes"
    raw["score", 8][0, 1, 1] = 0.8
    with pytest.raises(ModelError, match="stride 8 has a box or a point that is not finite"):
        decode(raw, [8], Batch(1, 16, 16), 0.5)


def analyzer_of(
    path: Path, operator: str, scale: Any, offset: Any, shape: list[int], batch: str | int = "batch"
) -> None:
    """Write an analyzer of 32 px crops: the mean grey value 0..1, times `scale`, plus `offset`, through `operator`."""
    weights = {"third": np.full((1, 3, 1, 1), 1 / 765), "none": np.zeros(1), "scale": np.array(scale, np.float32)}
    weights["offset"] = np.array(offset, np.float32)
    nodes = [
        helper.make_node("Conv", ["in", "third", "none"], ["grey"]),
        helper.make_node("GlobalAveragePool", ["grey"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),  # (B, 1)
        helper.make_node("Mul", ["flat", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["moved"]),
        helper.make_node(operator, ["moved"], ["acted"]),
        helper.make_node("Reshape", ["acted", "shape"], ["out"]),
    ]
    stored = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()]
    stored.append(numpy_helper.from_array(np.array(shape, np.int64), "shape"))
    graph = helper.make_graph(
        nodes,
        "grey",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, [batch, 3, 32, 32])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        stored,
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(network, str(path))


def try_analyzer(folder: Path, **head: Any) -> None:
    entry = {
        "name": "grey",
        "task": "analyzer",
        "file": "grey.onnx",
        "input": {
            "name": "in",
            "layout": "NCHW",
            "dtype": "float32",
            "size": 32,
            "template": [[10, 12], [22, 12], [16, 18], [11, 24], [21, 24]],
        },
        "heads": [{"name": "light", "output": "out"} | head],
    }
    self_test(Analyzer.load(Manifest(tiny_networks.manifest(folder, entry)), "grey", CPU))


TWO = {"kind": "classes", "labels": ["dark", "light"]}


def test_an_analyzer_that_does_as_its_entry_says_passes(tmp_path: Path) -> None:
    analyzer_of(tmp_path / "grey.onnx", "Softmax", [-5, 5], [2, -2], [-1, 2])
    try_analyzer(tmp_path, **TWO)
    analyzer_of(tmp_path / "grey.onnx", "Sigmoid", 5, -2, [-1])
    try_analyzer(tmp_path, kind="score")
    try_analyzer(tmp_path, kind="number", unit="parts")


@pytest.mark.parametrize(
    ("network", "head", "said"),
    [
        (
            ("Softmax", [-5, 5], [2, -2], [-1, 2]),
            {"kind": "classes", "labels": ["a", "b", "c"]},
            r"gives (2,) a face where",
        ),
        (("Identity", [-5, 5], [2, -2], [-1, 2]), TWO, "where 0..1 is needed: the export lacks its last activation"),
        (("Sigmoid", [-5, 5], [2, 2], [-1, 2]), TWO, "gives probabilities whose sum is"),
        (("Identity", 9, 1, [-1]), {"kind": "score"}, "the export lacks its last activation"),
        (("Identity", np.nan, 1, [-1]), {"kind": "score"}, "gives numbers that are not finite"),
        (("Sigmoid", [5, 5], [2, 2], [-1, 2]), {"kind": "points", "count": 106}, "where kind points needs (106, 2)"),
        (
            ("Identity", 1, -9, [-1]),
            {"kind": "number", "deviation": "out", "tolerance": 5},
            "a standard deviation of -",
        ),
        # Two columns, read as a column of one: the second face would be told the first one's.
        (("Softmax", [-5, 5], [2, -2], [-1, 2]), {"kind": "binary", "labels": ["a", "b"]}, "in a batch of 3"),
    ],
)
def test_outputs_that_a_head_cannot_mean(
    tmp_path: Path, network: tuple[Any, ...], head: dict[str, Any], said: str
) -> None:
    analyzer_of(tmp_path / "grey.onnx", *network)
    with pytest.raises(ModelError) as caught:
        try_analyzer(tmp_path, **head)
    assert "model grey: output out of head light" in str(caught.value)
    assert said in str(caught.value)


def test_an_analyzer_of_one_face_at_a_time(tmp_path: Path) -> None:
    analyzer_of(tmp_path / "grey.onnx", "Sigmoid", 5, -2, [-1], batch=1)
    with pytest.raises(ModelError, match=r"(?s)grey fails on 3 x 32x32 pixels: .*export it with a free batch"):
        try_analyzer(tmp_path, kind="score")


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in Manifest().entries])
def test_the_shipped_networks_do_as_their_entries_say(entry: Any) -> None:
    kind = Analyzer if isinstance(entry, AnalyzerEntry) else Detector
    self_test(kind.load(Manifest(), entry.name, CPU))


def test_the_command_line_says_it_too(tmp_path: Path) -> None:
    tiny_networks.detector(tmp_path / "red.onnx", "scrfd", batch_axis=False)
    path = str(tiny_networks.manifest(tmp_path, detector_entry("scrfd")))
    done = CliRunner().invoke(app, ["models", "verify", "--manifest", path])
    assert (done.exit_code, "max_batch: 1" in done.stderr) == (3, True)
    done = CliRunner().invoke(app, ["models", "bench", "--manifest", path, "--seconds", "0.1", "--long-side", "320"])
    assert done.exit_code == 3
    assert "red fails on 8 x 320x192" in done.stderr
    assert "visaged models verify" in done.stderr
