"""The detector: on real faces, and its decoding and suppression on numbers made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.unit import fakes
from visaged.models.decoders import DECODERS, Batch
from visaged.models.detector import Detector, suppress
from visaged.models.errors import ModelError
from visaged.models.manifest import DetectorEntry, Manifest
from visaged.models.preprocess import canvas_for, place
from visaged.models.session import SessionConfig
from visaged.models.types import Detections, FloatArray, Image

CPU = SessionConfig(provider="cpu")


def entry() -> DetectorEntry:
    return next(entry for entry in Manifest().entries if isinstance(entry, DetectorEntry))


def load(floor: float | None = None) -> Detector:
    return Detector.load(Manifest(), entry().name, CPU, floor)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load()


def look(detector: Detector, at_s: float) -> Detections:
    canvas = canvas_for(1280, 720, 640)
    (found,) = detector.detect(place(fakes.demo_image(at_s), canvas)[None])
    return canvas.to_picture(found)


def iou(a: FloatArray, b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


def candidates(*boxes: tuple[float, float, float, float, float]) -> Detections:
    """Return detections given as left, top, right, bottom, confidence."""
    values = np.array(boxes, np.float32).reshape(-1, 5)
    return Detections(values[:, :4], values[:, 4], np.zeros((len(values), 5, 2), np.float32))


def test_both_faces_are_found_where_they_are(detector: Detector) -> None:
    found = look(detector, fakes.TWO_FACES_S)
    assert len(found) == 2
    order = np.argsort(found.boxes[:, 0])
    for box, expected in zip(found.boxes[order], fakes.TWO_FACES, strict=True):
        assert iou(box, expected) > 0.5


def test_landmarks_lie_inside_and_in_the_documented_order(detector: Detector) -> None:
    found = look(detector, fakes.TWO_FACES_S)
    assert found.landmarks.shape == (2, 5, 2)
    for box, points in zip(found.boxes, found.landmarks, strict=True):
        assert (points > box[:2]).all()
        assert (points < box[2:]).all()
        right_eye, left_eye, nose, right_mouth, left_mouth = points
        assert right_eye[0] < nose[0] < left_eye[0]
        assert right_mouth[0] < left_mouth[0]
        assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1])


def test_results_are_float32_and_best_first(detector: Detector) -> None:
    found = look(detector, fakes.TWO_FACES_S)
    assert {found.boxes.dtype, found.confidences.dtype, found.landmarks.dtype} == {np.dtype(np.float32)}
    assert (np.diff(found.confidences) <= 0).all()
    assert (found.confidences >= entry().threshold).all()
    assert (found.confidences <= 1).all()


def test_a_batch_is_the_same_as_one_by_one(detector: Detector) -> None:
    canvas = canvas_for(1280, 720, 640)
    batch: Image = np.stack([place(fakes.demo_image(at_s), canvas) for at_s in (4.0, fakes.TWO_FACES_S, 9.0)])
    together = detector.detect(batch)
    alone = [detector.detect(picture[None])[0] for picture in batch]
    assert [len(found) for found in together] == [len(found) for found in alone]
    assert len({len(found) for found in together}) > 1
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.boxes, b.boxes, atol=0.05)
        np.testing.assert_allclose(a.confidences, b.confidences, atol=1e-3)
        np.testing.assert_allclose(a.landmarks, b.landmarks, atol=0.05)


def test_the_floor_decides_what_is_reported() -> None:
    best = float(look(load(), fakes.TWO_FACES_S).confidences[0])
    low, high = (look(load(floor), fakes.TWO_FACES_S) for floor in (0.02, best - 1e-4))
    assert len(low) > 2
    assert (low.confidences >= 0.02).all()
    assert low.confidences.min() < entry().threshold
    assert len(high) == 1


def test_no_face_in_an_empty_picture(detector: Detector) -> None:
    (found,) = detector.detect(np.zeros((1, 384, 640, 3), np.uint8))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.landmarks.shape == (0, 5, 2)


def test_a_network_without_the_outputs_of_its_entry_is_refused() -> None:
    session = fakes.Session(["image"], {"cells_8": lambda batch: batch})
    with pytest.raises(ModelError, match=r"lacks cells_16, cells_32, .*it has inputs image; outputs cells_8"):
        Detector(session, entry())  # type: ignore[arg-type]
    outputs = [f"cells_{stride}" for stride in (8, 16, 32)]
    session = fakes.Session(["picture"], dict.fromkeys(outputs, np.asarray))
    with pytest.raises(ModelError, match=r"lacks image, .*it has inputs picture"):
        Detector(session, entry())  # type: ignore[arg-type]


def test_decoding_puts_every_cell_where_it_belongs() -> None:
    raw = {
        ("score", 8): np.zeros((2, 4, 4), np.float32),
        ("box", 8): np.zeros((2, 4, 4, 4), np.float32),
        ("points", 8): np.zeros((2, 4, 4, 10), np.float32),
        ("score", 16): np.zeros((2, 2, 2), np.float32),
        ("box", 16): np.zeros((2, 2, 2, 4), np.float32),
        ("points", 16): np.zeros((2, 2, 2, 10), np.float32),
    }
    raw["score", 8][1, 2, 3] = 0.75  # the cell's centre is (28, 20)
    raw["box", 8][1, 2, 3] = [0.5, 1.0, 1.5, 2.0]
    raw["points", 8][1, 2, 3] = np.arange(10) / 4
    raw["score", 16][1, 0, 1] = 0.5  # (24, 8)
    raw["box", 16][1, 0, 1] = [0.25, 0.5, 0.25, 0.5]
    raw["score", 16][1, 1, 1] = np.nextafter(np.float32(0.5), np.float32(0))

    first, second = DECODERS["distances"].decode(raw, [8, 16], Batch(2, 32, 32), 0.5)

    assert len(first) == 0
    assert second.boxes.tolist() == [[24, 12, 40, 36], [20, 0, 28, 16]]
    assert second.confidences.tolist() == [0.75, 0.5]
    assert second.landmarks[0].tolist() == [[28, 22], [32, 26], [36, 30], [40, 34], [44, 38]]
    assert second.landmarks[1].tolist() == [[24, 8]] * 5


def test_cells_are_the_same_before_their_last_functions() -> None:
    rng = np.random.default_rng(3)
    cells = {
        ("cells", stride): rng.normal(0, 3, (2, 64 // stride, 96 // stride, 15)).astype(np.float32)
        for stride in (8, 32)
    }
    raw = {}
    for (_, stride), values in cells.items():
        raw["score", stride] = 1 / (1 + np.exp(-values[..., 0]))
        raw["box", stride] = np.log(1 + np.exp(values[..., 1:5]))
        raw["points", stride] = values[..., 5:]
    batch = Batch(2, 64, 96)
    expected = DECODERS["distances"].decode(raw, [8, 32], batch, 0.6)
    for found, wanted in zip(DECODERS["cells"].decode(cells, [8, 32], batch, 0.6), expected, strict=True):
        assert len(wanted) > 10
        np.testing.assert_allclose(found.confidences, wanted.confidences, rtol=1e-5)
        np.testing.assert_allclose(found.boxes, wanted.boxes, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(found.landmarks, wanted.landmarks, rtol=1e-5, atol=1e-4)


def test_cells_of_any_size_overflow_nothing_and_what_is_no_number_is_told() -> None:
    cells = np.zeros((1, 2, 2, 15), np.float32)
    cells[0, :, :, 0] = [[-1e30, 1e30], [-200, 200]]
    (found,) = DECODERS["cells"].decode({("cells", 8): cells}, [8], Batch(1, 16, 16), 0.5)
    assert found.confidences.tolist() == [1, 1]
    cells[0, 0, 0, 0] = np.nan
    with pytest.raises(ModelError, match="scores of stride 8"):
        DECODERS["cells"].decode({("cells", 8): cells}, [8], Batch(1, 16, 16), 0.5)


def test_suppression_keeps_the_best_of_what_overlaps() -> None:
    kept = suppress(candidates((1, 0, 11, 10, 0.6), (0, 0, 10, 10, 0.9), (20, 0, 30, 10, 0.7)), 0.45)
    assert kept.boxes.tolist() == [[0, 0, 10, 10], [20, 0, 30, 10]]
    assert kept.confidences.tolist() == pytest.approx([0.9, 0.7])


def test_a_crowd_keeps_its_unsure_faces() -> None:
    # Fifteen candidates a face: the sure faces' must not push out those of the unsure ones.
    rng = np.random.default_rng(4)
    x, y = (axis.ravel() * 20.0 for axis in np.meshgrid(np.arange(40), np.arange(25)))
    sure = np.where(np.arange(1000) % 2, 0.9, 0.5)
    rows = [
        (a + dx, b + dy, a + dx + 14, b + dy + 14, confidence - 0.01 * rng.random())
        for a, b, confidence in zip(x, y, sure, strict=True)
        for dx, dy in rng.uniform(-1, 1, (15, 2))
    ]
    assert len(suppress(candidates(*rows), 0.45)) == 1000


def test_suppression_at_its_border() -> None:
    # Shared 50, together 150: an IoU of exactly one third.
    pair = candidates((0, 0, 10, 10, 0.9), (5, 0, 15, 10, 0.8))
    assert len(suppress(pair, 0.34)) == 2
    assert len(suppress(pair, 0.33)) == 1


def test_suppression_does_not_chain() -> None:
    # The second overlaps both others; once it is gone the third stands alone.
    row = candidates((0, 0, 10, 10, 0.9), (4, 0, 14, 10, 0.8), (8, 0, 18, 10, 0.7))
    assert suppress(row, 0.4).boxes[:, 0].tolist() == [0, 8]


def test_equal_confidences_keep_their_order() -> None:
    pair = candidates((0, 0, 10, 10, 0.9), (0, 0, 10, 10, 0.9), (50, 0, 60, 10, 0.9))
    assert suppress(pair, 0.5).boxes[:, 0].tolist() == [0, 50]


def test_nothing_in_nothing_out() -> None:
    assert len(suppress(Detections.empty(), 0.45)) == 0
    assert len(suppress(candidates((0, 0, 0, 0, 0.9)), 0.45)) == 1


def test_detections_are_picked_by_masks_and_indices() -> None:
    three = candidates((0, 0, 1, 1, 0.3), (0, 0, 2, 2, 0.6), (0, 0, 3, 3, 0.9))
    assert three[three.confidences > 0.5].boxes[:, 2].tolist() == [2, 3]
    assert three[np.array([2, 0])].boxes[:, 2].tolist() == [3, 1]
    assert len(three[:0]) == len(Detections.empty()) == 0
