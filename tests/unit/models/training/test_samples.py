"""The analyzer's crops and labels: what goes together stays together, and what is held out is never drawn."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit import fakes
from visaged.models import geometry
from visaged.models.training.analyzer import samples
from visaged.models.training.analyzer.evaluation import views
from visaged.models.training.analyzer.heads import EMOTIONS, GLASSES, MIRROR_106, POINTS, SIZE
from visaged.models.training.analyzer.labelling import cache, crops
from visaged.models.types import FloatArray, Image

# Outer corners of the eyes, left and right in the picture; the picture's left eye is the person's right one.
LEFT_EYE, RIGHT_EYE = 52, 61
POSE = (12.0, -5.0, 0.0)


def face_points() -> FloatArray:
    """Return (106, 2) cache pixels: a ring, and the eyes' outer corners where they are in a crop."""
    angle = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    points = 80 + 38 * np.stack([np.cos(angle), np.sin(angle)], 1)
    points[LEFT_EYE], points[RIGHT_EYE] = (58, 70), (102, 70)
    return points.astype(np.float32)


def pack(count: int = 4, name: str = "portraits") -> cache.Pack:
    """Return crops with one white disc, at the picture's left eye; its lid is closed, the other open."""
    image = np.full((crops.CROP, crops.CROP, 3), 100, np.uint8)
    cv2.circle(image, (58, 70), 4, (255, 255, 255), -1)

    def nothing(*shape: int) -> FloatArray:
        return np.full((count, *shape), np.nan, np.float32)

    labels = {head: nothing() for head in ("age", "female", "glasses", "beard", "hat", "attractiveness")}
    labels |= {
        "points": np.repeat(face_points()[None], count, 0),
        "emotion": nothing(len(EMOTIONS)),
        "mask": np.zeros(count, np.float32),
        "eyes": np.tile(np.array([0, 1], np.float32), (count, 1)),
        "pose": np.tile(np.array(POSE, np.float32), (count, 1)),
        "quality": np.tile(np.array([0.9, 0.7, 0.5, 0.3, 0.1], np.float32), (count, 1)),
    }
    return cache.Pack(
        name=name,
        images=np.repeat(image[None], count, 0),
        inside=np.full((count, crops.CROP**2 // 8), 255, np.uint8),
        names=np.array([f"{i}.jpg" for i in range(count)]),
        val=np.zeros(count, bool),
        scale=np.ones(count, np.float32),
        race=np.full(count, "", np.str_),
        seen=np.zeros(count, bool),
        labels=labels,
        truth={},
    )


def contrast(image: Image, at: FloatArray) -> float:
    """Return how much brighter it is at a point than around it; NaN at the border."""
    grey = image.astype(float).mean(2)
    x, y = np.round(at).astype(int)
    if not 12 <= x < SIZE - 12 or not 12 <= y < SIZE - 12:
        return float("nan")
    around = grey[y - 11 : y + 12, x - 11 : x + 12]
    return float(grey[y - 1 : y + 2, x - 1 : x + 2].mean() - np.median(around))


def test_points_eyes_and_pose_are_mirrored_together() -> None:
    sampler = samples.Sampler({"portraits": pack()}, {"portraits": 1.0}, np.random.default_rng(1))
    agreed, mirrored, hidden = 0, 0, 0
    for _ in range(300):
        sample = sampler.draw()
        assert (sample.image.shape, sample.image.dtype) == ((SIZE, SIZE, 3), np.uint8)
        points, eyes, pose = (sample.targets[name] for name in ("points", "eyes", "pose"))
        if np.isnan(points).any() or np.isnan(eyes).any():  # something was drawn over them
            continue
        assert points[LEFT_EYE, 0] < points[RIGHT_EYE, 0], "names of points follow the picture, not the person"
        left, right = (contrast(sample.image, points[index]) for index in (LEFT_EYE, RIGHT_EYE))
        if np.isnan(left + right) or abs(left - right) < 15:  # dark, blurred away or hidden
            hidden += 1
            continue
        is_mirrored = bool(eyes[0] > 0.5)
        agreed += (right > left) == is_mirrored
        mirrored += is_mirrored
        # Turning the crop tilts yaw and pitch into one another a little; the side that the face looks to stays.
        assert (pose[0] < 0) == is_mirrored
        assert pose[1] < 5
    shown = 300 - hidden
    assert hidden < 150
    assert agreed / shown > 0.85
    assert 0.3 < mirrored / shown < 0.7


def test_the_disc_is_where_its_label_is() -> None:
    sampler = samples.Sampler({"portraits": pack()}, {"portraits": 1.0}, np.random.default_rng(2))
    distances = []
    for _ in range(300):
        sample = sampler.draw()
        points = sample.targets["points"]
        if np.isnan(points).any():
            continue
        at = points[RIGHT_EYE if sample.targets["eyes"][0] > 0.5 else LEFT_EYE]
        x, y = np.round(at).astype(int)
        if not 10 <= x < SIZE - 10 or not 10 <= y < SIZE - 10:
            continue
        around = sample.image[y - 8 : y + 9, x - 8 : x + 9].astype(float).mean(2)
        light = around - np.median(around)
        light[light < 0.5 * light.max()] = 0
        if light.max() < 50:
            continue
        rows, columns = np.mgrid[:17, :17]
        centre = np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum() + [x - 8, y - 8]
        distances.append(np.linalg.norm(centre - at))
    assert len(distances) > 100
    assert np.median(distances) < 0.6
    assert np.percentile(distances, 90) < 1.5


def test_held_out_crops_are_never_drawn() -> None:
    held_out = pack(6)
    held_out.val[:] = [True, False, True, True, False, True]
    held_out.images[held_out.val] = 0
    held_out.labels["age"][:] = [90, 20, 91, 92, 30, 93]
    weights = samples.picture_weights(held_out)
    assert (weights > 0).tolist() == (~held_out.val).tolist()
    sampler = samples.Sampler({"portraits": held_out}, {"portraits": 1.0}, np.random.default_rng(3))
    assert {float(sampler.draw().targets["age"]) for _ in range(200)} == {20.0, 30.0}


def test_held_out_crops_do_not_even_fill_a_border() -> None:
    pictures = pack(8)
    pictures.val[1:] = True
    pictures.images[:1], pictures.images[1:] = 100, 255
    pictures.inside[0] = 0  # the one that is drawn lies wholly outside of its picture
    rng = np.random.default_rng(7)
    filled = [samples.with_border(pictures, 0, [pictures], rng) for _ in range(100)]
    assert not any((image == 255).all() for image in filled)
    assert sum((image == 100).all() for image in filled) > 20, "others do fill it"


def test_packs_are_drawn_as_often_as_asked() -> None:
    packs = {"portraits": pack(), "ages": pack(name="ages"), "emotions": pack(name="emotions")}
    for index, one in enumerate(packs.values()):
        one.labels["age"][:] = 20 + index
    sampler = samples.Sampler(packs, {"portraits": 3.0, "ages": 1.0, "emotions": 0.0}, np.random.default_rng(4))
    drawn = [float(sampler.draw().targets["age"]) for _ in range(300)]
    assert drawn.count(20.0) / 300 == pytest.approx(0.75, abs=0.08)
    assert 22.0 not in drawn


def test_blur_grows_and_quality_falls_as_crops_get_worse() -> None:
    values = [samples.blur_of(sigma) for sigma in (0.0, 0.5, 1.0, 3.0, 9.0)]
    assert values[:2] == [0, 0]
    assert (np.diff(values[1:]) > 0).all()
    assert values[-1] < 1
    sampler = samples.Sampler({"portraits": pack()}, {"portraits": 1.0}, np.random.default_rng(5))
    drawn = [sampler.draw().targets for _ in range(200)]
    known = np.array([[t["blur"], t["quality"]] for t in drawn if not np.isnan(t["quality"])])
    assert np.corrcoef(known.T)[0, 1] < -0.8
    assert known[:, 1].max() <= 0.9
    assert known[:, 1].min() >= 0.1


def test_a_mirrored_mirror_is_the_face_itself() -> None:
    np.testing.assert_array_equal(MIRROR_106[MIRROR_106], np.arange(POINTS))
    assert (MIRROR_106[LEFT_EYE], MIRROR_106[16], MIRROR_106[84]) == (RIGHT_EYE, 16, 90)


def test_jitter_keeps_faces_about_where_they_are() -> None:
    rng = np.random.default_rng(6)
    five = np.hstack([crops.FIVE + crops.MARGIN, np.ones((5, 1))])
    moves = np.stack([five @ samples.jitter(rng, SIZE).T - crops.FIVE for _ in range(300)])
    assert np.abs(moves.mean((0, 1))).max() < 0.5
    assert 1.5 < np.linalg.norm(moves, axis=2).mean() < 6
    exact = five @ samples.jitter(rng, SIZE, strength=0.0, turned=False).T
    np.testing.assert_allclose(exact, crops.FIVE, atol=1e-6)


@pytest.mark.parametrize("degrees", [-30.0, 0.0, 20.0])
@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (25.0, -10.0, 5.0), (-40.0, 15.0, -8.0)])
def test_poses_turn_with_their_pictures(angles: tuple[float, float, float], degrees: float) -> None:
    # Seen with the product's own eyes: turn the five points of such a head, and read its pose from them.
    points = fakes.five_points(0, 0, 100, *angles)
    turn = np.radians(degrees)
    turned = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    said = geometry.turned(np.array([angles], np.float32), np.array([degrees], np.float32))[0]
    np.testing.assert_allclose(said, geometry.head_pose(turned), atol=0.2)


def saved(folder: Path, **arrays: NDArray[np.generic]) -> None:
    """Write a cache of two crops, `ages` by name."""
    count = 2
    np.save(folder / "ages.npy", np.zeros((count, crops.CROP, crops.CROP, 3), np.uint8))
    known: dict[str, NDArray[np.generic]] = {
        "name": np.array(["a.jpg", "b.jpg"]),
        "val": np.zeros(count, bool),
        "inside": np.full((count, crops.CROP**2 // 8), 255, np.uint8),
    }
    np.savez(folder / "ages.npz", **(known | arrays))  # type: ignore[arg-type]


def test_what_nobody_knows_is_no_label(tmp_path: Path) -> None:
    saved(tmp_path, age=np.array([30.0, np.nan]), female=np.array([1.0, 0.0]))
    read = cache.read_pack(tmp_path, "ages", labels=tmp_path)
    assert len(read) == 2
    for head in ("points", "emotion", "glasses", "hat", "eyes", "pose", "attractiveness", "quality"):
        assert np.isnan(read.labels[head]).all(), head
    np.testing.assert_array_equal(read.labels["age"], [30, np.nan])
    np.testing.assert_array_equal(read.labels["beard"], [0, np.nan])  # a woman's
    assert list(cache.read_packs(tmp_path, tmp_path)) == ["ages"]


def test_votes_are_put_in_the_heads_order(tmp_path: Path) -> None:
    # FERPlus: neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, no face.
    votes = np.array([[1, 5, 0, 2, 0, 0, 2, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0, 8, 0, 0]], np.float32)
    saved(tmp_path, votes=votes)
    emotion = cache.read_pack(tmp_path, "ages", labels=tmp_path).labels["emotion"]
    shares = dict(zip(EMOTIONS, emotion[0].tolist(), strict=True))
    assert shares == pytest.approx(
        {"happy": 0.5, "sad": 0.2, "scared": 0.2, "calm": 0.1, "angry": 0, "disgusted": 0, "surprised": 0}
    )
    assert np.isnan(emotion[1]).all(), "too few votes for any of the seven"


def test_what_people_saw_counts_for_more(tmp_path: Path) -> None:
    saved(tmp_path, female=np.array([1.0, 0.0]))
    (tmp_path / "beard.csv").write_text("pack,name,beard\nages,a.jpg,1\nages,c.jpg,1\nportraits,b.jpg,1\n")
    (tmp_path / "eyes_glasses.csv").write_text(
        "pack,name,right_eye,left_eye,glasses\nages,b.jpg,closed,open,sunglasses\n"
    )
    read = cache.read_pack(tmp_path, "ages", labels=tmp_path)
    np.testing.assert_array_equal(read.labels["beard"], [1, np.nan])
    np.testing.assert_array_equal(read.labels["eyes"], [[np.nan, np.nan], [0, 1]])
    np.testing.assert_array_equal(read.labels["glasses"], [np.nan, GLASSES.index("sunglasses")])
    assert read.seen.tolist() == [True, True]


def test_views_cover_and_blur_what_they_say_and_the_same_each_time() -> None:
    faces = pack(2)
    places = np.arange(2)

    def seen(view: views.View) -> Image:
        return next(views.crops(faces, places, view))[0]

    bare = seen(views.COVERED_VIEWS[0])
    for view in views.COVERED_VIEWS[1:]:
        covered = seen(view)
        np.testing.assert_array_equal(covered, seen(view))
        changed = (np.abs(covered.astype(int) - bare).max(3) > 5).mean((1, 2))
        assert ((changed > 0.01) & (changed < 0.6)).all(), view.title
    sharpness = [cv2.Laplacian(seen(view)[0], cv2.CV_64F).var() for view in views.BLURRED_VIEWS]
    assert sharpness == sorted(sharpness, reverse=True)
