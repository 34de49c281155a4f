"""The table of the daemon's own answers: what is counted as found, as false, and as a track that should not be."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from visaged.models.training.common.packs import Faces
from visaged.models.training.evaluation import evaluate, product, sweep, through_product
from visaged.models.training.evaluation.decode import Found
from visaged.models.training.evaluation.product import Track


def found(*boxes: tuple[float, ...]) -> Found:
    count = len(boxes)
    return (
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(count, 0.9, np.float32),
        np.zeros((count, 5, 2), np.float32),
    )


def labelled(*boxes: tuple[float, ...], sure: bool = True) -> Faces:
    count = len(boxes)
    return Faces.from_rows(boxes, np.full((count, 5, 2), np.nan), [sure] * count, [False] * count)


def test_a_face_is_large_by_its_longer_side_as_far_as_it_is_in_the_picture() -> None:
    assert through_product.large_face(labelled((0, 0, 60, 99)), 200, 100) is None
    np.testing.assert_array_equal(through_product.large_face(labelled((0, 0, 60, 101)), 100, 200), [0, 0, 60, 101])
    cut = through_product.large_face(labelled((10, -50, 110, 120)), 200, 100)
    assert cut is None, "100 of 200 px are not more than a half"
    largest = through_product.large_face(labelled((0, 0, 20, 30), (10, -50, 190, 120)), 200, 100)
    np.testing.assert_array_equal(largest, [10, 0, 190, 100])
    assert through_product.large_face(labelled((0, 0, 200, 100), sure=False), 200, 100) is None
    assert through_product.large_face(labelled(), 200, 100) is None


def test_a_large_face_is_compared_inside_the_picture() -> None:
    label = np.array([0, 0, 100, 100], np.float32)
    assert through_product.is_found(found((0, 0, 100, 210)), label, 100, 100)
    assert not through_product.is_found(found((0, 0, 100, 210)), label, 100, 300)
    assert through_product.is_found(found((0, 0, 10, 10), (0, 0, 100, 51)), label, 100, 100)
    assert not through_product.is_found(found((0, 0, 100, 49)), label, 100, 100)
    assert not through_product.is_found(found(), label, 100, 100)


@pytest.mark.parametrize(
    ("boxes", "hit", "others"),
    [
        ([], False, 0),
        ([(20, 20, 80, 90)], True, 0),
        ([(0, 0, 40, 40)], False, 1),  # beside the middle
        ([(40, 40, 60, 60)], False, 1),  # an eye
        ([(35, 55, 66, 86), (0, 0, 30, 30)], True, 1),
        ([(20, 20, 80, 90), (30, 30, 80, 90)], True, 1),  # one head has one face
    ],
)
def test_a_crop_has_one_face_in_its_middle(boxes: list[tuple[float, ...]], hit: bool, others: int) -> None:
    assert through_product.crop_verdict(found(*boxes), 100, 140) == (hit, others)


def test_one_track_for_each_person_is_right() -> None:
    short, long, other = (Track(0, seconds, frozenset()) for seconds in (0.4, 3.0, 2.0))
    assert through_product.false_tracks([short, long, other], 1) == [other, short]
    assert through_product.false_tracks([short], 1) == []
    assert through_product.false_tracks([], 1) == []
    assert through_product.false_tracks([short, long], 0) == [long, short]
    assert through_product.a_minute(3, 90) == "2.0"
    assert through_product.a_minute(0, 0) == "-"
    assert through_product.share(1, 8) == "12.5 %"
    assert through_product.share(0, 0) == "-"


def test_tracks_of_an_empty_room_are_counted_with_what_they_claim(capsys: pytest.CaptureFixture[str]) -> None:
    tracks = [Track(5, 2.5, frozenset({"age", "blur"})), Track(9, 0.5, frozenset({"blur"}))]
    through_product.print_backs("room", tracks, 40)
    assert "| 3.0 | 2 in 40 s; 1 with age or gender; the longest lives 2.5 s |" in capsys.readouterr().out
    clips = [product.Watched("sign_a", 3, tuple(tracks)), product.Watched("sign_b", 3, ())]
    through_product.print_signing("signing", clips)
    assert "| 10.0 | 1 in 6.0 s (sign_a 1); 1 of 2 persons followed |" in capsys.readouterr().out


def test_what_was_trained_on_is_known_by_the_list_of_stretches(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("clip,from_s,to_s,faces\nroom,0,20,none\nroom,20,85.5,doubtful\nb,1,2,one\n")
    assert through_product.trained_until(tmp_path / "clips.csv") == {"room": 85.5, "b": 2.0}
    assert through_product.EMPTY_ROOM in through_product.trained_until()


def event(sequence: int, kind: str, track: int, duration_s: float = 0.0, attributes: tuple[str, ...] = ()) -> Any:
    face = {"attributes": {name: {} for name in attributes}}
    return {"seq": sequence, "event": kind, "track_id": track, "duration_s": duration_s, "face": face}


def frame(position_s: float, *tracks: int | None) -> Any:
    return {"position_s": position_s, "faces": [{"track_id": track} for track in tracks]}


def test_tracks_are_put_together_from_events_and_frames() -> None:
    events = [
        event(1, "begin", 1),
        event(2, "begin", 3),
        event(3, "update", 1),
        event(4, "end", 3, 1.5),
        event(5, "end", 1, 7.0, ("age", "blur")),
    ]
    frames = [frame(4.0, None), frame(4.2, 3, None), frame(4.4, 3), frame(4.6)]
    tracks = product.tracks_of(events, frames)
    # The first track began before the first frame that was heard of.
    assert tracks == (Track(0.0, 7.0, frozenset({"age", "blur"})), Track(4.2, 1.5, frozenset()))
    assert product.tracks_of([], frames) == ()
    with pytest.raises(product.ProductError, match="events were lost"):
        product.tracks_of([events[0], events[2]], [])
    with pytest.raises(product.ProductError, match="no event ended the tracks 1"):
        product.tracks_of(events[:1], [])


def test_an_answer_is_read_as_a_detector_s() -> None:
    face = {"box": [1, 2, 3.5, 4], "confidence": 0.75, "landmarks_5": [[1, 2]] * 5}
    boxes, scores, points = product.faces_of({"faces": [face, face]})
    np.testing.assert_array_equal(boxes, [[1, 2, 3.5, 4]] * 2)
    assert scores.tolist() == [0.75, 0.75]
    assert points.shape == (2, 5, 2)
    boxes, scores, points = product.faces_of({"faces": []})
    assert (boxes.shape, scores.shape, points.shape) == ((0, 4), (0,), (0, 5, 2))


@pytest.mark.parametrize("part", [0.08, 0.5, 1.0])
def test_the_sweep_shows_a_face_as_large_as_it_says(part: float) -> None:
    image = np.zeros((200, 120, 3), np.uint8)
    image[40:100, 30:70] = (0, 0, 255)
    face = sweep.Portrait(image, np.array([30, 40, 70, 100], np.float32), np.zeros((5, 2), np.float32))
    ground = np.full((600, 600, 3), 200, np.uint8)
    shown, box = sweep.show(face, part, ground)
    assert shown.shape == ground.shape
    assert ground.min() == 200, "the ground is not painted on"
    assert box[3] - box[1] == pytest.approx(part * 600, rel=1e-3)
    np.testing.assert_allclose(box.reshape(2, 2).mean(0), [300, 300], atol=1)
    rows, columns = ((shown[..., 2] > 128) & (shown[..., 0] < 100)).nonzero()
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(seen, box, atol=2)
    assert (shown[0, 0] == 200).all() == (part < 0.9), "the portrait covers the picture at last"


def test_the_demo_s_faces_are_swept_over_two_grounds() -> None:
    steps = list(sweep.steps((0.08, 0.5)))
    assert {step.image.shape for step in steps} == {(1000, 1000, 3)}
    assert [round(float((step.box[2:] - step.box[:2]).max())) for step in steps] == [80, 500] * 4
    titles = dict.fromkeys(step.title for step in steps)
    assert list(titles) == ["Collins on grey", "Collins on a scene", "Hopper on grey", "Hopper on a scene"]
    assert len(sweep.SHARES) == 30
    assert sweep.SHARES[-1] == 1.0


def test_masks_of_crops_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,mask\na.jpg,1\nb.jpg,0\n")
    assert through_product.masks_of(tmp_path / "a.csv") == {"a.jpg": True, "b.jpg": False}
    (tmp_path / "a.csv").write_text("image,mask\na.jpg,1\nb.jpg,yes\n")
    with pytest.raises(ValueError, match="line 3: image and mask"):
        through_product.masks_of(tmp_path / "a.csv")


def test_what_is_missing_is_named_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", str(tmp_path), "--through-product"]
    assert evaluate.main(options) == 2
    assert f"{tmp_path} has no portraits.tar" in capsys.readouterr().err
    assert evaluate.main([*options, "--model", "a=b"]) == 2
    assert "takes no --model" in capsys.readouterr().err
    assert evaluate.main([*options, "--limit", "0"]) == 2
    assert "--limit takes a number from 1 up, not 0" in capsys.readouterr().err
    assert evaluate.main([*options, "--fps", "-1"]) == 2
    assert "--fps takes a rate, or 0 for all frames, not -1" in capsys.readouterr().err
    assert evaluate.main(["--data", str(tmp_path), "--videos", str(tmp_path)]) == 2
    assert "go with --through-product" in capsys.readouterr().err
    for pack in through_product.PACKS:
        (tmp_path / f"{pack}.tar").touch()
        (tmp_path / f"{pack}.csv").touch()
    assert evaluate.main([*options, "--videos", str(tmp_path)]) == 2
    assert f"{tmp_path} has no clip named sign_*" in capsys.readouterr().err
    (tmp_path / "clip.mp4").write_text("no clip")
    with pytest.raises(product.ProductError, match=r"clip\.mp4 is no clip that can be read"):
        product.seconds_of(tmp_path / "clip.mp4")


@pytest.mark.parametrize(("text", "why"), [("a: [", "is no YAML"), ("- a", "holds no keys")])
def test_a_configuration_that_is_none_is_named(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(product.ProductError, match=why):
        product.read_configuration(tmp_path / "a.yaml")


def test_a_daemon_that_does_not_start_says_why(tmp_path: Path) -> None:
    wrong = product.DaemonProcess(tmp_path, "wrong", {"http": {"port": "none"}})
    with wrong, pytest.raises(product.ProductError) as caught:
        wrong.wait_for(re.compile("never"), time.monotonic() + product.START_S)
    assert "the daemon does not start, exit code 2; its last lines:\n  http.port: " in str(caught.value)
    assert json.loads((tmp_path / "wrong.yaml").read_text()) == {"http": {"port": "none"}}
