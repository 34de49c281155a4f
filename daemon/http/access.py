"""Who may ask, and what is noted of every request: ASGI layers around an application.

`RequestLog` is the outer one. It gives every request an id, a line in the log and its place in the metrics, and leaves
the answer's body alone. `KeyGuard` lets through what has an API key.
"""

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

from fastapi import Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visaged.daemon.http.keys import Holder, Keyring
from visaged.daemon.http.problems import Problem, answer
from visaged.daemon.http.settings import HttpSettings
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
"""Id of the request that this code runs for, in its task and the threads that the task waits for; empty elsewhere."""

# Where the layers leave word in a request's scope.
_ID, _KEY, _UNKNOWN = "visaged.request_id", "visaged.key", "visaged.unknown"
_HOLDER = "visaged.holder"
# Of requests without a key, in metrics and the log; no key can be named so.
NO_KEY = "-"

# Load balancers ask for health without a key, and are told no more than yes or no (`is_unknown`). The documentation is
# the same for everybody, and a browser has no way to send a key with a page's address.
_OPEN = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})

# Of a path in the log.
_LONGEST_PATH = 200

_TAKEN_OVER = re.compile(rb"[A-Za-z0-9._-]{1,64}")

_HOW = "send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
_WRONG = "the key is none of this server's: it is mistyped or cut short, or was withdrawn"

Answer = Callable[[Problem, Request], Response]


def rename_request(scope: Scope, name: str) -> None:
    """Give a request another id than `RequestLog` did, for answers whose ids have a form of their own."""
    scope[_ID] = name
    request_id.set(name)


def is_unknown(request: Request) -> bool:
    """Return whether keys are required here and the request has none, and is answered all the same: say no details."""
    return bool(request.scope.get(_UNKNOWN, False))


def holder_of(request: Request) -> Holder | None:
    """Return whose key a request has; None where keys are not required, or it has none and is answered all the same."""
    holder: Holder | None = request.scope.get(_HOLDER)
    return holder


class KeyGuard:
    """Lets requests through that have one of the keys, within its limits; without keys, all.

    The key stands in `Authorization: Bearer KEY` or `X-API-Key: KEY`, and never in the URL, which ends up in logs.

    Args:
        app: What is guarded.
        settings: Keys, and what needs none.
        metrics: Counts by the keys' names.
        refuse: Makes the answer of a refusal; for paths that have a form of their own for errors.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: HttpSettings,
        metrics: Metrics,
        refuse: Answer = answer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._keyring = Keyring(settings.keys, clock)
        self._open = _OPEN | ({"/metrics"} if settings.open_metrics else set())
        self._metrics = metrics
        self._refuse = refuse
        self._complain = LimitedLog(log, clock=clock)
        for name in self._keyring.names:
            metrics.http_active.labels(name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if not self._keyring or scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:  # WebSockets, which nothing here uses
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_open = self._is_open(scope)
        try:
            holder = self._holder(scope, is_open)
            scope[_KEY] = holder.name
            scope[_HOLDER] = holder
        except Problem as refused:
            if not is_open:
                await self._refuse(_closing(refused, scope), Request(scope))(scope, receive, send)
                return
            scope[_UNKNOWN] = True
        if is_open:  # and has no limits: whoever is at theirs is not unwell
            await self._app(scope, receive, send)
            return
        refusal = holder.enter()
        if refusal is not None:
            self._metrics.http_refused.labels(holder.name, refusal.cause).inc()
            kind = refusal.cause.replace("_", "-")
            headers = {"Retry-After": str(refusal.retry_after_s)}
            problem = Problem(HTTPStatus.TOO_MANY_REQUESTS, kind, refusal.detail, headers)
            await self._refuse(_closing(problem, scope), Request(scope))(scope, receive, send)
            return
        active = self._metrics.http_active.labels(holder.name)
        active.inc()
        try:
            await self._app(scope, receive, send)
        finally:
            holder.leave()
            active.dec()

    def _holder(self, scope: Scope, is_open: bool) -> Holder:
        """Return whose key a request has; raises `Problem`."""
        keys = set()
        for name, value in scope["headers"]:
            if name == b"x-api-key":
                keys.add(value.strip())
            elif name == b"authorization":
                # Another scheme than Bearer may be a proxy's login.
                scheme, _, key = value.strip().partition(b" ")
                if scheme.lower() == b"bearer":
                    keys.add(key.strip())
        if not keys:
            detail = f"this needs an API key: {_HOW}; `visaged key NAME` makes one"
            raise self._refused(scope, is_open, "missing", detail, 'Bearer realm="visaged"')
        holder = self._keyring.find(keys.pop()) if len(keys) == 1 else None
        if holder is None:
            detail = "the request has several keys that differ; send one" if keys else _WRONG
            raise self._refused(scope, is_open, "wrong", detail, 'Bearer realm="visaged", error="invalid_token"')
        return holder

    def _refused(self, scope: Scope, is_open: bool, cause: str, detail: str, challenge: str) -> Problem:
        if not is_open:
            self._metrics.http_refused.labels(NO_KEY, cause).inc()
            # Behind a proxy it is what a header says.
            client = re.sub(r"[^\w.:%-]", "?", (scope.get("client") or ("an unknown client",))[0])[:64]
            self._complain("a request of %s was refused: %s API key", client, cause)
        return Problem(HTTPStatus.UNAUTHORIZED, f"key-{cause}", detail, {"WWW-Authenticate": challenge})

    def _is_open(self, scope: Scope) -> bool:
        if scope["path"] in self._open:
            return True
        # A browser asks whether it may ask, and never sends a key with that.
        names = {name for name, _ in scope["headers"]}
        return scope["method"] == "OPTIONS" and {b"origin", b"access-control-request-method"} <= names


def _closing(problem: Problem, scope: Scope) -> Problem:
    # Who asked whether to send the body may send it now or not, and what comes next on the connection cannot be told.
    if any(name == b"expect" for name, _ in scope["headers"]):
        problem.headers = {**(problem.headers or {}), "Connection": "close"}
    return problem


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
        key = scope.get(_KEY, NO_KEY)
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
    if len(given) == 1 and _TAKEN_OVER.fullmatch(given[0]):
        return str(given[0].decode())
    return secrets.token_hex(8)


def _path(scope: Scope) -> str:
    """Return a request's path as it came, percent-encoded: what it encodes may be a line break."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    text = raw.partition(b"?")[0].decode("latin-1")
    return text if len(text) <= _LONGEST_PATH else text[:_LONGEST_PATH] + "..."
