"""Headers that keep browsers from doing more with an answer than its reader needs."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

RESOURCE_POLICY = "Cross-Origin-Resource-Policy"
"""Name of the header that says which pages may embed an answer."""

SAFE: Mapping[str, str] = {
    # Nothing is rendered as a type that it was not sent as.
    "X-Content-Type-Options": "nosniff",
    # Should an answer be rendered all the same, it loads and runs nothing, and no page shows it in a frame.
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    # Pages of other origins cannot embed it, say as an image or script.
    RESOURCE_POLICY: "same-origin",
    # A page that opened it in a window keeps no hold of that window.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
"""Headers of every answer that does not set them itself."""

PRIVATE: Mapping[str, str] = {**SAFE, "Cache-Control": "no-store"}
"""The same for answers that may tell of people: no cache on the way, and none on a disk, keeps them."""


class SafeHeaders:
    """Adds headers to every answer of an application that does not have them.

    Args:
        app: The application.
        headers: The headers: `SAFE` or `PRIVATE`.
    """

    def __init__(self, app: ASGIApp, headers: Mapping[str, str] = SAFE) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
