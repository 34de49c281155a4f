"""The HTTP API: single pictures, the cameras' state, health and metrics."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal, Protocol

import orjson
from fastapi import FastAPI, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from visaged.daemon.api.docs import install_docs
from visaged.daemon.api.node import install_node
from visaged.daemon.api.page import install_page
from visaged.daemon.api.pictures import Pictures
from visaged.daemon.api.states import STATE
from visaged.daemon.http.access import is_unknown
from visaged.daemon.http.head import HeadAsGet
from visaged.daemon.http.problems import Problem, install, responses
from visaged.daemon.http.uploads import read_picture
from visaged.pipelines.images.job import PictureQuery
from visaged.pipelines.outputs.documents import face_document
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.schemas import schema

_ATTRIBUTES = (
    "Names of the attributes to read, separated by commas; empty for none. Left out: all that are switched on. "
    "An attribute whose confidence is below its min_confidence in the configuration is left out of the answer."
)


class DaemonView(Protocol):
    """State of the daemon that the API shows."""

    def cameras(self) -> list[dict[str, Any]]:
        """Return the state of every camera."""
        ...

    def node(self) -> dict[str, Any]:
        """Return what this daemon is, and what it is set to; see `visaged.daemon.api.node`."""
        ...

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Return whether every part is alive, and a document that names one that died."""
        ...

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the daemon is ready, and a document with the states of its parts."""
        ...


def create_app(view: DaemonView, pictures: Pictures, metrics: Metrics, version: str, with_keys: bool) -> FastAPI:
    """Return the application.

    Args:
        view: State of the daemon.
        pictures: Analyses pictures.
        metrics: Exported at `/metrics`.
        version: Version of the daemon.
        with_keys: Whether requests need an API key.
    """
    app = FastAPI(
        title="visaged",
        version=version,
        summary="Faces and their attributes, on your own machine.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the redirect would lead to whatever host the request names
    )
    install(app)
    install_docs(app, with_keys)
    install_page(app)
    install_node(app, view)
    app.add_middleware(HeadAsGet)

    # Not an annotation, because the text depends on `pictures`.
    least: float | None = Query(
        None,
        ge=0,
        le=1,
        description="Smallest confidence of a face in the answer. Left out: inference.min_confidence of the "
        "configuration, or else the detector's own threshold. This server's detector reports nothing below "
        f"{pictures.floor:g} (tracker.low_confidence in the configuration), so smaller values count as that.",
    )

    @app.post(
        "/v1/faces",
        tags=["pictures"],
        summary="Find and read the faces of a picture",
        response_class=Response,
        responses={
            200: {"description": "Faces, most confident first.", "content": {"application/json": {"schema": _ANSWER}}},
            **responses(
                HTTPStatus.BAD_REQUEST,
                HTTPStatus.FORBIDDEN,
                HTTPStatus.REQUEST_TIMEOUT,
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                HTTPStatus.UNPROCESSABLE_ENTITY,
                HTTPStatus.INTERNAL_SERVER_ERROR,
                HTTPStatus.SERVICE_UNAVAILABLE,
            ),
        },
        openapi_extra={"requestBody": _REQUEST_BODY},
    )
    async def faces(
        request: Request,
        min_confidence: float | None = least,
        landmarks: Annotated[
            Literal["5", "106"],
            Query(description="5 for five points per face; 106 for the analyzer's 106 points as well."),
        ] = "5",
        attributes: Annotated[str | None, Query(description=_ATTRIBUTES)] = None,
    ) -> Response:
        if landmarks == "106" and not pictures.points:
            detail = "landmarks: 106 cannot be had: there is no analyzer for them, or they are switched off"
            raise Problem(HTTPStatus.BAD_REQUEST, "invalid-parameter", detail)
        wanted = _chosen(attributes, pictures.attributes)
        confidence = pictures.threshold if min_confidence is None else min_confidence
        query = PictureQuery(confidence, wanted | (pictures.points if landmarks == "106" else frozenset()))
        async with pictures.request() as upload:
            result = await pictures.analyse(await read_picture(request, pictures.most_bytes, upload), query)
        return _json(
            {
                "image": {"width": result.width, "height": result.height},
                "faces": [face_document(face, tracked=False) for face in result.faces],
            }
        )

    @app.get(
        "/v1/cameras",
        tags=["cameras"],
        summary="The cameras and their state",
        response_class=Response,
        responses={200: {"description": "All cameras.", "content": {"application/json": {"schema": _CAMERAS}}}},
    )
    async def cameras() -> Response:
        return _json({"cameras": view.cameras()})

    @app.get("/healthz", tags=["health"], summary="Whether every part of the process is alive", response_class=Response)
    async def healthz(request: Request) -> Response:
        return _verdict(request, *view.health())

    @app.get("/readyz", tags=["health"], summary="Whether work can be done", response_class=Response)
    async def readyz(request: Request) -> Response:
        return _verdict(request, *view.readiness())

    @app.get("/metrics", tags=["health"], summary="Prometheus metrics", response_class=Response)
    def exported() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _chosen(names: str | None, known: frozenset[str]) -> frozenset[str]:
    if names is None:
        return known
    chosen = frozenset(name.strip() for name in names.split(",")) - {""}
    if chosen - known:
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            "invalid-parameter",
            f"attributes: {', '.join(sorted(chosen - known))} cannot be had; there are {', '.join(sorted(known))}",
        )
    return chosen


def _json(document: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json")


def _verdict(request: Request, good: bool, document: dict[str, Any]) -> Response:
    if is_unknown(request):  # without a key, the answer must not name cameras or the broker
        document = {"status": document["status"]}
    return _json(document, HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE)


def _face_schema() -> dict[str, Any]:
    """Return the schema of a face of a single picture, self-contained for the OpenAPI document."""
    definitions = schema("face")["$defs"]

    def resolved(node: Any) -> Any:
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str):
                rest = {key: value for key, value in node.items() if key != "$ref"}
                return resolved(definitions[reference.rpartition("/")[2]]) | rest
            return {key: resolved(value) for key, value in node.items()}
        if isinstance(node, list):
            return [resolved(item) for item in node]
        return node

    shot, face = resolved(definitions["shot"]), resolved(definitions["face"])
    del face["properties"]["track_id"]
    return {
        "type": "object",
        "properties": shot["properties"] | face["properties"],
        "required": [*shot["required"], "attributes"],
        "additionalProperties": False,
    }


_ANSWER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "image": {
            "description": "Size in pixels of the picture, turned upright by its EXIF orientation.",
            "type": "object",
            "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}},
            "required": ["width", "height"],
        },
        "faces": {"type": "array", "items": _face_schema()},
    },
    "required": ["image", "faces"],
}

_CAMERAS: dict[str, Any] = {
    "type": "object",
    "properties": {"cameras": {"type": "array", "items": STATE}},
    "required": ["cameras"],
}

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "The bytes of a JPEG, PNG, BMP or WebP picture, as they are or as a file of a form.",
    "content": {
        **{f"image/{kind}": _BINARY for kind in ("jpeg", "png", "bmp", "webp")},
        "application/octet-stream": _BINARY,
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
        },
    },
}
