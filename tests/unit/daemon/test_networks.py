"""Which networks are loaded."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.support import tiny_networks
from visaged.daemon import networks
from visaged.daemon.errors import StartError
from visaged.daemon.networks import Networks, load_networks
from visaged.daemon.settings import InferenceSettings, ModelSettings
from visaged.models.manifest import Manifest
from visaged.models.openvino import has_bfloat16
from visaged.models.session import SessionConfig, nvidia_driver_present
from visaged.pipelines.runtime.metrics import Metrics


def loaded(detector: str | None, provider: str) -> Networks:
    wanted = ModelSettings(detector=detector, analyzer=None)
    return load_networks(wanted, InferenceSettings.model_validate({"provider": provider}), 0.2, Metrics())


def test_a_cpu_gets_the_detector_made_for_it() -> None:
    found = loaded(None, "cpu")
    entry = Manifest().detector(found.detector.name)
    assert not entry.gpu
    assert found.versions == (entry.version, None)
    assert found.detector.provider == "cpu"
    assert found.graphs is None


@pytest.mark.skipif(nvidia_driver_present(), reason="this machine has a GPU")
def test_without_a_gpu_the_choice_is_the_one_for_a_cpu() -> None:
    assert loaded(None, "auto").detector.name == loaded(None, "cpu").detector.name


def test_a_detector_that_is_named_is_used_wherever_it_runs() -> None:
    made_for_gpus = next(entry.name for entry in Manifest().entries if entry.task == "detector" and entry.gpu)
    assert loaded(made_for_gpus, "cpu").detector.name == made_for_gpus


without_gpu = pytest.mark.skipif(nvidia_driver_present(), reason="this machine has a GPU")


def with_precision(models: ModelSettings, precision: str, provider: str = "auto") -> tuple[Networks, Metrics]:
    inference = InferenceSettings.model_validate({"provider": provider, "precision": precision})
    metrics = Metrics()
    return load_networks(models, inference, 0.2, metrics), metrics


@without_gpu
def test_openvino_is_taken_if_it_finds_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """Asked for bfloat16, `auto` takes it on any CPU: imitated where the CPU has none, with the same numbers."""
    caplog.set_level(logging.INFO)
    networks, metrics = with_precision(ModelSettings(), "bfloat16")
    assert (networks.detector.provider, networks.detector.precision) == ("openvino", "bfloat16")
    assert f"{networks.detector.name} runs on openvino in bfloat16: openvino " in caplog.text
    assert ("OpenVINO imitates it" in caplog.text) != has_bfloat16()
    labels = [sample.labels for metric in metrics.provider.collect() for sample in metric.samples]
    assert {label["provider"] for label in labels} == {"openvino"}


@without_gpu
def test_in_float32_auto_stays_with_onnx_runtime() -> None:
    networks, _ = with_precision(ModelSettings(analyzer=None), "float32")
    assert networks.detector.provider == "cpu"
    networks, _ = with_precision(ModelSettings(analyzer=None), "float32", "openvino")
    assert (networks.detector.provider, networks.detector.precision) == ("openvino", "float32")


def of_one_file(folder: Path, model: Any) -> ModelSettings:
    """Return settings for a network that stands in for the packaged detector."""
    entry = Manifest().default_detector(on_gpu=False)
    onnx.save(model, str(folder / "changed.onnx"))
    said = entry.model_dump(mode="json", exclude={"sha256", "card"}, exclude_none=True) | {"file": "changed.onnx"}
    return ModelSettings(manifest=tiny_networks.manifest(folder, said), analyzer=None)


def packaged() -> Any:
    manifest = Manifest()
    return onnx.load(str(manifest.file(manifest.default_detector(on_gpu=False))))


def make_fragile(model: Any) -> None:
    """Add a thousand to what the last convolutions see and take it off their results: bfloat16 has three digits."""
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    ends = {node.input[0] for node in graph.node if node.output[0].startswith("cells_")}
    for node in [node for node in graph.node if node.op_type == "Conv" and node.output[0] in ends]:
        kernel, bias = (numpy_helper.to_array(weights[name]) for name in node.input[1:])
        assert kernel.shape[2:] == (1, 1)
        channels, name = kernel.shape[1], f"{node.output[0]}_moved"
        added = {
            f"{name}_same": np.eye(channels, dtype=np.float32)[:, :, None, None],
            f"{name}_thousand": np.full(channels, 1000, np.float32),
            f"{name}_bias": (bias - 1000 * kernel.sum((1, 2, 3))).astype(np.float32),
        }
        graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in added.items())
        inputs = [node.input[0], f"{name}_same", f"{name}_thousand"]
        graph.node.insert(list(graph.node).index(node), helper.make_node("Conv", inputs, [name]))
        node.input[0], node.input[2] = name, f"{name}_bias"


@without_gpu
def test_openvino_is_left_if_it_finds_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = packaged()
    make_fragile(model)
    wanted = of_one_file(tmp_path, model)
    networks, _ = with_precision(wanted, "bfloat16")
    assert (networks.detector.provider, networks.detector.precision) == ("cpu", None)
    assert "networks run on ONNX Runtime, not on OpenVINO: it tells otherwise of a picture, the face at " in caplog.text
    assert with_precision(wanted, "float32", "openvino")[0].detector.provider == "openvino"


@without_gpu
def test_openvino_is_left_if_it_cannot_read_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = packaged()
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    middle = next(node for node in model.graph.node if node.op_type == "Relu").output[0]
    model.graph.node.append(helper.make_node("Binarizer", [middle], ["unused"], domain="ai.onnx.ml"))
    model.graph.output.append(helper.make_tensor_value_info("unused", onnx.TensorProto.FLOAT, None))
    wanted = of_one_file(tmp_path, model)
    with pytest.raises(StartError, match="No conversion rule found"):
        with_precision(wanted, "float32", "openvino")
    assert with_precision(wanted, "bfloat16")[0].detector.provider == "cpu"
    assert "networks run on ONNX Runtime, not on OpenVINO: " in caplog.text
    assert "No conversion rule found" in caplog.text


@pytest.mark.parametrize("provider", ["cpu", "cuda", "tensorrt"])
def test_a_precision_that_is_not_the_providers_is_refused(provider: str) -> None:
    with pytest.raises(ValueError, match=f"precision bfloat16 is for provider openvino, and provider is {provider}"):
        InferenceSettings.model_validate({"provider": provider, "precision": "bfloat16"})
    with pytest.raises(ValueError, match="'auto', 'float32' or 'bfloat16'"):
        InferenceSettings.model_validate({"precision": "int8"})


@dataclass
class OnCuda:
    """What is asked of a network that runs on CUDA, where there is none."""

    provider: str = "cuda"
    takes_device_batches: bool = True


@pytest.mark.skipif(nvidia_driver_present(), reason="this machine has a GPU")
def test_frames_are_copied_where_the_gpu_does_not_take_them(caplog: pytest.LogCaptureFixture) -> None:
    assert networks._graphs([OnCuda()], SessionConfig()) is None  # type: ignore[list-item]
    (said,) = caplog.messages
    assert said.startswith("frames that are decoded on the GPU are copied to this machine's own memory: libcuda.so.1")


@pytest.mark.parametrize("network", [OnCuda(provider="cpu"), OnCuda(takes_device_batches=False)])
def test_frames_are_copied_for_networks_elsewhere_and_of_another_form(
    caplog: pytest.LogCaptureFixture, network: OnCuda
) -> None:
    assert networks._graphs([OnCuda(), network], SessionConfig()) is None  # type: ignore[list-item]
    assert not caplog.messages
