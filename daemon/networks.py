"""Loads the networks that the configuration names."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from visaged.daemon.errors import StartError
from visaged.daemon.settings import InferenceSettings, ModelSettings
from visaged.models.agreement import Pair, difference
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.errors import ModelError, ProviderError
from visaged.models.manifest import PACKAGED, Manifest
from visaged.models.openvino import has_bfloat16
from visaged.models.search import prepare
from visaged.models.self_test import self_test
from visaged.models.session import GPU_BATCHES, SessionConfig, expects_gpu, expects_openvino, why
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
    """

    detector: Detector
    reader: AttributeReader
    versions: tuple[str, str | None]


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
    config = SessionConfig(
        inference.provider, inference.require_gpu, inference.gpu_memory_mb, inference.cache, inference.precision
    )
    try:
        manifest = Manifest(wanted.manifest)
        pair = _load(manifest, wanted, config, floor, inference.long_side)
        detector, analyzer = pair.detector, pair.analyzer
        loaded: list[Detector | Analyzer] = [detector] if analyzer is None else [detector, analyzer]
        # The packaged networks are covered by tests. With TensorRT, a self-test would build an engine for each shape.
        if wanted.manifest != PACKAGED and inference.provider != "tensorrt":
            for model in loaded:
                self_test(model)
        prepare(detector, inference.long_side, inference.max_batch or max(GPU_BATCHES))
        if analyzer is not None:
            analyzer.prepare()
        analyzer_version = None if analyzer is None else manifest.analyzer(analyzer.name).version
        versions = (manifest.detector(detector.name).version, analyzer_version)
    except ModelError as error:
        raise StartError(str(error)) from error
    for model in loaded:
        computes = "" if model.precision is None else f" in {model.precision}"
        log.info("%s runs on %s%s: %s", model.name, model.provider, computes, why(inference.provider, model.provider))
        metrics.provider.labels(model.name, model.provider).set(1)
    if detector.precision == "bfloat16" and not has_bfloat16():
        log.warning("this CPU has no bfloat16: OpenVINO imitates it, several times slower than float32")
    return Networks(detector, NoReader() if analyzer is None else AnalyzerReader(analyzer, metrics), versions)


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
        found = difference(reference, pair, np.asarray(cv2.imread(str(_PERSON)), np.uint8), long_side)
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
