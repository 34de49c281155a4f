"""Requests that a web page of another site causes in a browser.

A browser lets any page send requests to any server, without asking when they look like those of an HTML form or an
image; only the answer is kept from the page. So such requests must not make the server do work or change anything.
Browsers mark them with `Origin` and `Sec-Fetch-Site`, which no page can set itself. Programs send neither.
"""

from __future__ import annotations

from starlette.datastructures import Headers


def foreign_page(headers: Headers, scheme: str, behind_proxy: bool = False) -> str | None:
    """Return what shows that a page of another site caused a request; None if nothing does.

    Args:
        headers: The request's headers.
        scheme: Scheme of the request, http or https.
        behind_proxy: Whether a proxy may have ended TLS, or replaced the Host header. The scheme of the origin is not
            compared then, and its host only if the browser did not compare it itself (`Sec-Fetch-Site`).
    """
    sites = headers.getlist("sec-fetch-site")
    if any(site.lower() not in ("none", "same-origin") for site in sites):
        return "the Sec-Fetch-Site header shows a page of another site"
    if behind_proxy and sites:
        return None
    host = headers.get("host", "").lower()
    own = {f"http://{host}", f"https://{host}"} if behind_proxy else {f"{scheme}://{host}"}
    if any(origin.lower() not in own for origin in headers.getlist("origin")):
        return "the Origin header shows a page of another site"
    return None
