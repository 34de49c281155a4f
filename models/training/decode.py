"""From a detector's ONNX outputs to faces: ours and YuNet's, which stands beside it in the tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from visaged.models.training.packs import FloatArray

NMS_IOU = 0.45
STRIDES = (8, 16, 32)

Image = NDArray[np.uint8]
Found = tuple[FloatArray, FloatArray, FloatArray]
"""Boxes (N, 4) pixels, scores (N,) 0..1, points (N, 5, 2) pixels; best first."""

FindFaces = Callable[[Image, float], Found]
"""Maps a picture (H, W, 3) uint8 BGR of any size and a least score to the faces in it."""


def session(path: Path) -> ort.InferenceSession:
    """Open a network on one CPU thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def padded(image: Image) -> Image:
    """Add black at the right and the bottom up to multiples of 32."""
    height, width = image.shape[:2]
    return np.asarray(cv2.copyMakeBorder(image, 0, -height % 32, 0, -width % 32, cv2.BORDER_CONSTANT), np.uint8)


def suppress(parts: list[Found], iou: float = NMS_IOU) -> Found:
    """Join finds and keep the best of boxes that overlap by more than `iou`."""
    boxes, scores, points = (np.concatenate(part).astype(np.float32) for part in zip(*parts, strict=True))
    order = np.argsort(-scores, kind="stable")[:3000]
    boxes, scores, points = boxes[order], scores[order], points[order]
    keep = np.ones(len(boxes), bool)
    for i in range(len(boxes)):
        if keep[i]:
            keep[i + 1 :] &= overlap(boxes[i : i + 1], boxes[i + 1 :])[0] <= iou
    return boxes[keep], scores[keep], points[keep]


def overlap(a: FloatArray, b: FloatArray, *, of_first: bool = False) -> FloatArray:
    """Return the IoU of boxes (N, 4) with boxes (M, 4) as (N, M), or the share of the first that lies in the second."""
    inner = (np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])).clip(0).prod(2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(1), (b[:, 2:] - b[:, :2]).prod(1)
    whole = area_a[:, None] if of_first else area_a[:, None] + area_b[None] - inner
    return np.asarray(inner / np.maximum(whole, 1e-6), np.float32)


def our_detector(path: Path) -> FindFaces:
    """Read networks with the interface of this project's detector."""
    network = session(path)
    names = [output.name for output in network.get_outputs()]

    def find(image: Image, least: float) -> Found:
        values = dict(zip(names, network.run(None, {"image": padded(image)[None]}), strict=True))
        parts = []
        for stride in STRIDES:
            score = values[f"score_{stride}"][0]  # (H/s, W/s)
            row, column = np.nonzero(score >= least)
            centre = (np.stack([column, row], 1) + 0.5) * stride  # (N, 2)
            ltrb = values[f"box_{stride}"][0][row, column] * stride
            boxes = np.concatenate([centre - ltrb[:, :2], centre + ltrb[:, 2:]], 1)
            points = values[f"points_{stride}"][0][row, column].reshape(-1, 5, 2) * stride + centre[:, None]
            parts.append((boxes, score[row, column], points))
        return suppress(parts)

    return find


def yunet(path: Path) -> FindFaces:
    """Read YuNet (2023 form: cls, obj, bbox, kps per stride; float BGR input)."""
    network = session(path)
    names = [output.name for output in network.get_outputs()]
    feed = network.get_inputs()[0].name

    def find(image: Image, least: float) -> Found:
        canvas = padded(image)
        pixels = canvas.transpose(2, 0, 1)[None].astype(np.float32)
        values = dict(zip(names, network.run(None, {feed: pixels}), strict=True))
        parts = []
        for stride in STRIDES:
            score = np.sqrt(values[f"cls_{stride}"].reshape(-1) * values[f"obj_{stride}"].reshape(-1))
            at = np.nonzero(score >= least)[0]
            row, column = np.divmod(at, canvas.shape[1] // stride)
            corner = np.stack([column, row], 1)  # (N, 2)
            raw = values[f"bbox_{stride}"].reshape(-1, 4)[at]
            centre, half = (corner + raw[:, :2]) * stride, np.exp(raw[:, 2:]) * stride / 2
            boxes = np.concatenate([centre - half, centre + half], 1)
            points = (values[f"kps_{stride}"].reshape(-1, 5, 2)[at] + corner[:, None]) * stride
            parts.append((boxes, score[at], points))
        return suppress(parts)

    return find


def open_detector(path: Path) -> FindFaces:
    """Open a network of either kind, told apart by its outputs."""
    names = {output.name for output in session(path).get_outputs()}
    return our_detector(path) if "score_8" in names else yunet(path)
