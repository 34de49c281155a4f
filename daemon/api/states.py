"""OpenAPI schema of a camera's state in answers."""

from __future__ import annotations

from typing import Any

from visaged.pipelines.records import CAMERA_STATES

_TIME = {"type": "string", "format": "date-time"}


def _or_null(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}], "description": description}


_STATE: dict[str, Any] = {
    "camera": {"type": "string"},
    "state": {"type": "string", "enum": list(CAMERA_STATES)},
    "since": _TIME | {"description": "When it came into this state."},
    "source": {"type": "string", "description": "URL without login and other secrets."},
    "codec": _or_null({"type": "string"}, "Null before the first frame."),
    "width": _or_null({"type": "integer"}, "Pixels across as stored, upright; null before the first frame."),
    "height": _or_null({"type": "integer"}, "Pixels down as stored, upright; null before the first frame."),
    "reconnects": {"type": "integer", "description": "How often it was opened again."},
    "error": _or_null({"type": "string"}, "Why it gives no pictures; null while it does."),
    "cause": _or_null({"type": "string"}, "A word for the error."),
    "tracks": {"type": "integer", "description": "Number of faces that are tracked now."},
    "fps": _or_null({"type": "number"}, "Frames a second that are analysed at most now; null for every frame."),
    "reduced": _or_null(
        {"type": "string", "enum": ["idle", "overload"]},
        "Why less is analysed than configured: nobody is there, or there is more to do than the machine can.",
    ),
    "analysed_fps": {"type": "number", "description": "Frames a second that were analysed in the last 10 s."},
    "age_ms": _or_null({"type": "number"}, "Age of the newest frame when it was analysed; null before the first."),
    "last_face_at": _or_null(_TIME, "When a face was last seen since the start; null if none was."),
    "next_try_at": _or_null(_TIME, "When it is tried again; null unless it waits for that."),
    "trouble_since": _or_null(_TIME, "Since when it has given no pictures, over all tries; null while it does."),
}

STATE: dict[str, Any] = {"type": "object", "properties": _STATE, "required": list(_STATE)}
"""The state of a camera in answers."""
