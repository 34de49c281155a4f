"""Draws one frame of the demo clip with what the networks see in it, which tests send as a picture.

Run it after the clip or a network has changed: `python tests/benchmarks/make_picture.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import av
import cv2
import numpy as np

from visaged.daemon.cli.console import describe
from visaged.daemon.settings import ModelSettings, Settings
from visaged.models import search
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.manifest import Manifest
from visaged.models.search import Scales
from visaged.models.session import SessionConfig
from visaged.models.surface import ImageSurface
from visaged.models.types import Image
from visaged.pipelines.attributes import AnalyzerReader, request, single, sure
from visaged.pipelines.outputs.documents import attribute_document
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.tracking.tracks import faces_of

FOLDER = Path(__file__).parents[2] / "daemon" / "demo"
GREEN, WHITE, DARK = (140, 230, 120), (255, 255, 255), (40, 30, 20)


def frame_at(clip: Path, seconds: float) -> Image:
    """Return the first frame from a time on, (H, W, 3) uint8 BGR."""
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= seconds:
                return frame.to_ndarray(format="bgr24").astype(np.uint8)
    raise SystemExit(f"{clip} is shorter than {seconds} s")


def annotate(image: Image) -> Image:
    """Return the picture with boxes, landmarks and attributes drawn in."""
    names = ModelSettings()
    manifest, session = Manifest(), SessionConfig(provider="cpu")
    detector = Detector.load(manifest, manifest.default_detector(on_gpu=False).name, session)
    reader = AnalyzerReader(Analyzer.load(manifest, names.analyzer or "", session), Metrics())
    surface = ImageSurface(image)
    looks = Scales.of(detector, Settings().inference.long_side, Settings().http.long_side).looks(surface)
    shots = faces_of(search.find(detector, [looks])[0])
    readings = reader.read([request(shot, surface) for shot in shots])
    drawn = image.copy()
    for shot, reading in zip(shots, readings, strict=True):
        points = reader.points(reading, shot.landmarks)
        for x, y in [] if points is None else points:
            cv2.circle(drawn, (round(float(x)), round(float(y))), 1, GREEN, -1, cv2.LINE_AA)
        left, top, right, bottom = (round(float(v)) for v in shot.box)
        cv2.rectangle(drawn, (left, top), (right, bottom), GREEN, 2, cv2.LINE_AA)
        attributes = sure(single(reader.heads, reading, frozenset(reader.heads)), Settings().least(reader.heads))
        documents = {name: attribute_document(value) for name, value in attributes.items()}
        label(drawn, [", ".join(describe(documents)), f"confidence {shot.confidence:.2f}"], left, bottom + 6)
    return drawn


def label(drawn: Image, lines: list[str], left: int, top: int) -> None:
    """Write lines on a dark plate whose top left corner is given, moved into the picture."""
    sizes = [cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)[0] for text in lines]
    width, height = max(size[0] for size in sizes) + 14, 24 * len(lines) + 6
    left, top = min(left, drawn.shape[1] - width), min(top, drawn.shape[0] - height)
    plate = drawn[top : top + height, left : left + width]
    plate[:] = (plate * 0.35 + np.array(DARK) * 0.65).astype(np.uint8)
    for row, text in enumerate(lines):
        origin = (left + 7, top + 20 + 24 * row)
        cv2.putText(drawn, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.6, WHITE, 1, cv2.LINE_AA)


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=7.2, help="which frame of the clip")
    parser.add_argument("--output", type=Path, default=FOLDER / "picture.jpg")
    options = parser.parse_args()
    picture = annotate(frame_at(FOLDER / "demo.mp4", options.seconds))
    small = cv2.resize(picture, (1024, 576), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(options.output), small, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
