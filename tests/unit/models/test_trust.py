"""How far answers can be trusted: never further for a worse look, and not at all where there is no face."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.unit import fakes
from visaged.models import trust
from visaged.models.analyzer import Analyzer
from visaged.models.manifest import AnalyzerEntry, Doubt, Head, Manifest
from visaged.models.surface import ImageSurface
from visaged.models.trust import SIGNS
from visaged.pipelines.attributes import AnalyzerReader, Estimate, Reading, Request, single
from visaged.pipelines.records import AttributeValue
from visaged.pipelines.runtime.metrics import Metrics

TEMPLATE = [(40.0, 46.0), (70.0, 46.0), (55.0, 63.0), (43.0, 80.0), (67.0, 80.0)]
GENDER = Head(name="gender", kind="binary", output="female", labels=["male", "female"])
MOOD = Head(name="mood", kind="classes", output="mood", labels=["bad", "so", "good"])
AGE = Head(name="age", kind="number", output="age", deviation="age_deviation", tolerance=7.5)
CHARM = Head(name="charm", kind="score", output="charm")


def signs(**changes: Any) -> np.ndarray[Any, Any]:
    """Return the signs of a good look, but for the changes."""
    look: dict[str, Any] = {
        "size": 100.0,
        "confidence": 1.0,
        "landmarks": TEMPLATE,
        "template": TEMPLATE,
        "pose": (0.0, 0.0, 0.0),
        "blur": 0.0,
        "quality": 1.0,
    }
    return trust.signs(**(look | changes))


def shipped() -> AnalyzerEntry:
    return next(entry for entry in Manifest().entries if isinstance(entry, AnalyzerEntry))


def told(entry: AnalyzerEntry, look: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return the confidences of fairly sure answers after a look with these signs."""
    heads = {head.name: head for head in entry.heads if head.kind != "points"}
    values = {}
    for name, head in heads.items():
        if head.kind in ("classes", "binary"):
            rest = len(head.labels) - 1
            values[name] = np.array([0.9] + [0.1 / rest] * rest, np.float32)
        else:
            values[name] = np.array([30.0, 5.0, 0.0][: {"number": 2, "angles": 3}.get(head.kind, 1)], np.float32)
    face = trust.readable(entry.no_face, look)
    reading = Reading(trust.trusted(heads, values, look, face), np.eye(2, 3), 0.8, face)
    return {n: a.confidence for n, a in single(heads, reading, frozenset(heads)).items()}


# --- the signs --------------------------------------------------------------------------------------------------------


def test_nothing_speaks_against_a_good_look() -> None:
    assert signs().tolist() == pytest.approx([0] * len(SIGNS), abs=1e-9)


@pytest.mark.parametrize(
    ("sign", "changes", "value"),
    [
        ("small", {"size": 16.0}, 2.0),
        ("small", {"size": 0.0}, 6.0),
        ("turned", {"pose": (-75.0, 0.0, 0.0)}, 1.5),
        ("tilted", {"pose": (0.0, -50.0, 0.0)}, 1.0),
        ("blurred", {"blur": 0.4}, 0.4),
        ("poor", {"quality": 0.5}, math.log(2)),
        ("poor", {"quality": 0.0}, math.log(100)),
        ("askew", {"landmarks": [(x, y + 3) for x, y in TEMPLATE]}, 1.0),
        ("unsure", {"confidence": 0.5}, math.log(2)),
    ],
)
def test_each_sign(sign: str, changes: dict[str, Any], value: float) -> None:
    expected = dict.fromkeys(SIGNS, 0.0) | {sign: value}
    assert dict(zip(SIGNS, signs(**changes), strict=True)) == pytest.approx(expected, abs=1e-6)


def test_a_network_that_tells_no_quality_is_not_suspected_for_it() -> None:
    assert signs(quality=None).tolist() == pytest.approx([0] * len(SIGNS), abs=1e-9)


def test_a_size_that_is_not_known_is_large_enough() -> None:
    assert signs(size=math.inf)[0] == 0.0


# --- what they do -----------------------------------------------------------------------------------------------------


def test_without_doubt_a_network_is_believed() -> None:
    values = {"gender": np.array([0.1, 0.9], np.float32), "age": np.array([30, 5], np.float32)}
    heads = {"gender": GENDER, "age": AGE}
    look = signs(size=8.0, blur=1.0, confidence=0.1, quality=0.0)
    assert trust.readable(None, look) == 1.0
    found = trust.trusted(heads, values, look, 1.0)
    assert all(found[name] is values[name] for name in values)


def test_a_temperature_draws_probabilities_together_and_keeps_their_order() -> None:
    mood = MOOD.model_copy(update={"doubt": Doubt(base=math.log(2))})
    found = trust.trusted({"mood": mood}, {"mood": np.array([0.81, 0.16, 0.03], np.float32)}, signs(), 1.0)["mood"]
    roots = np.sqrt([0.81, 0.16, 0.03])
    np.testing.assert_allclose(found, roots / roots.sum(), rtol=1e-5)


def test_where_there_is_no_face_an_answer_is_a_guess() -> None:
    heads = {head.name: head for head in (GENDER, MOOD, AGE, CHARM)}
    values = {
        "gender": np.array([0.0, 1.0], np.float32),
        "mood": np.array([0.0, 0.0, 1.0], np.float32),
        "age": np.array([30.0, 5.0], np.float32),
        "charm": np.array([0.9], np.float32),
    }
    found = trust.trusted(heads, values, signs(), 0.0)
    np.testing.assert_allclose(found["gender"], [0.5, 0.5])
    np.testing.assert_allclose(found["mood"], [1 / 3] * 3, rtol=1e-6)
    assert found["age"][0] == 30.0
    attributes = single(heads, Reading(found, np.eye(2, 3), 0.9, 0.0), frozenset(heads))
    assert attributes["age"].confidence < 0.01
    assert attributes["charm"] == AttributeValue(pytest.approx(0.9, abs=1e-6), 0.0, is_score=True)


@pytest.mark.parametrize("base", [-100.0, -7.0, -6.5, 0.0, 7.0, 100.0])
def test_no_temperature_divides_by_nothing(base: float) -> None:
    head = MOOD.model_copy(update={"doubt": Doubt(base=base)})
    value = np.array([0.5, 0.3, 0.2], np.float32)
    found = trust.trusted({"mood": head}, {"mood": value}, signs(), 1.0)["mood"]
    assert float(found.sum()) == pytest.approx(1)
    assert found[0] >= found[1] >= found[2]


def test_extreme_doubt_is_no_error() -> None:
    huge = Doubt(base=100, small=100, turned=100, tilted=100, blurred=100, poor=100, askew=100, unsure=100)
    look = signs(size=1.0, pose=(180.0, 90.0, 0.0), blur=1.0, quality=0.0, confidence=0.0)
    face = trust.readable(huge, look)
    heads = {head.name: head.model_copy(update={"doubt": huge}) for head in (GENDER, AGE)}
    values = {"gender": np.array([0.0, 1.0], np.float32), "age": np.array([30.0, 0.0], np.float32)}
    found = trust.trusted(heads, values, look, face)
    assert face == pytest.approx(0)
    np.testing.assert_allclose(found["gender"], [0.5, 0.5])
    assert np.isfinite(found["age"]).all()


# --- the shipped analyzer ---------------------------------------------------------------------------------------------

WORSE = {
    "smaller": [{"size": float(size)} for size in (112, 48, 24, 12, 8)],
    "more turned": [{"pose": (float(yaw), 0.0, 0.0)} for yaw in (0, 20, 40, 60, 90)],
    "more turned to the other side": [{"pose": (float(-yaw), 0.0, 0.0)} for yaw in (0, 20, 40, 60, 90)],
    "more tilted": [{"pose": (0.0, float(pitch), 0.0)} for pitch in (0, 20, 40, 60)],
    "more blurred": [{"blur": blur} for blur in (0.0, 0.2, 0.4, 0.6, 0.8)],
    "poorer": [{"quality": quality} for quality in (1.0, 0.5, 0.2, 0.05)],
    "less of a face": [{"landmarks": [(x + off, y) for x, y in TEMPLATE]} for off in (0, 2, 5, 15)],
    "less sure to be one": [{"confidence": confidence} for confidence in (0.95, 0.7, 0.5, 0.3)],
}


@pytest.mark.parametrize("steps", WORSE.values(), ids=list(WORSE))
def test_a_worse_look_is_never_trusted_more(steps: list[dict[str, Any]]) -> None:
    entry = shipped()
    by_step = [told(entry, signs(**step)) for step in steps]
    for name in by_step[0]:
        confidences = [found[name] for found in by_step]
        assert confidences == sorted(confidences, reverse=True), name


def test_confidence_falls_with_yaw_where_there_are_no_labels_to_say_so() -> None:
    entry = shipped()
    frontal, profile = (told(entry, signs(pose=(yaw, 0.0, 0.0))) for yaw in (0.0, 60.0))
    for name in ("age", "gender", "emotion", "glasses"):
        assert profile[name] < frontal[name] - 0.05, name


def test_every_answer_of_the_shipped_analyzer_is_told_of_a_good_look_and_none_of_no_face() -> None:
    entry = shipped()
    least = {head.name: head.min_confidence for head in entry.heads}
    good = told(entry, signs(size=80.0, confidence=0.85, quality=0.9))
    nothing = told(entry, signs(size=40.0, confidence=0.4, quality=0.05, landmarks=np.array(TEMPLATE) * (0.7, 1)))
    assert all(confidence >= least[name] for name, confidence in good.items()), good
    assert not any(confidence >= least[name] for name, confidence in nothing.items()), nothing


# --- through the reader -----------------------------------------------------------------------------------------------


def reader(**no_face: float) -> AnalyzerReader:
    entry = AnalyzerEntry.model_validate(
        fakes.ANALYZER
        | {
            "input": {"name": "face", "size": 112, "template": TEMPLATE},
            "no_face": no_face or None,
            "heads": [
                {"name": "gender", "kind": "binary", "output": "female", "labels": ["male", "female"]},
                {"name": "charm", "kind": "score", "output": "charm"},
            ],
        }
    )
    session = fakes.Session(
        ["face"],
        {
            "female": lambda batch: np.full(len(batch), 0.98, np.float32),
            "charm": lambda batch: np.full(len(batch), 0.6, np.float32),
        },
    )
    return AnalyzerReader(Analyzer(session, entry), Metrics())  # type: ignore[arg-type]


def confidences(
    by: AnalyzerReader, *, size: float = 80.0, confidence: float = 1.0, yaw: float = 0.0
) -> dict[str, float]:
    points = fakes.five_points(100, 100, 80, yaw=yaw)
    request = Request(ImageSurface(np.zeros((200, 200, 3), np.uint8)), points, 0.5, confidence, size)
    (reading,) = by.read([request])
    return {name: a.confidence for name, a in single(by.heads, reading, frozenset(by.heads)).items()}


def test_a_foreign_analyzer_without_doubt_is_believed() -> None:
    found = confidences(reader(), size=8.0, confidence=0.3, yaw=60)
    assert (found["gender"], found["charm"], found["head_pose"]) == pytest.approx((0.98, 0.5, 0.5), abs=1e-6)


def test_signs_are_read_off_the_look() -> None:
    assert confidences(reader(base=-9.0))["gender"] == pytest.approx(0.98, abs=0.001)
    by = reader(base=-3.0, small=1.0, turned=3.0, unsure=2.0)
    good = confidences(by)
    for worse in ({"size": 16.0}, {"confidence": 0.4}, {"yaw": 60.0}):
        found = confidences(by, **worse)
        assert all(found[name] < good[name] - 0.05 for name in ("gender", "charm", "head_pose")), worse


def test_a_look_at_no_face_hardly_counts_in_a_track() -> None:
    estimate = Estimate(GENDER)
    estimate.add(np.array([0.02, 0.98], np.float32), 0.8 * 0.95, 0.0)
    for step in range(5):
        estimate.add(np.array([0.5, 0.5], np.float32), 0.3 * 0.02, 1.0 + step)
    assert estimate.value(6.0).confidence > 0.94
