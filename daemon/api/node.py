"""`GET /v1/node`: what this daemon is, and what it is set to."""

from __future__ import annotations

from typing import Any, Protocol

import orjson
from fastapi import FastAPI, Response

_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}


class NodeView(Protocol):
    """State of the daemon that the API shows."""

    def node(self) -> dict[str, Any]:
        """Return the node, as `SCHEMA` says."""
        ...


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


SCHEMA: dict[str, Any] = _object(
    node={"description": "The node's name, as in topics.", **_TEXT},
    fleet={
        "description": "How it stands in its fleet, as /readyz says; null without one. /v1/fleet tells of the fleet.",
        "type": ["object", "null"],
    },
    version={"description": "Version of visaged.", **_TEXT},
    epoch={"description": "Number of this run, as in messages; larger than those of earlier runs.", "type": "integer"},
    started_at={"description": "When this run began.", "type": "string", "format": "date-time"},
    mqtt=_object(
        broker={"description": "Host and port of the broker.", **_TEXT},
        prefix={"description": "The first part of all topics.", **_TEXT},
        connected={"type": "boolean"},
        error={"description": "Why the broker cannot be reached; null while it can.", **_TEXT_OR_NULL},
    ),
    networks=_object(
        detector=_TEXT,
        analyzer={"description": "Null: faces have no attributes.", **_TEXT_OR_NULL},
        provider={"description": "What the networks run on.", **_TEXT},
    ),
    history=_object(
        keep_hours={"description": "Hours for which events are kept; 0 for none.", "type": "number"},
        pictures={"description": "Whether a picture of each face's best look is kept.", "type": "boolean"},
    ),
    privacy=_object(blur_faces={"description": "Whether faces are blurred in every picture.", "type": "boolean"}),
)


def install_node(app: FastAPI, view: NodeView) -> None:
    """Add the path `/v1/node` to an application.

    Args:
        app: The application.
        view: State of the daemon.
    """

    @app.get(
        "/v1/node",
        tags=["node"],
        summary="The daemon: its name and version, its broker, its networks, and what it keeps and shows",
        response_class=Response,
        responses={200: {"description": "The node.", "content": {"application/json": {"schema": SCHEMA}}}},
    )
    async def node() -> Response:
        return Response(orjson.dumps(view.node()), media_type="application/json")
