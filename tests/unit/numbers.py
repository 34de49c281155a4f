"""What the shipped networks say of the demo's faces, and the pins that `test_numbers` compares it with.

After a network of the manifest was added, replaced or taken away:

    python -m tests.unit.numbers --write

and look at what changed in `numbers.json` before it is committed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.unit import fakes
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.manifest import AnalyzerEntry, DetectorEntry, Entry, Manifest
from visaged.models.preprocess import canvas_for, place
from visaged.models.session import SessionConfig
from visaged.models.surface import ImageSurface, batch_of_crops
from visaged.models.types import Detections, Image

PINS = Path(__file__).with_suffix(".json")
RENEW = "python -m tests.unit.numbers --write"
CPU = SessionConfig(provider="cpu")

MOMENTS_S = (2.0, fakes.TWO_FACES_S, 7.0, 9.0, 17.0)
"""Of the demo: a face at the picture's edge, two large ones, and some of 46 px and more."""

FACES = (
    (2.0, ((-0.5, 293.8), (26.6, 297.4), (2.9, 316.1), (-1.3, 332.9), (21.6, 335.8))),
    (6.0, ((432.3, 287.4), (482.4, 291.7), (455.5, 319.1), (430.8, 337.6), (475.0, 341.3))),
    (6.0, ((1119.6, 312.6), (1191.9, 304.3), (1162.8, 350.7), (1132.3, 383.5), (1196.2, 376.3))),
    (7.0, ((1179.8, 263.7), (1201.5, 262.0), (1192.2, 275.5), (1183.1, 285.5), (1201.9, 284.1))),
    (17.0, ((825.2, 267.0), (855.2, 269.8), (838.2, 286.3), (824.1, 297.5), (850.3, 299.9))),
)
"""Moments and five points, for the analyzers: set once, so that their numbers do not hang on a detector's."""


def canvases() -> Image:
    """The moments as the detectors see them."""
    return np.stack([place(fakes.demo_image(at_s), canvas_for(1280, 720, 640)) for at_s in MOMENTS_S])


def detector(entry: DetectorEntry, lower: float = 0.0) -> Detector:
    """A shipped detector that reports faces from its threshold less `lower` on."""
    return Detector.load(Manifest(), entry.name, CPU, entry.threshold - lower)


def crops(analyzer: Analyzer) -> Image:
    """The faces as an analyzer sees them."""
    cut = analyzer.aligner
    faces = [(ImageSurface(fakes.demo_image(at_s)), cut.matrix(np.array(points))) for at_s, points in FACES]
    return batch_of_crops(faces, cut.size)


def numbers(values: Any, digits: int) -> Any:
    """Arrays as nested lists of rounded numbers; None for what is not a number."""
    if isinstance(values, np.ndarray):
        return [numbers(value, digits) for value in values]
    return None if np.isnan(values) else round(float(values), digits)


def pins_of_detector(entry: DetectorEntry, found: list[Detections]) -> dict[str, Any]:
    faces = {
        f"{at_s:g}": [
            {"score": numbers(score, 4), "box": numbers(box, 2), "points": numbers(points, 2)}
            for box, score, points in zip(moment.boxes, moment.confidences, moment.landmarks, strict=True)
        ]
        for at_s, moment in zip(MOMENTS_S, found, strict=True)
    }
    return {"sha256": entry.sha256, "faces": faces}


def pins_of_analyzer(entry: AnalyzerEntry, read: list[dict[str, Any]]) -> dict[str, Any]:
    digits = {head.name: 2 if head.kind in ("points", "angles", "number") else 4 for head in entry.heads}
    heads = {name: [numbers(face[name], places) for face in read] for name, places in digits.items()}
    return {"sha256": entry.sha256, "heads": heads}


def pins(entry: Entry) -> dict[str, Any]:
    """What is pinned of a network."""
    if isinstance(entry, DetectorEntry):
        return pins_of_detector(entry, detector(entry).detect(canvases()))
    analyzer = Analyzer.load(Manifest(), entry.name, CPU)
    return pins_of_analyzer(entry, analyzer.analyze(crops(analyzer)))


def text(value: Any, depth: int = 4) -> str:
    """JSON with one face a line: `depth` levels are spread over lines."""
    if depth == 0 or not isinstance(value, dict | list) or not value:
        return json.dumps(value)
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {text(inner, depth - 1)}" for key, inner in value.items()]
    else:
        parts = [text(inner, depth - 1) for inner in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    indent = " " * (5 - depth)
    return f"{first}\n" + ",\n".join(indent + part for part in parts) + f"\n{indent[:-1]}{last}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {PINS.name} anew; without it, print it")
    new = text({entry.name: pins(entry) for entry in Manifest().entries}) + "\n"
    if parser.parse_args().write:
        PINS.write_text(new, encoding="utf-8")
    else:
        print(new, end="")


if __name__ == "__main__":
    main()
