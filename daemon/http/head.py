"""HEAD wherever there is GET: load balancers and monitors ask so, and FastAPI answers 405."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class HeadAsGet:
    """Passes HEAD requests on as GET; the HTTP server leaves out the body, because it has seen what was asked.

    A path that knows no GET answers 405 as it does to GET.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
