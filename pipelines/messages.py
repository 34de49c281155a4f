"""The JSON that goes out. Its form is fixed by the schemas in `schemas/`, and tests hold every message against them.

A message is encoded once, when its content is known. Only two fields are not known until it is handed to the broker,
how old it is by then and whether it had to wait for the broker: `seal` puts them in front.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import orjson

from visaged.models.types import FloatArray
from visaged.pipelines.camera import CameraStatus
from visaged.pipelines.inference import FrameResult
from visaged.pipelines.presentation import Presentation
from visaged.pipelines.tracks import Face, Shot, TrackEvent

Kind = Literal["faces", "events"]


@dataclass(frozen=True, slots=True)
class Message:
    """A message on its way.

    Attributes:
        kind: What it tells.
        topic: Where to.
        body: The JSON object without the fields that `seal` adds.
        captured_s: Monotonic seconds of capture of what it tells.
    """

    kind: Kind
    topic: str
    body: bytes
    captured_s: float

    def seal(self, now_s: float, replayed: bool) -> bytes:
        """Return the JSON to send at monotonic `now_s`; `replayed` says that it had to wait for the broker."""
        age_ms = max(0.0, (now_s - self.captured_s) * 1000)
        head = f'{{"age_ms":{age_ms:.1f},"replayed":{"true" if replayed else "false"},'
        return head.encode() + self.body[1:]


def timestamp(seconds: float) -> str:
    """Return a wall clock time as RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Composer:
    """Makes the messages of one run of one node.

    Args:
        node: The node's name.
        epoch: Of this run: milliseconds since 1970 at its start, so that a later run's is larger.
        prefix: Of all topics.
    """

    def __init__(self, node: str, epoch: int, prefix: str) -> None:
        self.node = node
        self.epoch = epoch
        self._prefix = prefix
        self._sequences: dict[tuple[str, str], Iterator[int]] = {}

    @property
    def node_topic(self) -> str:
        """The topic of the node's status."""
        return f"{self._prefix}/{self.node}/status"

    def camera_topic(self, camera: str, what: str) -> str:
        """Return a topic of a camera: status, faces or events."""
        return f"{self._prefix}/{camera}/{what}"

    def faces(self, result: FrameResult) -> Message:
        """Return the message of an analysed frame."""
        frame = result.frame
        body = self._head("faces", frame.camera, frame.captured_at) | {
            "clock": frame.clock,
            "position_s": None if frame.position_s is None else round(frame.position_s, 3),
            "frame": _frame_document(frame.presentation),
            "timing_ms": {
                "decode": _milliseconds(frame.ready_s - frame.arrived_s),
                "queue": _milliseconds(result.started_s - frame.ready_s),
                "inference": _milliseconds(result.finished_s - result.started_s),
            },
            "faces": [face_document(face) for face in result.faces],
        }
        return self._message("faces", frame.camera, body, frame.captured_s)

    def event(self, event: TrackEvent) -> Message:
        """Return the message of a track's event."""
        track = event.face.track
        body = self._head("events", event.camera, event.face.shot.captured_at) | {
            "event": event.kind,
            "track_id": track,
            "started_at": timestamp(event.started_at),
            "duration_s": round(event.duration_s, 3),
            "frames": event.frames,
            "reason": event.reason,
            "face": face_document(event.face),
            "best_shot": {"captured_at": timestamp(event.best.captured_at)} | _shot_document(event.best),
        }
        return self._message("events", event.camera, body, event.captured_s)

    def node_status(self, state: Literal["online", "offline"], at: float, version: str, reason: str | None) -> bytes:
        """Return the retained status of the node; the last will is the same with state offline."""
        return orjson.dumps(
            {
                "schema": "visaged.node-status/1",
                "node": self.node,
                "epoch": self.epoch,
                "state": state,
                "since": timestamp(at),
                "version": version,
                "reason": reason,
            }
        )

    def camera_status(self, status: CameraStatus) -> bytes:
        """Return the retained status of a camera."""
        return orjson.dumps(
            {
                "schema": "visaged.camera-status/1",
                "node": self.node,
                "epoch": self.epoch,
            }
            | status_document(status)
        )

    def _head(self, kind: Kind, camera: str, captured_at: float) -> dict[str, Any]:
        sequence = self._sequences.setdefault((camera, kind), itertools.count(1))
        return {
            "schema": f"visaged.{kind}/1",
            "node": self.node,
            "epoch": self.epoch,
            "camera": camera,
            "seq": next(sequence),
            "captured_at": timestamp(captured_at),
        }

    def _message(self, kind: Kind, camera: str, body: dict[str, Any], captured_s: float) -> Message:
        encoded = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        return Message(kind, self.camera_topic(camera, kind), encoded, captured_s)


def status_document(status: CameraStatus) -> dict[str, Any]:
    """Return a camera's status as MQTT and HTTP give it."""
    return {
        "camera": status.camera,
        "state": status.state,
        "since": timestamp(status.since_at),
        "source": status.source,
        "codec": status.codec or None,
        "width": status.width or None,
        "height": status.height or None,
        "reconnects": status.reconnects,
        "error": status.error or None,
        "cause": status.cause or None,
    }


def face_document(face: Face, tracked: bool = True) -> dict[str, Any]:
    """Return a face as messages give it.

    Args:
        face: The face.
        tracked: Whether it comes from a camera; a single picture's faces have no `track_id`.
    """
    document: dict[str, Any] = {"track_id": face.track} if tracked else {}
    document |= _shot_document(face.shot)
    if face.landmarks_106 is not None:
        document["landmarks_106"] = _points(face.landmarks_106, face.shot.scale)
    document["attributes"] = dict(face.attributes)
    return document


def _shot_document(shot: Shot) -> dict[str, Any]:
    return {
        "box": list(itertools.chain(*_points(shot.box.reshape(2, 2), shot.scale))),
        "confidence": round(shot.confidence, 3),
        "landmarks_5": _points(shot.landmarks, shot.scale),
        "quality": round(shot.quality, 3),
    }


def _frame_document(shown: Presentation) -> dict[str, Any]:
    return {
        "width": shown.width,
        "height": shown.height,
        "rotation": shown.turn.rotation,
        "mirrored": shown.turn.mirrored,
        "pixel_aspect": round(shown.pixel_aspect, 4),
    }


def _points(points: FloatArray, scale: tuple[float, float]) -> list[list[float]]:
    """Return points (N, 2) in square pixels as published: in stored pixels."""
    # A tenth of a pixel is less than any detector knows; doubles, because a float32's tenth prints with ten digits.
    tenths: list[list[float]] = np.round(points.astype(np.float64) / scale, 1).tolist()
    return tenths


def _milliseconds(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 1)
