"""Protection of requests without a key from web pages: an ASGI layer behind the `KeyGuard`."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from http import HTTPStatus

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from visaged.daemon.http.access import RefusalResponse, holder_of, session_of
from visaged.daemon.http.browsers.hosts import KnownHosts
from visaged.daemon.http.browsers.origins import foreign_page
from visaged.daemon.http.problems import Problem, answer
from visaged.daemon.http.request_log import NO_KEY
from visaged.daemon.http.settings import HttpSettings
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)

# Key of a request's scope: whether the page that caused the request may do so.
_ALLOWED = "visaged.page_allowed"
# Methods that change nothing.
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
# What is read there takes work, such as live pictures, which an image on any page could ask for.
_WORK = re.compile(r"/(metrics|v1(/.*)?)", re.DOTALL)


def allow_page(scope: Scope) -> None:
    """Let a request pass the guard although a page of another site caused it, which the configuration allows."""
    scope[_ALLOWED] = True


class PageGuard:
    """Refuses requests without a key that a web page of another site could have caused.

    These are requests under a Host that is not this server's, and requests that come from a page of another origin, but
    for reading what takes no work: health, documentation, and the page with its files. Links count as the rest: a page
    could keep a window open on a live picture. A request with a key comes from somebody who knows the key, and passes;
    one by a session need not, because browsers send cookies along whatever page causes a request.

    Args:
        app: The application to guard.
        settings: Names of the server, and whether a proxy stands in front.
        metrics: Counts refused requests.
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
        self._hosts = KnownHosts([*settings.hosts, settings.host])
        # With keys too, a proxy may speak HTTPS for this server.
        self._behind_proxy = settings.without_keys or bool(settings.keys)
        self._metrics = metrics
        self._refuse = refuse
        self._complain = LimitedLog(log, clock=clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        problem = self._trouble(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await self._refuse(problem, Request(scope))(scope, receive, send)

    def _trouble(self, scope: Scope) -> Problem | None:
        if not scope["path"].startswith("/"):
            detail = "the request names a whole URL, as requests to a proxy do; send the path alone (GET /path)"
            return Problem(HTTPStatus.BAD_REQUEST, "invalid-target", detail)
        request = Request(scope)
        if holder_of(request) is not None and session_of(request) is None:
            return None
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) > 1 or not all(self._hosts.know(host) for host in hosts):
            return self._unknown_host(", ".join(hosts))
        reads = scope["method"] in _READING and not _WORK.fullmatch(scope["path"])
        if reads or scope["method"] == "OPTIONS" or scope.get(_ALLOWED, False):
            return None
        trouble = foreign_page(headers, scope["scheme"], self._behind_proxy)
        return None if trouble is None else self._foreign_page(trouble)

    def _unknown_host(self, host: str) -> Problem:
        self._metrics.http_refused.labels(NO_KEY, "host").inc()
        host = re.sub(r"[^\w.:\[\]-]", "?", host[:100], flags=re.ASCII)
        self._complain("a request for the host %s was refused; if that is this server, list it in http.hosts", host)
        detail = (
            "this server is not known by the name in the Host header, which a web page may have made lead here; "
            "ask by IP address or as localhost, list the name in http.hosts, or send a key"
        )
        return Problem(HTTPStatus.MISDIRECTED_REQUEST, "unknown-host", detail)

    def _foreign_page(self, trouble: str) -> Problem:
        self._metrics.http_refused.labels(NO_KEY, "page").inc()
        self._complain("a request that a web page of another site caused was refused")
        detail = (
            f"{trouble}, and without a key such pages may have nothing done here; type the address instead of "
            "following a link, or send an API key (`visaged key NAME` makes one), or, for the AWS kit's paths, list "
            "the page's origin in kit.origins"
        )
        return Problem(HTTPStatus.FORBIDDEN, "foreign-page", detail)
