"""Training samples: wherever a face goes, its label goes too, and no face is shown without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.random import Generator

from tests.support import packs as made
from visaged.models.training.common import photometric
from visaged.models.training.common.packs import Faces, PackedPicture, without_parts
from visaged.models.training.detector.samples import compose, crowd, views
from visaged.models.training.detector.samples.views import Labels, Library, Picture
from visaged.models.types import Image

SIDE = 320
PORTRAIT = ((230, 120, 390, 320),)
GROUP = ((40, 60, 96, 130), (180, 40, 250, 126), (330, 90, 390, 170), (480, 50, 560, 150), (120, 300, 180, 380))
MOST_APART = 0.5
"""Pixels between a label and what is seen, for nearly all; of faces of 24 px and more."""


def picture(*boxes: tuple[int, int, int, int], sure: bool = True, pack: str = "portraits") -> Picture:
    """Return a grey picture, 640x480, with painted faces."""
    rng = np.random.default_rng(len(boxes))
    coarse = rng.integers(60, 140, (12, 16), dtype=np.uint8)
    image = cv2.cvtColor(cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2BGR)
    points = [made.paint(image, box) for box in boxes]
    labelled = np.array(boxes, np.float32)
    faces = Faces.from_rows(labelled, points, [sure] * len(boxes), [True] * len(boxes))
    done, data = cv2.imencode(".png", image)  # JPEG would smear the colours
    assert done
    return Picture.of(PackedPicture(pack, "painted", data.tobytes(), faces))


@pytest.fixture
def library() -> Library:
    packs = {
        "portraits": [picture(*PORTRAIT)],
        "events": [picture(*GROUP, pack="events")],
        "scenes": [picture(pack="scenes"), picture(*PORTRAIT, sure=False, pack="scenes")],
    }
    return Library(packs, {"portraits": 1.0, "events": 1.0, "scenes": 0.5})


@pytest.fixture
def true_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the colours alone, by which the faces are found again, and write no letters."""

    def keep(image: Image, *_: Any) -> Image:
        return image

    monkeypatch.setattr(photometric, "tone", keep)
    monkeypatch.setattr(photometric, "camera", keep)
    monkeypatch.setattr(views, "_write", lambda view, rng: None)
    warp = views.warp

    def with_grey_border(*arguments: Any) -> Image:
        return warp(*arguments[:-1], [90, 90, 90])

    monkeypatch.setattr(views, "warp", with_grey_border)
    monkeypatch.setattr(crowd, "warp", with_grey_border)


def points_at_place(image: Image, points: np.ndarray, size: float) -> int:
    """Return how many of a face's points are seen where they are labelled."""
    count = 0
    for index, point in enumerate(points):
        window = np.concatenate([point - 0.14 * size, point + 0.14 * size])
        spots = [made.disc(image, colour, window) for colour in (index, views.MIRRORED_POINTS[index])]
        count += any(at is not None and np.abs(at - point).max() < 0.05 * size for at in spots)
    return count


def seen(image: Image, labels: Labels | compose.Sample, face: int) -> list[tuple[bool, float]]:
    """Return, for the points of a face that are to be seen, whether they are a mirrored face's, and how far off."""
    results = []
    size = float(np.sqrt(np.prod(labels.boxes[face, 2:] - labels.boxes[face, :2])))
    for index, point in enumerate(labels.points[face]):
        window = np.concatenate([point - 0.14 * size, point + 0.14 * size])
        if size < 24 or (window[:2] < 0).any() or (window[2:] > SIDE).any():
            continue
        for mirrored, colour in ((False, index), (True, views.MIRRORED_POINTS[index])):
            at = made.disc(image, colour, window)
            if at is not None:
                results.append((mirrored, float(np.abs(at - point).max())))
                break
    # The nose is the same on both.
    return [result for index, result in enumerate(results) if index != 2] if len(results) == 5 else []


def coloured_outside(image: Image, boxes: np.ndarray) -> int:
    """Return how many pixels have a painted point's colour and lie in no label's box."""
    value = image.astype(int)
    vivid = value.max(2) - value.min(2) > 150
    for left, top, right, bottom in boxes:
        grow = 0.15 * max(right - left, bottom - top) + 2  # of a tilted face points come near the upright box's edge
        low_x, low_y = max(0, int(left - grow)), max(0, int(top - grow))
        vivid[low_y : int(bottom + grow), low_x : int(right + grow)] = False
    return int(vivid.sum())


@pytest.mark.usefixtures("true_colours")
@pytest.mark.parametrize("boxes", [PORTRAIT, GROUP])
def test_points_follow_their_faces_through_every_view(boxes: tuple[tuple[int, int, int, int], ...]) -> None:
    source, rng = picture(*boxes), np.random.default_rng(1)
    mirrored, apart = [], []
    for _ in range(80):
        canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
        labels = views.place(canvas, (0, 0, SIDE, SIDE), source, (24, 200), rng)
        for face in np.flatnonzero(labels.sure):
            points = seen(canvas, labels, int(face))
            if points:
                assert len({is_mirrored for is_mirrored, _ in points}) == 1, "eyes and mouth corners go together"
                mirrored.append(points[0][0])
                apart += [distance for _, distance in points]
                first, second = labels.points[face, :2]
                assert first[0] < second[0], "left to right in the picture"
    assert len(apart) > 150
    assert np.percentile(apart, 99) < MOST_APART
    assert max(apart) < 3 * MOST_APART
    assert 0.35 < np.mean(mirrored) < 0.65


@pytest.mark.usefixtures("true_colours")
@pytest.mark.parametrize("boxes", [PORTRAIT, GROUP])
def test_upright_boxes_end_where_their_faces_end(
    boxes: tuple[tuple[int, int, int, int], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "draw_tilt", lambda rng: 0.0)
    source, rng, count = picture(*boxes), np.random.default_rng(2), 0
    for _ in range(60):
        canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
        labels = views.place(canvas, (0, 0, SIDE, SIDE), source, (16, 200), rng)
        for left, top, right, bottom in labels.boxes[labels.sure]:
            if min(left, top) < 4 or max(right, bottom) > SIDE - 4:
                continue
            reach = np.array([left - 4, top - 4, right + 4, bottom + 4]).astype(int).clip(0)
            part = canvas[reach[1] : reach[3], reach[0] : reach[2]].max(2) > 200  # white, or a disc
            rows, columns = np.flatnonzero(part.mean(1) > 0.3), np.flatnonzero(part.mean(0) > 0.3)
            shown = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) + np.tile(reach[:2], 2)
            # Edges lie between pixels that are white and pixels that are not, to within half a pixel.
            np.testing.assert_allclose(shown, [left, top, right, bottom], atol=MOST_APART + 0.5)
            count += 1
    assert count > 50


@pytest.mark.usefixtures("true_colours")
@pytest.mark.parametrize("sure", [True, False])
@pytest.mark.parametrize("boxes", [PORTRAIT, GROUP, ((4, 4, 60, 74), (580, 400, 636, 476))])
def test_a_view_shows_no_face_without_a_label(boxes: tuple[tuple[int, int, int, int], ...], sure: bool) -> None:
    # Reflected or repeated edges would: a face, or a part of one, that training then takes as background.
    source, rng = picture(*boxes, sure=sure), np.random.default_rng(3)
    for _ in range(80):
        canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
        labels = views.place(canvas, (0, 0, SIDE, SIDE), source, (8, 250), rng)
        assert coloured_outside(canvas, labels.boxes) == 0


@pytest.mark.usefixtures("true_colours")
def test_a_view_stays_in_its_tile() -> None:
    source, rng, tile = picture(*GROUP), np.random.default_rng(4), (100, 40, 260, 200)
    for _ in range(60):
        canvas = np.full((SIDE, SIDE, 3), 7, np.uint8)
        labels = views.place(canvas, tile, source, (8, 120), rng)
        inner = canvas[40:200, 100:260].copy()
        canvas[40:200, 100:260] = 7
        assert (canvas == 7).all()
        assert (inner != 7).any()
        assert (labels.boxes[:, :2] >= tile[:2]).all()
        assert (labels.boxes[:, 2:] <= tile[2:]).all()


@pytest.mark.usefixtures("true_colours")
def test_samples_label_all_that_they_show(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    # What covers faces is coloured too, and may be a piece of the picture with a face in it.
    monkeypatch.setattr(compose, "cover", lambda *_: None)
    rng, apart, doubtful, small = np.random.default_rng(5), [], 0, 0
    for _ in range(80):
        sample = compose.compose(library, SIDE, rng, close_ups=0)
        assert (sample.image.shape, sample.image.dtype) == ((SIDE, SIDE, 3), np.uint8)
        assert len(sample.boxes) == len(sample.points)
        everything = np.concatenate([sample.boxes, sample.doubtful])
        assert ((everything >= 0) & (everything <= SIDE)).all()
        assert (everything[:, 2:] > everything[:, :2]).all()
        assert coloured_outside(sample.image, everything) == 0
        doubtful += len(sample.doubtful)
        small += int((np.sqrt(np.prod(sample.boxes[:, 2:] - sample.boxes[:, :2], axis=1)) < 16).sum())
        for face in range(len(sample.boxes)):
            apart += [distance for _, distance in seen(sample.image, sample, face)]
    assert len(apart) > 250
    # A few points are half covered by the next head.
    assert np.mean(np.array(apart) < MOST_APART) > 0.97
    assert doubtful > 40
    assert small > 100, "small faces are what training needs most"


@pytest.mark.usefixtures("true_colours")
def test_pasted_heads_hide_one_another(library: Library) -> None:
    rng = np.random.default_rng(6)
    hidden, shown = [], []
    for _ in range(60):
        canvas = np.full((SIDE, SIDE, 3), 90, np.uint8)
        labels = Labels.empty()
        crowd.paste_crowd(canvas, labels, library, rng)
        assert coloured_outside(canvas, labels.boxes) == 0
        sizes = np.sqrt(np.prod(labels.boxes[:, 2:] - labels.boxes[:, :2], axis=1))
        whole = ((labels.boxes > 1) & (labels.boxes < SIDE - 1)).all(1) & (sizes >= 16)
        for face in np.flatnonzero(whole):
            count = points_at_place(canvas, labels.points[face], float(sizes[face]))
            (shown if labels.sure[face] else hidden).append(count)
    assert len(hidden) > 20
    assert np.mean(np.array(shown) >= 2) > 0.97, "of a sure face more than half is to be seen"
    assert np.mean(shown) > np.mean(hidden) + 2


def test_covered_faces_stay_mostly_visible(library: Library) -> None:
    rng, covered = np.random.default_rng(7), []
    for _ in range(100):
        canvas = np.full((200, 200, 3), 255, np.uint8)
        labels = Labels(np.array([[60, 60, 140, 150]], np.float32), np.zeros((1, 5, 2), np.float32), np.ones(1, bool))
        before = canvas.copy()
        before[60:150, 60:140] = 200
        canvas[60:150, 60:140] = 200
        compose.cover(canvas, labels, rng, chance=1.0)
        covered.append(float((canvas != before).any(2)[60:150, 60:140].mean()))
    assert max(covered) <= 0.42
    assert np.mean(covered) > 0.05


def test_what_is_cut_off_or_too_small_is_doubtful() -> None:
    boxes = np.array([[10, 10, 40, 40], [-10, 10, 20, 40], [-20, 10, 10, 40], [-50, 0, -10, 40], [5, 5, 11, 11]])
    labels = views.clipped(boxes.astype(np.float32), np.zeros((5, 5, 2), np.float32), np.ones(5, bool), (100, 100))
    assert labels.boxes.tolist() == [[10, 10, 40, 40], [0, 10, 20, 40], [0, 10, 10, 40], [5, 5, 11, 11]]
    assert labels.sure.tolist() == [True, True, False, False]


def test_a_tilted_box_stays_upright_about_its_face() -> None:
    faces = Faces.from_rows([[100, 100, 140, 160]], [np.full((5, 2), 120)], [True], [True])
    matrix = views.similarity(np.array([120, 130]), np.array([50.0, 60.0]), 0.5, np.radians(90), False)
    boxes, points = views.moved(faces, matrix, 0.5, np.radians(90), False)
    np.testing.assert_allclose(boxes, [[35, 50, 65, 70]], atol=1e-4)  # 20 x 30 lies on its side
    np.testing.assert_allclose(points[0, 0], [45, 60], atol=1e-4)


def test_pictures_are_drawn_as_often_as_asked(library: Library) -> None:
    rng = np.random.default_rng(8)
    drawn = [library.picture(rng).pack for _ in range(2000)]
    assert drawn.count("scenes") / 2000 == pytest.approx(0.2, abs=0.03)
    assert drawn.count("events") / 2000 == pytest.approx(0.4, abs=0.04)
    assert len(library) == 4
    assert all(not len(library.background(rng).faces) for _ in range(20))
    for _ in range(50):
        source, face = library.donor(rng)
        assert source.faces.sure[face]
        assert source.sizes[face] >= views.DONOR_SIZE


EFFECTS: dict[str, Callable[[Image, Generator], Image]] = {
    "tone": photometric.tone,
    "saturation": photometric.saturation,
    "infrared_like": photometric.infrared_like,
    "darkness": photometric.darkness,
    "noise": lambda image, rng: photometric.noise(image, rng, 8),
    "motion_blur": photometric.motion_blur,
    "low_resolution": photometric.low_resolution,
    "compression": photometric.compression,
    "sharpen": photometric.sharpen,
    "camera": photometric.camera,
}


def centre_of_the_lamp(image: Image) -> np.ndarray:
    """Return where the brightest thing about the middle is, x and y."""
    grey = image[80:120, 80:120].astype(float).mean(2)
    light = grey - np.percentile(grey, 50)
    light[light < 0.3 * light.max()] = 0
    rows, columns = np.mgrid[:40, :40]
    return np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()


@pytest.mark.parametrize("name", EFFECTS)
def test_cameras_leave_the_geometry_alone(name: str) -> None:
    down, across = np.mgrid[:200, :200]
    lamp = 70 + 130 * np.exp(-((across - 103.0) ** 2 + (down - 98.0) ** 2) / (2 * 5.0**2))
    image = np.repeat(lamp.astype(np.uint8)[..., None], 3, 2)
    before = image.copy()
    moves = []
    for seed in range(40):
        changed = EFFECTS[name](image, np.random.default_rng(seed))
        assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
        moves.append(np.abs(centre_of_the_lamp(changed) - centre_of_the_lamp(image)).max())
    np.testing.assert_array_equal(image, before)
    # A kernel of even length moves a picture by half a pixel, and rounding inside of it by as much again.
    assert np.median(moves) < 0.6
    assert max(moves) < 1.1


def test_packs_that_cannot_be_trained_on_are_refused() -> None:
    # Drawing a head of none went on for ever.
    with pytest.raises(ValueError, match="no pack has a sure face of 26 px"):
        Library({"scenes": [picture(pack="scenes")]}, {"scenes": 1.0})
    with pytest.raises(ValueError, match="no pack has a picture without a face"):
        Library({"portraits": [picture(*PORTRAIT)]}, {"portraits": 1.0})


@pytest.mark.usefixtures("true_colours")
def test_close_ups_fill_the_view_and_details_of_a_face_are_background() -> None:
    source, rng = picture(*PORTRAIT), np.random.default_rng(8)
    apart, shares, cut, doubtful, background = [], [], 0, 0, 0
    for _ in range(200):
        canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
        labels = views.place_close_up(canvas, source, rng)
        if not len(labels.boxes):
            background += 1
            continue
        (box,) = labels.boxes
        assert (box >= 0).all()
        assert (box <= SIDE).all()
        doubtful += not labels.sure[0]
        if labels.sure[0]:
            shares.append(float(np.sqrt(np.prod(box[2:] - box[:2]))) / SIDE)
            cut += bool((box[:2] == 0).any() or (box[2:] == SIDE).any())
            apart += [distance for _, distance in seen(canvas, labels, 0)]
    assert np.median(shares) > 0.5
    assert cut > 40, "faces that the picture's edge cuts"
    assert 3 <= background <= 40, "an eye alone is no face"
    assert doubtful >= 3
    assert np.percentile(apart, 99) < 3 * MOST_APART


def test_a_part_of_a_larger_face_is_no_doubtful_face() -> None:
    whole, ear, beside, friend = (100, 100, 300, 340), (280, 180, 310, 230), (400, 100, 430, 140), (150, 60, 330, 330)
    boxes = [whole, (150, 180, 190, 200), ear, beside, friend]
    faces = Faces.from_rows(boxes, np.zeros((5, 5, 2)), [True, False, False, False, False], [False] * 5)
    # What juts out, what lies beside, and what is nearly as large may be faces.
    np.testing.assert_array_equal(without_parts(faces).boxes, np.array([whole, ear, beside, friend], np.float32))
    unsure = Faces(faces.boxes, faces.points, np.zeros(5, bool), faces.human)
    assert len(without_parts(unsure)) == 5
