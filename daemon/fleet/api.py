"""`GET /v1/fleet`: the fleet of this node, for people; `GET /v1/fleet/targets`: its nodes, for Prometheus."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlsplit

import orjson
from fastapi import FastAPI, Query, Response

from visaged.daemon.fleet.records import FleetSummary, FleetView, NodeView
from visaged.daemon.fleet.sight import FleetSight, Seen
from visaged.daemon.http.problems import Problem, responses

MOST_CAMERAS = 1_000_000
_RETRY_S = 5
_WITHOUT_PICTURES = ("", "connecting", "waiting")

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_COUNT = {"type": "integer"}
_FLAG = {"type": "boolean"}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _or_null(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}], "description": description}


def _list(items: dict[str, Any], description: str) -> dict[str, Any]:
    return {"type": "array", "items": items, "description": description}


_NODE = _object(
    name=_TEXT,
    site=_or_null(_TEXT, "Null without one."),
    state={
        **_TEXT,
        "description": "starting, up, draining, drained, leaving, away, absent (it never joined) or refused.",
    },
    capacity={**_NUMBER, "description": "Cameras of weight 1 that it is to carry."},
    used={**_NUMBER, "description": "Weight of the cameras that have their place there."},
    cameras={**_COUNT, "description": "Cameras that it holds."},
    url=_or_null(_TEXT, "Its own page and API; null if it has none."),
    version=_or_null(_TEXT, "Its version of visaged; null if not known."),
    seen_s=_or_null(_NUMBER, "Seconds since it was heard of, when the view was made; null if it never was."),
    why=_or_null(_TEXT, "What is wrong with it; null if nothing."),
)
_CAMERA = _object(
    name=_TEXT,
    node={**_TEXT, "description": "The node that has it."},
    epoch={**_COUNT, "description": "That of its messages; 0 while it is not held yet."},
    state=_or_null(_TEXT, "As in /v1/cameras of that node; null before it said so."),
    active={**_FLAG, "description": "Whether the node publishes."},
    warm=_or_null(_TEXT, "The node that takes it over soon and streams it already; null if it does not move."),
)
SCHEMA = _object(
    fleet={**_TEXT, "description": "Name of the fleet."},
    version={**_TEXT, "description": "Version of the coordinator."},
    age_s={**_NUMBER, "description": "Seconds since this view was got."},
    error=_or_null(_TEXT, "Why there is no newer view; null if it is fresh."),
    coordinator=_object(
        run={**_COUNT, "description": "Number of its run; it only grows."},
        running_s={**_NUMBER, "description": "Seconds since that began."},
        problem=_or_null(_TEXT, "What keeps it from working; null if nothing."),
    ),
    lease_s={**_NUMBER, "description": "Seconds that a lease lasts."},
    summary=_object(**{name: _NUMBER if name.endswith("_s") else _COUNT for name in FleetSummary.__dataclass_fields__}),
    nodes=_list(_NODE, "All nodes, by name."),
    cameras=_list(_CAMERA, "The cameras that have a place and match: those without pictures first, then by name."),
    unplaced=_list(_object(name=_TEXT, why=_TEXT), "The cameras that match and found no place, by name, and why."),
    matching=_object(
        cameras={**_COUNT, "description": "How many with a place match, also beyond `limit`."},
        unplaced={**_COUNT, "description": "How many without one match, also beyond `limit`."},
    ),
)
_TARGETS = _list(
    _object(targets=_list(_TEXT, "Host and port."), labels={"type": "object", "additionalProperties": _TEXT}),
    "As Prometheus takes it (http_sd_configs).",
)


def install_fleet(app: FastAPI, sight: FleetSight | None) -> None:
    """Add the paths to an application.

    Args:
        app: The application.
        sight: Where views come from; None where the daemon is in no fleet.
    """

    async def seen() -> tuple[FleetView, Seen]:
        if sight is None:
            detail = "this daemon runs alone, in no fleet; `visaged fleet run` makes one of several machines"
            raise Problem(HTTPStatus.NOT_FOUND, "no-fleet", detail)
        found = await sight.newest()
        if found.view is None:
            detail = f"nothing is known of the fleet yet: {found.error or 'its coordinator has not answered'}"
            headers = {"Retry-After": str(_RETRY_S)}
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "fleet-unknown", detail, headers)
        return found.view, found

    errors = responses(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)

    @app.get(
        "/v1/fleet",
        tags=["fleet"],
        summary="The fleet that this daemon is a node of: its nodes and cameras, and which camera is where",
        response_class=Response,
        responses={200: {"description": "The fleet.", "content": {"application/json": {"schema": SCHEMA}}}, **errors},
    )
    async def fleet(
        match: Annotated[
            str, Query(max_length=200, description="Only cameras with this in their name, or in their node's.")
        ] = "",
        limit: Annotated[
            int, Query(ge=0, le=MOST_CAMERAS, description="Most cameras with a place, and without.")
        ] = MOST_CAMERAS,
    ) -> Response:
        view, found = await seen()
        return _json(document(view, found, match, limit))

    @app.get(
        "/v1/fleet/targets",
        tags=["fleet"],
        summary="The nodes of the fleet for Prometheus's http_sd_configs, with the labels node and site",
        response_class=Response,
        responses={200: {"description": "Targets.", "content": {"application/json": {"schema": _TARGETS}}}, **errors},
    )
    async def targets() -> Response:
        view, _ = await seen()
        return _json([_target(node) for node in view.nodes if node.url])


def document(view: FleetView, found: Seen, match: str = "", limit: int = MOST_CAMERAS) -> dict[str, Any]:
    """Return a view as `SCHEMA` says: of the cameras that match, up to `limit` with a place, and as many without."""
    wanted = match.casefold()
    unplaced = [one for one in view.unplaced if wanted in one.name.casefold()]
    cameras = [one for one in view.cameras if wanted in f"{one.name}\n{one.node}\n{one.warm}".casefold()]
    cameras.sort(key=lambda one: one.state not in _WITHOUT_PICTURES)  # stable: each half stays as it was, by name
    return {
        "fleet": view.fleet,
        "version": view.version,
        "age_s": round(found.age_s, 1),
        "error": found.error or None,
        "coordinator": {
            "run": view.coordinator,
            "running_s": round(view.age_s + found.age_s, 1),
            "problem": view.problem or None,
        },
        "lease_s": view.lease_s,
        "summary": view.summary,
        "nodes": [_node(node) for node in view.nodes],
        "cameras": [
            {
                "name": one.name,
                "node": one.node,
                "epoch": one.epoch,
                "state": one.state or None,
                "active": one.active,
                "warm": one.warm or None,
            }
            for one in cameras[:limit]
        ],
        "unplaced": [{"name": one.name, "why": one.why} for one in unplaced[:limit]],
        "matching": {"cameras": len(cameras), "unplaced": len(unplaced)},
    }


def _node(node: NodeView) -> dict[str, Any]:
    return {
        "name": node.name,
        "site": node.site or None,
        "state": node.state,
        "capacity": round(node.capacity, 2),
        "used": round(node.used, 2),
        "cameras": node.cameras,
        "url": node.url or None,
        "version": node.version or None,
        "seen_s": None if node.seen_s is None else round(node.seen_s, 1),
        "why": node.why or None,
    }


def _target(node: NodeView) -> dict[str, Any]:
    url = urlsplit(node.url)
    labels = {"node": node.name, "__scheme__": url.scheme or "http"}
    if node.site:
        labels["site"] = node.site
    return {"targets": [url.netloc], "labels": labels}


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
