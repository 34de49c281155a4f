"""Pictures searched at several sizes: the canvases that they get, and one list of what each canvas showed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit import fakes
from visaged.models import search
from visaged.models.detector import Detector
from visaged.models.manifest import Manifest
from visaged.models.preprocess import canvas_for
from visaged.models.search import Scales
from visaged.models.session import SessionConfig
from visaged.models.surface import ImageSurface
from visaged.models.types import Detections

SCALES = Scales(640, 1280)


@pytest.fixture(scope="module")
def detector() -> Detector:
    manifest = Manifest()
    return Detector.load(manifest, manifest.entries[0].name, SessionConfig("cpu"), 0.35)


def long_sides(width: int, height: int, scales: Scales = SCALES) -> list[int]:
    return [max(canvas.width, canvas.height) for canvas in scales.canvases(width, height)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((4000, 3000), [1280, 640, 256]),
        ((1280, 720), [1280, 640, 256]),
        ((640, 480), [1280, 640, 256]),
        ((320, 240), [640, 256]),
        ((240, 320), [640, 256]),
        ((200, 200), [384, 256]),
        ((144, 108), [256]),
        ((64, 64), [256]),
        ((1, 1), [256]),
        ((8000, 10), [256]),
        ((10, 8000), [256]),
    ],
)
def test_a_picture_gets_the_canvases_that_it_has_pixels_for(size: tuple[int, int], expected: list[int]) -> None:
    assert long_sides(*size) == expected


def test_the_small_canvas_has_a_margin_on_every_side() -> None:
    for width, height in ((4000, 3000), (300, 900), (144, 144), (50, 20), (1, 1), (8000, 10)):
        *larger, small = SCALES.canvases(width, height)
        assert small.left == small.top == max(small.width, small.height) // 8
        assert small.left + small.picture_width <= small.width - small.left
        assert small.top + small.picture_height <= small.height - small.top
        assert all(canvas.left == canvas.top == 0 for canvas in larger)


def test_a_box_within_a_margin_comes_back_to_where_it_was() -> None:
    image = np.zeros((600, 900, 3), np.uint8)
    image[200:400, 300:700] = 255
    for look in SCALES.looks(ImageSurface(image)):
        rows, columns = np.nonzero(look.image[..., 0] > 127)
        box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
        seen = Detections(box, np.ones(1, np.float32), np.tile(box[:, None, :2], (1, 5, 1)))
        found = look.canvas.to_picture(seen)
        np.testing.assert_allclose(found.boxes, [[300, 200, 700, 400]], atol=1.2 / look.canvas.scale_x)
        np.testing.assert_allclose(found.landmarks[0, 0], [300, 200], atol=1.2 / look.canvas.scale_x)


def test_a_cameras_frame_gets_the_small_canvas_where_that_is_smaller() -> None:
    for size, expected in (((1280, 720), 2), ((720, 1280), 2), ((300, 300), 2)):
        canvas = canvas_for(*size, 640)
        looks = Scales(640).close_up(search.Look(canvas.blank(), canvas), *size)
        assert len(looks) == expected
        assert looks[-1].canvas.left > 0
    canvas = canvas_for(1280, 720, 256)
    assert len(Scales(256).close_up(search.Look(canvas.blank(), canvas), 1280, 720)) == 1


def test_canvases_that_are_not_wanted_are_left_out() -> None:
    assert long_sides(4000, 3000, Scales(640)) == [640, 256]
    assert long_sides(4000, 3000, Scales(640, 640)) == [640, 256]
    assert long_sides(4000, 3000, Scales(640, 700)) == [640, 256]
    assert long_sides(4000, 3000, Scales(640, 1280, small=None)) == [1280, 640]
    assert long_sides(4000, 3000, Scales(256, 320)) == [320, 256]
    assert long_sides(4000, 3000, Scales(160, 160)) == [256]


def test_nothing_is_enlarged_to_more_than_twice_its_size_but_for_the_smallest_canvas() -> None:
    for long in range(65, 2000, 7):
        assert max(long_sides(long, long // 2)) <= max(2 * long, 256)


def test_there_are_few_shapes() -> None:
    shapes = {
        (canvas.width, canvas.height)
        for width in range(8, 3000, 61)
        for height in range(8, 3000, 67)
        for canvas in SCALES.canvases(width, height)
    }
    assert len(shapes) <= 5 * 9


@pytest.mark.parametrize("size", [(1, 1), (8000, 10), (10, 8000), (3, 2), (143, 144), (1280, 720)])
def test_a_picture_of_any_shape_can_be_searched(size: tuple[int, int], detector: Detector) -> None:
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    (found,) = search.find(detector, [SCALES.looks(ImageSurface(image))])
    assert (found.boxes >= 0).all()
    assert (found.boxes <= np.tile(size, 2)).all()


def test_batches_and_canvases_together_are_as_one_by_one(detector: Detector) -> None:
    images = [fakes.demo_image(at_s) for at_s in (1.0, 6.0, 9.0)] + [fakes.demo_image(6.0)[::2, ::2]]
    looks = [SCALES.looks(ImageSurface(image)) for image in images]
    together = search.find(detector, looks)
    for mine, found in zip(looks, together, strict=True):
        (alone,) = search.find(detector, [mine])
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=0.05)
        np.testing.assert_allclose(found.confidences, alone.confidences, atol=1e-3)
    assert sum(map(len, together)) >= 6


def test_a_face_seen_on_two_canvases_is_one_face_with_the_surer_box() -> None:
    large, small = fakes.faces((200, 200, 100)), fakes.faces((204, 198, 108), confidence=0.7)
    found = search.join([small, large], 0.45)
    np.testing.assert_allclose(found.boxes, large.boxes)
    np.testing.assert_allclose(found.landmarks, large.landmarks)


def test_parts_of_a_surer_face_go_away() -> None:
    face = fakes.faces((200, 200, 200), confidence=0.9)
    parts = fakes.faces((160, 170, 50), (240, 170, 50), (200, 250, 80), confidence=0.6)
    found = search.join([parts, face], 0.45)
    np.testing.assert_allclose(found.boxes, face.boxes)


@pytest.mark.parametrize(
    ("faces", "what"),
    [
        (((200, 200, 100), (290, 200, 100)), "cheek to cheek"),
        (((200, 200, 100), (255, 215, 90)), "one behind the other"),
        (((200, 200, 100), (200, 320, 60)), "on a T-shirt"),
        (((200, 200, 100), (240, 240, 60)), "a child's before its father's chin"),
        (((200, 200, 100), (225, 240, 64)), "a child's, most of it before its father's"),
        (((200, 200, 200), (310, 300, 60)), "small, at the edge of a large one"),
    ],
)
def test_two_real_faces_stay_two(faces: tuple[tuple[float, ...], ...], what: str) -> None:
    first, second = (fakes.faces(face, confidence=sure) for face, sure in zip(faces, (0.9, 0.8), strict=True))
    assert len(search.join([first, second], 0.45)) == 2, what


def test_an_unsure_large_box_takes_nothing_away() -> None:
    group, members = fakes.faces((200, 200, 300), confidence=0.6), fakes.faces((130, 200, 60), (270, 200, 60))
    assert len(search.join([group, members], 0.45)) == 3


def test_each_canvas_is_believed_where_no_other_shows_more() -> None:
    image = np.zeros((800, 1280, 3), np.uint8)
    looks = SCALES.looks(ImageSurface(image))
    # Faces of 20 px and of 600 px of every canvas: too small for all but the largest, too large for all but the last.
    detector = fakes.Detector(lambda index: fakes.faces((100, 100, 20), (128, 80, 600)))
    (found,) = search.find(detector, [looks])  # type: ignore[arg-type]
    sizes = sorted(round(float(size)) for size in found.boxes[:, 2] - found.boxes[:, 0])
    # 20 px of the large canvas alone; 600 px of the small one alone, cut to the picture of 1280 px.
    assert sizes[0] == 20
    assert len(sizes) == 2
    assert sizes[1] == 1280


@pytest.mark.parametrize("size", [(4000, 3000), (1280, 720), (700, 1000), (320, 240), (100, 90)])
@pytest.mark.parametrize("usual", [160, 320, 640, 1280, 2688, 3840])
@pytest.mark.parametrize("large", [160, 1280, 4096])
def test_no_size_of_face_falls_between_two_canvases(size: tuple[int, int], usual: int, large: int) -> None:
    scales = Scales(usual, large)
    canvases = scales.canvases(*size)
    frame = canvas_for(*size, usual)
    pixels = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (frame.height, frame.width, 3))
    at_camera = [look.canvas for look in scales.close_up(search.Look(pixels, frame), *size)]
    for chain in (canvases, at_camera):
        for share in np.geomspace(12 / max(size), 0.9, 60):
            face = share * max(size)  # pixels of the picture
            found = 0
            for level, canvas in enumerate(chain):
                seen = fakes.faces((canvas.width / 2, canvas.height / 2, face * canvas.scale_x))
                found += int(search.best_shown(seen, chain, level).sum())
            assert found >= 1, (share, chain)


def test_a_network_of_one_size_gets_that_canvas_alone() -> None:
    session = fakes.Session(["image"], dict.fromkeys(["cells_8", "cells_16", "cells_32"], np.asarray))
    for shape, fixed in (([1, 640, 640, 3], True), ([1, "height", "width", 3], False), ([], False)):
        session.inputs["image"] = shape
        entry = Manifest().entries[0].model_copy(update={"decoder": "cells"})
        network = Detector(session, entry)  # type: ignore[arg-type]
        assert network.fixed_size is fixed
        sides = long_sides(4000, 3000, Scales.of(network, 640, 1280))
        assert sides == ([640] if fixed else [1280, 640, 256])
    assert long_sides(100, 80, Scales(640, 1280, multiple_of=640)) == [640]
    assert long_sides(100, 80, Scales(640, 1280, multiple_of=64)) == [256]


def test_a_run_of_the_network_has_no_more_pixels_than_a_gpu_can_hold() -> None:
    canvas = canvas_for(4096, 4096, 4096)
    pixels = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (4096, 4096, 3))
    detector = fakes.Detector()
    search.find(detector, [[search.Look(pixels, canvas)]] * 2)  # type: ignore[arg-type]
    assert [shape[0] for shape in detector.batches] == [1, 1]
    detector = fakes.Detector()
    search.find(detector, [[search.Look(fakes.SMALL.blank(), fakes.SMALL)]] * 9)  # type: ignore[arg-type]
    assert [shape[0] for shape in detector.batches] == [9]


def test_nothing_found_is_nothing() -> None:
    assert len(search.join([Detections.empty(), Detections.empty()], 0.45)) == 0
