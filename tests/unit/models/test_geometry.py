"""What the shape and the sharpness of a face tell."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit import fakes
from visaged.models import geometry
from visaged.models.alignment import Aligner
from visaged.models.detector import Detector
from visaged.models.geometry import blur, head_pose, shot_quality
from visaged.models.manifest import AnalyzerEntry, DetectorEntry, Manifest
from visaged.models.preprocess import canvas_for, place
from visaged.models.session import SessionConfig
from visaged.models.surface import ImageSurface
from visaged.models.types import FloatArray, Image

ANGLES = list(itertools.product((-40, -20, 0, 15, 40), (-25, -10, 0, 25), (-40, 0, 30)))


def project(count: int, yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """Return the module's head with these angles, as a camera far away sees it: (count, 2) pixels."""
    turn = fakes.rotation(yaw, pitch, roll)
    model = geometry._MODEL_106 if count == 106 else geometry._MODEL_5
    flat = (model @ turn.T)[:, :2] * 8.0 + (700, 300)
    if count == 5:
        return flat
    points = np.full((106, 2), 1e6)  # those that the pose does not use must not matter
    points[geometry._INDEX_106] = flat
    return points


@pytest.mark.parametrize("count", [5, 106])
@pytest.mark.parametrize("angles", ANGLES, ids=str)
def test_pose_is_what_the_head_was_turned_by(count: int, angles: tuple[float, float, float]) -> None:
    assert head_pose(project(count, *angles)) == pytest.approx(angles, abs=2)


@pytest.mark.parametrize("count", [5, 106])
def test_pose_forgives_a_little_noise(count: int) -> None:
    rng = np.random.default_rng(6)
    for angles in ANGLES[::7]:
        noisy = project(count, *angles) + rng.normal(0, 0.5, (count, 2))
        assert head_pose(noisy) == pytest.approx(angles, abs=8)


def test_the_signs_are_as_documented() -> None:
    """Read off the points, not off the rotation that made them."""
    straight = project(5, 0, 0, 0)
    right_eye, left_eye, nose, right_mouth, left_mouth = range(5)

    def moved(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
        return project(5, yaw, pitch, roll) - straight

    to_the_right = moved(25, 0, 0)
    assert to_the_right[nose, 0] > to_the_right[[right_eye, left_eye], 0].mean()
    up = moved(0, 20, 0)
    assert up[nose, 1] < up[[right_eye, left_eye, right_mouth, left_mouth], 1].mean()
    clockwise = moved(0, 0, 20)
    assert clockwise[left_eye, 1] > clockwise[right_eye, 1]  # the picture's right goes down
    assert head_pose(project(5, 25, 0, 0)).yaw > 20
    assert head_pose(project(5, 0, 20, 0)).pitch > 15
    assert head_pose(project(5, 0, 0, 20)).roll > 15


def test_pose_knows_no_place_and_no_size() -> None:
    points = project(106, 20, -10, 5)
    assert head_pose(points * 0.1 - 30) == pytest.approx(head_pose(points), abs=1e-6)


def test_the_yaw_of_a_mirrored_face_is_the_opposite() -> None:
    points = project(5, 30, 10, 15)[[1, 0, 2, 4, 3]] * [-1, 1]
    assert head_pose(points) == pytest.approx((-30, 10, -15), abs=2)


def test_points_that_say_nothing_give_numbers_all_the_same() -> None:
    assert np.isfinite(head_pose(np.zeros((5, 2)))).all()
    assert np.isfinite(head_pose(np.zeros((106, 2)))).all()


def test_people_who_look_into_the_camera_are_frontal() -> None:
    box = fakes.TWO_FACES[0]
    manifest = Manifest()
    name = next(entry.name for entry in manifest.entries if isinstance(entry, DetectorEntry))
    canvas = canvas_for(1280, 720, 640)
    image = place(fakes.demo_image(fakes.TWO_FACES_S), canvas)
    found = canvas.to_picture(Detector.load(manifest, name, SessionConfig(provider="cpu")).detect(image[None])[0])
    face = found.landmarks[np.argmin(np.abs(found.boxes[:, 0] - box[0]))]
    assert head_pose(face) == pytest.approx((0, 0, 0), abs=12)


@pytest.fixture
def crop() -> Image:
    entry = next(entry for entry in Manifest().entries if isinstance(entry, AnalyzerEntry))
    aligner = Aligner(entry.input.template, entry.input.size)
    left, top, right, bottom = fakes.TWO_FACES[1]
    points = fakes.five_points((left + right) / 2, (top + bottom) / 2 + 12, right - left)
    surface = ImageSurface(fakes.demo_image(fakes.TWO_FACES_S))
    return surface.crops([aligner.matrix(points)], aligner.size)[0]


def test_blur_grows_with_blur(crop: Image) -> None:
    values = [blur(crop)] + [blur(cv2.GaussianBlur(crop, (0, 0), sigma)) for sigma in (0.5, 0.7, 1, 1.5, 2, 3)]  # type: ignore[arg-type]
    assert values == sorted(values)
    assert values[-1] - values[0] > 0.3
    assert 0 < values[0] < values[-1] < 1
    # Beyond, the rounding to whole grey values is all the detail that is left.
    assert blur(cv2.GaussianBlur(crop, (0, 0), 8)) > 0.5  # type: ignore[arg-type]


def test_blur_does_not_count_light_and_contrast(crop: Image) -> None:
    darker = (crop * 0.5 + 40).astype(np.uint8)
    assert blur(darker) == pytest.approx(blur(crop), abs=0.06)


def test_a_crop_without_detail_is_all_blur() -> None:
    assert blur(np.full((112, 112, 3), 90, np.uint8)) == 1.0
    assert blur(np.random.default_rng(1).integers(0, 255, (112, 112, 3)).astype(np.uint8)) < 0.05


def quality(size: float = 112.0, confidence: float = 1.0, yaw: float = 0.0, pitch: float = 0.0) -> float:
    boxes: FloatArray = np.array([[100, 100, 100 + size, 100 + size]], np.float32)
    points = fakes.five_points(100 + size / 2, 100 + size / 2, size, yaw, pitch)
    (value,) = shot_quality(boxes, np.array([confidence], np.float32), points[None])
    assert 0 <= value <= 1
    return float(value)


def test_the_best_shot_is_large_frontal_and_sure() -> None:
    assert quality() == pytest.approx(1.0, abs=1e-3)
    assert quality(size=300) == pytest.approx(1.0, abs=1e-3)
    assert quality(size=56) == pytest.approx(0.5, abs=1e-3)
    assert quality(confidence=0.5) == pytest.approx(0.5, abs=1e-3)


def test_frontal_beats_profile() -> None:
    values = [quality(yaw=yaw) for yaw in (0, 15, 30, 45, 60, 80)]
    assert values == sorted(values, reverse=True)
    assert quality(yaw=30, pitch=20) == pytest.approx(np.cos(np.radians(30)) * np.cos(np.radians(20)), abs=0.02)
    assert quality(yaw=-30) == pytest.approx(quality(yaw=30), abs=1e-3)


def test_large_beats_small() -> None:
    values = [quality(size=size) for size in (10, 20, 40, 80, 112)]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_quality_of_any_points_is_a_fraction() -> None:
    rng = np.random.default_rng(2)
    boxes = np.sort(rng.uniform(0, 500, (200, 2, 2)), 1).reshape(-1, 4).astype(np.float32)
    points = rng.uniform(0, 500, (200, 5, 2)).astype(np.float32)
    points[0] = 7
    values = shot_quality(boxes, rng.uniform(0, 1, 200).astype(np.float32), points)
    assert values.shape == (200,)
    assert ((values >= 0) & (values <= 1)).all()


def test_no_faces_have_no_qualities() -> None:
    empty = shot_quality(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))
    assert empty.shape == (0,)
