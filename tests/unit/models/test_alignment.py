"""The transform from a picture to a crop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from visaged.models.alignment import Aligner, Matrix, invert, similarity, transform
from visaged.models.manifest import AnalyzerEntry, Manifest
from visaged.models.types import FloatArray

TEMPLATE = next(entry for entry in Manifest().entries if isinstance(entry, AnalyzerEntry)).input.template
SIZE = 112


def turned(angle: float, scale: float, shift: tuple[float, float]) -> Matrix:
    c, s = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


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


def test_points_all_in_one_place_have_a_transform_that_can_be_undone(aligner: Aligner) -> None:
    assert np.isfinite(invert(aligner.matrix(np.full((5, 2), 20.0)))).all()
