"""HEAD for every path that has GET: load balancers and monitors send it, and FastAPI would answer 405."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

# Key of a request's scope: whether it came as HEAD.
_HEAD = "visaged.head"


def is_head(scope: Scope) -> bool:
    """Return whether a request that was passed on as GET came as HEAD, so that the body of its answer is left out."""
    return bool(scope.get(_HEAD, False))


class HeadAsGet:
    """Passes HEAD requests on as GET; the HTTP server, which saw the original method, leaves out the body.

    A path without GET answers 405.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", _HEAD: True}
        await self._app(scope, receive, send)
