"""Arrays on a device, here this machine's own memory, and networks that take them where they are."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import onnx
import pytest

from visaged.models import device as devices
from visaged.models.device import Device, DeviceArray
from visaged.models.graphs.nv12 import canvas_graph, crops_graph
from visaged.models.graphs.taps import averaged, halved_and_linear, linear
from visaged.models.manifest import DetectorInput, Manifest
from visaged.models.preprocess import tensor
from visaged.models.session import GPU_BATCHES, Session, SessionConfig, open_graph
from visaged.models.shapes import SessionSet, ShapedRuns

CPU = Device("cpu")
NUMBERS = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.fixture(scope="module")
def network() -> Path:
    manifest = Manifest()
    return manifest.file(manifest.default_detector(on_gpu=False))


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 64, 96, 3), np.uint8)


def test_parts_of_an_array_are_views() -> None:
    array = CPU.upload(NUMBERS)
    assert np.array_equal(array.numpy(), NUMBERS)
    assert np.array_equal(array[1:2].numpy(), NUMBERS[1:2])
    assert np.array_equal(array.row(1).numpy(), NUMBERS[1])
    assert np.array_equal(array.flat(4).numpy(), NUMBERS.reshape(-1, 4))
    assert np.array_equal(array.flat(1).numpy(), NUMBERS.reshape(-1))
    assert array[1:1].shape == (0, 3, 4)
    assert len(array[1:9]) == 1


def test_buffers_are_lent_again_and_have_the_room_that_was_asked_for() -> None:
    device = Device("cpu")
    with device.borrowed((3, 2), np.uint8, 8) as first:
        assert first.lengthened(8).shape == (8, 2)
        assert first[2:3].lengthened(6).shape == (6, 2)
        with pytest.raises(ValueError, match="room for 8 rows, not for 9"):
            first.lengthened(9)
        with device.borrowed((3, 2), np.uint8, 8) as other:
            assert other.pointer != first.pointer
    with device.borrowed((5, 2), np.uint8, 8) as again:
        assert again.pointer in (first.pointer, other.pointer)


def test_a_buffer_of_a_failed_run_is_not_lent_again() -> None:
    device = Device("cpu")
    with pytest.raises(KeyError), device.borrowed((2, 2), np.uint8):
        raise KeyError
    assert not device._free


def test_a_network_takes_batches_where_they_are(network: Path) -> None:
    session = Session(network, SessionConfig("cpu"))
    images = pictures(2)
    expected = session.run(session.outputs, {"image": images})
    found = session.run(session.outputs, {"image": CPU.upload(images)})
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("count", [1, 3, 5, 17])
def test_batches_on_a_device_are_filled_up_and_cut(network: Path, count: int) -> None:
    runs = ShapedRuns("network", SessionSet(lambda: _session(network), 8, 10**9), GPU_BATCHES, None)
    images, most = pictures(count), max(GPU_BATCHES)
    room = -(-count // most) * most
    expected = runs.run(["cells_8"], {"image": images})[0]
    with CPU.borrowed(images.shape, np.uint8, room) as batch:
        _fill(batch, images)
        found = runs.run(["cells_8"], {"image": batch})[0]
    assert np.allclose(expected, found, atol=1e-4)


def _session(path: Path) -> Session:
    return Session(path, SessionConfig("cpu"))._session  # type: ignore[no-any-return]


def _fill(batch: DeviceArray, values: np.ndarray) -> None:
    ctypes.memmove(batch.pointer, values.ctypes.data, values.nbytes)


def test_a_network_of_another_form_refuses_them() -> None:
    form = DetectorInput(name="image", layout="NCHW")
    with pytest.raises(ValueError, match="another form"):
        tensor(CPU.upload(pictures(1)), form)


def test_outputs_must_have_contiguous_places() -> None:
    graph = open_graph(crops_graph(), "cpu", SessionConfig())
    with pytest.raises(ValueError, match="contiguous"):
        devices.run_into(graph, {"crops": np.empty((4, 4), np.uint8)[:, ::2]}, {})


@pytest.mark.parametrize("graph", [canvas_graph(corrected=False), canvas_graph(corrected=True), crops_graph()])
def test_graphs_are_valid_onnx(graph: bytes) -> None:
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    # Each has a kernel of the CUDA provider for these types, by ONNX Runtime's docs/OperatorKernels.md.
    assert {node.op_type for node in model.graph.node} <= {
        "Add", "Cast", "Clip", "Concat", "Div", "Floor", "Gather", "GridSample", "Identity", "Mul", "ReduceSum", "Relu",
        "Reshape", "Round", "Sub", "Transpose", "Unsqueeze",
    }  # fmt: skip


def test_taps_are_weighted_means() -> None:
    for taps in (linear(7, 5), linear(5, 11), averaged(9, 4), halved_and_linear(271, 40), halved_and_linear(30, 40)):
        assert np.allclose(taps.weights.sum(1), 1, atol=1e-5)
    assert averaged(4, 2).places.tolist() == [[0, 1], [2, 3]]
    # Halved to 4, and then as it is.
    halved = halved_and_linear(8, 4)
    kept = [set(row[weights > 0].tolist()) for row, weights in zip(halved.places, halved.weights, strict=True)]
    assert kept == [{0, 1}, {2, 3}, {4, 5}, {6, 7}]
