"""A drop-in for the face detection of the AWS AI Solution Kit: `POST /face_detection`.

The kit's document writes `face_detection`, its stack deploys `face-detection`, and API Gateway puts a stage in front
(`/prod/face-detection`): all of them are answered, with and without a trailing slash, and without redirects, which
many clients do not follow with a POST. The request's Content-Type is ignored, as the kit ignored it.

Errors are the kit's, status 400 and bare text, byte for byte, wherever the kit had the same cause. Causes that it never
had (limits, overload, fetching switched off) have a text of their own, after the kit's where that fits. The header
`X-Visaged-Problem` names the precise cause of every error, and a request that accepts `application/problem+json` gets
RFC 9457 problem details with a status for each cause.

The kit ignored the EXIF orientation, so its clients expect boxes in the picture as it is stored; see
`KitSettings.upright`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import quote

import orjson
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from visaged.daemon.api.aws_kit import request as kit_request
from visaged.daemon.api.aws_kit.answer import ATTRIBUTES, SCHEMA, answer_document
from visaged.daemon.api.aws_kit.request import KitInput, given_picture
from visaged.daemon.api.aws_kit.settings import KIT_PATH, KitSettings
from visaged.daemon.api.pictures import Pictures
from visaged.daemon.fetch.errors import FetchError, Reason
from visaged.daemon.http import problems
from visaged.daemon.http.access import KeyGuard, refuse_session
from visaged.daemon.http.browsers.guard import PageGuard, allow_page
from visaged.daemon.http.problems import Problem
from visaged.daemon.http.sessions.sessions import Sessions
from visaged.daemon.http.settings import HttpSettings
from visaged.daemon.http.uploads import read_body
from visaged.daemon.http.wire.memory import Upload
from visaged.pipelines.images.job import PictureQuery
from visaged.pipelines.runtime.metrics import Metrics

log = logging.getLogger(__name__)

_NAMES = ("face_detection", "face-detection")

# Larger bodies are parsed in a thread: 20 MB take 150 ms, during which no other request would be answered.
_QUICK_BYTES = 100_000
# Room in a body for the JSON around the picture, and line breaks in the base64.
_SPARE_BYTES = 65_536

_INVALID = "invalid param"
_BOTH = "`url` and `img` cannot be used at the same time"
_ILLEGAL = "`parameter `{name}` illegal"
_ILLEGAL_BECAUSE = _ILLEGAL + ": {detail}"
_BAD, _REQUEST = HTTPStatus.BAD_REQUEST, "invalid param: {detail}"
# Status and text by a problem's kind, for requests that do not accept problem details; None keeps the problem's status.
# Kinds that are not listed have their own status and detail.
_BARE: dict[str, tuple[HTTPStatus | None, str]] = {
    "invalid-body": (_BAD, _INVALID),
    "url-and-img": (_BAD, _BOTH),
    **dict.fromkeys(
        (
            "no-picture", "invalid-base64", "picture-empty", "picture-unsupported", "picture-damaged",
            "fetch-bad-url", "fetch-unreachable", "fetch-redirects", "fetch-status", "fetch-not-found",
            "fetch-credentials",
        ),
        (_BAD, _ILLEGAL),
    ),
    **dict.fromkeys(
        ("picture-too-large", "fetch-disabled", "fetch-forbidden", "fetch-too-large"), (_BAD, _ILLEGAL_BECAUSE)
    ),
    **dict.fromkeys(("body-too-large", "body-cut-short", "slow-body"), (None, _REQUEST)),
}  # fmt: skip
_FETCH_STATUS: dict[Reason, HTTPStatus] = {
    "disabled": HTTPStatus.FORBIDDEN,
    "bad_url": HTTPStatus.BAD_REQUEST,
    "forbidden": HTTPStatus.FORBIDDEN,
    "busy": HTTPStatus.SERVICE_UNAVAILABLE,
    "unreachable": HTTPStatus.BAD_GATEWAY,
    "timeout": HTTPStatus.GATEWAY_TIMEOUT,
    "redirects": HTTPStatus.BAD_GATEWAY,
    "status": HTTPStatus.BAD_GATEWAY,
    "not_found": HTTPStatus.BAD_GATEWAY,
    "credentials": HTTPStatus.BAD_GATEWAY,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}


class Fetches(Protocol):
    """Fetches pictures by URL, as `visaged.daemon.fetch.fetcher.Fetcher` does."""

    async def fetch(self, url: str) -> bytes:
        """Return the bytes at an http, https or s3 URL; raises `FetchError`."""
        ...


def install_kit(app: FastAPI, pictures: Pictures, fetcher: Fetches, settings: KitSettings, version: str) -> None:
    """Add the kit's paths to an application, which must then be `guarded`.

    Args:
        app: The application.
        pictures: Analyses pictures.
        fetcher: Fetches pictures by URL.
        settings: Configuration of the kit.
        version: Value of `FaceModelVersion`; see `visaged.daemon.api.aws_kit.answer.model_version`.
    """
    kit = _Kit(pictures, fetcher, settings, version)
    for name in _NAMES:
        app.add_api_route(f"/{name}", kit.detect, methods=["POST"], operation_id=name.replace("-", "_dash_"), **_API)
        for path in (f"/{name}/", f"/{{stage}}/{name}", f"/{{stage}}/{name}/"):
            app.add_api_route(path, kit.detect, methods=["POST"], include_in_schema=False)


class _Kit:
    def __init__(self, pictures: Pictures, fetcher: Fetches, settings: KitSettings, version: str) -> None:
        self._pictures = pictures
        self._fetcher = fetcher
        self._settings = settings
        self._version = version

    async def detect(self, request: Request) -> Response:
        name = "img"
        try:
            async with self._pictures.request() as upload:
                given = await self._given(request, upload)
                name = given.parameter
                data = given.data
                if name == "url":
                    data = await self._fetch(given.url)
                    upload.add(len(data))
                answer = await self._analyse(data)
        except Problem as problem:
            return refusal(problem, request, name)
        except Exception:
            log.exception("%s failed", quote(request.scope["path"]))
            detail = "an error of the server; its log says more"
            return refusal(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", detail), request, name)
        return Response(answer, media_type="application/json")

    async def _given(self, request: Request, upload: Upload) -> KitInput:
        most_bytes = self._pictures.most_bytes
        try:
            body = await read_body(request, most_bytes * 4 // 3 + _SPARE_BYTES, upload)
        except Problem as problem:
            if problem.kind == "body-too-large":  # its text names the limit for the base64, not the configured one
                problem.detail = f"the picture is larger than {most_bytes / 1e6:.4g} MB (http.max_body_mb)"
            raise
        if len(body) <= _QUICK_BYTES:
            return given_picture(body)
        return await run_in_threadpool(given_picture, body)

    async def _fetch(self, url: str) -> bytes:
        try:
            return await self._fetcher.fetch(url)
        except FetchError as error:
            status, kind = _FETCH_STATUS[error.reason], f"fetch-{error.reason.replace('_', '-')}"
            again = {"Retry-After": "1"} if status is HTTPStatus.SERVICE_UNAVAILABLE else None
            raise Problem(status, kind, str(error), again) from None

    async def _analyse(self, data: bytes) -> bytes:
        pictures, settings = self._pictures, self._settings
        if len(data) > pictures.most_bytes:
            detail = f"the picture has {len(data)} bytes; at most {pictures.most_bytes} are taken (http.max_body_mb)"
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "picture-too-large", detail)
        query = PictureQuery(
            min_confidence=pictures.threshold if settings.min_confidence is None else settings.min_confidence,
            attributes=(ATTRIBUTES & pictures.attributes) | pictures.points,
            max_side=settings.max_side,
            upright=settings.upright,
            unsure=True,
        )
        result = await pictures.analyse(data, query)
        return orjson.dumps(answer_document(result.width, result.height, result.faces, self._version))


def refusal(problem: Problem, request: Request, name: str = "img") -> Response:
    """Return an error in the kit's form, or as problem details if the request accepts those.

    Args:
        problem: The error.
        request: The request that failed.
        name: The parameter that held the picture: `url` or `img`.
    """
    if _accepts_problems(request):
        response = problems.answer(problem, request)
    else:
        status, text = _BARE.get(problem.kind, (None, "{detail}"))
        name = "url" if problem.kind.startswith("fetch-") else name
        text = text.format(name=name, detail=problem.detail)
        response = Response(text, status or problem.status, problem.headers, "text/plain")
    cause = f"{problem.kind}; {problem.detail}"
    response.headers["X-Visaged-Problem"] = re.sub(r"[^ -~]+", " ", cause)[:500].strip()
    response.headers["Vary"] = "Accept"
    return response


def refuse(problem: Problem, request: Request) -> Response:
    """Return an error in the form for the request's path: the kit's at its paths, problem details elsewhere."""
    return (refusal if KIT_PATH.fullmatch(request.scope["path"]) else problems.answer)(problem, request)


def _accepts_problems(request: Request) -> bool:
    ranges = ",".join(request.headers.getlist("accept")).lower().split(",")
    # The search comes first because the rest takes 1 us for each of thousands of ranges.
    wanted = (re.sub(r"\s", "", one).partition(";") for one in ranges if problems.MEDIA_TYPE in one)
    return any(kind == problems.MEDIA_TYPE and not re.fullmatch(r"q=0(\.0*)?", weight) for kind, _, weight in wanted)


def guarded(
    app: ASGIApp, http: HttpSettings, settings: KitSettings, metrics: Metrics, sessions: Sessions | None = None
) -> ASGIApp:
    """Return an application with the kit's paths behind its guards, with errors in the kit's form at those paths.

    Args:
        app: The application.
        http: Keys and names of the server.
        settings: Configuration of the kit.
        metrics: Counts refused requests.
        sessions: Who is logged in, by which keys; None for nobody, and the keys of `http`.
    """
    guards = KeyGuard(PageGuard(app, http, metrics, refuse), http, metrics, refuse, sessions=sessions)
    return KitEdge(guards, settings.page_origins(with_keys=bool(http.keys)))


class KitEdge:
    """Refuses methods but POST at the kit's paths, and lets web pages of the given origins use them (CORS).

    It must wrap the `KeyGuard`: preflight requests carry no key, and browsers hide errors without CORS headers from
    pages.

    Args:
        app: The application with its guards.
        origins: Origins of pages that may use the kit's paths; `*` for all.
    """

    _METHODS = "OPTIONS, POST"

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._cors = CORSMiddleware(
            self._posts_alone,
            allow_origins=origins,
            allow_methods=("POST",),
            # Browsers send a dozen headers with requests signed by AWS's libraries, and users may add more.
            allow_headers=("*",),
            # Pages of the Internet that may use a server on this network or machine.
            allow_private_network=True,
            expose_headers=("Retry-After", "X-Request-Id", "X-Visaged-Problem"),
        )
        self._answer: ASGIApp = self._cors if origins else self._posts_alone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        is_kit = scope["type"] == "http" and KIT_PATH.fullmatch(scope["path"]) is not None
        await (self._answer if is_kit else self._app)(scope, receive, send)

    async def _posts_alone(self, scope: Scope, receive: Receive, send: Send) -> None:
        refuse_session(scope)  # the kit's clients know no cookies
        origins = Headers(scope=scope).getlist("origin")
        if origins and all(self._cors.is_allowed_origin(origin) for origin in origins):
            allow_page(scope)
        answer: ASGIApp = self._app
        if scope["method"] == "OPTIONS":
            answer = Response(status_code=HTTPStatus.NO_CONTENT, headers={"Allow": self._METHODS})
        elif scope["method"] != "POST":
            detail = f"{scope['method']} is not possible here; use POST"
            problem = Problem(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", detail, {"Allow": self._METHODS})
            answer = refusal(problem, Request(scope))
        await answer(scope, receive, send)


_ERRORS = problems.responses(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
for _response in _ERRORS.values():
    _response["content"]["text/plain"] = {"schema": {"type": "string"}}
_EXAMPLES = {"one black pixel": {"value": kit_request.EXAMPLE}}
_API: dict[str, Any] = {
    "tags": ["AWS AI Solution Kit"],
    "summary": "Find the faces of a picture, as the AWS AI Solution Kit does",
    "description": "Errors are bare text, most of them with status 400, as the kit's; with `Accept: "
    "application/problem+json` they are problem details with a status for each cause. The header `X-Visaged-Problem` "
    "has the cause in either case. The request's Content-Type does not matter.",
    "response_class": Response,
    "responses": {
        200: {"description": "Faces, most confident first.", "content": {"application/json": {"schema": SCHEMA}}},
        **_ERRORS,
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": kit_request.SCHEMA, "examples": _EXAMPLES}},
        }
    },
}
