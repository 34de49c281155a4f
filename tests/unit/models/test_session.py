"""Sessions: what they run on, and how they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from visaged.models.errors import ModelError, ProviderError
from visaged.models.manifest import Manifest
from visaged.models.openvino import has_bfloat16
from visaged.models.session import Session, SessionConfig, nvidia_driver_present

without_gpu = pytest.mark.skipif(nvidia_driver_present(), reason="this machine has an NVIDIA driver")


@pytest.fixture(scope="module")
def network() -> Path:
    manifest = Manifest()
    entry = next(entry for entry in manifest.entries if entry.task == "detector")
    return manifest.file(entry)


def test_the_cpu_runs_a_network(network: Path) -> None:
    session = Session(network, SessionConfig(provider="cpu"))
    assert (session.provider, session.on_gpu) == ("cpu", False)
    assert list(session.inputs) == ["image"]
    (cells,) = session.run(["cells_8"], {"image": np.zeros((1, 64, 96, 3), np.uint8)})
    assert cells.shape == (1, 8, 12, 15)
    assert cells.dtype == np.float32


def test_many_threads_share_a_session(network: Path) -> None:
    session = Session(network, SessionConfig(provider="cpu"))
    pictures = [np.full((1, 64, 64, 3), value, np.uint8) for value in (0, 80, 160, 240)]
    alone = [session.run(["cells_8"], {"image": picture})[0] for picture in pictures]
    together: dict[int, list[np.ndarray]] = {index: [] for index in range(4)}

    def work(index: int) -> None:
        for _ in range(10):
            together[index] += session.run(["cells_8"], {"image": pictures[index]})

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for index, results in together.items():
        assert len(results) == 10
        assert all(np.array_equal(result, alone[index]) for result in results)


@without_gpu
def test_auto_without_a_driver_runs_on_the_cpu_whatever_the_wheel_lists(network: Path) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime was built without CUDA")
    session = Session(network, SessionConfig(provider="auto"))
    assert (session.provider, session.on_gpu) == ("openvino" if has_bfloat16() else "cpu", False)


@without_gpu
@pytest.mark.parametrize("provider", ["auto", "cuda", "tensorrt"])
def test_a_required_gpu_that_is_not_there_is_refused(network: Path, provider: str) -> None:
    with pytest.raises(ProviderError, match=r"NVIDIA driver|no provider"):
        Session(network, SessionConfig(provider=provider, require_gpu=True))  # type: ignore[arg-type]


@without_gpu
@pytest.mark.parametrize("provider", ["auto", "openvino"])
def test_a_required_gpu_and_bfloat16_are_refused_with_advice_that_helps(network: Path, provider: str) -> None:
    with pytest.raises(ProviderError, match=r"a GPU is required, but the provider is openvino"):
        Session(network, SessionConfig(provider, require_gpu=True, precision="bfloat16"))  # type: ignore[arg-type]


@without_gpu
def test_cuda_without_a_driver_is_refused_and_not_silently_replaced(network: Path) -> None:
    with pytest.raises(ProviderError, match="provider cuda"):
        Session(network, SessionConfig(provider="cuda"))


def test_a_required_gpu_and_the_cpu_contradict(network: Path) -> None:
    with pytest.raises(ProviderError, match=r"GPU is required, but the provider is cpu"):
        Session(network, SessionConfig(provider="cpu", require_gpu=True))


def test_a_provider_that_this_build_lacks_is_refused_with_those_it_has(network: Path) -> None:
    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has TensorRT")
    with pytest.raises(ProviderError, match=r"no provider tensorrt \(it has .*CPUExecutionProvider"):
        Session(network, SessionConfig(provider="tensorrt"))


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"this is no network" * 50])
def test_garbage_is_no_network(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "garbage.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"garbage\.onnx cannot be loaded"):
        Session(path, SessionConfig(provider="cpu"))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_network_that_was_cut_short_is_refused(tmp_path: Path, network: Path, share: float) -> None:
    path = tmp_path / "short.onnx"
    content = network.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"short\.onnx cannot be loaded"):
        Session(path, SessionConfig(provider="cpu"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx cannot be loaded"):
        Session(tmp_path / "gone.onnx", SessionConfig(provider="cpu"))


def test_onnx_runtime_reports_its_use_to_nobody(tmp_path: Path, network: Path) -> None:
    """It keeps what it would send in the home folder."""
    code = f"from visaged.models.session import *; Session(Path({str(network)!r}), SessionConfig(provider='cpu'))"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"HOME": str(tmp_path)}, check=True, timeout=60)
    assert list(tmp_path.rglob("*")) == []
