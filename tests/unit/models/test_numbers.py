"""The shipped networks say of the demo's faces what they said when they were shipped, alone and in batches.

The tolerances leave room for other machines. Measured on these faces: another order of the sums (no graph
optimisation, the ONNX reference in numpy, ONNX Runtime 1.22 for 1.31) moves crop points and years by 0.00002 and a
detector's points by 0.0001 px. Grey values that are off by up to one, as from another FFmpeg's colour conversion or
another OpenCV's scaling, move boxes by 0.22 px, points by 0.14 px, scores by 0.002, years by 0.12 and probabilities by
0.005; OpenCV 4.11 for 5.0 does about as much to crops. The tolerances are a few times that, because other networks may
be more sensitive, and less than what a swapped colour or a crop that is off by a pixel does (tested here too).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.unit import numbers
from visaged.models.analyzer import Analyzer
from visaged.models.manifest import AnalyzerEntry, DetectorEntry, Manifest
from visaged.models.types import Detections, FloatArray, Image

ENTRIES = Manifest().entries
DETECTORS = [pytest.param(entry, id=entry.name) for entry in ENTRIES if isinstance(entry, DetectorEntry)]
ANALYZERS = [pytest.param(entry, id=entry.name) for entry in ENTRIES if isinstance(entry, AnalyzerEntry)]
HEADS = [
    pytest.param(entry, head.name, id=f"{entry.name}-{head.name}")
    for entry in ENTRIES
    if isinstance(entry, AnalyzerEntry)
    for head in entry.heads
]
PINS: dict[str, Any] = json.loads(numbers.PINS.read_text(encoding="utf-8"))

SCORE, BOX, POINT = 0.01, 0.75, 0.5
"""Of a detector: 0..1 and canvas pixels."""

HEAD = {"points": 0.4, "number": 0.6, "classes": 0.03, "binary": 0.03, "score": 0.015, "angles": 0.75}
"""By the kind of a head: crop pixels, its unit (years), 0..1, 0..1, 0..1, degrees."""

BATCH = 1e-4
"""Relative and absolute: the same sums over the same pixels, in another order at most."""


def pinned(entry: DetectorEntry | AnalyzerEntry) -> Any:
    pin = PINS.get(entry.name)
    assert pin is not None, f"{entry.name} has no pinned numbers; write them: {numbers.RENEW}"
    assert pin["sha256"] == entry.sha256, f"{entry.name} is another file than was pinned; if meant: {numbers.RENEW}"
    return pin


def head_values(entry: AnalyzerEntry, name: str, crops: Image, analyzer: Analyzer) -> FloatArray:
    return np.stack([face[name] for face in analyzer.analyze(crops)])


@pytest.fixture(scope="module")
def analyzers() -> dict[str, Analyzer]:
    return {
        entry.name: Analyzer.load(Manifest(), entry.name, numbers.CPU)
        for entry in ENTRIES
        if isinstance(entry, AnalyzerEntry)
    }


def missed(pins: list[dict[str, Any]], found: Detections) -> list[str]:
    """Return in words which pinned faces are not found as they were."""
    faults = []
    for pin in pins:
        if not len(found):
            faults.append(f"no face at all for {pin}")
            continue
        nearest = int(np.abs(found.boxes - pin["box"]).max(1).argmin())  # scores of two faces may swap their order
        off = {
            "box": np.abs(found.boxes[nearest] - pin["box"]).max() / BOX,
            "points": np.abs(found.landmarks[nearest] - pin["points"]).max() / POINT,
            "score": abs(found.confidences[nearest] - pin["score"]) / SCORE,
        }
        faults += [f"{what} off by {times:.1f} x its tolerance: {pin}" for what, times in off.items() if times > 1]
    return faults


def test_every_shipped_network_is_pinned_and_no_other() -> None:
    assert sorted(PINS) == sorted(entry.name for entry in ENTRIES), f"renew the pins: {numbers.RENEW}"
    assert numbers.PINS.read_text(encoding="utf-8") == numbers.text(PINS) + "\n"


@pytest.mark.parametrize("entry", DETECTORS)
def test_a_detector_finds_what_it_found(entry: DetectorEntry) -> None:
    faces = pinned(entry)["faces"]
    found = numbers.detector(entry, lower=SCORE).detect(numbers.canvases())
    assert list(faces) == [f"{at_s:g}" for at_s in numbers.MOMENTS_S]
    for (at_s, pins), moment in zip(faces.items(), found, strict=True):
        assert not missed(pins, moment), f"at {at_s} s"
        surely = int((moment.confidences > entry.threshold + SCORE).sum())
        assert surely <= len(pins), f"at {at_s} s there is a face that was not there"
    assert sum(map(len, faces.values())) > 5


@pytest.mark.parametrize(("entry", "name"), HEADS)
def test_a_head_says_what_it_said(entry: AnalyzerEntry, name: str, analyzers: dict[str, Analyzer]) -> None:
    pins = pinned(entry)["heads"]
    assert name in pins, f"the head is new; write its numbers: {numbers.RENEW}"
    analyzer = analyzers[entry.name]
    values = head_values(entry, name, numbers.crops(analyzer), analyzer)
    expected = np.array(pins[name], np.float32)  # None becomes NaN
    np.testing.assert_allclose(values, expected, rtol=0, atol=HEAD[analyzer.heads[name].kind])


@pytest.mark.parametrize("entry", ANALYZERS)
def test_no_head_is_pinned_that_is_not_there(entry: AnalyzerEntry) -> None:
    assert list(pinned(entry)["heads"]) == [head.name for head in entry.heads]


@pytest.mark.parametrize(("entry", "name"), HEADS)
@pytest.mark.parametrize("size", [2, 5, 9])
def test_a_batch_of_crops_is_the_same_as_one_by_one(
    entry: AnalyzerEntry, name: str, size: int, analyzers: dict[str, Analyzer]
) -> None:
    analyzer = analyzers[entry.name]
    crops = np.resize(numbers.crops(analyzer), (size, entry.input.size, entry.input.size, 3))
    together = head_values(entry, name, crops, analyzer)
    alone = np.concatenate([head_values(entry, name, crop[None], analyzer) for crop in crops])
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, rtol=BATCH, atol=BATCH)


@pytest.mark.parametrize("entry", DETECTORS)
@pytest.mark.parametrize("size", [2, 5, 7])
def test_a_batch_of_canvases_is_the_same_as_one_by_one(entry: DetectorEntry, size: int) -> None:
    detector, canvases = numbers.detector(entry), numbers.canvases()
    batch = np.resize(canvases, (size, *canvases.shape[1:]))
    together, alone = detector.detect(batch), [detector.detect(canvas[None])[0] for canvas in batch]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.confidences, b.confidences, rtol=BATCH, atol=BATCH)
        np.testing.assert_allclose(a.boxes, b.boxes, rtol=BATCH, atol=10 * BATCH)
        np.testing.assert_allclose(a.landmarks, b.landmarks, rtol=BATCH, atol=10 * BATCH)


@pytest.mark.parametrize("entry", DETECTORS)
@pytest.mark.parametrize("fault", ["red for blue", "a pixel to the right"])
def test_the_pins_of_detectors_see_faults(entry: DetectorEntry, fault: str) -> None:
    canvases = numbers.canvases()
    wrong = np.ascontiguousarray(canvases[..., ::-1] if fault == "red for blue" else np.roll(canvases, 1, 2))
    found = numbers.detector(entry, lower=SCORE).detect(wrong)
    assert any(missed(pins, moment) for pins, moment in zip(pinned(entry)["faces"].values(), found, strict=True))


@pytest.mark.parametrize("entry", ANALYZERS)
@pytest.mark.parametrize("fault", ["red for blue", "a pixel to the right"])
def test_the_pins_of_analyzers_see_faults(entry: AnalyzerEntry, fault: str, analyzers: dict[str, Analyzer]) -> None:
    analyzer, pins = analyzers[entry.name], pinned(entry)["heads"]
    crops = numbers.crops(analyzer)
    wrong = np.ascontiguousarray(crops[..., ::-1] if fault == "red for blue" else np.roll(crops, 1, 2))
    caught = [
        head.name
        for head in entry.heads
        if np.nanmax(np.abs(head_values(entry, head.name, wrong, analyzer) - np.array(pins[head.name], np.float32)))
        > HEAD[head.kind]
    ]
    assert caught
