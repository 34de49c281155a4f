"""Sessions over the package openvino: one compiled network a caller, computed in the caller's own thread.

With no stream of OpenVINO's (`NUM_STREAMS` 0) a run takes place in the thread that asks for it: no other thread wakes
up, none spins, none is pinned, and control groups and affinities bind it as they bind its caller. A compiled network
runs once at a time then, so each caller that runs at the same moment has one of its own: 12 to 14 MB for a canvas of
640x384 with detector-v4.

Compiled for one shape, detector-v4 takes 4 to 16 % less time than compiled for any (the smaller the canvas, the more),
but compiling takes a fifth of a second. So a shape that was met often has a network compiled for it alone, and what is
rare runs on the one for any shape.

Whether bfloat16 pays is the CPU's matter: with `avx512_bf16` or `amx_bf16` it does; elsewhere OpenVINO imitates it,
several times slower than float32 and with the same numbers.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import math
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from visaged.models.errors import ModelError, ProviderError
from visaged.models.shapes import Shape

Precision = Literal["auto", "float32", "bfloat16"]
INSTALL = "pip install 'visaged[openvino]'"

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
_CPUINFO = Path("/proc/cpuinfo")

_NO_CODE = "can't protect"
"""What it says where memory that was written must not be run."""

_OFTEN, _PERIOD = 20, 4096
"""A shape that was met more often than this in so many runs has a network compiled for it, while there is room: with a
camera at 5 fps, after four seconds. It keeps that through the next runs, so that shapes in turns, however many, have
few networks compiled."""
_MOST_SHAPES = 8
_MOST_VALUES = 8 * 640 * 640 * 3
"""Values of the inputs of all shapes that have a network: some 160 MB for each caller with detector-v4."""
_LARGE_INPUT = 6_000_000
"""Bytes from which a network is compiled for the one run, since it would keep what the run took: a canvas of 4096 px
takes 360 MB, and the run itself longer than compiling."""


@functools.cache
def version() -> str | None:
    """Return the version of the package openvino, or None where it is not installed."""
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def has_bfloat16() -> bool:
    """Return whether the CPU has instructions for bfloat16 that OpenVINO uses; False where it is not installed."""
    if version() is None or not _flags_allow_bfloat16(_CPUINFO):
        return False
    try:
        return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except (ProviderError, RuntimeError):
        return False


def _flags_allow_bfloat16(cpuinfo: Path) -> bool:
    """Return whether the system names an instruction for bfloat16; True on systems that name none at all.

    Some versions of OpenVINO list BF16 among their capabilities where they imitate it.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    return any(_BF16_FLAGS & set(line.partition(":")[2].split()) for line in lines if line.startswith("flags"))


class OpenVinoSession:
    """A network compiled by OpenVINO for the CPU; `run` may be called from many threads at once.

    Args:
        path: An ONNX file.
        precision: What it computes in; `auto` takes bfloat16 where the CPU has it.

    Raises:
        ProviderError: The package openvino is missing, or does not load.
        ModelError: The file is not a network that OpenVINO can load.

    Attributes:
        precision: float32 or bfloat16.
        inputs: Shapes of the inputs by name, None for what is free.
        outputs: The names of the outputs.
    """

    def __init__(self, path: Path, precision: Precision = "auto") -> None:
        self._compiler = _core()
        if precision == "auto":
            precision = "bfloat16" if has_bfloat16() else "float32"
        self.precision: str = precision
        self._lock = threading.Lock()
        self._seen: Counter[Shape] = Counter()
        self._runs = 0
        self._own: dict[Shape, _Requests] = {}
        try:
            self._model = _read(path)
            if not self._model.outputs:  # what it makes of an empty file
                raise ValueError("it has no outputs")
            first = self._request()
        except Exception as error:  # OpenVINO raises many types of its own, all from Exception
            text = " ".join(str(error).split())[:400]
            if _NO_CODE in text:
                text += " (OpenVINO makes code as it runs: with systemd it needs MemoryDenyWriteExecute=no)"
            raise ModelError(f"{path} cannot be loaded as a network by OpenVINO: {text}") from error
        self._any = _Requests(self._request)
        self._any.free.append(first)
        self._ports = {port.get_any_name(): port for port in self._model.inputs}
        self._dtypes = {name: port.element_type.to_dtype() for name, port in self._ports.items()}
        self.inputs: dict[str, list[int | str | None]] = {
            name: [side.get_length() if side.is_static else None for side in port.partial_shape]
            for name, port in self._ports.items()
        }
        # A tensor of which the file makes two outputs has two names.
        self._places = {n: place for place, port in enumerate(self._model.outputs) for n in sorted(port.get_names())}
        self.outputs: list[str] = list(self._places)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the network once; thread-safe.

        Args:
            outputs: Names of the outputs wanted.
            inputs: All inputs by name; read while this runs, without a copy if they are contiguous.

        Returns:
            Arrays of the caller's own.

        Raises:
            ValueError: An input is missing, unknown, or of another type or shape than the network takes.
            KeyError: There is no such output.
            RuntimeError: OpenVINO raised it.
        """
        self._check(inputs)
        places = [self._places[name] for name in outputs]
        values = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        if sum(value.nbytes for value in values.values()) > _LARGE_INPUT:
            return _Requests(self._request).run(places, values)
        return self._requests(tuple(value.shape for value in values.values())).run(places, values)

    def _requests(self, shape: Shape) -> _Requests:
        """Count a run of a shape, and return what is compiled for it alone or for any."""
        with self._lock:
            self._runs += 1
            if self._runs % _PERIOD == 0:
                self._own = {one: requests for one, requests in self._own.items() if self._seen[one] > _OFTEN}
                self._seen.clear()
            self._seen[shape] += 1
            own = self._own.get(shape)
            if own is None and self._seen[shape] > _OFTEN and self._has_room(shape):
                own = self._own[shape] = _Requests(self._request_for)
            return own or self._any

    def _has_room(self, shape: Shape) -> bool:
        return len(self._own) < _MOST_SHAPES and sum(map(_values, (*self._own, shape))) <= _MOST_VALUES

    def _check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        # OpenVINO would turn numbers of another type into the network's, and the network into one of another shape.
        if inputs.keys() != self._ports.keys():
            raise ValueError(f"the network takes {', '.join(self._ports)}; it was given {', '.join(inputs)}")
        for name, value in inputs.items():
            if value.dtype != self._dtypes[name]:
                raise ValueError(f"input {name} takes {self._dtypes[name]}; it was given {value.dtype}")
            sides = self.inputs[name]
            if len(sides) != value.ndim or any(
                side not in (None, given) for side, given in zip(sides, value.shape, strict=True)
            ):
                raise ValueError(f"input {name} takes the shape {sides}; it was given {list(value.shape)}")

    def _request(self, inputs: Mapping[str, NDArray[Any]] | None = None) -> Any:
        """Return a request of a network compiled for any shape."""
        return self._compiled(self._model)

    def _request_for(self, inputs: Mapping[str, NDArray[Any]]) -> Any:
        """Return a request of a network compiled for the shapes of these inputs."""
        with self._lock:
            model = self._model.clone()
        model.reshape({name: value.shape for name, value in inputs.items()})
        return self._compiled(model)

    def _compiled(self, model: Any) -> Any:
        options = {
            "NUM_STREAMS": "0",
            "INFERENCE_NUM_THREADS": "1",
            "ENABLE_CPU_PINNING": "NO",
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bfloat16" else "f32",
        }
        return self._compiler.compile_model(model, "CPU", options).create_infer_request()


class _Requests:
    """Compiled networks of one kind, as many as ever ran at the same moment.

    Args:
        build: Returns a request of a new one, for inputs like those given.
    """

    def __init__(self, build: Callable[[Mapping[str, NDArray[Any]]], Any]) -> None:
        self._build = build
        self.free: list[Any] = []

    def run(self, places: Sequence[int], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return copies of the outputs at these places."""
        try:
            request = self.free.pop()
        except IndexError:
            request = self._build(inputs)
        request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        results = [np.array(request.get_output_tensor(place).data) for place in places]
        # One that failed does not come back.
        self.free.append(request)
        return results


def _values(shape: Shape) -> int:
    return sum(map(math.prod, shape))


@functools.cache
def package() -> Any:
    """Return the module openvino, imported so that it reports to nobody; raises `ProviderError`."""
    # Its tools for converting networks, which it imports if they are there, make an id of this machine in the home
    # folder and send that to Google Analytics with the version and the system, from a fork of the process.
    for part in ("openvino.tools.ovc", "openvino_telemetry"):
        sys.modules.setdefault(part, None)  # type: ignore[arg-type]
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        missing = version() is None
        raise ProviderError(
            "provider openvino needs the package openvino: "
            + (INSTALL if missing else f"version {version()} is installed and does not load ({error})")
        ) from error


@functools.cache
def _core() -> Any:
    return package().Core()


def _read(path: Path) -> Any:
    """Return the network of an ONNX file, whatever its name: by itself OpenVINO would try to read other formats too."""
    importlib.import_module("openvino.frontend")
    frontend = package().frontend.FrontEndManager().load_by_framework("onnx")
    return frontend.convert(frontend.load(str(path)))
