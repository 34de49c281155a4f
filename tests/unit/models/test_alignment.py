"""Crops: the transform onto the template, the pixels that are asked for, and their colours."""

from __future__ import annotations

import math
from collections.abc import Callable

import av
import cv2
import numpy as np
import pytest

from tests.unit import fakes
from visaged.models.alignment import Aligner, ImagePixels, Matrix, invert, similarity, transform
from visaged.models.manifest import AnalyzerEntry, Manifest
from visaged.models.types import FloatArray, Image
from visaged.pipelines.source.picture.pixels import VideoPixels

TEMPLATE = next(entry for entry in Manifest().entries if isinstance(entry, AnalyzerEntry)).input.template
SIZE = 112


def turned(angle: float, scale: float, shift: tuple[float, float]) -> Matrix:
    c, s = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


class Watched:
    """A picture that sees to it that only what lies inside is asked for."""

    def __init__(self, image: Image) -> None:
        self.height, self.width = image.shape[:2]
        self._image = image
        self.asked: list[tuple[int, int, int, int]] = []

    def region(self, left: int, top: int, right: int, bottom: int) -> Image:
        assert 0 <= left < right <= self.width
        assert 0 <= top < bottom <= self.height
        self.asked.append((left, top, right, bottom))
        return self._image[top:bottom, left:right]


@pytest.fixture
def aligner() -> Aligner:
    return Aligner(TEMPLATE, SIZE)


def landmarks(angle: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0, 0)) -> FloatArray:
    """Return five points whose crop is turned back by this transform."""
    return transform(TEMPLATE, turned(angle, scale, shift))


@pytest.mark.parametrize("angle", [-170, -45, 0, 30, 90])
@pytest.mark.parametrize("scale", [0.2, 1.0, 7.0])
def test_similarity_recovers_what_was_done(angle: float, scale: float) -> None:
    points = np.random.default_rng(3).normal(0, 50, (5, 2))
    wanted = turned(angle, scale, (300.0, -20.0))
    np.testing.assert_allclose(similarity(points, transform(points, wanted)), wanted, atol=1e-4)


def test_similarity_is_the_best_of_all() -> None:
    rng = np.random.default_rng(4)
    points, target = rng.normal(0, 50, (2, 5, 2))
    best = similarity(points, target)

    def error(matrix: Matrix) -> float:
        return float(((points @ matrix[:, :2].T + matrix[:, 2] - target) ** 2).sum())

    for _ in range(50):
        a, b, x, y = rng.normal(0, 0.05, 4)
        assert error(best + np.array([[a, -b, x], [b, a, y]])) >= error(best)


def test_similarity_never_mirrors_and_survives_one_point() -> None:
    mirrored = np.array(TEMPLATE) * [-1, 1]
    assert np.linalg.det(similarity(mirrored, TEMPLATE)[:, :2]) > 0
    assert np.isfinite(similarity(np.ones((5, 2)), TEMPLATE)).all()


def test_invert_undoes() -> None:
    matrix = turned(33, 2.5, (10, -7))
    points = np.array([[0, 0], [100, 50], [-3, 8]], np.float32)
    np.testing.assert_allclose(transform(transform(points, matrix), invert(matrix)), points, atol=1e-4)
    assert transform(points, matrix).dtype == np.float32


def test_the_matrix_takes_landmarks_onto_the_template(aligner: Aligner) -> None:
    points = landmarks(20, 3.0, (400, 200))
    np.testing.assert_allclose(transform(points, aligner.matrix(points)), TEMPLATE, atol=1e-3)


@pytest.mark.parametrize("angle", [-60, 0, 17])
@pytest.mark.parametrize("scale", [0.3, 1.0, 1.6])
def test_a_crop_is_the_same_as_from_a_warp_of_the_whole(aligner: Aligner, angle: float, scale: float) -> None:
    image = fakes.demo_image(fakes.TWO_FACES_S)
    matrix = aligner.matrix(landmarks(angle, scale, (400, 230)))
    pixels = Watched(image)
    crop = aligner.crop(pixels, matrix).astype(int)
    whole = cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR).astype(int)
    difference = np.abs(crop - whole)
    assert difference.mean() < 0.5
    assert difference.max() <= 8
    (region,) = pixels.asked
    side = SIZE * scale * (abs(math.cos(math.radians(angle))) + abs(math.sin(math.radians(angle))))
    assert max(region[2] - region[0], region[3] - region[1]) <= side + 8


def test_image_pixels_are_the_picture(aligner: Aligner) -> None:
    image = fakes.demo_image(fakes.TWO_FACES_S)
    pixels = ImagePixels(image)
    assert (pixels.width, pixels.height) == (1280, 720)
    np.testing.assert_array_equal(pixels.region(3, 5, 50, 60), image[5:60, 3:50])
    matrix = aligner.matrix(landmarks(5, 1.2, (420, 240)))
    np.testing.assert_array_equal(aligner.crop(pixels, matrix), aligner.crop(Watched(image), matrix))


def test_a_real_face_comes_upright(aligner: Aligner) -> None:
    image = fakes.demo_image(fakes.TWO_FACES_S)
    # Where the eyes, nose and mouth of the left face are, turned with the picture by 40 degrees.
    box = np.array(fakes.TWO_FACES[0], float)
    points = fakes.five_points((box[0] + box[2]) / 2, (box[1] + box[3]) / 2 + 10, 110)
    turn = turned(40, 1.0, (300, -100))
    leaning = cv2.warpAffine(image, turn, (1280, 720))
    straight = aligner.crop(ImagePixels(image), aligner.matrix(points)).astype(int)
    righted = aligner.crop(ImagePixels(leaning), aligner.matrix(transform(points, turn))).astype(int)
    assert np.abs(straight - righted)[8:-8, 8:-8].mean() < 4


@pytest.mark.parametrize("shift", [(-5000, 0), (9000, 0), (0, -5000), (0, 9000)])
def test_far_outside_is_black_and_nothing_is_read(aligner: Aligner, shift: tuple[float, float]) -> None:
    pixels = Watched(fakes.demo_image(fakes.TWO_FACES_S))
    crop = aligner.crop(pixels, aligner.matrix(landmarks(0, 1, shift)))
    assert crop.shape == (SIZE, SIZE, 3)
    assert crop.dtype == np.uint8
    assert not crop.any()
    assert pixels.asked == []


def test_what_lies_outside_is_black(aligner: Aligner) -> None:
    white = np.full((300, 300, 3), 255, np.uint8)
    crop = aligner.crop(Watched(white), aligner.matrix(landmarks(0, 1, (-56, 0))))  # the left half is outside
    assert not crop[:, :54].any()
    assert (crop[1:, 58:] == 255).all()


def test_any_transform_gives_a_crop(aligner: Aligner) -> None:
    rng = np.random.default_rng(5)
    for _ in range(400):
        height, width = rng.integers(1, 120, 2)
        pixels = Watched(rng.integers(0, 255, (height, width, 3)).astype(np.uint8))
        scale = float(np.exp(rng.uniform(math.log(0.01), math.log(50))))
        shift = tuple(rng.uniform(-150 * max(scale, 1), 150, 2))
        crop = aligner.crop(pixels, aligner.matrix(landmarks(rng.uniform(-180, 180), scale, shift)))  # type: ignore[arg-type]
        assert crop.shape == (SIZE, SIZE, 3)


def test_a_big_face_of_which_a_sliver_is_seen_gives_a_crop(aligner: Aligner) -> None:
    pixels = Watched(np.full((1080, 1920, 3), 255, np.uint8))
    # 1,500 px wide, and all but two columns left of the picture.
    crop = aligner.crop(pixels, aligner.matrix(landmarks(0, 1500 / SIZE, (-1500, 0))))
    assert crop.shape == (SIZE, SIZE, 3)


def test_big_faces_are_averaged_and_not_sampled(aligner: Aligner) -> None:
    stripes = np.zeros((1200, 1200, 3), np.uint8)
    stripes[:, ::2] = 255
    matrix = aligner.matrix(landmarks(10, 9.37, (30, 10)))
    inner = aligner.crop(ImagePixels(stripes), matrix)[10:-10, 10:-10].astype(int)
    sampled = cv2.warpAffine(stripes, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)[10:-10, 10:-10]
    assert sampled.std() > 40  # what it would be
    assert inner.std() < 15
    assert abs(inner.mean() - 127.5) < 3


@pytest.mark.parametrize("times", [2, 4, 10])
def test_big_faces_equal_the_area_reference(aligner: Aligner, times: int) -> None:
    face = fakes.demo_image(fakes.TWO_FACES_S)[230:390, 390:550]
    big = cv2.resize(face, (SIZE * times, SIZE * times), interpolation=cv2.INTER_CUBIC)
    # The transform that INTER_AREA makes: pixel centres lie at whole numbers.
    matrix = np.array([[1 / times, 0, 0.5 / times - 0.5], [0, 1 / times, 0.5 / times - 0.5]])
    crop = aligner.crop(ImagePixels(big), matrix).astype(int)
    reference = cv2.resize(big, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(crop - reference)[2:-2, 2:-2].mean() < 1.5


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 3.3, 8.0, 13.7])
def test_nothing_is_shifted_at_any_scale(aligner: Aligner, scale: float) -> None:
    side = int(SIZE * scale * 1.5)
    x, y = side * 0.45, side * 0.4
    across, down = np.meshgrid(np.arange(side), np.arange(side))
    blob = 250 * np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * (6 * scale) ** 2))
    image = np.repeat(blob.astype(np.uint8)[..., None], 3, 2)
    matrix = aligner.matrix(landmarks(25, scale, (side * 0.25, side * -0.05)))
    crop = aligner.crop(ImagePixels(image), matrix)[..., 0].astype(float)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    centre = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(centre, transform([x, y], matrix), atol=0.08)


def in_format(name: str, width: int = 640, height: int = 360) -> av.VideoFrame:
    return fakes.demo_frame(fakes.TWO_FACES_S).reformat(width, height, name)


def full_range() -> av.VideoFrame:
    return fakes.demo_frame(fakes.TWO_FACES_S).reformat(640, 360, "yuvj420p", dst_color_range="JPEG")


def tagged_full_range() -> av.VideoFrame:
    frame = fakes.demo_frame(fakes.TWO_FACES_S).reformat(640, 360, "yuv420p", dst_color_range="JPEG")
    frame.color_range = 2
    return frame


def tagged(colours: int) -> av.VideoFrame:
    """Return a frame that says of itself which standard its colours follow: 1 BT.709, 5 BT.601, 9 BT.2020."""
    frame = in_format("yuv420p")
    frame.colorspace = colours
    return frame


def odd_size() -> av.VideoFrame:
    image = np.ascontiguousarray(fakes.demo_image(fakes.TWO_FACES_S)[100:401, 300:703])
    return av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")


REGIONS = [(0, 0, 400, 300), (101, 51, 232, 200), (100, 50, 331, 201), (7, 3, 8, 4), (398, 298, 403, 301), (0, 0, 1, 1)]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: in_format("yuv420p"), id="yuv420p"),
        pytest.param(lambda: in_format("nv12"), id="nv12"),
        pytest.param(lambda: in_format("gray"), id="gray"),
        pytest.param(lambda: in_format("yuv422p"), id="yuv422p"),
        pytest.param(lambda: in_format("yuv420p10le"), id="10 bits"),
        pytest.param(lambda: in_format("bgr24"), id="bgr24"),
        pytest.param(lambda: tagged(1), id="BT.709"),
        pytest.param(lambda: tagged(5), id="BT.601"),
        pytest.param(lambda: tagged(9), id="BT.2020"),
        pytest.param(full_range, id="yuvj420p"),
        pytest.param(tagged_full_range, id="yuv420p tagged as full range"),
        pytest.param(odd_size, id="odd size"),
    ],
)
def test_a_region_of_a_frame_equals_the_whole_converted(make: Callable[[], av.VideoFrame]) -> None:
    frame = make()
    whole = frame.to_ndarray(format="bgr24").astype(int)
    pixels = VideoPixels(frame)
    assert (pixels.width, pixels.height) == (frame.width, frame.height)
    for left, top, right, bottom in REGIONS:
        right, bottom = min(right, frame.width), min(bottom, frame.height)
        region = pixels.region(left, top, right, bottom)
        assert region.shape == (bottom - top, right - left, 3)
        assert region.dtype == np.uint8
        difference = np.abs(region - whole[top:bottom, left:right])
        assert difference.mean() < 2
        assert np.percentile(difference, 99.5) <= 6


def test_ranges_are_not_mixed_up() -> None:
    for make in (lambda: in_format("yuv420p"), full_range, tagged_full_range):
        frame = make()
        whole = frame.to_ndarray(format="bgr24").astype(int)
        # Taking one range for the other would stretch contrasts by 16 %.
        assert abs(VideoPixels(frame).region(0, 0, 640, 360).mean() - whole.mean()) < 2
        assert VideoPixels(frame).region(0, 0, 640, 360).std() == pytest.approx(whole.std(), rel=0.03)


def test_black_and_white_stay_what_they_are() -> None:
    grey = np.zeros((64, 64, 3), np.uint8)
    grey[:, 32:] = 255
    for name, full in (("yuv420p", None), ("yuvj420p", "JPEG")):
        frame = av.VideoFrame.from_ndarray(grey, format="bgr24").reformat(format=name, dst_color_range=full)
        region = VideoPixels(frame).region(0, 0, 64, 64)
        assert region[:, :30].max() <= 2
        assert region[:, 34:].min() >= 252


def test_a_crop_of_a_frame_equals_that_of_its_picture(aligner: Aligner) -> None:
    frame = fakes.demo_frame(fakes.TWO_FACES_S)
    matrix = aligner.matrix(landmarks(12, 1.3, (391, 233)))
    difference = np.abs(
        aligner.crop(VideoPixels(frame), matrix).astype(int)
        - aligner.crop(ImagePixels(fakes.demo_image(fakes.TWO_FACES_S)), matrix)
    )
    assert difference.mean() < 4


def test_points_all_in_one_place_give_a_black_crop() -> None:
    aligner = Aligner([(30, 40), (70, 40), (50, 60), (35, 80), (65, 80)], 100)
    matrix = aligner.matrix(np.full((5, 2), 20.0))
    assert np.isfinite(invert(matrix)).all()
    assert not aligner.crop(ImagePixels(np.full((50, 50, 3), 255, np.uint8)), matrix).any()
