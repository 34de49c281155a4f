"""Packs as training and evaluation read them: labels, doubt, the split, copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support import packs as made
from tests.unit import fakes
from visaged.models.training.common import duplicates
from visaged.models.training.common.packs import SURE_SCORE, Faces, PackedPicture, is_validation, read_labels, read_pack

POINTS = np.arange(10, dtype=np.float32).reshape(5, 2)


def labels_of(folder: Path, *rows: dict[str, object]) -> dict[str, Faces]:
    made.write(folder, "tiny", {}, rows)
    return read_labels(folder / "tiny.csv")


def test_a_pack_is_read_in_the_order_of_its_tar(tmp_path: Path) -> None:
    pictures = {
        f"{name}.jpg": made.jpeg(np.full((40, 60, 3), value, np.uint8)) for name, value in (("b", 9), ("a", 90))
    }
    made.write(tmp_path, "tiny", pictures, [made.row("a.jpg", (1, 2, 30, 20), POINTS), made.row("b.jpg")])
    second, first = read_pack(tmp_path, "tiny")
    assert [second.name, first.name] == ["b.jpg", "a.jpg"]
    assert (second.pack, len(second.faces)) == ("tiny", 0)
    assert first.faces.boxes.tolist() == [[1, 2, 31, 22]]
    np.testing.assert_array_equal(first.faces.points[0], POINTS)
    assert first.faces.sizes() == pytest.approx(np.sqrt(600))
    image = first.decode()
    assert (image.shape, image.dtype) == ((40, 60, 3), np.uint8)
    assert abs(int(image.mean()) - 90) <= 2


def test_pictures_can_be_picked_and_labels_replaced(tmp_path: Path) -> None:
    made.write(tmp_path, "tiny", {f"{i}.jpg": b"" for i in range(5)}, [made.row("3.jpg", (0, 0, 9, 9))])
    assert [p.name for p in read_pack(tmp_path, "tiny", keep=lambda name: name > "1.jpg", limit=2)] == [
        "2.jpg",
        "3.jpg",
    ]
    other = tmp_path / "other"
    other.mkdir()
    made.write(other, "tiny", {}, [made.row("0.jpg", (5, 5, 9, 9)), made.row("0.jpg", (20, 5, 9, 9))])
    counts = [len(p.faces) for p in read_pack(tmp_path, "tiny", labels=other / "tiny.csv")]
    assert counts == [2, 0, 0, 0, 0]


def test_who_drew_a_box_and_how_sure_it_is(tmp_path: Path) -> None:
    faces = labels_of(
        tmp_path,
        made.row("a", (0, 0, 10, 10), source="human", score=0.1),
        made.row("a", (20, 0, 10, 10), source="teacher", score=SURE_SCORE),
        made.row("a", (40, 0, 10, 10), source="teacher", score=SURE_SCORE - 0.01),
        made.row("a", (60, 0, 10, 10), source="teacher"),
    )["a"]
    assert faces.sure.tolist() == [True, True, False, True]
    assert faces.human.tolist() == [True, False, False, False]
    assert np.isnan(faces.points).all()


def test_single_points_may_be_missing(tmp_path: Path) -> None:
    known = made.row("a", (0, 0, 10, 10), POINTS)
    known["x3"] = known["y3"] = ""
    points = labels_of(tmp_path, known)["a"].points[0]
    assert np.isnan(points).sum(1).tolist() == [0, 0, 2, 0, 0]


def test_marked_heads_become_doubtful_boxes_of_a_likely_size(tmp_path: Path) -> None:
    # Faces grow from 10 px at the top to 50 px at the bottom; so must the heads.
    rows = [made.row("a", (100 * i, 60 * i, 10 + 5 * i, 10 + 5 * i), source="human", width=900) for i in range(9)]
    rows += [made.row("a", (300, y), source="head") for y in (60, 420)]
    faces = labels_of(tmp_path, *rows)["a"]
    assert faces.sure.tolist() == [True] * 9 + [False] * 2
    far, near = faces.boxes[9:]
    assert ((far[:2] + far[2:]) / 2).tolist() == pytest.approx([300, 60])
    assert near[2] - near[0] == pytest.approx(1.7 * 43.5, rel=0.03)
    assert far[2] - far[0] == pytest.approx(1.7 * 14.7, rel=0.03)
    assert np.isnan(faces.points[9:]).all()


def test_a_head_without_faces_around_takes_its_size_from_the_picture(tmp_path: Path) -> None:
    (box,) = labels_of(tmp_path, made.row("a", (300, 60), source="head", width=1000))["a"].boxes
    assert box[2] - box[0] == pytest.approx(1.7 * 18)


def test_what_is_wrong_with_a_pack_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tiny\.csv"):
        list(read_pack(tmp_path, "tiny"))
    made.write(tmp_path, "tiny", {"a.jpg": b"no picture"}, [])
    (packed,) = read_pack(tmp_path, "tiny")
    with pytest.raises(ValueError, match=r"tiny/a\.jpg is not a readable picture"):
        packed.decode()
    with pytest.raises(ValueError, match=r"tiny\.csv, line 2: .*'wide'"):
        labels_of(tmp_path, made.row("a", (0, 0, "wide", 10)))  # type: ignore[arg-type]
    made.write(tmp_path, "tiny", {}, [])
    (tmp_path / "tiny.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"tiny\.tar"):
        list(read_pack(tmp_path, "tiny"))


def test_the_split_stays_what_it_is() -> None:
    # Figures of cards are comparable only while these do not change.
    assert [i for i in range(20) if is_validation("events", f"{i}.jpg")] == [0, 5, 9, 11, 16, 18]
    share = np.mean([is_validation("portraits", f"{i}.jpg") for i in range(10_000)])
    assert share == pytest.approx(0.15, abs=0.012)
    assert any(is_validation("a", f"{i}") != is_validation("b", f"{i}") for i in range(20))


@pytest.mark.parametrize("source", ["tud_street", "kisa_cctv_c102302", "kisa_cctv_c7", "roadscene_ir_flir"])
def test_a_video_stays_on_one_side(source: str) -> None:
    assert len({is_validation("events", f"{source}_{i:06d}.jpg") for i in range(200)}) == 1


def test_videos_are_told_apart() -> None:
    assert len({is_validation("events", f"kisa_cctv_c{i}_000.jpg") for i in range(100)}) == 2
    assert len({is_validation("events", f"coco_people_{i:06d}.jpg") for i in range(100)}) == 2


def test_copies_look_alike_and_others_do_not() -> None:
    image = fakes.demo_image(fakes.TWO_FACES_S)
    own = duplicates.fingerprint(made.jpeg(image))
    assert own.shape == (256,)
    copy = duplicates.fingerprint(made.jpeg(np.ascontiguousarray(image[::2, ::2]), 40))
    assert (own != copy).sum() <= duplicates.MOST_DIFFERENT
    other = duplicates.fingerprint(made.jpeg(fakes.demo_image(1.0)[:, ::-1]))
    assert (own != other).sum() > 2 * duplicates.MOST_DIFFERENT


def test_held_out_copies_are_listed(tmp_path: Path) -> None:
    held_out = [f"{i}.jpg" for i in range(100) if is_validation("events", f"{i}.jpg")]
    trained = next(f"{i}.jpg" for i in range(100) if not is_validation("portraits", f"{i}.jpg"))
    image = fakes.demo_image(fakes.TWO_FACES_S)
    contents = {name: {} for name in duplicates.PACKS} | {
        "events": {held_out[0]: made.jpeg(image, 60), held_out[1]: made.jpeg(image[:, ::-1])},
        "portraits": {trained: made.jpeg(image)},
    }
    for pack, pictures in contents.items():
        made.write(tmp_path, pack, pictures, [])
    out = tmp_path / "copies.txt"
    duplicates.main(["--data", str(tmp_path), "--out", str(out)])
    assert out.read_text() == f"events/{held_out[0]}\n"


def test_joined_faces_keep_their_rows() -> None:
    one = Faces.from_rows([[0, 0, 4, 9]], [np.zeros((5, 2))], [True], [False])
    none = Faces.from_rows([], [], [], [])
    both = Faces.concatenate([none, one, one])
    assert len(both) == 2
    assert both.sizes().tolist() == [6, 6]
    assert len(PackedPicture("p", "n", b"", none).faces) == 0
