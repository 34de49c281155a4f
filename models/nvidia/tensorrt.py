"""TensorRT's engines: which shapes each is for, where they are kept, and what is lacking where TensorRT is not there.

ONNX Runtime names a cached engine by the network's inputs and outputs and the GPU's compute capability. Trained anew,
a network has the same names, and would meet the engine of its old weights. So each engine has a folder of its own,
named by all that it depends on: a changed network, driver, TensorRT or ONNX Runtime finds none and builds one.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import onnxruntime

from visaged.models.errors import ProviderError
from visaged.models.nvidia.driver import Device, driver_version

MOST_FOLDERS: Final = 48
"""Engines that are kept, those used last: some 10 MB each. A configuration uses 2 to 8."""
LEVEL: Final = 3
"""How hard TensorRT searches, 0 to 5; 3 is its own default. From 4 on it compiles new kernels too, for minutes more."""

_ABOUT = "engine.json"
_MAJOR = 10  # of the TensorRT whose libraries ONNX Runtime is linked to
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
_NEEDED = frozenset({"nvinfer", "nvonnxparser"})


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes of a network's input for which an engine is built; each side of an input lies between two of these.

    Attributes:
        smallest: Least of each side, the batch first.
        usual: What the engine is tuned for.
        largest: Most of each side.
    """

    smallest: tuple[int, ...]
    usual: tuple[int, ...]
    largest: tuple[int, ...]

    def covers(self, shape: Sequence[int]) -> bool:
        """Return whether an engine of this profile takes an input of a shape."""
        return len(shape) == len(self.smallest) and all(
            low <= side <= high for low, side, high in zip(self.smallest, shape, self.largest, strict=True)
        )

    def within(self, declared: Sequence[int | str | None]) -> Profile:
        """Return the profile with the sides that the network's file fixes: its input has numbers there."""

        def fixed(shape: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(own if isinstance(own, int) else side for own, side in zip(declared, shape, strict=True))

        return Profile(fixed(self.smallest), fixed(self.usual), fixed(self.largest))

    def options(self, name: str) -> dict[str, str]:
        """Return the provider options for the input of that name; none where every side is fixed."""
        if self.smallest == self.largest:
            return {}
        return {
            "trt_profile_min_shapes": f"{name}:{_times(self.smallest)}",
            "trt_profile_opt_shapes": f"{name}:{_times(self.usual)}",
            "trt_profile_max_shapes": f"{name}:{_times(self.largest)}",
        }

    def __str__(self) -> str:
        sides = zip(self.smallest, self.largest, strict=True)
        return " x ".join(str(low) if low == high else f"{low}-{high}" for low, high in sides)


@dataclass(frozen=True, slots=True)
class Build:
    """All that an engine depends on.

    Attributes:
        network: Name of the network, for people.
        sha256: Hash of the network's file.
        input: Name of the input that the profile is for.
        profile: Its shapes.
        gpu: The GPU's name and compute capability.
        driver: The driver's version.
        tensorrt: TensorRT's version.
        onnxruntime: ONNX Runtime's version.
        precision: fp16 or fp32.
        level: How hard TensorRT searched.
    """

    network: str
    sha256: str
    input: str
    profile: Profile
    gpu: str
    driver: str
    tensorrt: str
    onnxruntime: str
    precision: str = "fp16"
    level: int = LEVEL

    @classmethod
    def of(cls, network: Path, name: str, profile: Profile, device: Device, tensorrt: str) -> Build:
        """Return what an engine for this machine depends on; reads the network's file."""
        major, minor = device.capability
        return cls(
            network.stem,
            hashlib.sha256(network.read_bytes()).hexdigest(),
            name,
            profile,
            f"{device.name}, {major}.{minor}",
            driver_version(),
            tensorrt,
            onnxruntime.__version__,
        )

    @property
    def folder(self) -> str:
        """Name of the engine's folder."""
        return f"{self.network}-{_digest(asdict(self))}"

    @property
    def timings(self) -> str:
        """Name of the folder of the timings that engines for the same machine share."""
        return f"timings-{_digest({'gpu': self.gpu, 'driver': self.driver, 'tensorrt': self.tensorrt})}"


class EngineCache:
    """The folder of the engines.

    Args:
        folder: The folder; it is made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, build: Build) -> Path:
        """Return the folder of an engine, made and marked as used.

        Raises:
            OSError: It cannot be made.
        """
        place = self._folder / build.folder
        place.mkdir(parents=True, exist_ok=True)
        about = place / _ABOUT
        if not about.exists():
            about.write_text(json.dumps(asdict(build), indent=1) + "\n")
        os.utime(about)
        return place

    def holds(self, build: Build) -> bool:
        """Return whether the engine is there, whole or not."""
        return any((self._folder / build.folder).glob("*.engine"))

    def timings(self, build: Build) -> Path:
        """Return the folder of timings, made; raises `OSError`."""
        place = self._folder / build.timings
        place.mkdir(parents=True, exist_ok=True)
        (place / _ABOUT).touch()
        os.utime(place / _ABOUT)
        return place

    def forget(self, build: Build) -> None:
        """Remove an engine that cannot be used: the process may have been ended while it was written."""
        shutil.rmtree(self._folder / build.folder, ignore_errors=True)

    def prune(self, most: int = MOST_FOLDERS) -> list[str]:
        """Remove what was not used for longest beyond `most` folders; return their names.

        What this class did not make stays, whatever else is in the folder.
        """
        try:
            found = sorted(self._folder.glob(f"*/{_ABOUT}"), key=lambda about: about.stat().st_mtime, reverse=True)
        except OSError:
            return []
        gone = [about.parent for about in found[most:]]
        for place in gone:
            shutil.rmtree(place, ignore_errors=True)
        return [place.name for place in gone]


def load_libraries() -> str:
    """Load TensorRT's libraries, so that ONNX Runtime finds them, and return their version.

    Raises:
        ProviderError: They are not there; the text says what to install.
    """
    folder = _packaged()
    loaded: dict[str, ctypes.CDLL] = {}
    for name in _LIBRARIES:
        file = f"{name}_{_MAJOR}.dll" if sys.platform == "win32" else f"lib{name}.so.{_MAJOR}"
        path = file if folder is None or not (folder / file).exists() else str(folder / file)
        try:
            loaded[name] = ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
        except OSError as error:
            if name in _NEEDED:
                raise ProviderError(
                    f"provider tensorrt was asked for, but TensorRT {_MAJOR} is not there ({error}): "
                    "pip install 'visaged[tensorrt]', or set inference.provider to cuda"
                ) from error
    return _version(loaded["nvinfer"].getInferLibVersion())


def options(build: Build, cache: EngineCache | None, device: int, memory_mb: int | None) -> dict[str, Any]:
    """Return the options of ONNX Runtime's TensorRT provider for one engine.

    Args:
        build: The engine.
        cache: Where it is kept; None for nowhere.
        device: Number of the GPU.
        memory_mb: Most memory in MiB that a kernel may take for its work; None for no limit.

    Raises:
        OSError: The cache's folder cannot be made.
    """
    given: dict[str, Any] = {
        "device_id": str(device),
        "trt_fp16_enable": build.precision == "fp16",
        "trt_builder_optimization_level": str(build.level),
        **build.profile.options(build.input),
    }
    if memory_mb is not None:
        given["trt_max_workspace_size"] = str(memory_mb * 2**20)
    if cache is not None:
        given |= {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(cache.place(build)),
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": str(cache.timings(build)),
        }
    return given


def _packaged() -> Path | None:
    """Return the folder of the libraries that pip installed; None where it did not."""
    found = importlib.util.find_spec("tensorrt_libs")
    places = list(found.submodule_search_locations or []) if found else []
    return Path(places[0]) if places else None


def _version(number: int) -> str:
    """Return 101601 as 10.16.1."""
    return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
