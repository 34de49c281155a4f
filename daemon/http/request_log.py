"""What is noted of every request: an ASGI layer that gives it an id, a line in the log and its place in the metrics."""

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
"""Id of the request that this code runs for, in its task and the threads that the task waits for; empty elsewhere."""

KEY = "visaged.key"
"""Where the name of a request's API key is noted in its scope."""
NO_KEY = "-"
"""Name of requests without a key in metrics and the log; no key can be named so."""

_ID = "visaged.request_id"
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
_LONGEST_PATH = 200
"""Most characters of a path in the log."""
_HARMLESS_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def rename_request(scope: Scope, name: str) -> None:
    """Give a request another id than `RequestLog` did, for answers whose ids have a form of their own."""
    scope[_ID] = name
    request_id.set(name)


@dataclass(slots=True)
class _Noted:
    """What is seen of a request while it passes."""

    status: int | None = None  # none as long as, or because, there is no answer
    received: int = 0
    sent: int = 0
    complete: bool = False


class RequestLog:
    """Gives every request an id, a log line and its place in the metrics.

    The id is the client's own `X-Request-ID` where that is harmless (letters, digits, `.`, `_`, `-`, at most 64), a new
    one otherwise, unless the application gives it its own (`rename_request`), and stands in every answer. The line has
    no query, which may hold signatures, and no header.

    Args:
        app: What answers.
        metrics: Counts requests.
        to_info: Log at info, but for health and metrics; at debug otherwise.
        clock: Monotonic seconds.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, to_info: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._level = logging.INFO if to_info else logging.DEBUG
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note what becomes of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = self._clock()
        noted = _Noted()
        rename_request(scope, _id_of(scope))  # in this request's own task, and so for it alone

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
                raise  # so that the server cuts the answer off, which cannot be taken back
        finally:
            self._tell(scope, noted, self._clock() - began_s)

    def _tell(self, scope: Scope, noted: _Noted, seconds: float) -> None:
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
    """Return a request's path as it came, percent-encoded: what it encodes may be a line break."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    text = raw.partition(b"?")[0].decode("latin-1")
    return text if len(text) <= _LONGEST_PATH else text[:_LONGEST_PATH] + "..."
