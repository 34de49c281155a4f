"""Errors of the HTTP API as RFC 9457 problem details."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from visaged.daemon.http.browsers.headers import SAFE
from visaged.pipelines.runtime.redact import redact

MEDIA_TYPE = "application/problem+json"

_LONGEST_PATH = 200
"""Most characters of a path that an answer repeats."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {
            "description": "Every fault in the request's body or the configuration, by the path of its key.",
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
                "required": ["path", "text"],
            },
        },
    },
    "required": ["type", "title", "status", "detail"],
}


class Problem(Exception):
    """An error that is answered as problem details.

    Args:
        status: HTTP status.
        kind: The last part of the problem's type, `urn:visaged:problem:<kind>`.
        detail: What was wrong and what to do.
        headers: Additional headers of the answer.
        errors: Pairs of a key's path and a text, one for each fault; if empty, the answer has no `errors`.
    """

    def __init__(
        self,
        status: HTTPStatus,
        kind: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.headers, self.errors = status, kind, detail, headers, errors


def shown_path(path: str) -> str:
    """Return a path or a name from one as a URL has it: percent-encoded, so that it holds no HTML, and not too long."""
    return quote(path[:_LONGEST_PATH], safe="/:@,;=+()")


def unknown_camera(name: str) -> Problem:
    """Return the problem that there is no camera of a name."""
    detail = f"there is no camera {redact(shown_path(name[:64]))}; GET /v1/cameras lists them"
    return Problem(HTTPStatus.NOT_FOUND, "unknown-camera", detail)


def answer(problem: Problem, request: Request) -> Response:
    """Return a problem as a response."""
    # Not the path of `request.url`, which is put together with the Host header and read again.
    document = _document(problem) | {"instance": shown_path(request.scope["path"])}
    if problem.errors:
        document["errors"] = [{"path": path, "text": text} for path, text in problem.errors]
    return Response(orjson.dumps(document), problem.status, problem.headers, MEDIA_TYPE)


def raw_answer(problem: Problem) -> bytes:
    """Return a problem as the bytes of a whole HTTP response, the last one of a connection."""
    body = orjson.dumps(_document(problem))
    headers = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        "X-Request-ID": secrets.token_hex(8),
        **SAFE,
        **(problem.headers or {}),
    }
    fields = [f"{name}: {text}" for name, text in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {problem.status} {problem.status.phrase}", *fields, "", ""]).encode() + body


def _document(problem: Problem) -> dict[str, Any]:
    return {
        "type": f"urn:visaged:problem:{problem.kind}",
        "title": problem.status.phrase,
        "status": int(problem.status),
        "detail": problem.detail,
    }


def responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of the errors that a path can answer with."""
    return {int(s): {"description": s.phrase, "content": {MEDIA_TYPE: {"schema": SCHEMA}}} for s in statuses}


def install(app: FastAPI) -> None:
    """Make an application answer every error with problem details."""

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return answer(error, request)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        details = {
            HTTPStatus.NOT_FOUND: f"there is nothing at {shown_path(request.scope['path'])}; /docs lists what there is",
            HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not possible at {shown_path(request.scope['path'])}",
        }
        kind = status.phrase.lower().replace(" ", "-")
        return answer(Problem(status, kind, details.get(status, str(error.detail)), error.headers), request)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        texts = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
        return answer(Problem(HTTPStatus.BAD_REQUEST, "invalid-parameter", "; ".join(texts)), request)

    async def unexpected(request: Request, error: Exception) -> Response:
        detail = "an error of the server; its log says more"
        return answer(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", detail), request)

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unexpected)
