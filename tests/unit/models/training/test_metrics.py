"""Average precision and point error on cases that can be worked out by hand; merging two teachers' labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from visaged.models.training.common.packs import Faces, read_labels
from visaged.models.training.evaluation.decode import Found, overlap, suppress
from visaged.models.training.evaluation.metrics import Scored, join, match, point_errors
from visaged.models.training.labelling.relabel import AGREE_SCORE, ALONE_SCORE, merge, write_labels

Box = tuple[float, float, float, float]
A: Box = (0, 0, 20, 20)
B: Box = (100, 0, 120, 20)
C: Box = (0, 100, 20, 120)
SMALL: Box = (200, 200, 206, 206)
FAR: Box = (300, 300, 320, 320)


def shifted(box: Box, right: float = 0, down: float = 0) -> Box:
    return box[0] + right, box[1] + down, box[2] + right, box[3] + down


def labels(*boxes: Box, doubtful: tuple[Box, ...] = (), human: bool = False) -> Faces:
    """Return sure faces, then doubtful ones, whose five points are their boxes' middles."""
    everything = np.array([*boxes, *doubtful], np.float32).reshape(-1, 4)
    middles = (everything[:, :2] + everything[:, 2:]) / 2
    sure = [True] * len(boxes) + [False] * len(doubtful)
    return Faces.from_rows(everything, np.repeat(middles[:, None], 5, 1), sure, [human] * len(sure))


def found(*finds: tuple[Box, float]) -> Found:
    """Return finds, best first, whose five points are their boxes' middles."""
    boxes = np.array([box for box, _ in finds], np.float32).reshape(-1, 4)
    points = np.repeat(((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None], 5, 1)
    return boxes, np.array([score for _, score in finds], np.float32), points


def precision(finds: Found, faces: Faces, least_size: float = 8) -> float:
    return match(finds, faces, least_size).average_precision()


def test_overlap_of_boxes() -> None:
    boxes = np.array([A, shifted(A, 10), SMALL], np.float32)
    np.testing.assert_allclose(overlap(boxes, boxes), [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]], atol=1e-6)
    inner = np.array([(5, 5, 10, 10)], np.float32)
    assert overlap(inner, boxes, of_first=True).tolist() == [[1, 0, 0]]
    assert overlap(boxes, np.zeros((0, 4), np.float32)).shape == (3, 0)


def test_suppression_joins_and_keeps_the_best() -> None:
    boxes, scores, points = suppress([found((A, 0.5), (B, 0.9)), found((shifted(A, 1), 0.8))])
    assert scores.tolist() == pytest.approx([0.9, 0.8])
    assert boxes.tolist() == [list(B), list(shifted(A, 1))]
    assert points[0, 0].tolist() == [110, 10]
    assert len(suppress([found((A, 0.5)), found((shifted(A, 10), 0.4))], iou=0.3)[1]) == 1
    assert len(suppress([found((A, 0.5)), found((shifted(A, 10), 0.4))], iou=0.34)[1]) == 2
    assert len(suppress([found()])[1]) == 0


def test_all_found_is_one_and_nothing_found_is_zero() -> None:
    faces = labels(A, B)
    assert precision(found((A, 0.9), (B, 0.3)), faces) == pytest.approx(1)
    assert precision(found(), faces) == 0
    assert precision(found((FAR, 0.9)), faces) == 0
    assert np.isnan(precision(found((A, 0.9)), labels()))


@pytest.mark.parametrize(
    ("finds", "expected"),
    [
        # Of three faces two are found; a false alarm between them: 1/3 x 1 + 1/3 x 2/3.
        ([(A, 0.9), (FAR, 0.8), (B, 0.7)], 1 / 3 + 2 / 9),
        # First the false alarm: precision is 1/2, then 2/3; the envelope takes 2/3 for both.
        ([(FAR, 0.9), (A, 0.8), (B, 0.7)], 2 / 3 * 2 / 3),
        # A false alarm after all finds costs nothing.
        ([(A, 0.9), (B, 0.8), (C, 0.7), (FAR, 0.6)], 1),
        # The second box on one face is a false alarm.
        ([(A, 0.9), (shifted(A, 1), 0.8), (B, 0.7)], 1 / 3 + 2 / 9),
        # Half beside the face is not on it: IoU 1/3.
        ([(shifted(A, 10), 0.9), (B, 0.8)], 1 / 3 * 1 / 2),
        # IoU 0.6 is.
        ([(shifted(A, 5), 0.9)], 1 / 3),
    ],
)
def test_cases_by_hand(finds: list[tuple[Box, float]], expected: float) -> None:
    assert precision(found(*finds), labels(A, B, C)) == pytest.approx(expected)


def test_a_find_takes_the_face_it_covers_best_and_leaves_the_other() -> None:
    near = labels(A, shifted(A, 4))
    scored = match(found((shifted(A, 3), 0.9), (shifted(A, 1), 0.8)), near, 8)
    assert scored.hits.tolist() == [True, True]


def test_doubtful_labels_are_neither_faces_nor_false_alarms() -> None:
    faces = labels(A, doubtful=(B, (200, 0, 260, 60)))
    # On a doubtful box, and mostly inside a larger one that IoU would not see.
    scored = match(found((A, 0.9), (B, 0.8), ((210, 10, 230, 30), 0.7)), faces, 8)
    assert (scored.scores.tolist(), scored.hits.tolist(), scored.faces) == ([pytest.approx(0.9)], [True], 1)
    # Mostly outside of it: a false alarm.
    assert match(found(((251, 0, 271, 20), 0.9)), faces, 8).hits.tolist() == [False]


def test_faces_that_are_too_small_are_neither() -> None:
    faces = labels(A, SMALL)
    finds = found((A, 0.9), (SMALL, 0.8), (shifted(FAR, 50), 0.7))
    scored = match(finds, faces, 8)
    assert (scored.hits.tolist(), scored.faces) == ([True, False], 1)
    assert match(finds, faces, 4).faces == 2
    # A find that is itself too small says nothing of larger faces.
    assert len(match(found(((300, 300, 305, 305), 0.9)), faces, 8).hits) == 0
    # From 32 px on nothing is left to be found.
    assert match(finds, faces, 32).faces == 0


def test_pictures_are_judged_together() -> None:
    one, other = match(found((A, 0.6)), labels(A), 8), match(found((FAR, 0.9)), labels(B), 8)
    both = join([one, other])
    assert both.faces == 2
    assert both.average_precision() == pytest.approx(1 / 2 * 1 / 2)
    assert join([one, Scored(np.zeros(0, np.float32), np.zeros(0, bool), 0)]).average_precision() == pytest.approx(1)


def test_point_errors_are_in_percent_of_the_size() -> None:
    faces = labels(A, B, SMALL, doubtful=(C,))
    errors = point_errors(found((shifted(A, 3, 4), 0.9), (C, 0.8), (SMALL, 0.7)), faces, 16)
    assert errors[0] == pytest.approx(100 * 5 / 20)  # IoU 0.515
    assert np.isnan(errors[1:]).all()  # missed, too small, doubtful
    assert np.isnan(point_errors(found(), faces, 8)).all()


def test_a_second_teacher_settles_doubt() -> None:
    faces = labels(A, doubtful=(B, C, SMALL))
    merged = merge(faces, found((A, 0.9), (B, AGREE_SCORE), (C, AGREE_SCORE - 0.1)))
    assert merged.boxes.tolist() == [list(box) for box in (A, B, C, SMALL)]
    # Agreed on; half seen; too small to be judged.
    assert merged.sure.tolist() == [True, True, False, False]


def test_what_no_teacher_sees_is_struck_out_and_what_one_sees_alone_is_added() -> None:
    faces = labels(A, doubtful=(B,))
    merged = merge(faces, found((FAR, ALONE_SCORE), (C, AGREE_SCORE), (shifted(C, 100), AGREE_SCORE - 0.01)))
    # A sure face that it does not see becomes doubtful, a doubtful one background.
    assert merged.boxes.tolist() == [list(box) for box in (A, FAR, C)]
    assert merged.sure.tolist() == [False, True, False]


def test_boxes_that_people_drew_stay() -> None:
    merged = merge(labels(A, human=True), found())
    assert (merged.sure.tolist(), merged.human.tolist()) == ([True], [True])
    merged = merge(labels(), found((A, 0.9)))
    assert (merged.sure.tolist(), merged.human.tolist()) == ([True], [False])


def test_merged_labels_are_written_as_a_pack_s(tmp_path: Path) -> None:
    faces = labels((0.5, 1, 20.25, 21), doubtful=(B,))
    faces.points[0, 2] = np.nan
    empty = Faces.from_rows([], [], [], [])
    people = labels(C, human=True)
    written = {"a.jpg": ((640, 480), faces), "b.jpg": ((64, 48), empty), "c.jpg": ((64, 48), people)}
    write_labels(tmp_path / "tiny.csv", written)
    read = read_labels(tmp_path / "tiny.csv")
    assert list(read) == ["a.jpg", "b.jpg", "c.jpg"]
    assert len(read["b.jpg"]) == 0
    np.testing.assert_allclose(read["a.jpg"].boxes, faces.boxes, atol=0.11)
    np.testing.assert_allclose(read["a.jpg"].points, faces.points, atol=0.051)
    assert read["a.jpg"].sure.tolist() == [True, False]
    assert read["c.jpg"].human.tolist() == [True]
