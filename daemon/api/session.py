"""`/v1/session`: logging in to the page with an API key, and out again."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Query, Request, Response

from visaged.daemon.http.access import holder_of, session_of
from visaged.daemon.http.json_bodies import read_object
from visaged.daemon.http.problems import Problem, responses
from visaged.daemon.http.request_log import NO_KEY
from visaged.daemon.http.sessions.attempts import Attempts
from visaged.daemon.http.sessions.cookie import clear_cookies, set_cookie
from visaged.daemon.http.sessions.sessions import LIFE_S, Sessions
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)

_JSON = "application/json"
_COOKIE = {
    "Set-Cookie": {"description": "`visaged_session`, with the port after it.", "schema": {"type": "string"}},
}
_STATE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "required": {"description": "Whether requests need a key or a session.", "type": "boolean"},
        "name": {"description": "Name of the key of this request; null without one.", "type": ["string", "null"]},
        "role": {"description": "Its role.", "type": ["string", "null"], "enum": ["reader", "admin", None]},
    },
    "required": ["required", "name", "role"],
}
_LOGIN: dict[str, Any] = {
    "type": "object",
    "properties": {"key": {"description": "An API key.", "type": "string", "example": "visaged_..."}},
    "required": ["key"],
    "additionalProperties": False,
}


def install_session(app: FastAPI, sessions: Sessions, metrics: Metrics, attempts: Attempts | None = None) -> None:
    """Add the path `/v1/session` to an application behind a `KeyGuard` with the same sessions.

    Args:
        app: The application; it must answer errors with problem details.
        sessions: Who is logged in.
        metrics: Counts logins that are refused.
        attempts: How often an address may try; None for the usual.
    """
    attempts = attempts or Attempts()
    complain = LimitedLog(log)

    def refused(request: Request, cause: str, problem: Problem) -> Problem:
        metrics.http_refused.labels(NO_KEY, cause).inc()
        complain("a login of %s was refused: %s", _client(request), problem.kind)
        return problem

    @app.get(
        "/v1/session",
        tags=["session"],
        summary="Whether a key is needed here, and whose key this request has",
        response_class=Response,
        responses={200: {"description": "The session.", "content": {_JSON: {"schema": _STATE}}}},
    )
    async def session(request: Request) -> Response:
        holder = holder_of(request)
        document = {
            "required": bool(sessions.keyring),
            "name": None if holder is None else holder.name,
            "role": None if holder is None else holder.role,
        }
        return Response(orjson.dumps(document), media_type=_JSON)

    @app.post(
        "/v1/session",
        tags=["session"],
        status_code=204,
        summary="Log in",
        description="The answer sets a cookie that stands for the key below `/v1`, for `/metrics` and for health, with "
        "the key's role and limits. Scripts cannot read it, and browsers send it for this server's own page alone. It "
        f"lasts until {LIFE_S // 86_400} days after its last use, a restart included where there is a state folder.",
        response_class=Response,
        responses={
            204: {"description": "Logged in.", "headers": _COOKIE},
            **responses(
                HTTPStatus.BAD_REQUEST,
                HTTPStatus.UNAUTHORIZED,
                HTTPStatus.FORBIDDEN,
                HTTPStatus.REQUEST_TIMEOUT,
                HTTPStatus.CONFLICT,
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                HTTPStatus.TOO_MANY_REQUESTS,
            ),
        },
        openapi_extra={"requestBody": {"required": True, "content": {_JSON: {"schema": _LOGIN}}}},
    )
    async def login(request: Request) -> Response:
        wait_s, whose = attempts.count((request.scope.get("client") or ("",))[0]), "from your address"
        document = await read_object(request, (_JSON,))
        key = document.get("key")
        if not isinstance(key, str) or len(document) != 1:
            detail = 'the body is not what it should be; send {"key": "visaged_..."}'
            raise Problem(HTTPStatus.BAD_REQUEST, "invalid-login", detail)
        if not sessions.keyring:
            detail = "this server has no keys, so that nobody has to log in"
            raise Problem(HTTPStatus.CONFLICT, "no-keys", detail)
        holder = sessions.keyring.find(key.strip().encode())
        if holder is not None:
            wait_s, whose = attempts.count_key(holder.name), "with your key"
        if wait_s:
            detail = f"there were too many logins {whose}; try again in {wait_s} s"
            again = {"Retry-After": str(wait_s)}
            raise refused(
                request, "login_too_fast", Problem(HTTPStatus.TOO_MANY_REQUESTS, "login-too-fast", detail, again)
            )
        if holder is None:
            detail = "the key is none of this server's: it is mistyped or cut short, or was withdrawn"
            raise refused(request, "login", Problem(HTTPStatus.UNAUTHORIZED, "key-wrong", detail))
        old = session_of(request)
        if old is not None:
            sessions.end(old)
        token = sessions.begin(holder)
        await sessions.kept()
        log.info("%s logged in with key %s", _client(request), holder.name)
        return _done(set_cookie(request.scope, token, LIFE_S))

    @app.delete(
        "/v1/session",
        tags=["session"],
        status_code=204,
        summary="Log out",
        description="Ends the session of the request's cookie, and answers that are still under way for it. With "
        "`all=true`, ends every session of the key that the session or the request has.",
        response_class=Response,
        responses={
            204: {"description": "Logged out, or was not logged in.", "headers": _COOKIE},
            **responses(HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN),
        },
    )
    async def logout(
        request: Request,
        every: Annotated[bool, Query(alias="all", description="End the key's other sessions too.")] = False,
    ) -> Response:
        holder, own = holder_of(request), session_of(request)
        if every and holder is not None:
            log.info("%s ended all %d sessions of key %s", _client(request), sessions.end_all(holder), holder.name)
        elif own is not None:
            sessions.end(own)
            log.info("%s logged out, key %s", _client(request), own.holder.name)
        await sessions.kept()
        return _done(*clear_cookies(request.scope))


def _done(*headers: tuple[bytes, bytes]) -> Response:
    response = Response(status_code=HTTPStatus.NO_CONTENT)
    response.raw_headers.extend(headers)
    return response


def _client(request: Request) -> str:
    # Behind a proxy, the address comes from a header, which may hold anything.
    return re.sub(r"[^\w.:%-]", "?", (request.scope.get("client") or ("an unknown client",))[0][:64])
