"""Attributes: what single looks at a face tell, and what they add up to."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.unit import fakes
from visaged.models.analyzer import Analyzer
from visaged.models.errors import ModelError
from visaged.models.geometry import HeadPose
from visaged.models.manifest import AnalyzerEntry, Head, Manifest
from visaged.models.session import SessionConfig
from visaged.models.surface import ImageSurface
from visaged.models.types import FloatArray
from visaged.pipelines.attributes import COMPUTED, AnalyzerReader, Estimate, NoReader, Reading, Request, single, sure
from visaged.pipelines.outputs.documents import attribute_document
from visaged.pipelines.records import AttributeValue
from visaged.pipelines.runtime.metrics import Metrics

AGE = Head(name="age", kind="number", output="age", deviation="age_deviation", unit="years", tolerance=7.5)
WEIGHT = Head(name="weight", kind="number", output="weight", unit="kg")
GENDER = Head(name="gender", kind="binary", output="female", labels=["male", "female"])
EMOTION = Head(name="emotion", kind="classes", output="emotion", labels=["angry", "calm", "happy"], memory_s=2)
CHARM = Head(name="charm", kind="score", output="charm")
POSE = Head(name="head_pose", kind="angles", output="", memory_s=0)


def estimate(head: Head, *readings: tuple[list[float], float, float]) -> Estimate:
    """Return the sum of readings given as (value, quality, time)."""
    result = Estimate(head)
    for value, quality, time_s in readings:
        result.add(np.array(value, np.float32), quality, time_s)
    return result


def published(estimate: Estimate, now_s: float) -> dict[str, Any]:
    """Return what an estimate looks like in a message."""
    return attribute_document(estimate.value(now_s))


# --- Estimate ---------------------------------------------------------------------------------------------------------


def test_one_reading_is_told_as_it_is() -> None:
    document = published(estimate(AGE, ([30.26, 5.0], 0.9, 10.0)), 10.5)
    assert document == {
        "value": 30.3,
        "deviation": 5.0,
        "confidence": round(math.erf(7.5 / (5 * math.sqrt(2))), 3),
        "age_ms": 500,
    }


def test_a_value_only_gets_older_until_the_next_reading() -> None:
    for head, one, other in ((EMOTION, [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]), (AGE, [30.0, 5.0], [40.0, 5.0])):
        asked = estimate(head, (one, 0.9, 10.0))
        first = asked.value(10.0)
        assert asked.value(12.5) == replace(first, age_s=2.5)
        asked.add(np.array(other, np.float32), 0.9, 13.0)
        assert asked.value(13.5) == estimate(head, (one, 0.9, 10.0), (other, 0.9, 13.0)).value(13.5)
        assert asked.value(13.5) != replace(first, age_s=0.5)


def test_ages_are_weighted_by_the_inverse_of_their_variance() -> None:
    sure, unsure = ([30.0, 2.0], 0.8, 0.0), ([60.0, 8.0], 0.8, 1.0)
    weights = np.array([1 / 4, 1 / 64])
    expected = weights @ [30, 60] / weights.sum()
    assert published(estimate(AGE, sure, unsure), 1.0)["value"] == round(expected, 1)
    assert published(estimate(AGE, unsure, sure), 1.0)["value"] == round(expected, 1)


def test_ages_are_weighted_by_the_quality_of_the_shot() -> None:
    document = published(estimate(AGE, ([30.0, 5.0], 0.9, 0.0), ([60.0, 5.0], 0.3, 1.0)), 1.0)
    assert document["value"] == pytest.approx(0.75 * 30 + 0.25 * 60, abs=0.06)


def test_an_age_is_never_forgotten() -> None:
    document = published(estimate(AGE, ([20.0, 5.0], 0.5, 0.0), ([40.0, 5.0], 0.5, 86_400.0)), 86_400.0)
    assert document["value"] == 30.0
    assert document["age_ms"] == 0


def test_confidence_of_a_number_is_the_chance_that_the_truth_is_within_the_tolerance() -> None:
    confidences = [published(estimate(AGE, ([30.0, d], 0.9, 0.0)), 0.0)["confidence"] for d in (0.0, 3.0, 7.5, 30.0)]
    assert confidences[0] == 1.0
    assert confidences[2] == pytest.approx(0.683, abs=1e-3)
    assert confidences == sorted(confidences, reverse=True)


def test_a_number_without_deviation_has_the_quality_of_its_shots_as_confidence() -> None:
    document = published(estimate(WEIGHT, ([70.0, math.nan], 0.9, 0.0), ([80.0, math.nan], 0.3, 1.0)), 1.0)
    assert document == {"value": 72.5, "confidence": pytest.approx(0.75), "age_ms": 0}


def test_an_emotion_forgets_with_its_memory() -> None:
    happy, angry = ([0.0, 0.0, 1.0], 0.8), ([1.0, 0.0, 0.0], 0.8)
    soon = published(estimate(EMOTION, (*happy, 0.0), (*angry, 0.01)), 0.01)
    late = published(estimate(EMOTION, (*happy, 0.0), (*angry, 2.0)), 2.0)
    gone = published(estimate(EMOTION, (*happy, 0.0), (*angry, 60.0)), 60.0)
    assert soon["confidence"] == pytest.approx(0.5, abs=0.01)
    assert late["value"] == "angry"
    assert late["confidence"] == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-3)  # after one memory: 1/e
    assert gone["confidence"] == 1.0


def test_classes_tell_all_their_probabilities() -> None:
    document = published(estimate(EMOTION, ([0.2, 0.1234, 0.6766], 0.8, 0.0)), 0.25)
    assert document == {
        "value": "happy",
        "confidence": 0.677,
        "probabilities": {"angry": 0.2, "calm": 0.123, "happy": 0.677},
        "age_ms": 250,
    }


def test_probabilities_add_up_over_a_track() -> None:
    document = published(estimate(EMOTION, ([0.2, 0.2, 0.6], 0.3, 0.0), ([0.5, 0.4, 0.1], 0.9, 0.7)), 1.0)
    assert sum(document["probabilities"].values()) == pytest.approx(1, abs=0.002)
    assert document["confidence"] == max(document["probabilities"].values())


def test_two_labels_tell_their_probability_alone() -> None:
    document = published(estimate(GENDER, ([0.3, 0.7], 0.8, 0.0)), 0.0)
    assert document == {"value": "female", "confidence": 0.7, "age_ms": 0}
    assert published(estimate(GENDER, ([0.9, 0.1], 0.8, 0.0)), 0.0)["value"] == "male"


def test_of_angles_and_points_only_the_newest_counts() -> None:
    document = published(estimate(POSE, ([40.0, 1.0, 2.0], 1.0, 0.0), ([-10.04, 5.06, 0.0], 0.1, 0.1)), 0.1)
    assert document == {"value": {"yaw": -10.0, "pitch": 5.1, "roll": 0.0}, "confidence": 0.1, "age_ms": 0}


def test_a_score_has_the_quality_of_its_shots_as_confidence() -> None:
    document = published(estimate(CHARM, ([0.5], 0.2, 0.0), ([0.9], 0.6, 1.0)), 1.0)
    assert document == {"value": pytest.approx(0.8, abs=1e-3), "confidence": pytest.approx(0.5), "age_ms": 0}


def test_a_worthless_shot_is_better_than_none() -> None:
    assert published(estimate(CHARM, ([0.5], 0.0, 0.0)), 0.0) == {"value": 0.5, "confidence": 0.0, "age_ms": 0}
    document = published(estimate(CHARM, ([0.5], 0.0, 0.0), ([0.9], 1.0, 0.0)), 0.0)
    assert document["value"] == pytest.approx(0.9, abs=1e-3)


def test_a_clock_that_steps_back_gives_no_negative_age() -> None:
    result = estimate(EMOTION, ([0.0, 0.0, 1.0], 0.8, 100.0), ([1.0, 0.0, 0.0], 0.8, 50.0))
    assert published(result, 20.0)["age_ms"] == 0
    assert published(result, 50.0)["confidence"] == 0.5


def test_a_value_is_not_rounded() -> None:
    age = estimate(AGE, ([30.26, 5.04], 0.9, 10.0)).value(10.25)
    assert age.value == pytest.approx(30.26, abs=1e-5)
    assert age.deviation == pytest.approx(5.04, abs=1e-6)
    assert age.confidence == pytest.approx(math.erf(7.5 / (5.04 * math.sqrt(2))), abs=1e-6)
    assert (age.probabilities, age.age_s, age.is_score) == (None, 0.25, False)
    pose = estimate(POSE, ([-10.04, 5.06, 0.25], 0.1, 0.0)).value(0.0)
    assert pose.value == pytest.approx(HeadPose(-10.04, 5.06, 0.25), abs=1e-5)
    charm = estimate(CHARM, ([0.12345], 0.54321, 0.0)).value(0.0)
    assert (charm.value, charm.confidence) == pytest.approx((0.12345, 0.54321), abs=1e-6)
    assert charm.is_score
    gender = estimate(GENDER, ([0.33333, 0.66667], 0.8, 0.0)).value(0.0)
    assert gender.probabilities == pytest.approx({"male": 0.33333, "female": 0.66667}, abs=1e-6)
    assert gender.confidence == gender.probabilities["female"]


def test_a_number_has_tenths_with_and_without_deviation_and_a_score_has_thousandths() -> None:
    assert published(estimate(AGE, ([70.1234, 5.0], 0.9, 0.0)), 0.0)["value"] == 70.1
    assert published(estimate(WEIGHT, ([70.1234, math.nan], 0.9, 0.0)), 0.0)["value"] == 70.1
    assert published(estimate(CHARM, ([0.12345], 0.9, 0.0)), 0.0)["value"] == 0.123


# --- single -----------------------------------------------------------------------------------------------------------


def test_single_tells_what_is_wanted_and_known() -> None:
    heads = {head.name: head for head in (AGE, GENDER, Head(name="spots", kind="points", output="p", count=3))}
    values = {
        "age": np.array([30, 5], np.float32),
        "gender": np.array([0.1, 0.9], np.float32),
        "spots": np.zeros((3, 2), np.float32),
    }
    reading = Reading(values, np.eye(2, 3), 0.7)
    assert list(single(heads, reading, frozenset({"gender", "age", "spots", "unknown"}))) == ["age", "gender"]
    found = single(heads, reading, frozenset({"gender"}))
    assert list(found) == ["gender"]
    assert found["gender"].probabilities == pytest.approx({"male": 0.1, "female": 0.9})
    assert attribute_document(found["gender"]) == {"value": "female", "confidence": 0.9, "age_ms": 0}
    assert single(heads, reading, frozenset()) == {}


def test_what_is_less_sure_than_wanted_is_left_out() -> None:
    attributes = {"age": AttributeValue(30.0, 0.3), "gender": AttributeValue("male", 0.9)}
    assert list(sure(attributes, {})) == ["age", "gender"]
    assert list(sure(attributes, {"age": 0.3, "gender": 0.9})) == ["age", "gender"]
    assert list(sure(attributes, {"age": 0.301, "beard": 1.0})) == ["gender"]
    assert sure(attributes, {"gender": 0.95}) == {"age": attributes["age"]}


def test_no_reader_reads_nothing() -> None:
    reader = NoReader()
    surface = ImageSurface(np.zeros((9, 9, 3), np.uint8))
    requests = [Request(surface, np.zeros((5, 2), np.float32), quality) for quality in (0.1, 0.2)]
    readings = reader.read(requests)
    assert [(dict(reading.values), reading.quality) for reading in readings] == [({}, 0.1), ({}, 0.2)]
    assert reader.heads == {}
    assert reader.points(readings[0], np.zeros((5, 2), np.float32)) is None


# --- AnalyzerReader on real faces -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    manifest = Manifest()
    name = next(entry.name for entry in manifest.entries if isinstance(entry, AnalyzerEntry))
    return Analyzer.load(manifest, name, SessionConfig(provider="cpu"))


def requests() -> list[Request]:
    surface = ImageSurface(fakes.demo_image(fakes.TWO_FACES_S))
    found = []
    for left, top, right, bottom in fakes.TWO_FACES:
        landmarks = fakes.five_points((left + right) / 2, (top + bottom) / 2 + 12, (right - left) * 1.05)
        found.append(Request(surface, landmarks, 0.9))
    return found


def assert_same(a: Reading, b: Reading) -> None:
    assert a.values.keys() == b.values.keys()
    for name, value in a.values.items():
        np.testing.assert_allclose(value, b.values[name], atol=0.02, rtol=1e-3, err_msg=name)
    np.testing.assert_array_equal(a.to_crop, b.to_crop)


def test_real_faces_are_read(analyzer: Analyzer) -> None:
    reader = AnalyzerReader(analyzer, Metrics())
    for reading in reader.read(requests()):
        assert reading.values.keys() == reader.heads.keys()
        assert {"head_pose", "blur"} <= reader.heads.keys()
        assert reading.quality == 0.9
        assert reading.values["head_pose"] == pytest.approx([0, 0, 0], abs=20)
        assert 0 < reading.values["blur"][0] < 0.8
        for name, head in reader.heads.items():
            value = reading.values[name]
            assert np.isfinite(value).all(), name
            if head.kind in ("classes", "binary"):
                assert value.shape == (len(head.labels),)
                assert value.sum() == pytest.approx(1, abs=1e-3)
            elif head.kind == "number":
                assert value.shape == (2,)
                assert value[1] > 0
            elif head.kind == "points":
                assert value.shape == (head.count, 2)
            else:
                assert value.shape == ((3,) if head.kind == "angles" else (1,))


def test_the_adults_of_the_demo_are_adults(analyzer: Analyzer) -> None:
    for reading in AnalyzerReader(analyzer, Metrics()).read(requests()):
        assert 15 < reading.values["age"][0] < 80


def test_landmarks_lie_on_the_face_and_follow_it(analyzer: Analyzer) -> None:
    reader = AnalyzerReader(analyzer, Metrics())
    request = requests()[0]
    (reading,) = reader.read([request])
    points = reader.points(reading, request.landmarks)
    assert points is not None
    assert points.shape == (106, 2)
    left, top, right, bottom = fakes.TWO_FACES[0]
    inside = (points > (left - 20, top - 20)) & (points < (right + 20, bottom + 20))
    assert inside.all(axis=1).mean() > 0.95
    # The eyes' middle as the network sees it is where the eyes are.
    assert np.abs(points.mean(0) - request.landmarks.mean(0)).max() < 30
    moved = reader.points(reading, request.landmarks * 2 + np.float32(7))
    np.testing.assert_allclose(moved, points * 2 + 7, atol=0.05)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_many_faces_are_read_in_batches(analyzer: Analyzer, count: int) -> None:
    metrics = Metrics()
    asked = (requests() * 4)[:count]
    readings = AnalyzerReader(analyzer, metrics, max_batch=3).read(asked)
    assert len(readings) == count
    labels = {"model": analyzer.name}
    assert metrics.registry.get_sample_value("visaged_batch_size_sum", labels) == count
    assert metrics.registry.get_sample_value("visaged_batch_size_count", labels) == math.ceil(count / 3)
    for request, reading in zip(asked, readings, strict=True):
        assert_same(reading, AnalyzerReader(analyzer, Metrics()).read([request])[0])


# --- Analyzer with heads that nobody wrote code for -------------------------------------------------------------------


def entry(*heads: dict[str, Any]) -> AnalyzerEntry:
    return AnalyzerEntry.model_validate(
        fakes.ANALYZER
        | {
            "input": {
                "name": "face",
                "size": 64,
                "template": [[20, 24], [44, 24], [32, 36], [24, 46], [40, 46]],
            },
            "heads": list(heads),
        }
    )


def column(*values: float) -> Any:
    """Return an output that gives every crop of a batch the same: (B,) for one value, (B, K) for more."""

    def output(batch: FloatArray) -> FloatArray:
        rows = np.tile(np.array(values, np.float32), (len(batch), 1))
        return rows[:, 0] if len(values) == 1 else rows

    return output


def test_a_new_head_needs_no_code() -> None:
    hair = {"name": "hair", "kind": "classes", "output": "hair_out", "labels": ["no", "short", "long"], "memory_s": 30}
    height = {"name": "height", "kind": "number", "output": "h", "deviation": "h_dev", "unit": "cm", "tolerance": 10}
    hat = {"name": "hat", "kind": "binary", "output": "hat", "labels": ["none", "hat"]}
    shine = {"name": "shine", "kind": "score", "output": "shine"}
    gaze = {"name": "gaze", "kind": "angles", "output": "gaze", "memory_s": 0}
    session = fakes.Session(
        ["face"],
        {
            "hair_out": column(0.1, 0.2, 0.7),
            "h": column(171.0),
            "h_dev": column(10.0),
            "hat": column(0.25),
            "shine": column(0.625),
            "gaze": column(10.0, -5.0, 1.0),
        },
    )
    analyzer = Analyzer(session, entry(hair, height, hat, shine, gaze))  # type: ignore[arg-type]
    reader = AnalyzerReader(analyzer, Metrics(), max_batch=4)
    assert reader.heads.keys() == {"hair", "height", "hat", "shine", "gaze", "head_pose", "blur"}

    request = Request(ImageSurface(np.zeros((200, 200, 3), np.uint8)), fakes.five_points(100, 100, 80, yaw=20), 0.5)
    readings = reader.read([request] * 5)

    assert session.batches == [4, 1]
    attributes = single(reader.heads, readings[4], frozenset(reader.heads))
    documents = {name: attribute_document(value) for name, value in attributes.items()}
    assert documents["hair"]["value"] == "long"
    assert documents["height"] == {"value": 171.0, "deviation": 10.0, "confidence": 0.683, "age_ms": 0}
    assert documents["hat"] == {"value": "none", "confidence": 0.75, "age_ms": 0}
    assert documents["shine"] == {"value": 0.625, "confidence": 0.5, "age_ms": 0}
    assert documents["gaze"]["value"] == pytest.approx({"yaw": 10.0, "pitch": -5.0, "roll": 1.0}, abs=4)
    assert documents["head_pose"]["value"]["yaw"] == pytest.approx(20, abs=1)  # from the five points
    assert documents["blur"]["value"] == 1.0
    assert analyzer.points_head is None
    assert reader.points(readings[0], request.landmarks) is None


def test_a_head_of_the_network_takes_precedence_over_what_is_computed() -> None:
    pose = {"name": "head_pose", "kind": "angles", "output": "pose", "memory_s": 0}
    session = fakes.Session(["face"], {"pose": column(1.0, 2.0, 3.0)})
    reader = AnalyzerReader(Analyzer(session, entry(pose)), Metrics())  # type: ignore[arg-type]
    request = Request(ImageSurface(np.zeros((200, 200, 3), np.uint8)), fakes.five_points(100, 100, 80, yaw=20), 0.5)
    (reading,) = reader.read([request])
    assert reading.values["head_pose"].tolist() == pytest.approx([1, 2, 3], abs=4)
    assert {head.name for head in COMPUTED} <= reader.heads.keys()


@pytest.mark.parametrize("roll", [-170, -60, 0, 25, 90])
def test_pose_is_the_picture_s_and_not_the_upright_crop_s(roll: float) -> None:
    pose = {"name": "head_pose", "kind": "angles", "output": "pose", "memory_s": 0}
    session = fakes.Session(["face"], {"pose": column(1.0, 2.0, 3.0)})
    reader = AnalyzerReader(Analyzer(session, entry(pose)), Metrics())  # type: ignore[arg-type]
    points = fakes.five_points(100, 100, 80, roll=roll)
    (reading,) = reader.read([Request(ImageSurface(np.zeros((200, 200, 3), np.uint8)), points, 0.5)])
    # Small angles are a vector in the picture: a face that looks up and lies on its side looks aside.
    cosine, sine = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    expected = [1 * cosine + 2 * sine, 2 * cosine - 1 * sine, 3 + roll]
    assert reading.values["head_pose"].tolist() == pytest.approx(expected, abs=0.3)


def test_points_of_another_number_come_back_to_the_picture() -> None:
    spots = {"name": "spots", "kind": "points", "output": "spots", "count": 5, "memory_s": 0}
    aligned = entry(spots)
    template = np.array(aligned.input.template)
    session = fakes.Session(["face"], {"spots": lambda batch: np.tile(template, (len(batch), 1, 1))})
    reader = AnalyzerReader(Analyzer(session, aligned), Metrics())  # type: ignore[arg-type]
    landmarks = np.array(aligned.input.template, np.float32) * 3 + 50
    (reading,) = reader.read([Request(ImageSurface(np.zeros((400, 400, 3), np.uint8)), landmarks, 0.5)])
    np.testing.assert_allclose(reader.points(reading, landmarks), landmarks, atol=1e-3)


def test_crops_are_given_to_the_network_as_the_entry_says() -> None:
    seen: list[FloatArray] = []

    def output(batch: FloatArray) -> FloatArray:
        seen.append(batch)
        return batch.reshape(len(batch), -1).mean(1) / 255

    aligned = entry({"name": "light", "kind": "score", "output": "light"})
    reader = AnalyzerReader(Analyzer(fakes.Session(["face"], {"light": output}), aligned), Metrics())  # type: ignore[arg-type]
    dark, bright = (ImageSurface(np.full((300, 300, 3), value, np.uint8)) for value in (0, 255))
    landmarks = np.array(aligned.input.template, np.float32) + 100
    first, second = reader.read([Request(dark, landmarks, 1.0), Request(bright, landmarks, 1.0)])
    assert (first.values["light"][0], second.values["light"][0]) == (0.0, 1.0)
    assert seen[0].shape == (2, 64, 64, 3)
    assert seen[0].dtype == np.uint8


def test_a_network_without_the_outputs_of_its_heads_is_refused() -> None:
    session = fakes.Session(["face"], {"h": column(1.0)})
    head = {"name": "height", "kind": "number", "output": "h", "deviation": "h_dev", "tolerance": 10}
    with pytest.raises(ModelError, match="model foreign lacks h_dev"):
        Analyzer(session, entry(head))  # type: ignore[arg-type]
