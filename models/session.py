"""ONNX Runtime sessions with the right options for each execution provider, and no silent fall-back.

Measured on two CPU cores: threads that spin between runs cost 46 ms of CPU a run at 15 runs a second against 8 ms
without, and one shared session with one intra-op thread and as many callers as cores beats one caller with several
threads. `run` may be called from many threads at once. `get_available_providers()` lists what a wheel was built with,
not what the machine has; only a session's own `get_providers()` shows what it really runs on.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from visaged.models.errors import ModelError, ProviderError

log = logging.getLogger(__name__)

Provider = Literal["auto", "cpu", "cuda", "tensorrt", "openvino"]

_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_GPU = frozenset({"cuda", "tensorrt"})


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """How networks run.

    Attributes:
        provider: `auto` takes CUDA where a GPU answers and the CPU elsewhere; any other is used or refused.
        require_gpu: Refuse to run on anything but a GPU.
        gpu_memory_mb: Upper bound of each session's GPU memory arena; None leaves it to ONNX Runtime.
        cache: Folder for TensorRT's engines and timings; building them takes minutes.
    """

    provider: Provider = "auto"
    require_gpu: bool = False
    gpu_memory_mb: int | None = None
    cache: Path | None = None


def nvidia_driver_present() -> bool:
    """Return whether the NVIDIA driver's library loads; without it ONNX Runtime only prints errors while trying."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


# What a run takes stays with the session for the next one. After a canvas of 4096 px that would be a gigabyte.
_LARGE_INPUT = 6_000_000
_SHRINKING = onnxruntime.RunOptions()
_SHRINKING.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


class Session:
    """A loaded network.

    Attributes:
        provider: The provider it really runs on: cpu, cuda, tensorrt or openvino.
        inputs: Shapes of the inputs by name.
        outputs: The names of the outputs.
    """

    def __init__(self, path: Path, config: SessionConfig) -> None:
        """Load a network.

        Raises:
            ProviderError: The provider asked for is not to be had here.
            ModelError: The file is not a network that ONNX Runtime can load.
        """
        self._session, self.provider = _open(path, config)
        self.inputs: dict[str, list[int | str | None]] = {i.name: i.shape for i in self._session.get_inputs()}
        self.outputs: list[str] = [o.name for o in self._session.get_outputs()]

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes."""
        return self.provider in _GPU

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Run the network once; thread-safe.

        Args:
            outputs: Names of the outputs wanted; all have the batch as their first axis.
            inputs: The inputs by name, all with the batch as their first axis.
        """
        if not self.on_gpu:
            large = self.provider == "cpu" and sum(value.nbytes for value in inputs.values()) > _LARGE_INPUT
            result: list[NDArray[np.float32]] = self._session.run(
                list(outputs), dict(inputs), _SHRINKING if large else None
            )
            return result
        size = len(next(iter(inputs.values())))
        padded = {name: pad_batch(value) for name, value in inputs.items()}
        return [value[:size] for value in self._session.run(list(outputs), padded)]


def pad_batch(value: NDArray[Any]) -> NDArray[Any]:
    """Return a batch (B, ...) filled up with zeros to the next power of two.

    A GPU searches algorithms and plans memory for every shape that it meets: few shapes, few searches, flat memory.
    """
    size = 1 << (len(value) - 1).bit_length()
    if size == len(value):
        return value
    return np.concatenate([value, np.zeros((size - len(value), *value.shape[1:]), value.dtype)])


def expects_gpu(provider: Provider) -> bool:
    """Return whether a network is going to be loaded for a GPU; whether it then starts, only its session shows."""
    return _resolved(provider) in _GPU


def _resolved(provider: Provider) -> Provider:
    if provider != "auto":
        return provider
    return "cuda" if nvidia_driver_present() and _built_in("cuda") else "cpu"


def _open(path: Path, config: SessionConfig) -> tuple[Any, str]:
    wanted = _resolved(config.provider)
    if config.require_gpu and wanted not in _GPU:
        raise ProviderError(
            f"a GPU is required, but the provider is {wanted}: "
            + _why_no_gpu("set provider to cuda, or drop --require-gpu")
        )
    if wanted != "cpu" and not _built_in(wanted):
        raise ProviderError(
            f"this onnxruntime {onnxruntime.__version__} has no provider {wanted} "
            f"(it has {', '.join(onnxruntime.get_available_providers())}); install the fitting onnxruntime package"
        )
    if wanted in _GPU and not nvidia_driver_present():
        raise ProviderError(f"provider {wanted} was asked for: " + _why_no_gpu("or set provider to auto or cpu"))
    if wanted in _GPU and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=_providers(wanted, config))
    except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
        raise ModelError(f"{path} cannot be loaded as a network: {error}") from error
    got = next((name for name, full in _NAMES.items() if full == session.get_providers()[0]), "cpu")
    if got != wanted:
        text = f"{path.name} runs on {got}, not on {wanted}: {wanted} did not start (its libraries may be missing)"
        if config.require_gpu or config.provider != "auto":
            raise ProviderError(text)
        log.warning("%s", text)
    return session, got


def _built_in(provider: str) -> bool:
    return _NAMES[provider] in onnxruntime.get_available_providers()


def _why_no_gpu(otherwise: str) -> str:
    if not nvidia_driver_present():
        return f"no NVIDIA driver answers on this machine (libcuda does not load); install it, {otherwise}"
    return f"this onnxruntime {onnxruntime.__version__} was built without CUDA; install onnxruntime-gpu, {otherwise}"


def _providers(wanted: str, config: SessionConfig) -> list[Any]:
    cpu = "CPUExecutionProvider"
    if wanted == "cpu":
        return [cpu]
    if wanted == "openvino":
        return [("OpenVINOExecutionProvider", {"device_type": "CPU", "num_of_threads": "1"}), cpu]
    # Grow by what is asked for, not by doubling: many cameras' shapes would otherwise leave an arena twice its need.
    cuda_options: dict[str, Any] = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}
    if config.gpu_memory_mb is not None:
        cuda_options["gpu_mem_limit"] = config.gpu_memory_mb * 2**20
    cuda = ("CUDAExecutionProvider", cuda_options)
    if wanted == "cuda":
        return [cuda, cpu]
    tensorrt: dict[str, Any] = {"trt_fp16_enable": True}
    if config.cache is not None:
        config.cache.mkdir(parents=True, exist_ok=True)
        tensorrt |= {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(config.cache),
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": str(config.cache),
        }
    return [("TensorrtExecutionProvider", tensorrt), cuda, cpu]
