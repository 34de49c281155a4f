"""From a detector's file to faces by the product's own code, and boxes compared with boxes.

What is measured here is what the daemon does: `visaged.models.detector` decodes and suppresses, for this project's
networks and for YuNet, which stands beside them in the tables. Only the scaling differs: evaluation keeps a picture's
own size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort

from visaged.models import detector
from visaged.models.decoders import DECODERS
from visaged.models.errors import ModelError
from visaged.models.manifest import DetectorEntry, DetectorInput
from visaged.models.session import Session, SessionConfig
from visaged.models.types import Detections, FloatArray, Image

NMS_IOU = 0.45
STRIDES = (8, 16, 32)

Found = tuple[FloatArray, FloatArray, FloatArray]
"""Boxes (N, 4) pixels, scores (N,) 0..1, points (N, 5, 2) pixels; best first."""

FindFaces = Callable[[Image, float], Found]
"""Maps a picture (H, W, 3) uint8 BGR of any size and a least score to the faces in it."""

_CPU = SessionConfig(provider="cpu")

_INPUTS = {
    "cells": {},
    "distances": {},
    "yunet": {"layout": "NCHW", "dtype": "float32"},
}
"""How the networks that `open_detector` knows take their pixels, by decoder."""


def session(path: Path) -> ort.InferenceSession:
    """Open a network on one CPU thread, to look at its raw outputs or to time it; raises `ModelError`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
        raise ModelError(f"{path} cannot be loaded as a network: {error}") from error


def padded(image: Image, multiple_of: int = 32) -> Image:
    """Add black at the right and the bottom up to multiples of `multiple_of`, as on the product's canvases."""
    down, right = (-side % multiple_of for side in image.shape[:2])
    return np.asarray(cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_CONSTANT), np.uint8)


def suppress(parts: Sequence[Found], iou: float = NMS_IOU) -> Found:
    """Join finds and keep the best of boxes that overlap by more than `iou`."""
    joined = (np.concatenate(part).astype(np.float32) for part in zip(*parts, strict=True))
    return _found(detector.suppress(Detections(*joined), iou))


def overlap(a: FloatArray, b: FloatArray, *, of_first: bool = False) -> FloatArray:
    """Return the IoU of boxes (N, 4) with boxes (M, 4) as (N, M), or the share of the first that lies in the second."""
    inner = (np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])).clip(0).prod(2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(1), (b[:, 2:] - b[:, :2]).prod(1)
    whole = area_a[:, None] if of_first else area_a[:, None] + area_b[None] - inner
    return np.asarray(inner / np.maximum(whole, 1e-6), np.float32)


def detector_of(path: Path, entry: DetectorEntry) -> FindFaces:
    """Open a network that a manifest describes; raises `ModelError`."""
    return _finder(Session(path, _CPU), entry)


def open_detector(path: Path, config: SessionConfig = _CPU) -> FindFaces:
    """Open a network of this project's interface, or YuNet (2023 form); the outputs' names show which.

    Raises:
        ModelError: It is no network, or one of neither kind.
    """
    network = Session(path, config)
    names = set(network.outputs)
    for style, form in _INPUTS.items():
        if {f"{kind}_{stride}" for kind in DECODERS[style].kinds for stride in STRIDES} <= names:
            pixels = DetectorInput.model_validate({"name": next(iter(network.inputs)), **form})
            # Without licence, hash and what else a manifest must say, and evaluation does not need.
            entry = DetectorEntry.model_construct(
                name=path.stem, task="detector", input=pixels, decoder=style, strides=list(STRIDES), nms_iou=NMS_IOU
            )
            return _finder(network, entry)
    raise ModelError(f"{path} is a detector of no kind that is known here; it gives {', '.join(sorted(names))}")


def _finder(network: Session, entry: DetectorEntry) -> FindFaces:
    def find(image: Image, least: float) -> Found:
        canvas = padded(image, entry.input.multiple_of)
        (faces,) = detector.Detector(network, entry, least).detect(canvas[None])
        return _found(faces)

    return find


def _found(faces: Detections) -> Found:
    return faces.boxes, faces.confidences, faces.landmarks
