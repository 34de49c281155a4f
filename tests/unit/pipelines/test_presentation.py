"""Pictures that are stored turned, mirrored or with pixels that are not square."""

from __future__ import annotations

import itertools

import av
import cv2
import numpy as np
import pytest

from tests.unit import fakes
from visaged.models.preprocess import canvas_for
from visaged.models.types import Image
from visaged.pipelines.presentation import Presentation, Rotation, Turn
from visaged.pipelines.source.picture.surface import VideoSurface

TURNS = [Turn(rotation, mirrored) for rotation in (0, 90, 180, 270) for mirrored in (False, True)]


def undo(turn: Turn, upright: Image) -> Image:
    """Return the picture as it is stored, by numpy's own words."""
    image = upright[:, ::-1] if turn.mirrored else upright
    return np.ascontiguousarray(np.rot90(image, turn.rotation // 90))  # numpy turns against the clock


@pytest.mark.parametrize("turn", TURNS)
def test_a_turn_makes_a_picture_upright(turn: Turn) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert np.array_equal(turn.apply(undo(turn, upright)), upright)
    canvas = np.zeros((40, 50, 3), np.uint8)
    turn.apply(undo(turn, upright), canvas[5:25, 7:37])
    assert np.array_equal(canvas[5:25, 7:37], upright)
    assert canvas.sum() == upright.sum()


@pytest.mark.parametrize("turn", TURNS)
def test_a_turn_finds_regions(turn: Turn) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    stored = undo(turn, upright)
    left, top, right, bottom = turn.stored(4, 7, 21, 12, 30, 20)
    assert np.array_equal(turn.apply(stored[top:bottom, left:right]), upright[7:12, 4:21])


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), Turn()),
        ((0, 1, -1, 0), Turn(90)),
        ((-1, 0, 0, -1), Turn(180)),
        ((0, -1, 1, 0), Turn(270)),
        ((-1, 0, 0, 1), Turn(0, True)),
        ((1, 0, 0, -1), Turn(180, True)),
        ((0, 1, 1, 0), Turn(90, True)),
        ((0, -1, -1, 0), Turn(270, True)),
        ((0.05, 1, -1, 0.05), Turn(90)),
        ((2, 0, 0, 1), Turn()),
        ((0, 0, 0, 0), Turn()),
    ],
)
def test_display_matrices(matrix: tuple[float, float, float, float], turn: Turn) -> None:
    a, b, c, d = (round(value * 65536) for value in matrix)
    assert Turn.from_matrix(np.array([[a, b, 0], [c, d, 0], [640 << 16, 360 << 16, 1 << 30]])) == turn
    # What the matrix does to a point, told by the turn: the pixel right of the first one.
    if turn.rotation in (90, 270) or matrix == (0, 0, 0, 0):
        return
    picture = np.zeros((3, 3, 3), np.uint8)
    picture[1, 2] = 255
    x, y = (1 if (value := matrix[i]) > 0.5 else -1 if value < -0.5 else 0 for i in (0, 1))
    assert turn.apply(picture)[1 + y, 1 + x].all()


@pytest.mark.parametrize(
    ("rotation", "aspect", "shown", "square"),
    [
        (0, 1.0, (704, 288), (704, 288)),
        (0, 8 / 11, (704, 288), (704, 396)),
        (0, 2.0, (704, 288), (1408, 288)),
        (90, 2.0, (288, 704), (288, 1408)),
        (270, 0.5, (288, 704), (576, 704)),
        (180, 0.5, (704, 288), (704, 576)),
    ],
)
def test_sizes(rotation: Rotation, aspect: float, shown: tuple[int, int], square: tuple[int, int]) -> None:
    presentation = Presentation(704, 288, Turn(rotation), aspect)
    assert (presentation.width, presentation.height) == shown
    assert (presentation.square_width, presentation.square_height) == square
    scale = presentation.scale
    assert (shown[0] * scale[0], shown[1] * scale[1]) == pytest.approx(square)
    assert square[0] / square[1] == pytest.approx(shown[0] * presentation.pixel_aspect / shown[1], rel=0.01)


def stored(turn: Turn, aspect: float, name: str = "yuv420p", size: tuple[int, int] = (640, 360)) -> av.VideoFrame:
    """Return the demo's picture of 640 x 360 as a camera with such a presentation stores it."""
    upright = cv2.resize(fakes.demo_image(fakes.TWO_FACES_S), size, interpolation=cv2.INTER_AREA)
    width, height = size
    if turn.is_sideways:
        aspect = 1 / aspect
    squeezed = cv2.resize(
        upright, (round(width / max(1, aspect)), round(height * min(1, aspect))), interpolation=cv2.INTER_AREA
    )
    frame = av.VideoFrame.from_ndarray(undo(turn, squeezed), format="bgr24")  # type: ignore[arg-type]
    return frame.reformat(format=name, dst_colorspace="itu601")


@pytest.mark.parametrize(
    ("turn", "aspect", "name"),
    [
        *itertools.product(TURNS, (1.0, 0.5, 2.0), ("yuv420p",)),
        (Turn(90), 2.0, "bgr24"),
        (Turn(270, True), 0.5, "nv12"),
    ],
)
def test_everything_inside_sees_the_picture_upright_and_square(turn: Turn, aspect: float, name: str) -> None:
    frame = stored(turn, aspect, name)
    presentation = Presentation(frame.width, frame.height, turn, aspect)
    surface = VideoSurface(frame, presentation)
    expected = cv2.resize(fakes.demo_image(fakes.TWO_FACES_S), (640, 360), interpolation=cv2.INTER_AREA).astype(int)
    assert (surface.width, surface.height) == (640, 360)
    for left, top, right, bottom in ((0, 0, 640, 360), (199, 118, 252, 188), (630, 350, 640, 360), (0, 0, 3, 2)):
        region = surface.region(left, top, right, bottom)
        assert region.shape == (bottom - top, right - left, 3)
        assert np.abs(region - expected[top:bottom, left:right]).mean() < 7
    canvas = canvas_for(640, 360, 320)
    image = canvas.blank()
    surface.scale_onto(canvas, image)
    plain = canvas.blank()
    VideoSurface(stored(Turn(), 1.0)).scale_onto(canvas, plain)
    assert np.abs(image.astype(int) - plain).mean() < 3
    assert not image[canvas.picture_height :].any()


@pytest.mark.parametrize("aspect", [8 / 11, 16 / 11, 0.9])
def test_a_region_equals_that_part_of_the_whole(aspect: float) -> None:
    frame = stored(Turn(), 1.0)
    surface = VideoSurface(frame, Presentation(640, 360, Turn(90), aspect))
    whole = surface.region(0, 0, surface.width, surface.height).astype(int)
    for left, top, right, bottom in ((31, 47, 80, 99), (1, 1, 2, 2), (0, 30, surface.width, 31)):
        assert np.abs(surface.region(left, top, right, bottom) - whole[top:bottom, left:right]).max() <= 8


def test_stripes_become_grey_where_one_side_alone_is_much_too_large() -> None:
    stripes = np.zeros((288, 1920, 3), np.uint8)
    stripes[:, ::2] = 255
    canvas = canvas_for(320, 192, 320)
    image = canvas.blank()
    frame = av.VideoFrame.from_ndarray(stripes, format="bgr24").reformat(format="yuv420p")
    VideoSurface(frame).scale_onto(canvas, image)
    assert canvas.part(image).std() < 16


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_points_of_the_upright_picture_lie_where_turning_it_takes_them_from(rotation: Rotation, mirrored: bool) -> None:
    turn = Turn(rotation, mirrored)
    stored = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    upright = turn.apply(stored)
    height, width = upright.shape[:2]
    x, y = turn.stored_points(np.arange(width)[None], np.arange(height)[:, None], width, height)
    assert np.array_equal(stored[y, x], upright)
