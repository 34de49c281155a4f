"""Sessions: ONNX Runtime's with the right options for each execution provider, or OpenVINO's; no silent fall-back.

Measured on two CPU cores: threads that spin between runs cost 46 ms of CPU a run at 15 runs a second against 8 ms
without, and one shared session with one intra-op thread and as many callers as cores beats one caller with several
threads. `run` may be called from many threads at once. `get_available_providers()` lists what a wheel was built with,
not what the machine has; only a session's own `get_providers()` shows what it really runs on. On CUDA each shape of
the inputs has a session of its own; `visaged.models.shapes` says why. With TensorRT, shapes that have an engine run on
that, and all others on CUDA. Sessions of OpenVINO, a package of its own, are those of `visaged.models.openvino`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from visaged.models import openvino
from visaged.models.device import Array, run
from visaged.models.errors import ModelError, OutOfMemory, ProviderError
from visaged.models.nvidia import graphs
from visaged.models.nvidia.arena import shares_arena
from visaged.models.nvidia.driver import check_devices, devices, share_context
from visaged.models.nvidia.driver import nvidia_driver_present as nvidia_driver_present  # also for those who import it
from visaged.models.nvidia.engines import Engines
from visaged.models.nvidia.tensorrt import Profile, load_libraries
from visaged.models.openvino import OpenVinoSession, Precision
from visaged.models.shapes import MOST_SESSIONS, MOST_VALUES, Runnable, SessionSet, ShapedRuns, is_out_of_memory

log = logging.getLogger(__name__)

Provider = Literal["auto", "cpu", "cuda", "tensorrt", "openvino"]

_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_GPU = frozenset({"cuda", "tensorrt"})


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """How networks run.

    Attributes:
        provider: `auto` takes CUDA where a GPU answers, OpenVINO where it is installed and the CPU has bfloat16, and
            ONNX Runtime on the CPU elsewhere; any other is used or refused.
        require_gpu: Refuse to run on anything but a GPU.
        gpu_memory_mb: Upper bound of the GPU memory arena that all sessions on a device share, in MiB, the first that
            is given; None lets each session have an arena of its own, without a bound.
        cache: Folder for TensorRT's engines and timings; building them takes minutes. None keeps none.
        device: Number of the GPU.
        cuda_graphs: Whether to record CUDA graphs of what is prepared; not with `gpu_memory_mb`, because graphs need
            arenas of their own.
        precision: What OpenVINO computes in; other providers compute in what the network's file says, and are not
            taken for bfloat16.
    """

    provider: Provider = "auto"
    require_gpu: bool = False
    gpu_memory_mb: int | None = None
    cache: Path | None = None
    precision: Precision = "auto"
    device: int = 0
    cuda_graphs: bool = False


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
        provider: The provider it really runs on: cpu, cuda, tensorrt or openvino. With tensorrt, shapes without an
            engine run on CUDA.
        precision: What OpenVINO computes in, float32 or bfloat16; None on other providers.
        inputs: Shapes of the inputs by name.
        outputs: The names of the outputs.
        batches: The sizes of batches that a GPU is given, ascending; other batches are filled up or cut.
    """

    def __init__(self, path: Path, config: SessionConfig, batches: Sequence[int] = GPU_BATCHES) -> None:
        """Load a network.

        Raises:
            ProviderError: The provider asked for is not to be had here.
            ModelError: The file is not a network that the provider can load.
        """
        self._name, self._path, self._config = path.stem, path, config
        self._records = config.cuda_graphs and config.gpu_memory_mb is None
        self._engines: Engines | None = None
        self.batches = tuple(batches)
        self.precision: str | None = None
        self._openvino: OpenVinoSession | None = None
        if expects_openvino(config):
            self._openvino = OpenVinoSession(path, config.precision)
            self.provider, self.precision = "openvino", self._openvino.precision
            self.inputs, self.outputs = self._openvino.inputs, self._openvino.outputs
            return
        session, self.provider = _open(path, config)
        self.inputs = {i.name: i.shape for i in session.get_inputs()}
        self.outputs = [o.name for o in session.get_outputs()]
        self._session: Any = None
        self._runs: ShapedRuns | None = None
        if not self.on_gpu:
            self._session = session
            return
        build = _Spare(session, lambda: _load(path, "cuda", config)).take
        self._shapes = SessionSet(build, MOST_SESSIONS, MOST_VALUES)
        if self.provider == "tensorrt":
            self._records = False  # what cameras send has engines soon
            load = partial(_load, path, "tensorrt", config)
            self._engines = Engines(path, config.device, config.gpu_memory_mb, config.cache, load)
        engine = (lambda shape: None) if self._engines is None else self._engines.find
        self._runs = ShapedRuns(self._name, self._shapes, self.batches, config.gpu_memory_mb, engine)

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
            Exception: ONNX Runtime or OpenVINO raised it.
        """
        if self._openvino is not None:
            return self._openvino.run(outputs, inputs)  # type: ignore[arg-type]  # arrays on devices are for GPUs alone
        if self._runs is not None:
            return self._runs.run(outputs, inputs)
        large = self.provider == "cpu" and sum(value.nbytes for value in inputs.values()) > _LARGE_INPUT
        return run(self._session, outputs, inputs, _SHRINKING if large else None)

    def prepare(self, name: str, item: NDArray[Any], most: int) -> None:
        """Run an input in batches, so that what is made once for a shape is there; on a GPU only.

        Must be called before anything else of the process uses the GPU, cameras too: see `visaged.models.nvidia.graphs`
        on recording.

        Args:
            name: The input.
            item: What to fill batches with, (1, ...).
            most: Length of the longest batch that is to come.

        Raises:
            ModelError: It cannot be run; the text says why.
        """
        if not self.on_gpu:
            return
        try:
            for size in self.batches:
                inputs = {name: np.repeat(item, size, 0)}
                self.run(self.outputs, inputs)
                if self._records:
                    self._record(inputs)
                if size >= most:
                    return
        except ModelError:
            raise
        except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
            raise ModelError(f"{self._name} cannot be run on {self.provider}: {error}") from error

    def build_engine(self, name: str, profile: Profile) -> Runnable:
        """Return a session on TensorRT for some shapes of an input; `use_engine` has runs use it.

        Unless its engine is kept from an earlier run of the program, it takes minutes.

        Raises:
            ModelError: It cannot be built; the text says why.
        """
        if self._engines is None:
            raise ModelError(f"{self._name} runs on {self.provider}, which needs no engines")
        engine: Runnable = self._engines.build(name, self.inputs[name], profile)
        return engine

    def use_engine(self, name: str, profile: Profile, engine: Runnable) -> None:
        """Run what a profile covers on its engine from now on; those added first come first."""
        if self._engines is not None:
            self._engines.use(profile.within(self.inputs[name]), engine)
            self._shapes.clear()  # most of their memory is needed no longer

    def _record(self, inputs: dict[str, NDArray[Any]]) -> None:
        """Record the session of a shape; where that cannot be done, no other shape is tried."""
        shape = tuple(value.shape for value in inputs.values())
        if shape not in self._shapes.shapes():
            return  # memory did not do for a batch of this size
        try:
            session = _load(self._path, "cuda", self._config, {"enable_cuda_graph": "1"})
            runs = graphs.record(session, self._shapes.get(shape), inputs, device=self._config.device)
        except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
            self._records = False
            log.info("%s runs without CUDA graphs: %s", self._name, error)
        else:
            self._shapes.put(shape, runs)


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


def expects_openvino(config: SessionConfig) -> bool:
    """Return whether a network is going to be loaded by OpenVINO."""
    return _resolved(config.provider, config.precision) == "openvino" and not config.require_gpu


def why(config: SessionConfig, got: str) -> str:
    """Return in words why networks run on what they run on.

    Args:
        config: What was asked for.
        got: The provider of a session, as `Session.provider` has it.
    """
    if config.provider != "auto":
        return f"{config.provider} was asked for"
    wanted = _resolved(config.provider, config.precision)
    if got in _GPU:
        return f"an NVIDIA driver answers, and this onnxruntime {onnxruntime.__version__} has CUDA"
    if got == "openvino":
        reason = "this CPU has bfloat16" if openvino.has_bfloat16() else "bfloat16 was asked for"
        return f"openvino {openvino.version()} is installed, {reason}, and it finds the faces that ONNX Runtime finds"
    if wanted in _GPU:
        return "CUDA did not start, its libraries may be missing (pip install 'visaged[cuda]')"
    if wanted == "openvino":
        return "OpenVINO does not tell what ONNX Runtime tells, or does not start; the log says more"
    if nvidia_driver_present():
        return f"this onnxruntime {onnxruntime.__version__} was built without CUDA (install onnxruntime-gpu)"
    return f"no NVIDIA driver answers on this machine; {_why_no_openvino()}"


def _why_no_openvino() -> str:
    """Return in words why OpenVINO was not even tried."""
    if not openvino.version():
        return "openvino, which is faster on a CPU that has bfloat16, is not installed"
    if openvino.has_bfloat16():
        return "float32 was asked for, in which openvino is no faster"
    return "openvino is installed, but this CPU has no bfloat16, without which it is no faster"


def _resolved(provider: Provider, precision: Precision = "auto") -> Provider:
    if provider != "auto":
        return provider
    if nvidia_driver_present() and _built_in("cuda"):
        return "cuda"
    if precision == "bfloat16" or (precision == "auto" and openvino.has_bfloat16()):
        return "openvino"
    return "cpu"


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
    wanted = _resolved(config.provider, config.precision)
    if config.require_gpu and wanted not in _GPU:
        raise ProviderError(
            f"a GPU is required, but the provider is {wanted}: "
            + _why_no_gpu("set provider to cuda, or drop --require-gpu")
        )
    if config.precision == "bfloat16":
        raise ProviderError(
            f"precision bfloat16 is OpenVINO's alone, and the provider is {wanted}; set provider to openvino, or "
            "precision to auto"
        )
    if wanted != "cpu" and not _built_in(wanted):
        raise ProviderError(
            f"this onnxruntime {onnxruntime.__version__} has no provider {wanted} "
            f"(it has {', '.join(onnxruntime.get_available_providers())}); install the fitting onnxruntime package"
        )
    if wanted in _GPU and not nvidia_driver_present():
        raise ProviderError(f"provider {wanted} was asked for: " + _why_no_gpu("or set provider to auto or cpu"))
    if wanted in _GPU:
        if config.provider != "auto" or devices():
            check_devices([config.device], devices())
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
    if wanted == "tensorrt":
        load_libraries()
    # TensorRT's engines come later; until then, and for other shapes, CUDA computes.
    first = "cuda" if wanted == "tensorrt" else wanted
    try:
        session = _load(path, first, config, falls_back=True)
    except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
        if wanted in _GPU and is_out_of_memory(error):
            raise OutOfMemory(
                f"the memory of GPU {config.device} does not do for the network {path.name} (inference.gpu_memory_mb "
                f"is {config.gpu_memory_mb or 'not set'}); free memory that other programs take, or raise gpu_memory_mb"
            ) from error
        raise ModelError(f"{path} cannot be loaded as a network: {error}") from error
    got = next((name for name, full in _NAMES.items() if full == session.get_providers()[0]), "cpu")
    if got != first:
        text = f"{path.name} runs on {got}, not on {first}: {first} did not start (its libraries may be missing)"
        if config.require_gpu or config.provider != "auto":
            raise ProviderError(text)
        log.warning("%s", text)
    # At a failure of the provider in a run, ONNX Runtime would print that and go on with another one.
    session.disable_fallback()
    return session, wanted if got == first else got


def _load(
    network: Path | bytes,
    wanted: str,
    config: SessionConfig,
    more: Mapping[str, Any] | None = None,
    *,
    falls_back: bool = False,
) -> Any:
    """Return a new session of ONNX Runtime.

    Args:
        network: The network's file, or its content.
        wanted: The provider.
        config: How networks run.
        more: More options of the provider.
        falls_back: Whether another provider may take over if the one wanted does not start.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    if wanted in _GPU:
        share_context(config.device)
    if wanted == "cuda" and config.gpu_memory_mb is not None and shares_arena(config.device, config.gpu_memory_mb):
        options.add_session_config_entry("session.use_env_allocators", "1")
    return onnxruntime.InferenceSession(
        network if isinstance(network, bytes) else str(network),
        options,
        providers=_providers(wanted, config, more or {}),
        enable_fallback=falls_back,
    )


def _built_in(provider: str) -> bool:
    return _NAMES[provider] in onnxruntime.get_available_providers()


def _why_no_gpu(otherwise: str) -> str:
    if not nvidia_driver_present():
        return f"no NVIDIA driver answers on this machine (libcuda does not load); install it, {otherwise}"
    return f"this onnxruntime {onnxruntime.__version__} was built without CUDA; install onnxruntime-gpu, {otherwise}"


def _providers(wanted: str, config: SessionConfig, more: Mapping[str, Any]) -> list[Any]:
    cpu = "CPUExecutionProvider"
    if wanted == "cpu":
        return [cpu]
    # Grow by what is asked for, not by doubling: many cameras' shapes would otherwise leave an arena twice its need.
    cuda: dict[str, Any] = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}
    cuda["device_id"] = str(config.device)
    if config.gpu_memory_mb is not None:
        cuda["gpu_mem_limit"] = config.gpu_memory_mb * 2**20
    if wanted == "cuda":
        return [(_NAMES["cuda"], {**cuda, **more}), cpu]
    return [(_NAMES["tensorrt"], dict(more)), (_NAMES["cuda"], cuda), cpu]
