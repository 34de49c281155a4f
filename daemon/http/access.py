"""Access control: an ASGI layer that passes on only requests with an API key."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from http import HTTPStatus

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from visaged.daemon.http.keys import Holder, Keyring
from visaged.daemon.http.problems import Problem, answer
from visaged.daemon.http.request_log import KEY, NO_KEY
from visaged.daemon.http.settings import HttpSettings
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)

# Keys of a request's scope: whether it is answered although it has no valid key, and the holder of its key.
_UNKNOWN = "visaged.unknown"
_HOLDER = "visaged.holder"

# Load balancers ask for health without a key, and get no more than yes or no (`is_unknown`). The documentation is
# public, and a browser cannot send a key with the address of a page.
_OPEN = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})

_HOW = "send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
_WRONG = "the key is none of this server's: it is mistyped or cut short, or was withdrawn"

RefusalResponse = Callable[[Problem, Request], Response]


def is_unknown(request: Request) -> bool:
    """Return whether a request is answered although it lacks a required key; such an answer must have no details."""
    return bool(request.scope.get(_UNKNOWN, False))


def holder_of(request: Request) -> Holder | None:
    """Return the holder of a request's key; None if keys are not required, or the request needs none and has none."""
    holder: Holder | None = request.scope.get(_HOLDER)
    return holder


class KeyGuard:
    """Passes on requests that have one of the keys, within the limits of that key; without keys, all requests.

    The key stands in `Authorization: Bearer KEY` or `X-API-Key: KEY`, and never in the URL, which ends up in logs.

    Args:
        app: The application to guard.
        settings: The keys, and whether `/metrics` needs one.
        metrics: Counts active and refused requests by name of key.
        refuse: Makes the answer to a refused request; for paths whose errors have a format of their own.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: HttpSettings,
        metrics: Metrics,
        refuse: RefusalResponse = answer,
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
        is_open = scope["path"] in self._open
        try:
            holder = self._holder(scope, is_open)
            scope[KEY] = holder.name
            scope[_HOLDER] = holder
        except Problem as refused:
            if not is_open:
                await self._refuse(refused, Request(scope))(scope, receive, send)
                return
            scope[_UNKNOWN] = True
        if is_open:  # health checks must succeed even when their key is at its limits
            await self._app(scope, receive, send)
            return
        refusal = holder.enter()
        if refusal is not None:
            self._metrics.http_refused.labels(holder.name, refusal.cause).inc()
            kind = refusal.cause.replace("_", "-")
            headers = {"Retry-After": str(refusal.retry_after_s)}
            problem = Problem(HTTPStatus.TOO_MANY_REQUESTS, kind, refusal.detail, headers)
            await self._refuse(problem, Request(scope))(scope, receive, send)
            return
        active = self._metrics.http_active.labels(holder.name)
        active.inc()
        try:
            await self._app(scope, receive, send)
        finally:
            holder.leave()
            active.dec()

    def _holder(self, scope: Scope, is_open: bool) -> Holder:
        """Return the holder of a request's key; raises `Problem` if it has no valid key."""
        keys = set()
        for name, value in scope["headers"]:
            if name == b"x-api-key":
                keys.add(value.strip())
            elif name == b"authorization":
                # Other schemes than Bearer may be the login for a proxy, and are ignored.
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
            # Behind a proxy, the address comes from a header, which may hold anything.
            client = re.sub(r"[^\w.:%-]", "?", (scope.get("client") or ("an unknown client",))[0][:64])
            self._complain("a request of %s was refused: %s API key", client, cause)
        return Problem(HTTPStatus.UNAUTHORIZED, f"key-{cause}", detail, {"WWW-Authenticate": challenge})
