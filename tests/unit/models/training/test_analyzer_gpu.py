"""Samples composed on the device that learns: the like of those composed by OpenCV, and what goes together stays so."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

# ruff: noqa: E402 (they need PyTorch too)
from tests.unit.models.training.test_samples import LEFT_EYE, POSE, RIGHT_EYE, contrast, pack
from visaged.models import alignment, geometry
from visaged.models.training.analyzer.gpu import camera, compose, faces, learn, lessons, plane
from visaged.models.training.analyzer.heads import EMOTIONS, SIZE
from visaged.models.training.analyzer.labelling.cache import Pack, read_packs
from visaged.models.training.analyzer.labelling.crops import CROP, FIVE
from visaged.models.training.analyzer.network import load_checkpoint
from visaged.models.training.common import photometric

CPU = torch.device("cpu")


def picture(seed: int = 0) -> np.ndarray:
    """Return (112, 112, 3) uint8 with detail of several sizes."""
    rng = np.random.default_rng(seed)
    parts = [cv2.resize(rng.integers(0, 256, (n, n, 3), dtype=np.uint8), (SIZE, SIZE)) for n in (4, 14, 56)]
    return np.asarray(np.mean(parts, 0), np.uint8)


def tensor(image: np.ndarray) -> torch.Tensor:
    """Return (1, 3, 112, 112)."""
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]


def apart(found: torch.Tensor, expected: np.ndarray) -> float:
    """Return the mean difference in grey values."""
    return float((found[0].permute(1, 2, 0) - torch.from_numpy(expected.astype(np.float32))).abs().mean())


def composer(packs: dict[str, Pack], batch: int = 48) -> compose.Composer:
    """Return what draws batches of these packs alike."""
    on_cpu = faces.on_device(packs, CPU)
    return compose.Composer(on_cpu, dict.fromkeys(packs, 1.0), batch, camera.Chance(CPU, 1))


def test_similarities_and_poses_are_those_of_single_faces() -> None:
    rng = np.random.default_rng(0)
    points = FIVE + rng.normal(0, 4, (7, 5, 2))
    matrices = plane.similarity(torch.from_numpy(points), torch.from_numpy(FIVE))
    expected = [alignment.similarity(five, FIVE) for five in points]
    np.testing.assert_allclose(matrices.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(plane.inverse(matrices).numpy(), [alignment.invert(m) for m in expected], atol=1e-6)
    moved = plane.moved(torch.from_numpy(points), matrices).numpy()
    np.testing.assert_allclose(moved[3], alignment.transform(points[3], expected[3]), atol=1e-4)
    angles, degrees = rng.uniform(-40, 40, (7, 3)), rng.uniform(-30, 30, 7)
    turned = plane.turned(torch.from_numpy(angles), torch.from_numpy(degrees)).numpy()
    np.testing.assert_allclose(turned, geometry.turned(angles, degrees), atol=1e-3)


@pytest.mark.parametrize(("linear", "how"), [(False, cv2.INTER_AREA), (True, cv2.INTER_LINEAR)])
def test_shrunk_pictures_are_opencvs(linear: bool, how: int) -> None:
    image, small = picture(), 37
    matrix = camera.shrinking(torch.tensor([float(small)]), torch.tensor([linear]))
    found = camera.filtered(tensor(image), matrix)
    assert apart(found[:, :, :small, :small], cv2.resize(image, (small, small), interpolation=how)) < 0.7
    assert torch.allclose(found[..., small - 1], found[..., -1]), "what is beyond goes on as the last column"


@pytest.mark.parametrize(("cubic", "how"), [(True, cv2.INTER_CUBIC), (False, cv2.INTER_LINEAR)])
def test_enlarged_pictures_are_opencvs(cubic: bool, how: int) -> None:
    small = picture()[:37, :37]
    canvas = np.zeros((SIZE, SIZE, 3), np.uint8)
    canvas[:37, :37] = small
    found = camera.filtered(tensor(canvas), camera.enlarging(torch.tensor([37.0]), torch.tensor([cubic])))
    assert apart(found, cv2.resize(small, (SIZE, SIZE), interpolation=how)) < 1.0


def test_pictures_of_full_size_stay_as_they_are() -> None:
    image, edge, no = tensor(picture()), torch.tensor([float(SIZE)]), torch.tensor([False])
    for matrix in (camera.shrinking(edge, no), camera.shrinking(edge, ~no), camera.enlarging(edge, ~no)):
        assert torch.allclose(camera.filtered(image, matrix), image, atol=1e-3)


def test_compression_loses_what_jpeg_loses() -> None:
    image = cv2.GaussianBlur(picture(), (0, 0), 1.5)
    rng, chance = np.random.default_rng(0), camera.Chance(CPU, 0)
    lost = [float(np.abs(photometric.compression(image, rng).astype(float) - image).mean()) for _ in range(100)]
    found = camera.compression(tensor(image).repeat(100, 1, 1, 1), chance)
    error = (found - tensor(image)).abs().mean((1, 2, 3)).numpy()
    assert float(error.mean()) == pytest.approx(float(np.mean(lost)), rel=0.15)


def test_a_line_smears_and_keeps_the_light() -> None:
    image = tensor(picture()).repeat(20, 1, 1, 1)
    found = camera.motion(image, torch.full((20,), 9.0), camera.Chance(CPU, 0))
    assert found.shape == image.shape
    assert float(found.mean()) == pytest.approx(float(image.mean()), rel=0.01)
    assert (found.std((1, 2, 3)) < image.std((1, 2, 3))).all()


def test_points_eyes_and_pose_are_mirrored_together() -> None:
    draw = composer({"portraits": pack()}).draw
    agreed, mirrored, hidden = 0, 0, 0
    for batch in (draw() for _ in range(6)):
        for index, image in enumerate(batch.images.permute(0, 2, 3, 1).numpy()):
            points, eyes, pose = (batch.targets[name][index].numpy() for name in ("points", "eyes", "pose"))
            if np.isnan(points).any() or np.isnan(eyes).any():  # something was drawn over them
                continue
            assert points[LEFT_EYE, 0] < points[RIGHT_EYE, 0], "names of points follow the picture, not the person"
            left, right = (contrast(image, points[at]) for at in (LEFT_EYE, RIGHT_EYE))
            if np.isnan(left + right) or abs(left - right) < 15:  # dark, blurred away or hidden
                hidden += 1
                continue
            is_mirrored = bool(eyes[0] > 0.5)
            agreed += (right > left) == is_mirrored
            mirrored += is_mirrored
            assert (pose[0] < 0) == is_mirrored, POSE
    shown = 6 * 48 - hidden
    assert agreed > 0.7 * shown
    assert 0.3 < mirrored / agreed < 0.7


def test_what_is_held_out_is_never_drawn() -> None:
    one = pack(8)
    one.images[4:] = 255
    one.val[4:] = True
    on_cpu = faces.on_device({"portraits": one}, CPU)
    assert on_cpu.weights["portraits"][4:].sum() == 0
    assert faces.on_device({"portraits": one}, CPU, 0.5).weights["portraits"].count_nonzero() < 4


def test_faces_are_mixed_with_others_of_their_pack() -> None:
    packs = {"ages": pack(name="ages"), "portraits": pack()}
    packs["ages"].labels["age"][:] = 30
    packs["portraits"].labels["emotion"][:] = 1 / len(EMOTIONS)
    drawer = composer(packs, 16)
    mixing = lessons.Mixing(drawer.counts, camera.Chance(CPU, 2), 0.5, 0)
    lesson = mixing.draw(drawer.draw())
    assert lesson.one is not None
    assert lesson.other is not None
    for key in ("age", "emotion"):
        assert torch.equal(lesson.one[key].isnan(), lesson.other[key].isnan())
    assert 0.5 <= lesson.share <= 1
    assert len(mixing.plain) + len(mixing.mixed) == 16


def test_a_batch_too_small_for_every_pack_is_refused() -> None:
    with pytest.raises(ValueError, match="holds not one crop of rare"):
        compose.counts({"often": 0.99, "rare": 0.01}, 8)


def write(directory: Path, one: Pack) -> None:
    """Write a pack as `label` does, as far as its training needs it."""
    np.save(directory / f"{one.name}.npy", one.images)
    known = {"name": one.names, "val": np.arange(len(one)) >= len(one) // 2, "inside": one.inside, "scale": one.scale}
    known |= {"age": np.full(len(one), 30.0, np.float32), "votes": np.full((len(one), 10), 1.0, np.float32)}
    rows = np.random.default_rng(len(one)).integers(0, 256, (len(one), CROP, CROP, 3), dtype=np.uint8)
    np.save(directory / f"{one.name}.npy", rows)
    np.savez(directory / f"{one.name}.npz", allow_pickle=False, **known, points=one.labels["points"])


def test_a_student_learns_from_a_teacher_and_both_leave_checkpoints_and_figures(tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    cache.mkdir()
    for name in ("ages", "portraits"):
        write(cache, pack(52, name))
    assert set(read_packs(cache)) == {"ages", "portraits"}
    common = ["--cache", str(cache), "--out", str(out), "--figures", str(out / "figures.jsonl"), "--device", "cpu"]
    common += ["--seconds", "3000", "--steps", "2", "--batch", "8"]
    learn.main([*common, "--learn", "teacher=s"])
    learn.main([*common, "--learn", "student=s", "--learn", "other=s", "--teacher", str(out / "teacher.pt")])
    for name in ("teacher", "student", "other"):
        model, checkpoint = load_checkpoint(out / f"{name}.pt")
        assert checkpoint["seen"] == 16
        assert all(value.isfinite().all() for value in model.state_dict().values())
    lines = [json.loads(line) for line in (out / "figures.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["name"] for line in lines] == ["teacher", "student", "other"]
    assert "age, mean absolute error, years" in lines[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--learn", "name"], "takes NAME=SHAPE, not name"),
        (["--learn", "name=huge"], "no shape 'huge'; known: s, m, t, l"),
    ],
)
def test_wrong_networks_are_refused(options: list[str], message: str, tmp_path: Path) -> None:
    write(tmp_path, pack(60, "ages"))
    line = ["--cache", str(tmp_path), "--out", str(tmp_path), "--figures", str(tmp_path / "f"), "--device", "cpu"]
    with pytest.raises(ValueError, match=message):
        learn.main([*line, "--seconds", "9", *options])
