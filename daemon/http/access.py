"""Access control: an ASGI layer that passes on only requests with an API key."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from http import HTTPStatus

from fastapi import Request, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visaged.daemon.http.browsers.origins import foreign_page
from visaged.daemon.http.keys import Holder, Keyring
from visaged.daemon.http.problems import Problem, answer
from visaged.daemon.http.request_log import KEY, NO_KEY
from visaged.daemon.http.sessions.cookie import set_cookie, token_of
from visaged.daemon.http.sessions.sessions import LIFE_S, Session, Sessions
from visaged.daemon.http.settings import HttpSettings
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)

# Keys of a request's scope: whether it is answered although it has no valid key, the holder of its key, the session
# that stands for the key, and whether none may.
_UNKNOWN = "visaged.unknown"
_HOLDER = "visaged.holder"
_SESSION = "visaged.session"
_NO_SESSION = "visaged.no_session"

# Load balancers ask for health without a key, and get no more than yes or no (`is_unknown`). The documentation is
# public, and a browser cannot send a key with the address of a page; nor with that of the page for people, which holds
# no data. `/v1/session` is where they log in.
_OPEN = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json", "/", "/favicon.ico", "/v1/session"})
_OPEN_BELOW = "/page/"
# Where a session counts: for the API that the page uses, and no other.
_WITH_SESSION = frozenset({"/healthz", "/readyz", "/metrics"})
_WITH_SESSION_BELOW = "/v1/"

_HOW = "send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
_OVER = f"the login has ended (logged out, or not used for {LIFE_S // 86_400} days): log in again, or send a key"
_WRONG = "the key is none of this server's: it is mistyped or cut short, or was withdrawn"

RefusalResponse = Callable[[Problem, Request], Response]


def is_unknown(request: Request) -> bool:
    """Return whether a request is answered although it lacks a required key; such an answer must have no details."""
    return bool(request.scope.get(_UNKNOWN, False))


def holder_of(request: Request) -> Holder | None:
    """Return the holder of a request's key; None if keys are not required, or the request needs none and has none."""
    holder: Holder | None = request.scope.get(_HOLDER)
    return holder


def session_of(request: Request) -> Session | None:
    """Return the session that a request came by; None if it came by a key, or by neither."""
    session: Session | None = request.scope.get(_SESSION)
    return session


def refuse_session(scope: Scope) -> None:
    """Have the guard take no session for a key in a request, because its path is for programs alone."""
    scope[_NO_SESSION] = True


class KeyGuard:
    """Passes on requests that have one of the keys, within the limits of that key; without keys, all requests.

    The key stands in `Authorization: Bearer KEY` or `X-API-Key: KEY`, and never in the URL, which ends up in logs. In
    place of a key counts the cookie of a session that was begun with one, unless a page of another origin caused the
    request. Requests by a session that ends are told that their client has gone.

    Args:
        app: The application to guard.
        settings: The keys, and whether `/metrics` needs one.
        metrics: Counts active and refused requests by name of key.
        refuse: Makes the answer to a refused request; for paths whose errors have a format of their own.
        clock: Returns monotonic seconds.
        sessions: Who is logged in, by which keys; None for nobody, and the keys of the settings.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: HttpSettings,
        metrics: Metrics,
        refuse: RefusalResponse = answer,
        clock: Callable[[], float] = time.monotonic,
        sessions: Sessions | None = None,
    ) -> None:
        self._app = app
        self._sessions = Sessions(Keyring(settings.keys, clock)) if sessions is None else sessions
        self._keyring = self._sessions.keyring
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
        is_open = scope["path"] in self._open or scope["path"].startswith(_OPEN_BELOW)
        try:
            holder = self._holder(scope, is_open)
            scope[KEY] = holder.name
            scope[_HOLDER] = holder
        except Problem as refused:
            if not is_open:
                await self._refuse(refused, Request(scope))(scope, receive, send)
                return
            scope[_UNKNOWN] = True
        session = session_of(Request(scope))
        if session is not None:
            receive = _ending(receive, session)
            if self._sessions.renew(session):
                send = _adding(send, set_cookie(scope, str(token_of(scope)), LIFE_S))
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
        token = None if keys else self._token(scope)
        if token is not None:
            session = self._sessions.find(token)
            if session is None:
                raise self._refused(scope, is_open, "session", _OVER, 'Bearer realm="visaged"')
            scope[_SESSION] = session
            return session.holder
        if not keys:
            detail = f"this needs an API key: {_HOW}; `visaged key NAME` makes one"
            raise self._refused(scope, is_open, "missing", detail, 'Bearer realm="visaged"')
        holder = self._keyring.find(keys.pop()) if len(keys) == 1 else None
        if holder is None:
            detail = "the request has several keys that differ; send one" if keys else _WRONG
            raise self._refused(scope, is_open, "wrong", detail, 'Bearer realm="visaged", error="invalid_token"')
        return holder

    def _token(self, scope: Scope) -> str | None:
        """Return the token of a session in a request where it counts."""
        path = scope["path"]
        counts = (path in _WITH_SESSION or path.startswith(_WITH_SESSION_BELOW)) and not scope.get(_NO_SESSION, False)
        # A proxy may speak HTTPS for this server; the host of a page was compared by its browser.
        if not counts or foreign_page(Headers(scope=scope), scope["scheme"], behind_proxy=True) is not None:
            return None
        return token_of(scope)

    def _refused(self, scope: Scope, is_open: bool, cause: str, detail: str, challenge: str) -> Problem:
        if not is_open:
            self._metrics.http_refused.labels(NO_KEY, cause).inc()
            # Behind a proxy, the address comes from a header, which may hold anything.
            client = re.sub(r"[^\w.:%-]", "?", (scope.get("client") or ("an unknown client",))[0][:64])
            what = "ended session" if cause == "session" else f"{cause} API key"
            self._complain("a request of %s was refused: %s", client, what)
        kind = "session-ended" if cause == "session" else f"key-{cause}"
        return Problem(HTTPStatus.UNAUTHORIZED, kind, detail, {"WWW-Authenticate": challenge})


def _ending(receive: Receive, session: Session) -> Receive:
    """Return a `receive` that reports the client as gone once its session has ended."""

    async def receive_until_the_end() -> Message:
        message, end = asyncio.ensure_future(receive()), asyncio.ensure_future(session.ended.wait())
        try:
            await asyncio.wait((message, end), return_when=asyncio.FIRST_COMPLETED)
            return await message if message.done() else {"type": "http.disconnect"}
        finally:
            message.cancel()
            end.cancel()

    return receive_until_the_end


def _adding(send: Send, header: tuple[bytes, bytes]) -> Send:
    """Return a `send` that adds a header to the answer."""

    async def send_with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), header]}
        await send(message)

    return send_with_header
