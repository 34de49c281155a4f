"""Pictures of all sizes on canvases of few."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit import fakes
from visaged.models.preprocess import Canvas, canvas_for, place
from visaged.models.types import Detections

SIZES = [
    (1920, 1080), (1280, 720), (640, 480), (1080, 1920), (480, 640), (5000, 200), (200, 5000), (1, 1), (1, 5000),
    (5000, 1), (641, 479), (1279, 719), (37, 53), (640, 640), (639, 640), (4000, 3000), (3, 2),
]  # fmt: skip


@pytest.mark.parametrize("multiple", [32, 64])
@pytest.mark.parametrize("long_side", [320, 600, 640, 1280])
@pytest.mark.parametrize("size", SIZES)
def test_every_picture_fits_its_canvas(size: tuple[int, int], long_side: int, multiple: int) -> None:
    width, height = size
    canvas = canvas_for(width, height, long_side, multiple)
    assert canvas.width % multiple == canvas.height % multiple == 0
    assert long_side <= max(canvas.width, canvas.height) < long_side + multiple
    assert 2 <= canvas.picture_width <= canvas.width
    assert 2 <= canvas.picture_height <= canvas.height
    assert canvas.picture_width % 2 == canvas.picture_height % 2 == 0, "video's halved chroma must fit"
    assert max(canvas.picture_width, canvas.picture_height) == max(canvas.width, canvas.height)
    # The same scale both ways, to within a pixel.
    scale = max(canvas.width, canvas.height) / max(width, height)
    assert canvas.picture_width == pytest.approx(width * scale, abs=1.0) or canvas.picture_width == 2
    assert canvas.picture_height == pytest.approx(height * scale, abs=1.0) or canvas.picture_height == 2
    assert canvas.scale_x == canvas.picture_width / width
    assert canvas.scale_y == canvas.picture_height / height


@pytest.mark.parametrize(
    ("size", "shape", "covered"),
    [
        ((1920, 1080), (640, 384), (640, 360)),
        ((1280, 720), (640, 384), (640, 360)),
        ((640, 480), (640, 480), (640, 480)),
        ((1080, 1920), (384, 640), (360, 640)),
        ((5000, 200), (640, 384), (640, 26)),
        ((1000, 990), (640, 640), (640, 634)),
        ((1, 1), (640, 640), (640, 640)),
    ],
)
def test_known_sizes(size: tuple[int, int], shape: tuple[int, int], covered: tuple[int, int]) -> None:
    canvas = canvas_for(*size, 640)
    assert (canvas.width, canvas.height) == shape
    assert (canvas.picture_width, canvas.picture_height) == covered


def test_there_are_few_shapes() -> None:
    canvases = [canvas_for(width, height, 640) for width in range(16, 4000, 37) for height in range(16, 4000, 41)]
    assert len({(canvas.width, canvas.height) for canvas in canvases}) == 5


@pytest.mark.parametrize("size", [(1920, 1080), (641, 479), (300, 1000), (37, 53)])
def test_boxes_come_back_to_where_they_were(size: tuple[int, int]) -> None:
    width, height = size
    canvas = canvas_for(width, height, 640)
    boxes = np.array([[0, 0, width, height], [width * 0.2, height * 0.1, width * 0.6, height * 0.9]], np.float32)
    points = np.random.default_rng(1).uniform(0, min(size), (2, 5, 2)).astype(np.float32)
    scale = np.array([canvas.scale_x, canvas.scale_y], np.float32)
    on_canvas = Detections(boxes * np.tile(scale, 2), np.array([0.9, 0.8], np.float32), points * scale)
    found = canvas.to_picture(on_canvas)
    np.testing.assert_allclose(found.boxes, boxes, rtol=1e-5)
    np.testing.assert_allclose(found.landmarks, points, rtol=1e-4, atol=1e-3)
    assert found.boxes.dtype == found.landmarks.dtype == np.float32


def test_a_marked_region_comes_back_to_where_it_was() -> None:
    image = np.zeros((1080, 1920, 3), np.uint8)
    image[300:600, 900:1500] = 255
    canvas = canvas_for(1920, 1080, 640)
    rows, columns = np.nonzero(place(image, canvas)[..., 0] > 127)
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    found = canvas.to_picture(Detections(box, np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32)))
    np.testing.assert_allclose(found.boxes, [[900, 300, 1500, 600]], atol=2)


def test_boxes_are_cut_at_the_border_and_dropped_beyond_it() -> None:
    canvas = canvas_for(1920, 1080, 640)  # a third; the picture ends at row 360 of 384
    boxes = np.array([[-10, -10, 20, 20], [600, 340, 700, 380], [10, 361, 50, 380], [641, 0, 660, 50]], np.float32)
    points = np.full((4, 5, 2), -30, np.float32)
    found = canvas.to_picture(Detections(boxes, np.array([0.9, 0.8, 0.7, 0.6], np.float32), points))
    np.testing.assert_allclose(found.boxes, [[0, 0, 60, 60], [1800, 1020, 1920, 1080]], atol=1e-3)
    assert found.confidences.tolist() == pytest.approx([0.9, 0.8])
    assert (found.landmarks == -90).all()  # landmarks may lie outside: a face half in the picture has them there


def test_no_faces_stay_no_faces() -> None:
    assert len(canvas_for(1280, 720, 640).to_picture(Detections.empty())) == 0


@pytest.mark.parametrize("size", [*SIZES[:8], (300, 1000)])
def test_the_rest_of_the_canvas_is_black(size: tuple[int, int]) -> None:
    canvas = canvas_for(*size, 320)
    placed = place(np.full((size[1], size[0], 3), 255, np.uint8), canvas)
    assert placed.shape == (canvas.height, canvas.width, 3)
    assert placed.dtype == np.uint8
    assert (placed[: canvas.picture_height, : canvas.picture_width] == 255).all()
    assert not placed[canvas.picture_height :].any()
    assert not placed[:, canvas.picture_width :].any()


def test_scaling_down_averages() -> None:
    # One-pixel stripes: averaged they are grey; sampled they would be black, white or a moiré.
    image = np.zeros((1080, 1920, 3), np.uint8)
    image[:, ::2] = 255
    canvas = canvas_for(1920, 1080, 640)
    placed = place(image, canvas)[:360].astype(int)
    assert abs(placed.mean() - 127.5) < 2
    assert placed.std() < 50


def test_a_picture_is_not_changed_by_placing_it() -> None:
    image = fakes.demo_image(fakes.TWO_FACES_S)
    first, second = (place(image, canvas_for(1280, 720, 640)) for _ in range(2))
    assert first is not second
    np.testing.assert_array_equal(first, second)


def test_a_blank_canvas_is_black_and_new() -> None:
    canvas = Canvas(64, 32, 64, 32, 1.0, 1.0)
    blank = canvas.blank()
    assert blank.shape == (32, 64, 3)
    blank[:] = 9
    assert not canvas.blank().any()
