"""Results as the pipeline makes them, without cameras, and the schemas that their messages are held against."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.support.subscriber import Message
from visaged.models.preprocess import canvas_for
from visaged.models.surface import ImageSurface
from visaged.pipelines.presentation import Presentation
from visaged.pipelines.records import CameraStatus, EndReason, EventKind, Face, Frame, FrameResult, Shot, TrackEvent
from visaged.pipelines.schemas import schema

NAMES = ("face", "faces", "events", "node-status", "camera-status", "presence")

_CANVAS = canvas_for(64, 36, 32)
_IMAGE = np.zeros((36, 64, 3), np.uint8)


@functools.cache
def _validators() -> dict[str, Draft202012Validator]:
    schemas = {name: schema(name) for name in NAMES}
    registry: Any = Registry().with_resources([(s["$id"], Resource.from_contents(s)) for s in schemas.values()])
    return {f"visaged.{name}/1": Draft202012Validator(s, registry=registry) for name, s in schemas.items()}


def valid(message: Message) -> Any:
    """Returns the message's JSON; fails when it is not what its schema says, or lies in the wrong topic."""
    document = message.json()
    _validators()[document["schema"]].validate(document)
    kind = {"node-status": "status", "camera-status": "status"}
    name = document["schema"].removeprefix("visaged.").removesuffix("/1")
    who = document.get("camera", document["node"])
    assert message.topic.endswith(f"{who}/{kind.get(name, name)}")
    return document


def shot(x: float = 10.0) -> Shot:
    """A look at a face."""
    box = np.array([x, 5, x + 8, 15], np.float32)
    return Shot(time.time(), box, np.tile(box[:2] + 2, (5, 1)), 0.9, 0.5)


def event(
    track: int = 1, camera: str = "door", kind: EventKind = "begin", reason: EndReason | None = None
) -> TrackEvent:
    """Something worth telling about a track."""
    look = shot()
    return TrackEvent(camera, kind, Face(look, track), look, time.time(), 1.5, 3, time.monotonic(), reason)


def result(
    camera: str = "door", faces: int = 1, events: Sequence[TrackEvent] = (), *, has_points: bool = False
) -> FrameResult:
    """What a frame of 64x36 pixels showed; with points, a face's message has about 2 kB."""
    now_s = time.monotonic()
    points = np.random.default_rng(0).uniform(0, 1000, (106, 2)).astype(np.float32) if has_points else None
    frame = Frame(
        camera, 1, _CANVAS, _IMAGE, ImageSurface(_IMAGE), Presentation(64, 36), now_s - 0.05, now_s - 0.05, time.time(),
        "arrival", now_s - 0.04, now_s - 0.03, 1.0, lambda: None,
    )  # fmt: skip
    seen = [Face(shot(float(n)), n + 1, landmarks_106=points) for n in range(faces)]
    return FrameResult(frame, seen, list(events), now_s - 0.02, now_s - 0.01)


def status(camera: str = "door", state: Literal["streaming", "waiting"] = "streaming", error: str = "") -> CameraStatus:
    """A camera's status."""
    return CameraStatus(camera, state, time.time(), "rtsp://camera/stream", "h264", 64, 36, 0, error)
