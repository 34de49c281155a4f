"""The tables of the model cards, from packs of a few pictures."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from tests.support import packs as made
from tests.support import tiny_networks
from tests.unit import fakes
from visaged.models.errors import ModelError
from visaged.models.manifest import AnalyzerEntry, DetectorEntry, Manifest
from visaged.models.training.analyzer.evaluation import figures
from visaged.models.training.common.packs import is_validation
from visaged.models.training.evaluation import evaluate

FACES = [(left, top, right - left, bottom - top) for left, top, right, bottom in fakes.TWO_FACES]
SHIPPED = evaluate.newest(Manifest(), DetectorEntry)


def held_out(pack: str, count: int = 1) -> list[str]:
    return [name for name in (f"{i}.jpg" for i in range(200)) if is_validation(pack, name)][:count]


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """Packs of the demo's faces: in each a picture that is held out, and one in `portraits` that is not."""
    image = fakes.demo_image(fakes.TWO_FACES_S)
    faces = made.jpeg(image)
    none = made.jpeg(np.ascontiguousarray(image[:160, :320]))
    for pack in ("street_masks", "events", "portraits"):
        (name,) = held_out(pack)
        pictures = {name: faces}
        if pack == "portraits":
            trained = next(f"{i}.jpg" for i in range(200) if not is_validation(pack, f"{i}.jpg"))
            pictures[trained] = made.jpeg(np.ascontiguousarray(image[::2, ::2]))
        rows = [made.row(name, box, made.POINTS * box[2:] + box[:2], source="human", width=1280) for box in FACES]
        made.write(tmp_path, pack, pictures, rows)
    made.write(tmp_path, "scenes", dict.fromkeys(held_out("scenes", 2), none), [])
    made.write(tmp_path, "points68", {"frame.jpg": faces}, [])
    points = fakes.five_points(451, 312, 110)
    groups = {range(36, 42): 0, range(42, 48): 1, range(30, 31): 2, range(48, 49): 3, range(54, 55): 4}
    all_points = np.tile(points.mean(0), (68, 1))
    all_points[[0, 8, 16]] = [[398, 300], [451, 377], [505, 300]]
    for group, index in groups.items():
        all_points[list(group)] = points[index]
    with (tmp_path / "points68.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *(f"{axis}{i + 1}" for i in range(68) for axis in "xy")])
        writer.writerow(["frame.jpg", *all_points.reshape(-1).round(2).tolist()])
    return tmp_path


def test_the_shipped_networks_are_judged_unless_others_are_named(
    packs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (packs / "copies.txt").write_text("")
    assert SHIPPED is not None
    code = evaluate.main(["--data", str(packs), "--leave-out", str(packs / "copies.txt"), "--rounds", "2"])
    text = capsys.readouterr().out
    assert code == 0
    tables = dict(re.findall(r"^\| (.+?), \d+(?: faces)? \| (.+) \|$", text, re.MULTILINE))
    assert text.count(f"| {SHIPPED.name} |") == 5  # one table each: precision, points, points68, thresholds, time
    # Both faces are found, and nothing else, at every size.
    assert "| street photos with masks, human boxes, 1 | 100.0 / 100.0 / 100.0 |" in text
    assert "| events at half size, 1 | 100.0 / 100.0 / 100.0 |" in text
    assert len(tables) == 4
    assert re.search(r"street photos with masks, human boxes, 2 faces \| \d+\.\d\d \|", text)
    assert re.search(r"\| mean over 1 found by all \| \d+\.\d\d \|\n\| faces found \| 1 \|", text)
    assert "| 0.5 | 100.0 % / 100.0 %, 0 |" in text
    assert "among 2 without a face" in text
    assert re.search(r"need --cache CROPS", text)


def test_one_s_own_networks_stand_side_by_side(packs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (packs / "copies.txt").write_text("")
    assert SHIPPED is not None
    tiny_networks.detector(packs / "red.onnx", "yunet")
    models = ["--model", f"ours={Manifest().file(SHIPPED)}", "--model", f"red={packs / 'red.onnx'}"]
    code = evaluate.main(["--data", str(packs), *models, "--leave-out", str(packs / "copies.txt"), "--rounds", "2"])
    text = capsys.readouterr().out
    assert code == 0
    assert "| portraits, 1 | 100.0 / 100.0 / 100.0 | 0.0 / 0.0 / 0.0 |" in text
    assert "| portraits, 0 faces | - | - |" in text, "points are compared where all found the face"
    assert "need --cache" not in text


def test_other_labels_change_precision_alone(packs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (packs / "copies.txt").write_text("")
    labels = packs / "labels"
    labels.mkdir()
    (name,) = held_out("events")
    rows = [made.row(name, box, width=1280) for box in [*FACES, (600, 40, 60, 60), (700, 40, 60, 60)]]
    made.write(labels, "events", {}, rows)
    options = ["--leave-out", str(packs / "copies.txt"), "--labels", str(labels)]
    assert evaluate.main(["--data", str(packs), *options]) == 0
    text = capsys.readouterr().out
    assert "| events as packed (at most 704 px), 1 | 50.0 / 50.0 / 50.0 |" in text
    assert "street" not in text
    assert "Time" not in text


def test_held_out_copies_of_what_was_trained_on_are_left_out(packs: Path) -> None:
    copies = evaluate.copied_pictures(packs, None)
    assert copies == {f"{pack}/{held_out(pack)[0]}" for pack in ("street_masks", "events", "portraits")}
    left = evaluate.HeldOut(packs, copies)
    assert list(left.pack("events")) == []
    assert len(list(left.pack("scenes"))) == 2
    (packs / "list.txt").write_text("events/a b.jpg\n")
    assert evaluate.copied_pictures(packs, packs / "list.txt") == {"events/a b.jpg"}


def test_what_is_wrong_is_said(packs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", str(packs)]
    assert evaluate.main([*options, "--model", "detector.onnx"]) == 2
    assert "--model takes NAME=FILE, not detector.onnx" in capsys.readouterr().err
    assert evaluate.main([*options, "--model", "x=none.onnx"]) == 2
    assert "none.onnx cannot be loaded" in capsys.readouterr().err
    assert evaluate.main([*options, "--leave-out", str(packs / "nothing.txt")]) == 2
    assert "nothing.txt" in capsys.readouterr().err
    (packs / "all.txt").write_text(f"street_masks/{held_out('street_masks')[0]}\n")
    assert evaluate.main([*options, "--leave-out", str(packs / "all.txt")]) == 2
    assert "pack street_masks of" in capsys.readouterr().err
    (packs / "events.tar").unlink()
    (packs / "none.txt").write_text("")
    assert evaluate.main([*options, "--leave-out", str(packs / "none.txt")]) == 2
    assert "events.tar" in capsys.readouterr().err
    with pytest.raises(ValueError, match="give --leave-out a list"):
        evaluate.copied_pictures(packs / "empty", None)


def entry(name: str, date: str) -> dict[str, object]:
    return {
        "name": name,
        "task": "detector",
        "file": "red.onnx",
        "input": {"name": "in", "layout": "NCHW", "dtype": "float32"},
        "decoder": "yunet",
        "strides": [8, 16, 32],
        "date": date,
    }


def test_the_newest_network_is_the_one_of_the_latest_day(tmp_path: Path) -> None:
    tiny_networks.detector(tmp_path / "red.onnx", "yunet")
    days = {"first": "2026-11-20", "second": "2026-11-22", "third": "2026-11-22", "fourth": "2026-11-21"}
    manifest = Manifest(tiny_networks.manifest(tmp_path, *(entry(name, day) for name, day in days.items())))
    newest = evaluate.newest(manifest, DetectorEntry)
    assert newest is not None
    assert newest.name == "third"
    assert evaluate.newest(manifest, AnalyzerEntry) is None


def test_a_damaged_network_is_not_judged(tmp_path: Path) -> None:
    tiny_networks.detector(tmp_path / "red.onnx", "yunet")
    path = tiny_networks.manifest(tmp_path, entry("red", "2026-11-20"))
    (tmp_path / "red.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="the file is damaged or another version"):
        evaluate.chosen_networks([], path)
    path.write_text("models: []\n")
    with pytest.raises(ValueError, match="has no detector; name one with --model NAME=FILE"):
        evaluate.chosen_networks([], path)


def test_the_divergence_from_votes_is_nothing_for_their_own_shares_and_grows_from_there() -> None:
    votes = np.array([[0.7, 0.3, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0]], np.float32)
    (figure,) = [figure for figure in figures.FIGURES if "divergence" in figure.title]
    even = np.full_like(votes, 1 / 7)
    values = [figure.value({"emotion": said}, {"emotion": votes}) for said in (votes, 0.5 * votes + 0.5 * even, even)]
    assert values[0] == pytest.approx(0, abs=1e-5)
    assert values[0] < values[1] < values[2]
    assert values[2] == pytest.approx(np.log(7) + 0.5 * (0.7 * np.log(0.7) + 0.3 * np.log(0.3)), abs=1e-4)
