"""OpenAPI schemas of the answers about events."""

from __future__ import annotations

from typing import Any

from visaged.daemon.events.filters import KINDS
from visaged.pipelines.schemas import schema


def _resolved(node: Any, definitions: dict[str, Any]) -> Any:
    """Return a schema with the parts that it refers to in place of the references, which OpenAPI has no place for."""
    if isinstance(node, list):
        return [_resolved(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    beside = {key: _resolved(value, definitions) for key, value in node.items() if key != "$ref"}
    if "$ref" not in node:
        return beside
    return _resolved(definitions[node["$ref"].rpartition("/")[2]], definitions) | beside


def _event() -> dict[str, Any]:
    message = schema("events")
    properties = {
        "id": {"type": "string", "description": "EPOCH-NUMBER; grows from event to event, over restarts too."},
        "picture": {"type": "boolean", "description": "Whether `/v1/events/{id}/best.jpg` can be asked for."},
    }
    told = _resolved(message["properties"], schema("face")["$defs"])
    return {
        "type": "object",
        "properties": properties | told,
        "required": [*properties, *message["required"]],
    }


EVENT: dict[str, Any] = _event()
"""An event."""

EVENTS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "events": {"type": "array", "items": EVENT, "description": "Newest first, by capture time."},
        "next": {
            "type": ["string", "null"],
            "description": "What to give as `cursor` for the events before these; null if there are none.",
        },
    },
    "required": ["events", "next"],
}
"""A page of events."""

DELETED: dict[str, Any] = {
    "type": "object",
    "properties": {"deleted": {"type": "integer", "minimum": 0}},
    "required": ["deleted"],
}
"""How many events were deleted."""

_COUNTS = {"type": "object", "additionalProperties": {"type": "integer"}}
_TIME = {"type": "string", "format": "date-time"}

STATISTICS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "since": _TIME,
        "until": _TIME,
        "step_s": {"type": "integer"},
        "tracks": {
            "type": "array",
            "description": "For each step of the time, from `from` on, how many tracks began in it.",
            "items": {
                "type": "object",
                "properties": {"from": _TIME, "tracks": {"type": "integer"}},
                "required": ["from", "tracks"],
            },
        },
        "ages": {
            "type": "array",
            "description": "Age groups with tracks, in years: from `from`, below `to`.",
            "items": {
                "type": "object",
                "properties": {"from": {"type": "integer"}, "to": {"type": "integer"}, "tracks": {"type": "integer"}},
                "required": ["from", "to", "tracks"],
            },
        },
        "emotions": _COUNTS | {"description": "Number of tracks by label."},
        "genders": _COUNTS | {"description": "Number of tracks by label."},
    },
    "required": ["since", "until", "step_s", "tracks", "ages", "emotions", "genders"],
}
"""Numbers of tracks."""

STREAM_TEXT = f"""Server-Sent Events, for `EventSource` of browsers and others:

- `face`, with an id: an event ({", ".join(KINDS)}) as `GET /v1/events/{{id}}` has it;
- `camera`: a camera as in `GET /v1/cameras`, for each at the start, then when its state or number of tracks changes;
- `removed`: `{{"camera": NAME}}`, a camera that is no more;
- `gap`: some of the events since `Last-Event-ID` are gone, because their time is over, or they were deleted or lost.

`Last-Event-ID` brings all events after that one, oldest first, before those that come. A comment comes after 15 s
without anything else. Who takes less than what comes is disconnected, and can go on with `Last-Event-ID`."""
