"""ONNX Runtime sessions with the right options for each execution provider, and no silent fall-back.

Measured on two CPU cores: threads that spin between runs cost 46 ms of CPU a run at 15 runs a second against 8 ms
without, and one shared session with one intra-op thread and as many callers as cores beats one caller with several
threads. `run` may be called from many threads at once. `get_available_providers()` lists what a wheel was built with,
not what the machine has; only a session's own `get_providers()` shows what it really runs on. On CUDA each shape of
the inputs has a session of its own; `visaged.models.shapes` says why.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from visaged.models.device import Array, run
from visaged.models.errors import ModelError, ProviderError
from visaged.models.shapes import MOST_SESSIONS, MOST_VALUES, SessionSet, ShapedRuns

log = logging.getLogger(__name__)

Provider = Literal["auto", "cpu", "cuda", "tensorrt", "openvino"]

_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_GPU = frozenset({"cuda", "tensorrt"})
_AS_REQUESTED = 1  # ONNX Runtime's number of the strategy kSameAsRequested


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """How networks run.

    Attributes:
        provider: `auto` takes CUDA where a GPU answers and the CPU elsewhere; any other is used or refused.
        require_gpu: Refuse to run on anything but a GPU.
        gpu_memory_mb: Upper bound of the GPU memory arena that all sessions of the process share, in MiB, the first
            that is given; None lets each session have an arena of its own, without a bound.
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


GPU_BATCHES: Final = (1, 4, 8, 16)
"""Sizes of the batches that a GPU is given, unless a network says otherwise. On an H200, two pictures take a detector a
tenth longer in a batch of 4 than in one of 2, and more than 16 at once are no faster."""


class Session:
    """A loaded network.

    Attributes:
        provider: The provider it really runs on: cpu, cuda, tensorrt or openvino.
        inputs: Shapes of the inputs by name.
        outputs: The names of the outputs.
        batches: The sizes of batches that a GPU is given, ascending; other batches are filled up or cut.
    """

    def __init__(self, path: Path, config: SessionConfig, batches: Sequence[int] = GPU_BATCHES) -> None:
        """Load a network.

        Raises:
            ProviderError: The provider asked for is not to be had here.
            ModelError: The file is not a network that ONNX Runtime can load.
        """
        session, self.provider = _open(path, config)
        self._name = path.stem
        self.batches = tuple(batches)
        self.inputs: dict[str, list[int | str | None]] = {i.name: i.shape for i in session.get_inputs()}
        self.outputs: list[str] = [o.name for o in session.get_outputs()]
        self._session: Any = None
        self._runs: ShapedRuns | None = None
        if not self.on_gpu:
            self._session = session
            return
        # TensorRT's one session has engines for all shapes.
        build = (
            _Spare(session, lambda: _load(path, "cuda", config)).take if self.provider == "cuda" else lambda: session
        )
        sessions = SessionSet(build, MOST_SESSIONS, MOST_VALUES)
        self._runs = ShapedRuns(self._name, sessions, self.batches, config.gpu_memory_mb)

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes."""
        return self.provider in _GPU

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[NDArray[np.float32]]:
        """Run the network once; thread-safe.

        Args:
            outputs: Names of the outputs wanted; all have the batch as their first axis.
            inputs: The inputs by name, all with the batch as their first axis; what is on a device stays there, and has
                room for the size of batch that is run.

        Raises:
            OutOfMemory: The GPU's memory does not do for a single input.
            Exception: ONNX Runtime raised it.
        """
        if self._runs is not None:
            return self._runs.run(outputs, inputs)
        large = self.provider == "cpu" and sum(value.nbytes for value in inputs.values()) > _LARGE_INPUT
        return run(self._session, outputs, inputs, _SHRINKING if large else None)

    def prepare(self, name: str, item: NDArray[Any], most: int) -> None:
        """Run an input in batches, so that what is made once for a shape is there; on CUDA only.

        TensorRT would build its engines, which takes minutes, and other providers have nothing to make.

        Args:
            name: The input.
            item: What to fill batches with, (1, ...).
            most: Length of the longest batch that is to come.

        Raises:
            ModelError: It cannot be run; the text says why.
        """
        if self.provider != "cuda":
            return
        try:
            for size in self.batches:
                self.run(self.outputs, {name: np.repeat(item, size, 0)})
                if size >= most:
                    return
        except ModelError:
            raise
        except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
            raise ModelError(f"{self._name} cannot be run on {self.provider}: {error}") from error


class _Spare:
    """Gives the session that was opened first, which showed that the network runs, to the first shape."""

    def __init__(self, session: Any, build: Callable[[], Any]) -> None:
        self._lock = threading.Lock()
        self._session = session
        self._build = build

    def take(self) -> Any:
        """Return a session for one shape."""
        with self._lock:
            session, self._session = self._session, None
        return self._build() if session is None else session


def expects_gpu(provider: Provider) -> bool:
    """Return whether a network is going to be loaded for a GPU; whether it then starts, only its session shows."""
    return _resolved(provider) in _GPU


def why(wanted: Provider, got: str) -> str:
    """Return in words why networks run on what they run on.

    Args:
        wanted: The provider that was asked for.
        got: The provider of a session, as `Session.provider` has it.
    """
    if wanted != "auto":
        return f"{wanted} was asked for"
    if got in _GPU:
        return f"an NVIDIA driver answers, and this onnxruntime {onnxruntime.__version__} has CUDA"
    if _resolved(wanted) in _GPU:
        return "CUDA did not start, its libraries may be missing (pip install 'visaged[cuda]')"
    if not nvidia_driver_present():
        return "no NVIDIA driver answers on this machine"
    return f"this onnxruntime {onnxruntime.__version__} was built without CUDA (install onnxruntime-gpu)"


def _resolved(provider: Provider) -> Provider:
    if provider != "auto":
        return provider
    return "cuda" if nvidia_driver_present() and _built_in("cuda") else "cpu"


def open_graph(data: bytes, provider: str, config: SessionConfig) -> Any:
    """Return a session of ONNX Runtime for a graph of this package.

    Args:
        data: The graph, as a file's content.
        provider: `cpu`, or `cuda` for the GPU that the networks run on.
        config: How networks run.

    Raises:
        ModelError: The provider does not start, or does not take the graph.
    """
    try:
        session = _load(data, provider, config)
    except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
        raise ModelError(f"a graph cannot be loaded: {error}") from error
    if session.get_providers()[0] != _NAMES[provider]:
        raise ModelError(f"a graph does not run on {provider}")
    session.disable_fallback()
    return session


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
    try:
        session = _load(path, wanted, config, falls_back=True)
    except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
        raise ModelError(f"{path} cannot be loaded as a network: {error}") from error
    got = next((name for name, full in _NAMES.items() if full == session.get_providers()[0]), "cpu")
    if got != wanted:
        text = f"{path.name} runs on {got}, not on {wanted}: {wanted} did not start (its libraries may be missing)"
        if config.require_gpu or config.provider != "auto":
            raise ProviderError(text)
        log.warning("%s", text)
    # At a failure of the provider in a run, ONNX Runtime would print that and go on with another one.
    session.disable_fallback()
    return session, got


def _load(network: Path | bytes, wanted: str, config: SessionConfig, *, falls_back: bool = False) -> Any:
    """Return a new session of ONNX Runtime; `falls_back`: on another provider if the one wanted does not start."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    if wanted == "cuda" and config.gpu_memory_mb is not None and _shares_arena(config.gpu_memory_mb):
        options.add_session_config_entry("session.use_env_allocators", "1")
    return onnxruntime.InferenceSession(
        network if isinstance(network, bytes) else str(network),
        options,
        providers=_providers(wanted, config),
        enable_fallback=falls_back,
    )


_arena_lock = threading.Lock()
_arena_shared: bool | None = None


def _shares_arena(memory_mb: int) -> bool:
    """Return whether the sessions of this process have one arena of GPU memory, which the first call makes.

    ONNX Runtime keeps it until the process ends. Without it, each session of each shape would have the whole bound.
    """
    global _arena_shared
    with _arena_lock:
        if _arena_shared is None:
            kind, place = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
            try:
                onnxruntime.create_and_register_allocator_v2(
                    _NAMES["cuda"],
                    onnxruntime.OrtMemoryInfo("Cuda", kind, 0, place),
                    {},
                    onnxruntime.OrtArenaCfg({"max_mem": memory_mb * 2**20, "arena_extend_strategy": _AS_REQUESTED}),
                )
                _arena_shared = True
            except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
                log.warning("inference.gpu_memory_mb bounds each shape's memory alone, not their sum: %s", error)
                _arena_shared = False
        return _arena_shared


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
