"""Loads the networks that the configuration names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from visaged.daemon.errors import StartError
from visaged.daemon.settings import InferenceSettings, ModelSettings
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.device import Device
from visaged.models.errors import ModelError
from visaged.models.graphs.check import checked_graphs
from visaged.models.graphs.frames import FrameGraphs
from visaged.models.manifest import PACKAGED, Manifest
from visaged.models.search import prepare
from visaged.models.self_test import self_test
from visaged.models.session import GPU_BATCHES, SessionConfig, expects_gpu
from visaged.pipelines.attributes import AnalyzerReader, AttributeReader, NoReader
from visaged.pipelines.runtime.metrics import Metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Networks:
    """The networks in use.

    Attributes:
        detector: Finds faces.
        reader: Reads the attributes of faces.
        versions: Versions of the detector and of the analyzer in the manifest; the second is None without an analyzer.
        graphs: Work on frames that a decoder leaves on the GPU of the networks; None where these run elsewhere.
    """

    detector: Detector
    reader: AttributeReader
    versions: tuple[str, str | None]
    graphs: FrameGraphs | None


def load_networks(wanted: ModelSettings, inference: InferenceSettings, floor: float, metrics: Metrics) -> Networks:
    """Load the networks.

    Args:
        wanted: Manifest, and names of the networks in it.
        inference: How the networks run.
        floor: Smallest confidence, 0..1, of the detections that the detector returns.
        metrics: Reports which provider each network runs on, and times the analyzer.

    Raises:
        StartError: One of them cannot be loaded or run, or does not do what its manifest's entry says.
    """
    config = SessionConfig(inference.provider, inference.require_gpu, inference.gpu_memory_mb, inference.cache)
    try:
        manifest = Manifest(wanted.manifest)
        detector = _load_detector(manifest, wanted.detector, config, floor)
        loaded: list[Detector | Analyzer] = [detector]
        reader: AttributeReader = NoReader()
        analyzer, analyzer_version = None, None
        if wanted.analyzer is not None:
            analyzer = Analyzer.load(manifest, wanted.analyzer, config)
            analyzer_version = manifest.analyzer(wanted.analyzer).version
            loaded.append(analyzer)
            reader = AnalyzerReader(analyzer, metrics)
        # The packaged networks are covered by tests. With TensorRT, a self-test would build an engine for each shape.
        if wanted.manifest != PACKAGED and inference.provider != "tensorrt":
            for model in loaded:
                self_test(model)
        prepare(detector, inference.long_side, inference.max_batch or max(GPU_BATCHES))
        if analyzer is not None:
            analyzer.prepare()
        versions = (manifest.detector(detector.name).version, analyzer_version)
    except ModelError as error:
        raise StartError(str(error)) from error
    for model in loaded:
        log.info("%s runs on %s", model.name, model.provider)
        metrics.provider.labels(model.name, model.provider).set(1)
    return Networks(detector, reader, versions, _graphs(loaded, config) if inference.gpu_frames else None)


def _graphs(networks: Sequence[Detector | Analyzer], config: SessionConfig) -> FrameGraphs | None:
    """Return the graphs for frames on the GPU; None where they cannot be used, with a warning if they should be."""
    if any(network.provider != "cuda" or not network.takes_device_batches for network in networks):
        return None
    try:
        graphs = checked_graphs(Device("cuda"), config)
        log.info("frames that are decoded on the GPU stay there")
        return graphs
    except (ModelError, OSError, RuntimeError) as error:
        log.warning("frames that are decoded on the GPU are copied to this machine's own memory: %s", error)
        return None


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
