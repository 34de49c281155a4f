"""What the analyzer's training is fed with and learns from: crops that travelled, and a larger network."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from visaged.models.training.analyzer import travel
from visaged.models.training.analyzer.labelling.cache import read_packs
from visaged.models.training.analyzer.labelling.crops import CROP, VOTES, KnownFinder, cut, inside, read_faces

COUNT = 4


def smooth(seed: int, channels: int) -> np.ndarray:
    """Return a crop without fine detail, which compression keeps."""
    y, x = np.mgrid[0:CROP, 0:CROP] / CROP
    waves = [np.sin(3 * x + seed + c) * np.cos(2 * y - c) for c in range(channels)]
    return (128 + 80 * np.stack(waves, 2)).astype(np.uint8)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two packs of four crops, the last of each held out; the first grey one has no points."""
    directory = tmp_path / "cache"
    directory.mkdir()
    rng = np.random.default_rng(0)
    for name, channels in (("ages", 3), ("emotions", 1)):
        np.save(directory / f"{name}.npy", np.stack([smooth(i, channels) for i in range(COUNT)]))
        points = rng.uniform(-20, 180, (COUNT, 106, 2)).astype(np.float32)
        if name == "emotions":
            points[0] = np.nan
        known: dict[str, Any] = {
            "name": np.array([f"{i}.jpg" for i in range(COUNT)]),
            "val": np.arange(COUNT) == COUNT - 1,
            "inside": np.full((COUNT, CROP * CROP // 8), 255, np.uint8),
            "scale": np.full(COUNT, 1.5, np.float32),
            "points": points,
            "age": np.full(COUNT, 31.0 if name == "ages" else np.nan, np.float32),
            "female": np.full(COUNT, np.nan, np.float32),
            "mask": np.full(COUNT, np.nan, np.float32),
            "attractiveness": np.full(COUNT, np.nan, np.float32),
            "votes": np.full((COUNT, 10), 2.0, np.float32),
        }
        np.savez(directory / f"{name}.npz", allow_pickle=False, **known)
    np.savez(directory / "ages.teachers.npz", quality=np.full((COUNT, 5), 0.5, np.float32))
    return directory


@pytest.fixture
def sheets(tmp_path: Path) -> Path:
    """The pack of grey faces as its sheets: one, with four faces in a row."""
    directory = tmp_path / "packs"
    directory.mkdir()
    sheet = np.hstack([cv2.resize(smooth(i, 1), (48, 48)) for i in range(COUNT)])
    data = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    with tarfile.open(directory / "emotions.tar", "w") as tar:
        entry = tarfile.TarInfo("000.jpg")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    rows = [f"000.jpg,0,{i}" + ",2" * len(VOTES) for i in range(COUNT)]
    table = "\n".join([",".join(["sheet", "row", "col", *VOTES]), *rows])
    (directory / "emotions.csv").write_text(table + "\n", encoding="utf-8")
    return directory


def test_sheets_that_travelled_are_cut_again(sheets: Path, tmp_path: Path) -> None:
    cache, there, back = (tmp_path / name for name in ("cache", "travel", "back"))
    for directory in (cache, there, back):
        directory.mkdir()
    names = [f"000.jpg:0:{i}" for i in range(COUNT)]
    five = np.tile(np.array([[15, 18], [33, 18], [24, 27], [17, 36], [31, 36]], np.float32), (COUNT, 1, 1))
    faces = list(read_faces("emotions", sheets, KnownFinder(np.array(names), five)))
    np.save(cache / "emotions.npy", np.stack([cut(face.image, face.matrix(), CROP)[..., :1] for face in faces]))
    known = {"name": np.array(names), "five": five, "val": np.arange(COUNT) == 1}
    known |= {"inside": np.stack([inside(face, face.matrix()) for face in faces])}
    points = np.full((COUNT, 106, 2), np.nan, np.float32)
    np.savez(cache / "emotions.npz", allow_pickle=False, **known, points=points)
    travel.pack(cache, "emotions", there, 60, held_out=True, sheets=sheets)
    travel.unpack(there, "emotions", back)
    sent, found = read_packs(cache)["emotions"], read_packs(back)["emotions"]
    assert found.val.tolist() == sent.val.tolist()
    assert np.array_equal(found.inside, sent.inside)
    assert np.abs(found.images.astype(float) - sent.images).mean() < 4
    with pytest.raises(ValueError, match="a sheet has faces of both sides"):
        travel.pack(cache, "emotions", there, 60, sheets=sheets)


def test_crops_that_travelled_are_those_to_train_on(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, back = tmp_path / "travel", tmp_path / "back"
    for line in (["pack", "--cache", cache, "--out", there], ["unpack", "--travel", there, "--out", back]):
        monkeypatch.setattr("sys.argv", ["travel", *map(str, line)])
        travel.main()
    sent, found = read_packs(cache), read_packs(back)
    assert list(found) == list(sent) == ["ages", "emotions"]
    for name, pack in found.items():
        assert pack.names.tolist() == ["0.jpg", "1.jpg", "2.jpg"]
        assert not pack.val.any()
        assert pack.images.shape == (COUNT - 1, *sent[name].images.shape[1:])
        apart = np.abs(pack.images.astype(int) - sent[name].images[:-1])
        assert apart.mean() < 3
        points, truth = pack.labels["points"], sent[name].labels["points"][:-1]
        assert np.isnan(points).any((1, 2)).tolist() == np.isnan(truth).any((1, 2)).tolist()
        assert np.nanmax(np.abs(points - truth)) <= travel.POINT_UNIT / 2
        for head in ("age", "emotion", "quality"):
            np.testing.assert_array_equal(pack.labels[head], sent[name].labels[head][:-1])


def test_a_damaged_crop_is_an_error_that_names_the_remedy() -> None:
    with pytest.raises(ValueError, match="pack the cache anew"):
        travel.decompressed(np.zeros(20, np.uint8), grey=False)


def test_a_network_learns_from_a_larger_one_whatever_labels_there_are() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    from visaged.models.training.analyzer.loss import TAUGHT_WEIGHTS, WEIGHTS, Batch
    from visaged.models.training.analyzer.network import SHAPES, Analyzer
    from visaged.models.training.analyzer.train import AnalyzerTask

    torch.manual_seed(0)
    student, teacher = Analyzer(SHAPES["s"]).eval(), Analyzer(SHAPES["l"]).eval()
    unknown = {"points": (106, 2), "emotion": (7,), "eyes": (2,), "pose": (3,)}
    single = ("age", "female", "mask", "glasses", "beard", "hat", "attractiveness", "quality", "blur")
    targets = {name: torch.full((2, *unknown.get(name, ())), torch.nan) for name in (*unknown, *single)}
    batch = Batch(torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8), targets)

    task = AnalyzerTask(WEIGHTS | TAUGHT_WEIGHTS, teacher)
    loss, terms = task.losses(student(task.images(batch).float()), batch)
    assert set(TAUGHT_WEIGHTS) < set(terms)
    assert all(float(terms[name].detach()) == 0 for name in WEIGHTS)
    assert all(float(terms[name].detach()) > 0 for name in TAUGHT_WEIGHTS)
    loss.backward()
    assert float(student.heads["emotion"].weight.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())

    same = AnalyzerTask(WEIGHTS | TAUGHT_WEIGHTS, student)
    _, terms = same.losses(student(same.images(batch).float()), batch)
    apart = {name: float(terms[name].detach()) for name in TAUGHT_WEIGHTS if name != "taught_female"}
    assert apart == pytest.approx(dict.fromkeys(apart, 0.0), abs=1e-6)  # a binary cross entropy keeps the entropy
