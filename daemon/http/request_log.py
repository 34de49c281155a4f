"""The request log: an ASGI layer that gives every request an id, logs a line for it, and counts it."""

from __future__ import annotations

import contextvars
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visaged.daemon.http.problems import Problem, answer
from visaged.pipelines.runtime.metrics import Metrics

log = logging.getLogger(__name__)

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
"""Id of the request that the current task, or thread that it waits for, works on; empty elsewhere."""

KEY = "visaged.key"
"""Key of a request's scope for the name of its API key."""
NO_KEY = "-"
"""Name in metrics and the log for requests without a key; no key can have this name."""

_ID = "visaged.request_id"
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
_LONGEST_PATH = 200
"""Most characters of a path that are logged."""
_HARMLESS_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def rename_request(scope: Scope, name: str) -> None:
    """Replace the id that `RequestLog` gave a request, for APIs whose ids have a format of their own."""
    scope[_ID] = name
    request_id.set(name)


@dataclass(slots=True)
class _Noted:
    """What is recorded about a request while it is answered."""

    status: int | None = None  # None while there is no answer
    received: int = 0
    sent: int = 0
    complete: bool = False


class RequestLog:
    """Gives every request an id, logs a line for it, and counts it.

    The id is the client's `X-Request-ID` where that is harmless (letters, digits, `.`, `_`, `-`, at most 64), otherwise
    a new one; the application can replace it (`rename_request`). Every answer has it as `X-Request-ID`. The line has no
    query, which may hold signatures, and no header.

    Args:
        app: The application.
        metrics: Counts requests.
        to_info: Log requests at info, except successful ones for health and metrics; otherwise all are at debug.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, to_info: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._level = logging.INFO if to_info else logging.DEBUG
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, then log and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = self._clock()
        noted = _Noted()
        rename_request(scope, _id_of(scope))  # set in this request's task, and so for it alone

        async def counted_receive() -> Message:
            message = await receive()
            noted.received += len(message.get("body", b""))
            return message

        async def marked_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                noted.status = message["status"]
                headers = [header for header in message.get("headers", ()) if header[0].lower() != b"x-request-id"]
                message = {**message, "headers": [*headers, (b"x-request-id", scope[_ID].encode())]}
            else:
                noted.sent += len(message.get("body", b""))
                noted.complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, counted_receive, marked_send)
        except Exception:
            log.exception("%s %s failed, request %s", scope["method"], _path(scope), scope[_ID])
            if noted.status is None:
                detail = "an error of the server; its log says more"
                problem = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", detail)
                await answer(problem, Request(scope))(scope, counted_receive, marked_send)
            elif not noted.complete:
                raise  # so that the server cuts off the answer, part of which has been sent
        finally:
            self._report(scope, noted, self._clock() - began_s)

    def _report(self, scope: Scope, noted: _Noted, seconds: float) -> None:
        key = scope.get(KEY, NO_KEY)
        status = "none" if noted.status is None else str(noted.status)
        self._metrics.http_requests.labels(key, status).inc()
        self._metrics.http_seconds.observe(seconds)
        quiet = scope["path"] in _QUIET and status == "200"
        log.log(
            logging.DEBUG if quiet else self._level,
            "%s %s %s %.1f ms, key %s, %d B in, %d B out, request %s",
            scope["method"][:20], _path(scope), status, 1000 * seconds, key, noted.received, noted.sent, scope[_ID],
        )  # fmt: skip


def _id_of(scope: Scope) -> str:
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(given) == 1 and _HARMLESS_ID.fullmatch(given[0]):
        return str(given[0].decode())
    return secrets.token_hex(8)


def _path(scope: Scope) -> str:
    """Return a request's path percent-encoded, as it came: decoded, it could hold line breaks."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    text = raw.partition(b"?")[0].decode("latin-1")
    return text if len(text) <= _LONGEST_PATH else text[:_LONGEST_PATH] + "..."
