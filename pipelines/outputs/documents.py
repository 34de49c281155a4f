"""The JSON forms of records, for MQTT and HTTP. All rounding is done here, and only here."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import numpy as np

from visaged.models.geometry import HeadPose
from visaged.models.types import FloatArray
from visaged.pipelines.presentation import Presentation
from visaged.pipelines.records import AttributeValue, CameraStatus, Face, FrameResult, Shot


def timestamp(seconds: float) -> str:
    """Return a wall clock time as RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def status_document(status: CameraStatus) -> dict[str, Any]:
    """Return the JSON form of a camera's status."""
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
    """Return the JSON form of a face.

    Args:
        face: The face.
        tracked: Whether the face comes from a camera; faces of single pictures have no `track_id`.
    """
    document: dict[str, Any] = {"track_id": face.track} if tracked else {}
    document |= shot_document(face.shot)
    if face.landmarks_106 is not None:
        document["landmarks_106"] = _points(face.landmarks_106, face.shot.scale)
    document["attributes"] = {name: attribute_document(value) for name, value in face.attributes.items()}
    return document


def attribute_document(attribute: AttributeValue) -> dict[str, Any]:
    """Return the JSON form of an attribute; probabilities of two labels are left out, as the confidence is enough."""
    document: dict[str, Any] = {"value": _value(attribute)}
    if attribute.deviation is not None:
        document["deviation"] = round(attribute.deviation, 1)
    document["confidence"] = round(attribute.confidence, 3)
    if attribute.probabilities is not None and len(attribute.probabilities) > 2:
        document["probabilities"] = {label: round(p, 3) for label, p in attribute.probabilities.items()}
    document["age_ms"] = round(attribute.age_s * 1000)
    return document


def _value(attribute: AttributeValue) -> Any:
    value = attribute.value
    if isinstance(value, HeadPose):
        return {name: round(angle, 1) for name, angle in value._asdict().items()}
    if isinstance(value, str):
        return value
    return round(value, 3 if attribute.is_score else 1)


def shot_document(shot: Shot) -> dict[str, Any]:
    """Return the JSON form of a shot, in stored pixels."""
    return {
        "box": list(itertools.chain(*_points(shot.box.reshape(2, 2), shot.scale))),
        "confidence": round(shot.confidence, 3),
        "landmarks_5": _points(shot.landmarks, shot.scale),
        "quality": round(shot.quality, 3),
    }


def frame_document(shown: Presentation) -> dict[str, Any]:
    """Return the JSON form of a frame's size and presentation."""
    return {
        "width": shown.width,
        "height": shown.height,
        "rotation": shown.turn.rotation,
        "mirrored": shown.turn.mirrored,
        "pixel_aspect": round(shown.pixel_aspect, 4),
    }


def result_document(result: FrameResult) -> dict[str, Any]:
    """Return the JSON form of an analysed frame, without what identifies it as a message."""
    frame = result.frame
    return {
        "clock": frame.clock,
        "position_s": None if frame.position_s is None else round(frame.position_s, 3),
        "frame": frame_document(frame.presentation),
        "timing_ms": {
            "decode": milliseconds(frame.ready_s - frame.arrived_s),
            "queue": milliseconds(result.started_s - frame.ready_s),
            "inference": milliseconds(result.finished_s - result.started_s),
        },
        "faces": [face_document(face) for face in result.faces],
    }


def _points(points: FloatArray, scale: tuple[float, float]) -> list[list[float]]:
    """Return points, (N, 2) in square pixels, as lists in stored pixels."""
    # No detector is exact to a tenth of a pixel. Doubles, because a tenth as a float32 prints with ten digits.
    tenths: list[list[float]] = np.round(points.astype(np.float64) / scale, 1).tolist()
    return tenths


def milliseconds(seconds: float) -> float:
    """Return a time span in milliseconds, not negative, rounded to tenths."""
    return round(max(0.0, seconds) * 1000, 1)
