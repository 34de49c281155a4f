"""Whether two runtimes of the same networks tell the same of a picture: asked before a faster one is believed.

In bfloat16 a number keeps eight bits. On the picture that is asked about, the networks of the package differ from
float32 by 0.005 in IoU and 0.003 in confidence, and no attribute by as much as 0.02; a network whose sums cancel each
other out, or a fault of the runtime, differs by more than is allowed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.manifest import Head
from visaged.models.preprocess import canvas_for, place
from visaged.models.types import Detections, FloatArray, Image

LEAST_IOU = 0.9
MOST_CONFIDENCE = 0.02
_MOST = {"points": 2.0, "classes": 0.05, "binary": 0.05, "score": 0.05, "angles": 3.0}
"""Most that an answer may differ, by the kind of head: pixels of the crop, probabilities, degrees."""
_MOST_NUMBER = 0.03
"""The same for a number, as a part of it or, if that is more, of one."""

_WIDTH, _HEIGHT = 960, 540


@dataclass(frozen=True, slots=True)
class Pair:
    """A detector and, unless faces are not read, an analyzer on one runtime."""

    detector: Detector
    analyzer: Analyzer | None


def difference(reference: Pair, other: Pair, picture: Image, long_side: int) -> str:
    """Return in words what two runtimes tell differently of a picture, or an empty text.

    Args:
        reference: The networks on a runtime that is believed.
        other: The same networks on another one.
        picture: (H, W, 3) uint8 BGR with a large face; it is looked at in four sizes at once.
        long_side: Long side in pixels of the detector's canvas, unless its file takes one size only.
    """
    sheet = _sheet(picture)
    canvas = _on_canvas(reference.detector, sheet, long_side)
    faces, others = reference.detector.detect(canvas[None])[0], other.detector.detect(canvas[None])[0]
    threshold = reference.detector.face_threshold
    found = face_difference(faces, others, threshold) or face_difference(others, faces, threshold)
    if found or reference.analyzer is None or other.analyzer is None:
        return found
    crops = _crops(reference.analyzer, canvas, faces[faces.confidences >= threshold])
    pairs = zip(reference.analyzer.analyze(crops), other.analyzer.analyze(crops), strict=True)
    return next((text for a, b in pairs if (text := reading_difference(reference.analyzer.heads, a, b))), "")


def face_difference(faces: Detections, others: Detections, threshold: float) -> str:
    """Return in words what is different about one of the faces from `threshold` on, or an empty text."""
    for box, confidence in zip(faces.boxes, faces.confidences, strict=True):
        if confidence < threshold:
            continue
        overlaps = [_iou(box, other) for other in others.boxes]
        best = int(np.argmax(overlaps)) if overlaps else -1
        face = f"the face at {', '.join(f'{side:.0f}' for side in box)} with a confidence of {confidence:.3f}"
        if best < 0 or overlaps[best] < LEAST_IOU:
            return f"{face} has an IoU of {max(overlaps, default=0):.2f} at most, {LEAST_IOU} is needed"
        if abs(others.confidences[best] - confidence) > MOST_CONFIDENCE:
            return f"{face} has {others.confidences[best]:.3f}, {MOST_CONFIDENCE} apart is the most"
    return ""


def reading_difference(
    heads: Mapping[str, Head], reading: Mapping[str, FloatArray], other: Mapping[str, FloatArray]
) -> str:
    """Return in words which attribute of a face differs, or an empty text."""
    for name, head in heads.items():
        if head.kind == "number":
            value, there = float(reading[name][0]), float(other[name][0])
            apart, most = abs(value - there), _MOST_NUMBER * max(1.0, abs(value))
        else:
            apart, most = float(np.abs(reading[name] - other[name]).max()), _MOST[head.kind]
        if not apart <= most:  # not a number is apart too
            return f"{name} differs by {apart:.3g}, {most:.3g} is the most"
    return ""


def _sheet(picture: Image) -> Image:
    """Return the picture in four sizes, each half as large as the one before, (540, 960, 3)."""
    sheet = np.zeros((_HEIGHT, _WIDTH, 3), np.uint8)
    side, left, top = _HEIGHT, 0, 0
    for _ in range(4):
        sheet[top : top + side, left : left + side] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        left, top = (left, top + side) if left else (side, 0)
        side //= 2
    return sheet


def _on_canvas(detector: Detector, sheet: Image, long_side: int) -> Image:
    canvas = place(sheet, canvas_for(_WIDTH, _HEIGHT, long_side, detector.multiple_of))
    height, width = (fixed or side for fixed, side in zip(detector.sides, canvas.shape[:2], strict=True))
    return canvas if (height, width) == canvas.shape[:2] else np.asarray(cv2.resize(sheet, (width, height)), np.uint8)


def _crops(analyzer: Analyzer, canvas: Image, faces: Detections) -> Image:
    """Return the crops of the faces, or of all of the canvas where there are none."""
    size = analyzer.aligner.size
    if not len(faces):
        return np.asarray(cv2.resize(canvas, (size, size)), np.uint8)[None]
    matrices = map(analyzer.aligner.matrix, faces.landmarks)
    return np.stack([np.asarray(cv2.warpAffine(canvas, matrix, (size, size)), np.uint8) for matrix in matrices])


def _iou(box: FloatArray, other: FloatArray) -> float:
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    shared = float(np.clip(high - low, 0, None).prod())
    return shared / max(float((box[2:] - box[:2]).prod() + (other[2:] - other[:2]).prod()) - shared, 1e-6)
