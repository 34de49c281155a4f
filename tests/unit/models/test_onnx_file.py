"""Networks whose weights lie in other files, which no hash covers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from tests.support import tiny_networks
from visaged.daemon.cli.main import app
from visaged.models.errors import ModelError
from visaged.models.manifest import PACKAGED, Manifest
from visaged.models.onnx_file import external_files


def external(location: str) -> Any:
    tensor = numpy_helper.from_array(np.ones((2, 2), np.float32), "weights")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    if location:
        tensor.external_data.add(key="location", value=location)
    return tensor


def model(nodes: list[Any] | None = None, weights: list[Any] | None = None, **more: Any) -> bytes:
    graph = helper.make_graph(nodes or [], "graph", [], [], weights or [])
    return helper.make_model(graph, **more).SerializeToString()  # type: ignore[no-any-return]


def inside(graph: Any) -> Any:
    return helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)


@pytest.mark.parametrize("location", ["net.data", "../net.data", "/etc/passwd", ""])
def test_weights_of_other_files_are_found_wherever_they_are(location: str) -> None:
    tensor = external(location)
    constant = helper.make_node("Constant", [], ["x"], value=tensor)
    deep = helper.make_graph([inside(helper.make_graph([constant], "inner", [], []))], "outer", [], [])
    function = helper.make_function("d", "f", [], ["x"], [constant], [helper.make_opsetid("", 17)])
    sparse = onnx.SparseTensorProto(values=tensor, dims=[2])
    sparsely = helper.make_graph([], "graph", [], [], sparse_initializer=[sparse])
    training = onnx.TrainingInfoProto(initialization=helper.make_graph([], "g", [], [], [tensor]))
    trained = helper.make_model(helper.make_graph([], "graph", [], []))
    trained.training_info.append(training)
    for data in (
        model(weights=[tensor]),
        model([constant]),
        model([inside(deep)]),
        model(functions=[function]),
        helper.make_model(sparsely).SerializeToString(),
        trained.SerializeToString(),
    ):
        found = external_files(data)
        assert location in found
        assert set(found) <= {location, ""}


def test_bits_that_onnx_runtime_ignores() -> None:
    graph = helper.make_graph([], "g", [], [], [external("net.data")]).SerializeToString()
    tag = bytes([7 << 3 | 2 | 0x80, 0x80, 0x80, 0x80, 0x10])  # field 7 with a 33rd bit
    assert external_files(tag + field(7, graph)[1:]) == ["", "net.data"]
    location = bytes([14 << 3, 0x81, 0x80, 0x80, 0x80, 0x10])  # 1 with a 33rd bit
    assert external_files(field(7, field(5, location))) == [""]


def test_a_compiled_network_is_another_file() -> None:
    node = helper.make_node("EPContext", [], ["x"], domain="com.microsoft", ep_cache_context="/tmp/x.bin")
    assert external_files(model([node])) == ["EPContext"]


def test_the_networks_of_the_package_are_whole_files() -> None:
    for entry in Manifest().entries:
        assert external_files((PACKAGED.parent / entry.file).read_bytes()) == []


def test_what_is_no_onnx_file() -> None:
    whole = model(weights=[numpy_helper.from_array(np.ones(100, np.float32), "w")])
    for data in (whole[:-5], b"\xff" * 100, b"ORTM" * 10, b"\x3a\xff\xff\xff\xff\x0f"):
        with pytest.raises(ValueError, match="no ONNX file"):
            external_files(data)
    deep = b""
    for _ in range(40):
        for tag in (6, 5, 1):  # a graph is in an attribute, which is in a node, which is in a graph
            deep = field(tag, deep)
    with pytest.raises(ValueError, match="nested too deeply"):
        external_files(field(7, deep))


def field(number: int, value: bytes) -> bytes:
    """A field of a message in the wire format, of fewer than 16,384 bytes."""
    size = len(value)
    return bytes([number << 3 | 2]) + (bytes([size]) if size < 128 else bytes([0x80 | size & 0x7F, size >> 7])) + value


def test_changed_weights_of_another_file_are_not_whole(tmp_path: Path) -> None:
    tiny_networks.detector(tmp_path / "red.onnx", "yunet")
    network = onnx.load(tmp_path / "red.onnx")
    onnx.save(network, tmp_path / "red.onnx", save_as_external_data=True, location="red.data", size_threshold=0)
    form = {"name": "in", "layout": "NCHW", "dtype": "float32"}
    entry = {"name": "red", "task": "detector", "file": "red.onnx", "input": form, "decoder": "yunet"}
    manifest = tiny_networks.manifest(tmp_path, entry | {"strides": [8, 16, 32]})
    described = yaml.safe_load(manifest.read_text())["models"][0]
    assert described["sha256"] == hashlib.sha256((tmp_path / "red.onnx").read_bytes()).hexdigest()
    done = CliRunner().invoke(app, ["models", "verify", "--manifest", str(manifest)])
    assert done.exit_code == 3
    assert "keeps weights in other files (red.data), which its sha256 does not cover" in done.stderr
    assert "whole" not in done.stdout
    with pytest.raises(ModelError, match="other files"):
        Manifest(manifest).file(Manifest(manifest).detector("red"))
