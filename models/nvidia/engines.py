"""The engines of one network on TensorRT: built or loaded, and found by the shape of a run's input."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from visaged.models.errors import ModelError
from visaged.models.nvidia.driver import devices
from visaged.models.nvidia.tensorrt import Build, EngineCache, Profile, load_libraries, options

log = logging.getLogger(__name__)


class Engines:
    """The engines of one network on one GPU; `find` may be called from many threads at once.

    Args:
        path: The network's file.
        device: Number of the GPU.
        memory_mb: Most memory in MiB for the work of a kernel; None for no limit.
        cache: Folder in which engines are kept; None keeps none.
        load: Returns a session with options of the TensorRT provider.
    """

    def __init__(
        self,
        path: Path,
        device: int,
        memory_mb: int | None,
        cache: Path | None,
        load: Callable[[Mapping[str, Any]], Any],
    ) -> None:
        self._path = path
        self._device = device
        self._memory_mb = memory_mb
        self._cache = None if cache is None else EngineCache(cache)
        self._load = load
        self._used: Sequence[tuple[Profile, Any]] = ()

    def build(self, name: str, declared: Sequence[int | str | None], profile: Profile) -> Any:
        """Return a session for some shapes, which no run uses yet. Unless its engine is kept, it may take minutes.

        Args:
            name: The network's input.
            declared: Its sides in the network's file; numbers are fixed.
            profile: The shapes.

        Raises:
            ModelError: TensorRT is not there or cannot build it; the text says why.
        """
        version = load_libraries()
        device = next(device for device in devices() if device.number == self._device)
        build = Build.of(self._path, name, profile.within(declared), device, version)
        if self._cache is not None and self._cache.holds(build):
            try:
                return self._session(build)
            except ModelError as error:
                log.warning("%s; it is built anew", error)
                self._cache.forget(build)
        return self._session(build)

    def use(self, profile: Profile, engine: Any) -> None:
        """Find an engine from now on; those used first are found first."""
        self._used = (*self._used, (profile, engine))

    def find(self, shape: Sequence[Sequence[int]]) -> Any:
        """Return the engine for the shapes of a run's inputs; None where there is none, and for several inputs."""
        if len(shape) != 1:
            return None
        return next((engine for profile, engine in self._used if profile.covers(shape[0])), None)

    def _session(self, build: Build) -> Any:
        try:
            session = self._load(self._options(build))
        except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
            raise ModelError(f"{build.network} has no TensorRT engine for {build.profile}: {error}") from error
        got = session.get_providers()[0]
        if got != "TensorrtExecutionProvider":
            raise ModelError(f"{build.network} runs on {got}, not on TensorRT, which did not start")
        session.disable_fallback()
        return session

    def _options(self, build: Build) -> dict[str, Any]:
        try:
            return options(build, self._cache, self._device, self._memory_mb)
        except OSError as error:
            log.warning("TensorRT's engines of %s are not kept, and are built anew next time: %s", build.network, error)
            self._cache = None
            return options(build, None, self._device, self._memory_mb)
