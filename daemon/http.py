"""The HTTP API: single pictures, the cameras' state, health and metrics."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any, Literal, Protocol

import orjson
from fastapi import FastAPI, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from visaged.daemon.problems import Problem, install, responses
from visaged.daemon.settings import HttpSettings
from visaged.models.manifest import Head
from visaged.pipelines.batcher import Batcher, Overloaded
from visaged.pipelines.inference import InferenceFailed
from visaged.pipelines.messages import face_document
from visaged.pipelines.metrics import Metrics
from visaged.pipelines.pictures import PictureError, decode, submit
from visaged.pipelines.schemas import schema

# A client that sends nothing for this long is gone.
_BODY_SILENCE_S = 20.0

_STATUS = {
    "empty": HTTPStatus.BAD_REQUEST,
    "unsupported": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "damaged": HTTPStatus.UNPROCESSABLE_ENTITY,
}


class View(Protocol):
    """What the API shows of the daemon."""

    def cameras(self) -> list[dict[str, Any]]:
        """Return every camera's state."""
        ...

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Return whether every part is alive, and the parts."""
        ...

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Return whether work can be done, and why not."""
        ...


class Pictures:
    """Single pictures through the same callers as the cameras'.

    Args:
        settings: Limits.
        batcher: Where pictures queue.
        heads: The attributes that can be read.
        enabled: Those that are switched on.
        long_side: Of the detector's canvas.
        multiple_of: What its sides must divide by.
        threshold: The detector's own confidence threshold.
        metrics: Counts them.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        settings: HttpSettings,
        batcher: Batcher,
        heads: Mapping[str, Head],
        enabled: frozenset[str],
        long_side: int,
        multiple_of: int,
        threshold: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._batcher = batcher
        self._points = {name for name, head in heads.items() if head.kind == "points"}
        self.attributes = frozenset(enabled - self._points)
        self._long_side = long_side
        self._multiple_of = multiple_of
        self.threshold = threshold
        self._metrics = metrics
        self._clock = clock
        self._in_work = 0

    async def faces(
        self, request: Request, min_confidence: float, points: bool, attributes: frozenset[str]
    ) -> dict[str, Any]:
        """Return the answer for the picture in a request; raises `Problem`."""
        began_s = self._clock()
        outcome = "failed"
        if self._in_work >= self._settings.max_waiting:
            self._metrics.pictures.labels("refused").inc()
            raise _overloaded()
        self._in_work += 1
        try:
            data = await self._body(request)
            began_s = self._clock()
            document = await self._analyse(data, min_confidence, points, attributes)
            outcome = "answered"
            return document
        except PictureError as error:
            outcome = "refused"
            raise Problem(_STATUS[error.reason], f"picture-{error.reason.replace('_', '-')}", str(error)) from None
        except Problem as problem:
            outcome = "refused" if problem.status < HTTPStatus.INTERNAL_SERVER_ERROR else "failed"
            raise
        except (Overloaded, TimeoutError):
            outcome = "refused"
            raise _overloaded() from None
        except InferenceFailed as error:
            raise Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "inference-failed", str(error)) from None
        finally:
            self._in_work -= 1
            self._metrics.pictures.labels(outcome).inc()
            self._metrics.picture_seconds.observe(self._clock() - began_s)

    async def _analyse(
        self, data: bytes, min_confidence: float, points: bool, attributes: frozenset[str]
    ) -> dict[str, Any]:
        image = await run_in_threadpool(decode, data, int(self._settings.max_megapixels * 1e6))
        wanted = attributes | (frozenset(self._points) if points else frozenset())
        future = await run_in_threadpool(
            submit,
            self._batcher,
            image,
            self._long_side,
            self._multiple_of,
            wanted,
            min_confidence,
            self._settings.deadline_s,
        )
        faces = await asyncio.wait_for(asyncio.wrap_future(future), self._settings.deadline_s)
        height, width = image.shape[:2]
        return {
            "image": {"width": width, "height": height},
            "faces": [face_document(face, tracked=False) for face in faces],
        }

    async def _body(self, request: Request) -> bytes:
        most = int(self._settings.max_body_mb * 1e6)
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > most:
            raise self._too_long()
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data":
            return await self._multipart(request, most)
        return b"".join([chunk async for chunk in self._chunks(request, most)])

    async def _chunks(self, request: Request, most: int) -> AsyncGenerator[bytes, None]:
        received = 0
        stream = aiter(request.stream())
        while True:
            try:
                chunk = await asyncio.wait_for(anext(stream), _BODY_SILENCE_S)
            except StopAsyncIteration:
                return
            except TimeoutError:
                detail = f"nothing came for {_BODY_SILENCE_S:.0f} s; send the picture in one go"
                raise Problem(HTTPStatus.REQUEST_TIMEOUT, "slow-body", detail, {"Connection": "close"}) from None
            received += len(chunk)
            if received > most:
                raise self._too_long()
            yield chunk

    async def _multipart(self, request: Request, most: int) -> bytes:
        parser = MultiPartParser(request.headers, self._chunks(request, most + 65536), max_files=1, max_fields=10)
        parser.spool_max_size = most + 1  # pictures stay in memory: none is to be left on a disk
        try:
            form = await parser.parse()
        except (MultiPartException, KeyError, ValueError) as error:
            text = getattr(error, "message", None) or "it has no boundary"
            raise Problem(HTTPStatus.BAD_REQUEST, "bad-multipart", f"the multipart body is wrong: {text}") from None
        try:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            if not files:
                raise Problem(
                    HTTPStatus.BAD_REQUEST, "bad-multipart", "the form has no file; send the picture as a file field"
                )
            data = await files[0].read()
        finally:
            await form.close()
        if len(data) > most:
            raise self._too_long()
        return data

    def _too_long(self) -> Problem:
        return Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "body-too-large",
            f"the body is larger than {self._settings.max_body_mb:g} MB (http.max_body_mb)",
            {"Connection": "close"},
        )


def _overloaded() -> Problem:
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", "too many pictures are waiting; try again", {"Retry-After": "1"}
    )


def create_app(view: View, pictures: Pictures, metrics: Metrics, version: str) -> FastAPI:
    """Return the application.

    Args:
        view: What it shows.
        pictures: Analyses pictures.
        metrics: Exported at `/metrics`.
        version: Of the daemon.
    """
    app = FastAPI(
        title="visaged",
        version=version,
        summary="Faces and their attributes, on your own machine.",
        docs_url="/docs",
        redoc_url=None,
    )
    install(app)

    @app.post(
        "/v1/faces",
        tags=["pictures"],
        summary="Find and read the faces of a picture",
        response_class=Response,
        responses={
            200: {"description": "The faces, best first.", "content": {"application/json": {"schema": _ANSWER}}},
            **responses(
                HTTPStatus.BAD_REQUEST,
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
        min_confidence: Annotated[float, Query(ge=0.2, le=1, description="Of the faces wanted.")] = pictures.threshold,
        landmarks: Annotated[
            Literal["5", "106"], Query(description="Five points a face, or the 106 of the analyzer beside them.")
        ] = "5",
        attributes: Annotated[
            str | None, Query(description="Names, separated by commas; empty for none. All that are on by default.")
        ] = None,
    ) -> Response:
        document = await pictures.faces(
            request, min_confidence, landmarks == "106", _chosen(attributes, pictures.attributes)
        )
        return _json(document)

    @app.get("/v1/cameras", tags=["cameras"], summary="The cameras and their state", response_class=Response)
    async def cameras() -> Response:
        return _json({"cameras": view.cameras()})

    @app.get("/healthz", tags=["health"], summary="Whether every part of the process is alive", response_class=Response)
    async def healthz() -> Response:
        return _verdict(*view.health())

    @app.get("/readyz", tags=["health"], summary="Whether work can be done", response_class=Response)
    async def readyz() -> Response:
        return _verdict(*view.readiness())

    @app.get("/metrics", tags=["health"], summary="Prometheus metrics", response_class=Response)
    def exported() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _chosen(names: str | None, known: frozenset[str]) -> frozenset[str]:
    if names is None:
        return known
    chosen = frozenset(re.split(r"\s*,\s*", names.strip())) - {""}
    if chosen - known:
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            "invalid-parameter",
            f"attributes: {', '.join(sorted(chosen - known))} cannot be had; there are {', '.join(sorted(known))}",
        )
    return chosen


def _json(document: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json")


def _verdict(good: bool, document: dict[str, Any]) -> Response:
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
            "description": "Upright, after the EXIF orientation.",
            "type": "object",
            "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}},
            "required": ["width", "height"],
        },
        "faces": {"type": "array", "items": _face_schema()},
    },
    "required": ["image", "faces"],
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
