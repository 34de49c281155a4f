"""Loads the networks that the configuration names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from visaged.daemon.engines import EngineBuilder
from visaged.daemon.errors import StartError
from visaged.daemon.settings import InferenceSettings, ModelSettings
from visaged.models.agreement import Pair, difference
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.device import Device
from visaged.models.engines import tasks as engine_tasks
from visaged.models.errors import ModelError, ProviderError
from visaged.models.graphs.check import checked_graphs
from visaged.models.graphs.frames import FrameGraphs
from visaged.models.manifest import PACKAGED, Manifest
from visaged.models.nvidia.driver import check_devices, devices
from visaged.models.openvino import has_bfloat16
from visaged.models.search import Scales, prepare
from visaged.models.self_test import self_test
from visaged.models.session import GPU_BATCHES, SessionConfig, expects_gpu, expects_openvino, why
from visaged.models.types import Image
from visaged.pipelines.attributes import AnalyzerReader, AttributeReader, NoReader
from visaged.pipelines.runtime.metrics import Metrics

log = logging.getLogger(__name__)

_PERSON = Path(__file__).parent / "demo" / "person.jpg"


@dataclass(frozen=True)
class Networks:
    """The networks in use.

    Attributes:
        detector: Finds faces.
        reader: Reads the attributes of faces.
        versions: Versions of the detector and of the analyzer in the manifest; the second is None without an analyzer.
        others: The same networks on each further GPU.
        engines: Builds TensorRT's engines for all of them; does nothing with other providers.
        graphs: Work on frames that a decoder leaves on the GPU of the networks; None where these run elsewhere.
    """

    detector: Detector
    reader: AttributeReader
    versions: tuple[str, str | None]
    others: Sequence[tuple[Detector, AttributeReader]] = ()
    engines: EngineBuilder = field(default_factory=EngineBuilder)
    graphs: FrameGraphs | None = None

    def by_device(self) -> list[tuple[Detector, AttributeReader]]:
        """Return the networks of each GPU, the first one's first."""
        return [(self.detector, self.reader), *self.others]


def load_networks(
    wanted: ModelSettings,
    inference: InferenceSettings,
    floor: float,
    metrics: Metrics,
    state_dir: Path | None = None,
    largest: int = 0,
) -> Networks:
    """Load the networks.

    Args:
        wanted: Manifest, and names of the networks in it.
        inference: How the networks run.
        floor: Smallest confidence, 0..1, of the detections that the detector returns.
        metrics: Reports which provider each network runs on, and times the analyzer.
        state_dir: Folder for TensorRT's engines unless the configuration names one; None keeps none.
        largest: Long side in pixels of the largest canvas for single pictures.

    Raises:
        StartError: One of them cannot be loaded or run, or does not do what its manifest's entry says.
    """
    config = SessionConfig(
        inference.provider,
        inference.require_gpu,
        inference.gpu_memory_mb,
        inference.cache or (None if state_dir is None else state_dir / "tensorrt"),
        inference.precision,
        inference.devices[0],
        inference.cuda_graphs,
    )
    try:
        if expects_gpu(inference.provider) and devices():
            check_devices(inference.devices, devices())
        manifest = Manifest(wanted.manifest)
        pair = _load(manifest, wanted, config, floor, inference.long_side)
        detector, analyzer = pair.detector, pair.analyzer
        loaded: list[Detector | Analyzer] = [detector] if analyzer is None else [detector, analyzer]
        if wanted.manifest != PACKAGED:  # the packaged networks are covered by tests
            for model in loaded:
                self_test(model)
        others = _others(manifest, pair, config, inference.devices[1:])
        most = inference.max_batch or max(GPU_BATCHES)
        for one in (pair, *others):
            prepare(one.detector, inference.long_side, most)
            if one.analyzer is not None:
                one.analyzer.prepare()
        analyzer_version = None if analyzer is None else manifest.analyzer(analyzer.name).version
        versions = (manifest.detector(detector.name).version, analyzer_version)
    except ModelError as error:
        raise StartError(str(error)) from error
    for model in loaded:
        computes = "" if model.precision is None else f" in {model.precision}"
        log.info("%s runs on %s%s: %s", model.name, model.provider, computes, why(config, model.provider))
        metrics.provider.labels(model.name, model.provider).set(1)
    if detector.precision == "bfloat16" and not has_bfloat16():
        log.warning("this CPU has no bfloat16: OpenVINO imitates it, several times slower than float32")
    if inference.devices != [0] and not detector.on_gpu:
        log.info("inference.devices is without effect: the networks run on %s", detector.provider)
    readers = [NoReader() if one.analyzer is None else AnalyzerReader(one.analyzer, metrics) for one in (pair, *others)]
    return Networks(
        detector,
        readers[0],
        versions,
        [(one.detector, reader) for one, reader in zip(others, readers[1:], strict=True)],
        _engines([pair, *others], inference, config.cache, largest, most),
        # A frame lies on one GPU, and any worker of any GPU may get it.
        _graphs(loaded, config) if inference.gpu_frames and not others else None,
    )


def _graphs(networks: Sequence[Detector | Analyzer], config: SessionConfig) -> FrameGraphs | None:
    """Return the graphs for frames on the GPU; None where they cannot be used, with a warning if they should be."""
    if any(network.provider != "cuda" or not network.takes_device_batches for network in networks):
        return None
    try:
        graphs = checked_graphs(Device("cuda", config.device), config)
        log.info("frames that are decoded on the GPU stay there")
        return graphs
    except (ModelError, OSError, RuntimeError) as error:
        log.warning("frames that are decoded on the GPU are copied to this machine's own memory: %s", error)
        return None


def _others(manifest: Manifest, first: Pair, config: SessionConfig, devices: Sequence[int]) -> list[Pair]:
    """Load the networks of the first GPU on further ones; none where the first is no GPU."""
    if not first.detector.on_gpu:
        return []
    pairs = []
    for device in devices:
        own = replace(config, require_gpu=True, device=device)
        detector = Detector.load(manifest, first.detector.name, own, first.detector.floor)
        pairs.append(
            Pair(detector, None if first.analyzer is None else Analyzer.load(manifest, first.analyzer.name, own))
        )
    return pairs


def _engines(
    pairs: Sequence[Pair], inference: InferenceSettings, cache: Path | None, largest: int, most: int
) -> EngineBuilder:
    """Return what builds the engines of all networks, those of one kind on every GPU before the next."""
    if pairs[0].detector.provider != "tensorrt":
        return EngineBuilder()
    by_device = [
        engine_tasks(
            one.detector,
            one.analyzer,
            Scales.of(one.detector, inference.long_side, largest),
            inference.close_up,
            most,
            _person(),
        )
        for one in pairs
    ]
    return EngineBuilder([task for kind in zip(*by_device, strict=True) for task in kind], cache)


def _person() -> Image:
    return np.asarray(cv2.imread(str(_PERSON)), np.uint8)


def _load(manifest: Manifest, wanted: ModelSettings, config: SessionConfig, floor: float, long_side: int) -> Pair:
    """Load the networks; if OpenVINO was not asked for, on it only if it tells what ONNX Runtime tells."""

    def load(config: SessionConfig) -> Pair:
        detector = _load_detector(manifest, wanted.detector, config, floor)
        return Pair(detector, Analyzer.load(manifest, wanted.analyzer, config) if wanted.analyzer else None)

    if config.provider != "auto" or not expects_openvino(config):
        return load(config)
    reference = load(SessionConfig("cpu"))
    try:
        pair = load(config)
        found = difference(reference, pair, _person(), long_side)
        trouble = f"it tells otherwise of a picture, {found}" if found else ""
    except ProviderError:
        raise
    except Exception as error:  # OpenVINO and ONNX Runtime raise many types of their own, all from Exception
        trouble = str(error)
    if trouble:
        log.warning("networks run on ONNX Runtime, not on OpenVINO: %s", trouble)
    return reference if trouble else pair


def _load_detector(manifest: Manifest, name: str | None, config: SessionConfig, floor: float) -> Detector:
    """Load the detector of that name, or without one the manifest's for what it really runs on."""
    if name is not None:
        return Detector.load(manifest, name, config, floor)
    chosen = manifest.default_detector(on_gpu=expects_gpu(config.provider))
    detector = Detector.load(manifest, chosen.name, config, floor)
    if chosen.gpu and not detector.on_gpu:
        other = manifest.default_detector(on_gpu=False)
        log.warning("%s is made for a GPU, which did not start; %s is used instead", chosen.name, other.name)
        return Detector.load(manifest, other.name, config, floor)
    return detector
