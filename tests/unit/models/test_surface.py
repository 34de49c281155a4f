"""Pictures as the stages see them: the regions that crops need, and what the crops show."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from tests.unit import fakes
from visaged.models.alignment import Aligner, Matrix, transform
from visaged.models.manifest import AnalyzerEntry, Manifest
from visaged.models.preprocess import Canvas, canvas_for, place
from visaged.models.surface import HostSurface, ImageSurface, Surface, batch_of_crops
from visaged.models.types import FloatArray, Image

TEMPLATE = next(entry for entry in Manifest().entries if isinstance(entry, AnalyzerEntry)).input.template
SIZE = 112


def turned(angle: float, scale: float, shift: tuple[float, float]) -> Matrix:
    c, s = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


class Watched(HostSurface):
    """A picture that sees to it that only what lies inside is asked for."""

    def __init__(self, image: Image) -> None:
        super().__init__(image.shape[1], image.shape[0])
        self._image = image
        self.asked: list[tuple[int, int, int, int]] = []

    def region(self, left: int, top: int, right: int, bottom: int) -> Image:
        assert 0 <= left < right <= self.width
        assert 0 <= top < bottom <= self.height
        self.asked.append((left, top, right, bottom))
        return self._image[top:bottom, left:right]

    def scale_onto(self, canvas: Canvas, slot: Image) -> None:
        raise NotImplementedError


@pytest.fixture
def aligner() -> Aligner:
    return Aligner(TEMPLATE, SIZE)


def landmarks(angle: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0, 0)) -> FloatArray:
    """Return five points whose crop is turned back by this transform."""
    return transform(TEMPLATE, turned(angle, scale, shift))


def cut(surface: Surface, matrix: Matrix) -> Image:
    """Return the crop of one face."""
    (crop,) = surface.crops([matrix], SIZE)
    return crop


@pytest.mark.parametrize("angle", [-60, 0, 17])
@pytest.mark.parametrize("scale", [0.3, 1.0, 1.6])
def test_a_crop_is_the_same_as_from_a_warp_of_the_whole(aligner: Aligner, angle: float, scale: float) -> None:
    image = fakes.demo_image(fakes.TWO_FACES_S)
    matrix = aligner.matrix(landmarks(angle, scale, (400, 230)))
    surface = Watched(image)
    crop = cut(surface, matrix).astype(int)
    whole = cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR).astype(int)
    difference = np.abs(crop - whole)
    assert difference.mean() < 0.5
    assert difference.max() <= 8
    (region,) = surface.asked
    side = SIZE * scale * (abs(math.cos(math.radians(angle))) + abs(math.sin(math.radians(angle))))
    assert max(region[2] - region[0], region[3] - region[1]) <= side + 8


def test_a_surface_of_an_image_is_the_image(aligner: Aligner) -> None:
    image = fakes.demo_image(fakes.TWO_FACES_S)
    surface = ImageSurface(image)
    assert (surface.width, surface.height) == (1280, 720)
    np.testing.assert_array_equal(surface.region(3, 5, 50, 60), image[5:60, 3:50])
    matrix = aligner.matrix(landmarks(5, 1.2, (420, 240)))
    np.testing.assert_array_equal(cut(surface, matrix), cut(Watched(image), matrix))


def test_a_real_face_comes_upright(aligner: Aligner) -> None:
    image = fakes.demo_image(fakes.TWO_FACES_S)
    # Where the eyes, nose and mouth of the left face are, turned with the picture by 40 degrees.
    box = np.array(fakes.TWO_FACES[0], float)
    points = fakes.five_points((box[0] + box[2]) / 2, (box[1] + box[3]) / 2 + 10, 110)
    turn = turned(40, 1.0, (300, -100))
    leaning = cv2.warpAffine(image, turn, (1280, 720))
    straight = cut(ImageSurface(image), aligner.matrix(points)).astype(int)
    righted = cut(ImageSurface(leaning), aligner.matrix(transform(points, turn))).astype(int)
    assert np.abs(straight - righted)[8:-8, 8:-8].mean() < 4


@pytest.mark.parametrize("shift", [(-5000, 0), (9000, 0), (0, -5000), (0, 9000)])
def test_far_outside_is_black_and_nothing_is_read(aligner: Aligner, shift: tuple[float, float]) -> None:
    surface = Watched(fakes.demo_image(fakes.TWO_FACES_S))
    crop = cut(surface, aligner.matrix(landmarks(0, 1, shift)))
    assert crop.shape == (SIZE, SIZE, 3)
    assert crop.dtype == np.uint8
    assert not crop.any()
    assert surface.asked == []


def test_what_lies_outside_is_black(aligner: Aligner) -> None:
    white = np.full((300, 300, 3), 255, np.uint8)
    crop = cut(Watched(white), aligner.matrix(landmarks(0, 1, (-56, 0))))  # the left half is outside
    assert not crop[:, :54].any()
    assert (crop[1:, 58:] == 255).all()


def test_any_transform_gives_a_crop(aligner: Aligner) -> None:
    rng = np.random.default_rng(5)
    for _ in range(400):
        height, width = rng.integers(1, 120, 2)
        surface = Watched(rng.integers(0, 255, (height, width, 3)).astype(np.uint8))
        scale = float(np.exp(rng.uniform(math.log(0.01), math.log(50))))
        shift = tuple(rng.uniform(-150 * max(scale, 1), 150, 2))
        crop = cut(surface, aligner.matrix(landmarks(rng.uniform(-180, 180), scale, shift)))  # type: ignore[arg-type]
        assert crop.shape == (SIZE, SIZE, 3)


def test_a_big_face_of_which_a_sliver_is_seen_gives_a_crop(aligner: Aligner) -> None:
    surface = Watched(np.full((1080, 1920, 3), 255, np.uint8))
    # 1,500 px wide, and all but two columns left of the picture.
    crop = cut(surface, aligner.matrix(landmarks(0, 1500 / SIZE, (-1500, 0))))
    assert crop.shape == (SIZE, SIZE, 3)


def test_big_faces_are_averaged_and_not_sampled(aligner: Aligner) -> None:
    stripes = np.zeros((1200, 1200, 3), np.uint8)
    stripes[:, ::2] = 255
    matrix = aligner.matrix(landmarks(10, 9.37, (30, 10)))
    inner = cut(ImageSurface(stripes), matrix)[10:-10, 10:-10].astype(int)
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
    crop = cut(ImageSurface(big), matrix).astype(int)
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
    crop = cut(ImageSurface(image), matrix)[..., 0].astype(float)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    centre = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(centre, transform([x, y], matrix), atol=0.08)


def test_points_all_in_one_place_give_a_black_crop() -> None:
    aligner = Aligner([(30, 40), (70, 40), (50, 60), (35, 80), (65, 80)], 100)
    matrix = aligner.matrix(np.full((5, 2), 20.0))
    assert not ImageSurface(np.full((50, 50, 3), 255, np.uint8)).crops([matrix], 100).any()


def test_crops_are_those_of_each_face_by_itself(aligner: Aligner) -> None:
    surface = ImageSurface(fakes.demo_image(fakes.TWO_FACES_S))
    # Amid them one that lies outside, which is black, and one that is averaged down.
    places = [(0, 1.3, (391, 233)), (0, 1.0, (-5000, 0)), (30, 6.0, (200, 0)), (-10, 0.7, (1100, 300))]
    matrices = [aligner.matrix(landmarks(*place)) for place in places]
    crops = surface.crops(matrices, SIZE)
    assert crops.shape == (4, SIZE, SIZE, 3)
    assert crops.dtype == np.uint8
    np.testing.assert_array_equal(crops, [cut(surface, matrix) for matrix in matrices])
    assert [crop.any() for crop in crops] == [True, False, True, True]


def test_no_faces_have_no_crops() -> None:
    assert ImageSurface(np.zeros((9, 9, 3), np.uint8)).crops([], SIZE).shape == (0, SIZE, SIZE, 3)


class Counted(ImageSurface):
    """A picture that notes how many crops it was asked for at a time."""

    def __init__(self, image: Image) -> None:
        super().__init__(image)
        self.counts: list[int] = []

    def crops(self, matrices: Sequence[Matrix], size: int) -> Image:
        self.counts.append(len(matrices))
        return super().crops(matrices, size)


def test_crops_of_several_pictures_are_one_batch_in_order(aligner: Aligner) -> None:
    first, second = (Counted(fakes.demo_image(at_s)) for at_s in (2.0, fakes.TWO_FACES_S))
    matrices = [aligner.matrix(landmarks(0, 1.0, (x, 200))) for x in (100, 400, 700, 1000)]
    surfaces = [first, first, second, first]
    crops = batch_of_crops(list(zip(surfaces, matrices, strict=True)), SIZE)
    np.testing.assert_array_equal(crops, [cut(s, m) for s, m in zip(surfaces, matrices, strict=True)])
    assert first.counts[:2] == [2, 1], "neighbours of one picture are asked for together"
    assert second.counts[0] == 1


def test_an_image_is_scaled_onto_a_slot_and_nothing_else_of_it_is_touched() -> None:
    image = fakes.demo_image(fakes.TWO_FACES_S)
    canvas = canvas_for(1280, 720, 256, margin=32)
    batch = np.full((3, canvas.height, canvas.width, 3), 7, np.uint8)
    ImageSurface(image).scale_onto(canvas, batch[1])
    np.testing.assert_array_equal(canvas.part(batch[1]), canvas.part(place(image, canvas)))
    canvas.part(batch[1])[:] = 7
    assert (batch == 7).all()
