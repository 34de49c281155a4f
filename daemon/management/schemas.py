"""OpenAPI schemas of the requests and answers about cameras."""

from __future__ import annotations

from typing import Any

from visaged.daemon.api.states import STATE
from visaged.daemon.settings import CameraSettings


def _camera_schema() -> dict[str, Any]:
    """Return the JSON Schema of a camera's configuration without `$defs`, which OpenAPI has no place for."""
    document = CameraSettings.model_json_schema()
    parts = document.pop("$defs", {})
    inlined: dict[str, Any] = _inlined(document, parts)
    return inlined


def _inlined(node: Any, parts: dict[str, Any]) -> Any:
    """Return a schema with the parts that it refers to in place of the references."""
    if isinstance(node, list):
        return [_inlined(item, parts) for item in node]
    if not isinstance(node, dict):
        return node
    beside = {key: _inlined(value, parts) for key, value in node.items() if key != "$ref"}
    if "$ref" not in node:
        return beside
    return _inlined(parts[node["$ref"].rpartition("/")[2]], parts) | beside


def _patch_schema(camera: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of a merge patch for a camera: nothing is required, and null removes a key."""
    properties = {}
    for name, value in camera["properties"].items():
        if name != "name":
            kept = {key: part for key, part in value.items() if key in ("description", "title")}
            own = {key: part for key, part in value.items() if key not in ("description", "title", "default")}
            properties[name] = kept | {"anyOf": [own, {"type": "null"}]}
    return {"type": "object", "properties": properties, "additionalProperties": False}


_NAMES = {"type": "array", "items": {"type": "string"}}
_SETTINGS = _camera_schema()

RELOADED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "cameras": {
            "type": "object",
            "description": "Names of the cameras that were added, replaced, removed and kept.",
            "properties": dict.fromkeys(("added", "replaced", "removed", "kept"), _NAMES),
            "required": ["added", "replaced", "removed", "kept"],
        },
        "needs_restart": _NAMES
        | {"description": "Paths of the keys with a new value that takes effect with the next start."},
    },
    "required": ["cameras", "needs_restart"],
    "example": {
        "cameras": {"added": ["yard"], "replaced": ["entrance"], "removed": [], "kept": ["archive"]},
        "needs_restart": ["http.port"],
    },
}
"""The answer to a reload."""

ADD: dict[str, Any] = {
    "schema": _SETTINGS,
    "example": {
        "name": "yard",
        "url": "rtsp://192.0.2.11/stream2",
        "username": "viewer",
        "password_env": "YARD_PASSWORD",
        "fps": 5,
    },
}
"""The body that adds a camera."""

CHANGE: dict[str, Any] = {"schema": _patch_schema(_SETTINGS), "example": {"fps": 2, "attributes": {"emotion": False}}}
"""The body that changes a camera."""

CAMERA: dict[str, Any] = {
    "type": "object",
    "properties": STATE["properties"]
    | {
        "settings": {
            "type": "object",
            "description": "Configuration of the camera; *** stands for what is, or may be, secret.",
        },
        "kept": {"type": "boolean", "description": "Whether the camera will be the same after a restart."},
    },
    "required": [*STATE["required"], "settings", "kept"],
}
"""A camera in answers: its state and its configuration."""
