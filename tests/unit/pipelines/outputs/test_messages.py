"""Messages: every one of them against the published schemas."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, get_args

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.unit import fakes
from visaged.models.manifest import Head
from visaged.pipelines.attributes import Reading, single
from visaged.pipelines.outputs.documents import face_document, status_document, timestamp
from visaged.pipelines.outputs.messages import Composer
from visaged.pipelines.presentation import Presentation, Turn
from visaged.pipelines.records import CAMERA_STATES, CameraStatus, EndReason, Face, FrameResult, Shot, TrackEvent
from visaged.pipelines.source.video import SourceError

SCHEMAS = {
    document["$id"]: document
    for file in resources.files("visaged.pipelines.schemas").iterdir()
    if file.name.endswith(".json")
    for document in [json.loads(file.read_text(encoding="utf-8"))]
}
REGISTRY: Registry[Any] = Registry().with_resources(
    (name, Resource.from_contents(document)) for name, document in SCHEMAS.items()
)
HEADS = {
    "age": Head(name="age", kind="number", output="a", deviation="d", tolerance=7.5),
    "gender": Head(name="gender", kind="binary", output="g", labels=["male", "female"]),
    "emotion": Head(name="emotion", kind="classes", output="e", labels=["calm", "happy", "sad"]),
    "charm": Head(name="charm", kind="score", output="c"),
    "head_pose": Head(name="head_pose", kind="angles", output="", memory_s=0),
}
READING = Reading(
    {
        "age": np.array([33.333333, 6.1], np.float32),
        "gender": np.array([1 / 3, 2 / 3], np.float32),
        "emotion": np.array([0.1, 0.2, 0.7], np.float32),
        "charm": np.array([0.123456], np.float32),
        "head_pose": np.array([-12.3456, 1 / 3, 0], np.float32),
    },
    np.eye(2, 3),
    0.77777,
)


def validate(kind: str, payload: bytes) -> Any:
    """Return a message after holding it against its schema."""
    document = json.loads(payload)
    schema = SCHEMAS[f"urn:visaged:schema:{kind}:1"]
    errors = [error.message for error in Draft202012Validator(schema, registry=REGISTRY).iter_errors(document)]
    assert errors == []
    return document


@pytest.fixture
def composer() -> Composer:
    return Composer("node-1", 1_700_000_000_000)


def shot(confidence: float = 0.87654) -> Shot:
    box = np.array([10.04999, 20.123, 110.987, 140.55], np.float32)
    return Shot(1.7e9 + 0.1234, box, fakes.five_points(60, 80, 100), confidence, 0.6543219)


def face(track: int | None = 7, points: bool = True) -> Face:
    attributes = single(HEADS, READING, frozenset(HEADS)) if track is not None else {}
    landmarks = np.random.default_rng(1).uniform(0, 2000, (106, 2)).astype(np.float32) if points else None
    return Face(shot(), track, attributes, landmarks)


def result(*faces: Face, camera: str = "door", position_s: float | None = 12.3456789) -> FrameResult:
    return FrameResult(fakes.frame(1000.0, camera, position_s=position_s), faces, [], 1000.03, 1000.0512345)


def event(kind: str = "begin", reason: str | None = None, track: int = 7) -> TrackEvent:
    return TrackEvent(
        "door", kind, face(track), shot(), 1.7e9, 3.14159265, 16, 1000.0, reason,  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_schemas_are_schemas_and_refer_to_each_other() -> None:
    assert len(SCHEMAS) == 7
    for name, document in SCHEMAS.items():
        Draft202012Validator.check_schema(document)
        assert name.startswith("urn:visaged:schema:")


def test_faces_of_a_frame(composer: Composer) -> None:
    message = composer.faces(result(face(), face(None, points=False)))
    assert (message.kind, message.camera, message.seq, message.epoch) == ("faces", "door", 1, 1_700_000_000_000)
    assert (message.captured_s, message.captured_at) == (1000.0, 1.7e9 + 1000.0)
    document = validate("faces", message.encode(1000.25, replayed=False))
    assert document["schema"] == "visaged.faces/1"
    assert (document["node"], document["epoch"], document["camera"]) == ("node-1", 1_700_000_000_000, "door")
    upright = {"rotation": 0, "mirrored": False, "pixel_aspect": 1.0}
    assert document["frame"] == {"width": 640, "height": 360} | upright
    assert document["clock"] == "arrival"
    assert document["position_s"] == 12.346
    assert document["timing_ms"] == {"decode": 10.0, "queue": 10.0, "inference": 21.2}
    assert [f["track_id"] for f in document["faces"]] == [7, None]
    assert document["faces"][1]["attributes"] == {}
    assert "landmarks_106" not in document["faces"][1]


def test_coordinates_count_the_pixels_that_the_stream_has(composer: Composer) -> None:
    """A DVR's half frames, turned: inside, a pixel of the upright picture was two square ones wide."""
    presentation = Presentation(360, 640, Turn(90), 0.5)
    look = Shot(
        1.7e9, np.array([100, 20, 300, 220], np.float32), np.full((5, 2), 120, np.float32), 0.9, 0.5, (2.0, 1.0)
    )
    seen = Face(look, 3, {}, np.full((106, 2), 50, np.float32))
    frame = fakes.frame(presentation=presentation)
    document = validate("faces", composer.faces(FrameResult(frame, [seen], [], 1000.1, 1000.2)).encode(1000.3, False))
    assert document["frame"] == {
        "width": 640, "height": 360, "rotation": 90, "mirrored": False, "pixel_aspect": 2.0,
    }  # fmt: skip
    (published,) = document["faces"]
    assert published["box"] == [50.0, 20.0, 150.0, 220.0]
    assert published["landmarks_5"] == [[60.0, 120.0]] * 5
    assert published["landmarks_106"] == [[25.0, 50.0]] * 106
    told = TrackEvent("door", "begin", seen, look, 1.7e9, 1.0, 3, 1000.0, None)
    document = validate("events", composer.event(told).encode(1000.3, False))
    assert document["face"]["box"] == document["best_shot"]["box"] == [50.0, 20.0, 150.0, 220.0]


def test_a_frame_without_faces_and_without_position(composer: Composer) -> None:
    document = validate("faces", composer.faces(result(position_s=None)).encode(1000.0, False))
    assert (document["faces"], document["position_s"]) == ([], None)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("begin", None), ("update", None), *(("end", reason) for reason in get_args(EndReason))],
)
def test_events(composer: Composer, kind: str, reason: str | None) -> None:
    message = composer.event(event(kind, reason))
    assert (message.kind, message.camera, message.captured_at) == ("events", "door", 1.7e9 + 0.1234)
    document = validate("events", message.encode(1000.1, replayed=True))
    assert (document["event"], document["reason"], document["track_id"]) == (kind, reason, 7)
    assert document["face"]["track_id"] == 7
    assert document["duration_s"] == 3.142
    assert document["started_at"] == "2023-11-14T22:13:20.000Z"
    assert document["best_shot"]["captured_at"] == "2023-11-14T22:13:20.123Z"


@pytest.mark.parametrize(
    ("state", "reason"), [("online", None), ("offline", "shutdown"), ("offline", "connection lost")]
)
def test_the_status_of_a_node(composer: Composer, state: Any, reason: str | None) -> None:
    document = validate("node-status", composer.node_status(state, 1.7e9, "1.2.3", reason))
    assert document["state"] == state


@pytest.mark.parametrize("state", CAMERA_STATES)
def test_the_status_of_a_camera(composer: Composer, state: Any) -> None:
    fresh = CameraStatus("door", state, 1.7e9, "rtsp://***@cam/1")
    document = validate("camera-status", composer.status(fresh).encode(0.0, replayed=False))
    assert [document[key] for key in ("codec", "width", "height", "error", "cause")] == [None] * 5
    known = CameraStatus("door", state, 1.7e9, "rtsp://cam/1", "h264", 1920, 1080, 3, "did not answer", "timeout")
    document = validate("camera-status", composer.status(known).encode(0.0, replayed=True))
    assert (document["width"], document["height"], document["reconnects"]) == (1920, 1080, 3)
    assert status_document(known).items() <= document.items()


def test_every_cause_of_a_broken_source_is_in_the_schema(composer: Composer) -> None:
    assert SourceError.__doc__ is not None
    _, _, listed = SourceError.__doc__.partition("cause: One word for metrics:")
    causes = [word.strip(" .\n") for word in listed.split(",")]
    assert len(causes) > 5
    for cause in causes:
        broken = CameraStatus("door", "waiting", 1.7e9, "x", cause=cause)
        validate("camera-status", composer.status(broken).encode(0.0, replayed=False))


def test_sequences_count_by_camera_and_kind(composer: Composer) -> None:
    def faces(camera: str) -> int:
        number: int = json.loads(composer.faces(result(camera=camera)).encode(0, False))["seq"]
        return number

    assert [faces("door"), faces("door"), faces("yard"), faces("door")] == [1, 2, 1, 3]
    assert [json.loads(composer.event(event()).encode(0, False))["seq"] for _ in range(2)] == [1, 2]
    assert faces("door") == 4
    assert json.loads(Composer("n", 2).faces(result()).encode(0, False))["seq"] == 1


@pytest.mark.parametrize("replayed", [True, False])
def test_an_encoded_message_says_how_old_it_is(composer: Composer, replayed: bool) -> None:
    message = composer.event(event())
    document = validate("events", message.encode(1012.34567, replayed))
    assert document["age_ms"] == 12345.7
    assert document["replayed"] is replayed
    # Encoding changes nothing: a message may be sent again.
    assert validate("events", message.encode(1000.0, replayed))["age_ms"] == 0.0
    assert validate("events", message.encode(900.0, replayed))["age_ms"] == 0.0


def test_numbers_are_short(composer: Composer) -> None:
    text = composer.faces(result(face(), face(None))).encode(1000.123456, False).decode()
    document = json.loads(text, parse_float=str)

    def decimals(value: Any) -> int:
        if isinstance(value, list):
            return max((decimals(item) for item in value), default=0)
        assert "e" not in str(value)
        return len(str(value).partition(".")[2])

    for shown in document["faces"]:
        for key in ("box", "landmarks_5", "landmarks_106"):
            assert decimals(shown[key]) <= 1, key
        assert decimals([shown["confidence"], shown["quality"]]) <= 3
        for attribute in shown["attributes"].values():
            value = attribute["value"]
            assert decimals(list(value.values()) if isinstance(value, dict) else [] if value.isalpha() else value) <= 3
            assert decimals(attribute["confidence"]) <= 3
    assert document["faces"][0]["box"] == ["10.0", "20.1", "111.0", "140.6"]
    assert decimals([document["age_ms"], *document["timing_ms"].values()]) <= 1


def test_attributes_are_told_as_the_schema_has_them(composer: Composer) -> None:
    document = validate("faces", composer.faces(result(face())).encode(1000.0, False))
    attributes = document["faces"][0]["attributes"]
    assert attributes["age"] == {"value": 33.3, "deviation": 6.1, "confidence": 0.781, "age_ms": 0}
    assert attributes["gender"] == {"value": "female", "confidence": 0.667, "age_ms": 0}
    assert attributes["emotion"]["probabilities"] == {"calm": 0.1, "happy": 0.2, "sad": 0.7}
    assert attributes["head_pose"]["value"] == {"yaw": -12.3, "pitch": 0.3, "roll": 0.0}
    assert attributes["charm"]["value"] == 0.123


def test_a_face_of_a_single_picture_has_no_track() -> None:
    assert "track_id" not in face_document(face(None), tracked=False)
    assert face_document(face(None))["track_id"] is None


def test_a_face_that_lies_partly_outside_is_valid(composer: Composer) -> None:
    outside = Face(Shot(1.7e9, np.array([0, 0, 5, 5], np.float32), np.full((5, 2), -12.34, np.float32), 1.0, 0.0), 1)
    document = validate("faces", composer.faces(result(outside)).encode(1000.0, False))
    assert document["faces"][0]["landmarks_5"][0] == [-12.3, -12.3]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000.9996, "2023-11-14T22:13:20.999Z"),
        (1_767_225_599.5, "2025-12-31T23:59:59.500Z"),
    ],
)
def test_timestamps_are_utc_with_milliseconds(seconds: float, text: str) -> None:
    assert timestamp(seconds) == text
