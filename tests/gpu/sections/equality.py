"""Whether the GPU finds the same faces, and reads the same from them, as the CPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import cv2
import numpy as np

from tests.gpu.report import Options, Report
from visaged.models import search
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.manifest import Manifest
from visaged.models.search import Scales
from visaged.models.session import SessionConfig
from visaged.models.surface import ImageSurface, batch_of_crops
from visaged.models.types import Detections, FloatArray, Image

_DEMO = Path(__file__).resolve().parents[3] / "daemon" / "demo"
_EVERY = 15  # of 750 frames
_IOU = 0.5


def equality(report: Report, options: Options) -> None:
    """Compare detectors and the analyzer on the demo clip and the demo pictures with the CPU's."""
    pictures = _pictures(150 if options.quick else _EVERY)
    manifest = Manifest()
    reference = Analyzer.load(manifest, "analyzer-v1", SessionConfig("cpu"))
    analyzer = Analyzer.load(manifest, "analyzer-v1", SessionConfig(options.provider))
    for on_gpu in (True, False):
        name = manifest.default_detector(on_gpu=on_gpu).name
        with report.guarded(name):
            expected = _faces(Detector.load(manifest, name, SessionConfig("cpu")), pictures)
            found = _faces(Detector.load(manifest, name, SessionConfig(options.provider)), pictures)
            _compare_faces(report, name, expected, found)
            if on_gpu:
                crops = _crops(reference, pictures, expected)
                with report.guarded("analyzer-v1"):
                    _compare_readings(report, reference, _read(reference, crops), _read(analyzer, crops))


def _pictures(every: int) -> list[Image]:
    """Return the pictures of the demo and every so many frames of its clip, (H, W, 3) uint8 BGR."""
    pictures = [cv2.imread(str(path)) for path in sorted(_DEMO.glob("*.jpg"))]
    with av.open(str(_DEMO / "demo.mp4")) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % every == 0:
                pictures.append(frame.to_ndarray(format="bgr24"))
    return [picture for picture in pictures if picture is not None]  # type: ignore[misc]


def _faces(detector: Detector, pictures: list[Image]) -> list[Detections]:
    """Return each picture's faces, searched as single pictures are: at all scales, four pictures at once."""
    scales = Scales.of(detector, 640, 1280)
    looks = [scales.looks(ImageSurface(picture)) for picture in pictures]
    parts = [looks[start : start + 4] for start in range(0, len(looks), 4)]
    with ThreadPoolExecutor(1 if detector.on_gpu else None) as pool:  # on a CPU a session has one thread
        return [found for part in pool.map(lambda part: search.find(detector, part), parts) for found in part]


def _overlaps(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the (N, M) intersections over unions of (N, 4) and (M, 4) boxes."""
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    return shared / (areas[0][:, None] + areas[1] - shared)


def _compare_faces(report: Report, name: str, expected: list[Detections], found: list[Detections]) -> None:
    overlaps, confidences, points, lost = list[float](), list[float](), list[float](), list[float]()
    for one, other in zip(expected, found, strict=True):
        if not len(one) or not len(other):
            lost += [float(value) for value in one.confidences]
            continue
        table = _overlaps(one.boxes, other.boxes)
        for row, match in enumerate(table.argmax(1)):
            if table[row, match] < _IOU:
                lost.append(float(one.confidences[row]))
                continue
            size = float(np.sqrt((one.boxes[row, 2:] - one.boxes[row, :2]).prod()))
            overlaps.append(float(table[row, match]))
            confidences.append(abs(float(one.confidences[row] - other.confidences[match])))
            points.append(float(np.abs(one.landmarks[row] - other.landmarks[match]).max()) / size)
    total, other_total = sum(map(len, expected)), sum(map(len, found))
    report.row(f"{name}, {len(expected)} pictures", **{
        "faces on the cpu": total, "faces here": other_total, "matched": len(overlaps) / max(1, total),
        "IoU mean": float(np.mean(overlaps)), "IoU min": min(overlaps),
        "confidence differs at most": max(confidences), "points differ at most, of face size": max(points),
        "confidences of those lost": ", ".join(f"{value:.3f}" for value in lost) or "-",
    })  # fmt: skip


def _crops(analyzer: Analyzer, pictures: list[Image], faces: list[Detections]) -> Image:
    pairs = [
        (ImageSurface(picture), analyzer.aligner.matrix(points))
        for picture, found in zip(pictures, faces, strict=True)
        for points in found.landmarks
    ]
    return batch_of_crops(pairs, analyzer.aligner.size)


def _read(analyzer: Analyzer, crops: Image) -> list[dict[str, FloatArray]]:
    return [one for start in range(0, len(crops), 8) for one in analyzer.analyze(crops[start : start + 8])]


def _compare_readings(
    report: Report, analyzer: Analyzer, expected: list[dict[str, FloatArray]], found: list[dict[str, FloatArray]]
) -> None:
    for name, head in analyzer.heads.items():
        one, other = (np.stack([reading[name] for reading in part]) for part in (expected, found))
        difference = np.abs(one - other)
        values: dict[str, float | int | str] = {
            "faces": len(one), "differs at most": float(np.nanmax(difference)), "mean": float(np.nanmean(difference)),
        }  # fmt: skip
        if head.kind in ("binary", "classes"):
            values["same answer"] = float((one.argmax(1) == other.argmax(1)).mean())
        report.row(f"analyzer-v1 {name} ({head.kind}{f', {head.unit}' if head.unit else ''})", **values)
