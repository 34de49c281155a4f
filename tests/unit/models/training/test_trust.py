"""Looks at faces and at no face: kept and joined, judged on the side that nothing was fitted to, and fitted to."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support import packs as made
from tests.unit import fakes
from visaged.models import trust
from visaged.models.manifest import AnalyzerEntry, Doubt, Head
from visaged.models.training.analyzer.evaluation import looks, reliability
from visaged.models.training.analyzer.evaluation.looks import JUDGED, Looks
from visaged.models.trust import SIGNS
from visaged.models.types import Detections
from visaged.pipelines.attributes import Reading, single

TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
AGE = Head(name="age", kind="number", output="age", deviation="age_deviation", tolerance=7.5)
GENDER = Head(name="gender", kind="binary", output="female", labels=["male", "female"])
CHARM = Head(name="charm", kind="score", output="charm")


def entry(*heads: Head, no_face: Doubt | None = None) -> AnalyzerEntry:
    return AnalyzerEntry.model_validate(
        fakes.ANALYZER
        | {
            "name": "reader",
            "input": {"name": "crop", "size": 112, "template": [[40, 46], [70, 46], [56, 63], [44, 80], [68, 80]]},
            "heads": list(heads),
            "no_face": no_face,
        }
    )


def made_looks(count: int, *, face: bool, seed: int = 0, pack: str = "ages") -> Looks:
    """Return looks at faces of which the small ones are told with too much confidence, or at no face.

    Of large faces 95 % are right and told so; of faces of 4 halvings below 64 px two thirds are, and told 95 % too.
    """
    rng = np.random.default_rng(seed)
    halvings = rng.integers(0, 5, count)
    seen = np.zeros((count, len(SIGNS)))
    seen[:, SIGNS.index("small")] = halvings
    seen[:, SIGNS.index("unsure")] = rng.uniform(0, 0.2, count) if face else rng.uniform(0.5, 1.0, count)
    female = rng.integers(0, 2, count)
    right = rng.random(count) < 0.95 - 0.075 * halvings
    said = np.where(right, female, 1 - female)
    chance = np.where(said[:, None] == [0, 1], 0.95, 0.05).astype(np.float32)
    age = rng.uniform(20, 60, count)
    deviation = np.full(count, 4.0)
    told = age + rng.normal(0, 4.0 * 1.2**halvings)
    unknown = np.full(count, np.nan, np.float32)
    return Looks(
        np.full(count, pack),
        np.arange(count) % 2,
        np.full(count, face),
        (64 / 2.0**halvings).astype(np.float32),
        rng.uniform(0, 40, count).astype(np.float32),
        seen,
        {"gender": chance, "age": np.stack([told, deviation], 1).astype(np.float32)},
        {
            "gender": female.astype(np.float32) if face else unknown,
            "age": age.astype(np.float32) if face else unknown,
        },
    )


# --- looks ------------------------------------------------------------------------------------------------------------


def test_looks_come_back_from_their_file(tmp_path: Path) -> None:
    both = looks.joined([made_looks(20, face=True), made_looks(10, face=False, pack="events")])
    both.save(tmp_path / "looks.npz")
    again = Looks.load(tmp_path / "looks.npz")
    assert len(again) == 30
    assert again.face.sum() == 20
    assert sorted(np.unique(again.pack)) == ["ages", "events"]
    assert again.values.keys() == again.truth.keys() == {"gender", "age"}
    np.testing.assert_array_equal(again.signs, both.signs)
    np.testing.assert_array_equal(again.truth["age"], both.truth["age"])
    some = again[again.pack == "events"]
    assert len(some) == len(some.values["age"]) == 10
    assert np.isnan(some.truth["gender"]).all()


def test_a_find_belongs_to_the_face_where_it_lies() -> None:
    boxes = np.array([[10, 10, 30, 30], [11, 9, 31, 29], [100, 100, 160, 160], [200, 10, 220, 30]], np.float32)
    found = Detections(boxes, np.linspace(0.9, 0.6, 4).astype(np.float32), np.zeros((4, 5, 2), np.float32))
    centres = np.array([[20, 20], [130, 130], [300, 300], [211, 21]], np.float32)
    finds, faces = looks.nearest(found, centres, 20)
    # The better of two finds; none three times as large; nothing where nothing is.
    assert list(zip(finds, faces, strict=True)) == [(0, 0), (3, 3)]
    assert [len(part) for part in looks.nearest(Detections.empty(), centres, 20)] == [0, 0]


def test_boxes_that_touch_a_face_are_known() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    others = np.array([[9, 9, 12, 12], [30, 20, 40, 30]], np.float32)
    assert looks.overlapping(boxes, others).tolist() == [True, False]
    assert looks.overlapping(boxes, others[:0]).tolist() == [False, False]


def test_a_spoilt_picture_still_shows_what_it_showed() -> None:
    image = np.full((64, 64, 3), 120, np.uint8)
    made.paint(image, (16, 16, 48, 48))
    bad = looks.spoilt(image, np.random.default_rng(1))
    assert bad.shape == image.shape
    assert bad.dtype == np.uint8
    assert 0 < np.abs(cv2.absdiff(bad, image)).mean() < 20


def test_only_people_s_labels_are_the_truth() -> None:
    nothing = np.full(3, np.nan, np.float32)
    emotion = np.array([[0.1, 0.9], [np.nan, np.nan], [0.7, 0.3]], np.float32)
    labels = dict.fromkeys(("seen_glasses", "seen_mask", "seen_beard", "seen_hat"), nothing)
    labels |= {"age": np.array([3, 30, np.nan], np.float32), "female": np.array([1, 1, 0], np.float32)}
    labels |= {"emotion": emotion, "seen_eyes": np.array([[1, 0], [np.nan, np.nan], [0, 0]], np.float32)}
    truth = looks.truths(labels)
    np.testing.assert_array_equal(truth["gender"], [np.nan, 1, 0])  # of small children nobody can tell
    np.testing.assert_array_equal(truth["emotion"], [1, np.nan, 0])
    np.testing.assert_array_equal(truth["left_eye"], [0, np.nan, 0])


# --- the tables -------------------------------------------------------------------------------------------------------


def test_confidences_are_those_that_the_product_tells() -> None:
    some = made_looks(50, face=True)
    doubted = entry(
        GENDER.model_copy(update={"doubt": Doubt(small=0.3)}),
        AGE.model_copy(update={"doubt": Doubt(base=0.2)}),
        no_face=Doubt(base=-3, small=0.5),
    )
    heads = {head.name: head for head in doubted.heads}
    face = reliability.faces_of(doubted.no_face, some)
    for name, head in heads.items():
        sure, _ = reliability.confidences(head, some, face)
        for index in range(0, 50, 7):
            chance = trust.readable(doubted.no_face, some.signs[index])
            values = {name: some.values[name][index]}
            reading = Reading(trust.trusted(heads, values, some.signs[index], chance), np.eye(2, 3), 1.0, chance)
            told = single(heads, reading, frozenset({name}))[name].confidence
            assert told == pytest.approx(sure[index], abs=0.001)


def test_no_answer_about_no_face_is_right() -> None:
    none = made_looks(20, face=False)
    for head in (GENDER, AGE):
        assert not reliability.confidences(head, none, np.ones(20))[1].any()


def test_tables_are_of_the_side_that_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    both = looks.joined([made_looks(400, face=True), made_looks(60, face=False, pack="events")])
    reliability.reliability_tables(entry(GENDER, AGE, CHARM), both)
    text = capsys.readouterr().out
    assert "charm" not in text
    rows = [line for line in text.splitlines() if line.startswith("| gender") and " px" in line]
    assert sum(int(row.split("|")[2]) for row in rows) == (both.face & (both.side == JUDGED)).sum()
    assert "events, 30 / " in text  # half of the looks at no face


# --- the fit ----------------------------------------------------------------------------------------------------------


@TORCH
def test_what_is_told_with_too_much_confidence_is_doubted() -> None:
    from visaged.models.training.analyzer.evaluation.trust import fitted

    both = looks.joined([made_looks(6000, face=True), made_looks(600, face=False, pack="events", seed=1)])
    believed = entry(GENDER, AGE, CHARM)
    doubted = fitted(believed, both)
    gender, age, charm = doubted.heads
    assert gender.doubt is not None
    assert age.doubt is not None
    assert charm.doubt is None
    assert gender.doubt.small > 0.05
    assert 0.1 < age.doubt.small < 0.3  # ln 1.2 = 0.18
    judged = both[both.side == JUDGED]
    for head, before in ((gender, GENDER), (age, AGE)):
        small = judged.face & (judged.signs[:, 0] == 4)
        gaps = []
        for one in (before, head):
            sure, right = reliability.confidences(one, judged, np.ones(len(judged)))
            gaps.append(abs(sure[small].mean() - right[small].mean()))
        assert gaps[1] < gaps[0] / 2
    face = reliability.faces_of(doubted.no_face, judged)
    assert face[judged.face].min() > 0.5 > face[~judged.face].max()


@TORCH
def test_turned_faces_are_doubted_though_no_label_says_so() -> None:
    from visaged.models.training.analyzer.evaluation.trust import fitted

    both = looks.joined([made_looks(400, face=True), made_looks(60, face=False, pack="events")])
    doubted = fitted(entry(GENDER), both)
    assert doubted.no_face is not None
    assert doubted.heads[0].doubt is not None
    assert doubted.no_face.turned >= 1
    assert doubted.heads[0].doubt.turned >= 0.5


@TORCH
def test_a_head_with_few_labels_stays_as_it_is() -> None:
    from visaged.models.training.analyzer.evaluation.trust import fit_head

    few = made_looks(59, face=True)
    assert fit_head(GENDER, few) is None
