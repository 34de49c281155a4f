"""Packs that travel: as many bytes as asked, labels where the faces are, and the split as it was."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support import packs as made
from visaged.models.training.common import duplicates
from visaged.models.training.common.packs import Faces, PackedPicture, is_validation, read_pack
from visaged.models.training.detector import feed
from visaged.models.training.detector.gpu import travel

BOX = (60, 40, 200, 240)


def names(pack: str, count: int, *, held_out: bool) -> list[str]:
    return [name for name in (f"{i}.jpg" for i in range(400)) if is_validation(pack, name) == held_out][:count]


def painted(width: int, height: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture with a face at BOX, and the face's points."""
    coarse = np.random.default_rng(seed).integers(60, 140, (9, 12), dtype=np.uint8)
    image = cv2.cvtColor(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2BGR)
    return image, made.paint(image, BOX)


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """Packs whose pictures each show one face and a doubtful one, `scenes` none."""
    data = tmp_path / "packs"
    data.mkdir()
    for pack in ("events", "street_masks", "portraits", "ages", "scenes"):
        pictures, rows = {}, []
        for seed, name in enumerate(names(pack, 8, held_out=False) + names(pack, 3, held_out=True)):
            image, points = painted(480, 361, seed)
            pictures[name] = made.jpeg(image, 98)
            if pack != "scenes":
                box = (*BOX[:2], BOX[2] - BOX[0], BOX[3] - BOX[1])
                rows.append(made.row(name, box, points, source="human", width=480))
                rows.append(made.row(name, (300, 40, 30, 30), points, score=0.2, width=480))
        made.write(data, pack, pictures, rows)
    made.write(data, "points68", {"frame.jpg": made.jpeg(painted(480, 361)[0], 98)}, [])
    (data / "points68.csv").write_text("image,x1,y1\nframe.jpg,1.5,2.5\n", encoding="utf-8")
    return data


def run(*options: str | Path) -> None:
    travel.main([*map(str, options)])


def test_what_travels_is_read_as_before(packs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, labels = tmp_path / "out", tmp_path / "labels"
    labels.mkdir()
    relabelled = names("events", 1, held_out=False)[0]
    made.write(labels, "events", {}, [made.row(relabelled, (10, 20, 30, 40), source="human")])
    copy = names("street_masks", 1, held_out=True)[0]
    (tmp_path / "copies.txt").write_text(f"street_masks/{copy}\n", encoding="utf-8")
    (tmp_path / "hard.csv").write_text("pack,image,times\n", encoding="utf-8")
    options = ["--data", packs, "--labels", labels, "--hard", tmp_path / "hard.csv"]
    run(*options, "--leave-out", tmp_path / "copies.txt", "--out", out)
    said = capsys.readouterr().out
    assert "events: 8 to train on, 3 held out" in said
    assert "ages: 8 to train on, 0 held out" in said
    for pack, held_out in (("events", 3), ("street_masks", 2), ("portraits", 3), ("ages", 0), ("scenes", 3)):
        before = {packed.name: packed for packed in read_pack(packs, pack)}
        after = {packed.name: packed for packed in read_pack(out, pack)}
        assert sum(is_validation(pack, name) for name in after) == held_out
        assert {n for n in before if not is_validation(pack, n)} == {n for n in after if not is_validation(pack, n)}
        longest = 320 if pack in ("portraits", "scenes") else 480
        assert {max(packed.decode().shape) for packed in after.values()} == {longest}
        for name in after if pack in ("events", "street_masks") else ():
            assert (after[name].jpeg == before[name].jpeg) == is_validation(pack, name)
    assert f"street_masks/{copy}" not in {f"street_masks/{packed.name}" for packed in read_pack(out, "street_masks")}
    # Other labels are for the training side alone.
    events = {packed.name: packed.faces for packed in read_pack(out, "events")}
    assert events[relabelled].boxes.tolist() == [[10, 20, 40, 60]]
    assert [len(events[name]) for name in names("events", 3, held_out=True)] == [2, 2, 2]
    assert [len(events[name]) for name in names("events", 8, held_out=False)[1:]] == [0] * 7
    (portrait, *_) = (packed.faces for packed in read_pack(out, "portraits"))
    assert portrait.sure.tolist() == [True, False]
    assert portrait.human.tolist() == [True, False]
    assert np.isnan(portrait.points[1]).all(), "nobody reads a doubtful face's points"
    assert (out / "points68.csv").read_bytes() == (packs / "points68.csv").read_bytes()
    assert len(list(read_pack(out, "points68"))) == 1
    assert len(feed.load_library(out, dict.fromkeys(["events", "portraits", "scenes"], 1.0), None, out / "hard.csv"))
    with pytest.raises(ValueError, match="is not empty"):
        run("--data", packs, "--out", out)


def test_labels_shrink_exactly_as_their_pictures_do(tmp_path: Path) -> None:
    image, points = painted(481, 359)
    faces = Faces.from_rows([BOX], [points], [True], [True])
    packed = PackedPicture("portraits", "a.jpg", made.jpeg(image, 98), faces)
    small = travel.compressed(packed, travel.Plan(longest=320), 90)
    height, width = small.decode().shape[:2]
    assert (width, height) == (320, 239)
    ratio = np.array([320 / 481, 239 / 359])
    np.testing.assert_allclose(small.faces.boxes[0], np.array(BOX) * np.tile(ratio, 2), rtol=1e-6)
    np.testing.assert_allclose(small.faces.points[0], points * ratio, rtol=1e-6)
    # And there they are seen.
    for index in range(5):
        at = small.faces.points[0, index]
        seen = made.disc(small.decode(), index, np.concatenate([at - 12, at + 12]))
        assert seen is not None
        assert np.abs(seen - at).max() < 0.5
    travel.write_pack(tmp_path, "portraits", [small])
    (read,) = read_pack(tmp_path, "portraits")
    np.testing.assert_allclose(read.faces.boxes, small.faces.boxes, atol=0.011)
    np.testing.assert_allclose(read.faces.points, small.faces.points, atol=0.0051)
    same = travel.compressed(packed, travel.Plan(), 90)
    assert same.faces is faces


def test_a_picture_whose_own_file_is_smaller_keeps_it() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    packed = PackedPicture("events", "a.jpg", made.jpeg(noise, 20), Faces.from_rows([], [], [], []))
    assert travel.compressed(packed, travel.Plan(), 90).jpeg == packed.jpeg
    assert travel.compressed(packed, travel.Plan(longest=32), 90).decode().shape == (32, 32, 3)


def test_the_best_quality_that_fits_is_taken(packs: Path, tmp_path: Path) -> None:
    pictures = {"events": list(read_pack(packs, "events")), "scenes": list(read_pack(packs, "scenes"))}
    sizes = {}
    for most in (10**9, 130_000, 110_000):
        out = tmp_path / f"{most}"
        out.mkdir()
        sizes[most] = travel.travel(pictures, [], out, most), travel.size_of(out)
    assert sizes[10**9][0] == travel.QUALITIES[0]
    assert all(size <= most for most, (_, size) in sizes.items())
    assert sizes[110_000][0] <= sizes[130_000][0] <= sizes[10**9][0]
    (tmp_path / "small").mkdir()
    with pytest.raises(ValueError, match=r"do not fit into 0\.0 MB"):
        travel.travel(pictures, [], tmp_path / "small", 1000)


def test_the_training_side_is_thinned_evenly(packs: Path) -> None:
    chosen = travel.chosen(packs, "portraits", travel.Plan(most=3))
    trained = names("portraits", 8, held_out=False)
    assert [packed.name for packed in chosen][:3] == [trained[0], trained[3], trained[7]]
    assert len(chosen) == 6
    hard = frozenset({f"portraits/{trained[5]}", f"portraits/{trained[6]}", "scenes/1.jpg"})
    chosen = travel.chosen(packs, "portraits", travel.Plan(most=3, held_out="none"), hard=hard)
    assert [packed.name for packed in chosen] == [trained[0], trained[5], trained[6]]
    assert not travel.chosen(packs, "portraits", travel.Plan(most=0, held_out="faceless"))


def test_copies_are_still_recognised_after_the_journey() -> None:
    image, _ = painted(480, 361)
    packed = PackedPicture("portraits", "a.jpg", made.jpeg(image, 95), Faces.from_rows([], [], [], []))
    small = travel.compressed(packed, travel.Plan(longest=320), 60)
    different = (duplicates.fingerprint(packed.jpeg) != duplicates.fingerprint(small.jpeg)).sum()
    assert different <= duplicates.MOST_DIFFERENT
