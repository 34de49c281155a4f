"""A blurred face shows the mean colours of a few blocks, and nothing else of the picture changes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from visaged.pipelines.pictures.blur import blur_faces
from visaged.pipelines.pictures.encode import encode_jpeg


def noise(height: int = 200, width: int = 300) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def test_only_the_face_and_a_border_change() -> None:
    image = noise()
    before = image.copy()
    blur_faces(image, [np.array([100, 50, 140, 90], np.float32)])
    changed = np.any(image != before, axis=2)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40, 99, 90, 149)


def test_details_are_gone() -> None:
    image = noise()
    box = np.array([20, 20, 180, 180], np.float32)
    blur_faces(image, [box])
    face = image[20:180, 20:180].astype(float)
    steps = np.abs(np.diff(face, axis=1)).mean()
    assert steps < 2  # of neighbours in noise: 85


def test_pictures_that_differ_in_detail_alone_become_the_same() -> None:
    one = np.full((60, 60, 3), 100, np.uint8)
    other = one.copy()
    one[0::2] += 50
    other[1::2] += 50
    box = np.array([-100, -100, 200, 200], np.float32)
    for image in (one, other):
        blur_faces(image, [box])
    assert np.array_equal(one, other)


@pytest.mark.parametrize(
    "box", [(-50, -50, -10, -10), (290, 190, 400, 400), (0, 0, 300, 200), (10, 10, 11, 11), (400, 10, 500, 20)]
)
def test_boxes_at_and_beyond_the_edges(box: tuple[float, ...]) -> None:
    image = noise()
    blur_faces(image, [np.array(box, np.float32)])
    assert image.shape == (200, 300, 3)


def test_jpeg_has_the_picture_and_nothing_else() -> None:
    image = np.full((40, 60, 3), (10, 200, 30), np.uint8)
    data = encode_jpeg(image)
    assert np.abs(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(int) - image).max() < 4
    assert b"Exif" not in data


def test_a_face_at_the_edge_gets_as_large_blocks_as_a_whole_one() -> None:
    image = noise()
    blur_faces(image, [np.array([-140, 20, 20, 180], np.float32)])  # an eighth of it, and the border, is inside
    left = image[20:180, :40].astype(float)
    assert np.abs(np.diff(left, axis=1)).mean() < 2


def test_what_lies_beyond_the_picture_changes_nothing() -> None:
    image = noise()
    blur_faces(image, [np.array([-100, -100, -60, -60], np.float32), np.array([400, 10, 500, 20], np.float32)])
    assert np.array_equal(image, noise())


def test_a_box_without_numbers_is_passed_over() -> None:
    image = noise()
    blur_faces(image, [np.array([np.nan, 0, 10, np.inf], np.float32)])
    assert np.array_equal(image, noise())
