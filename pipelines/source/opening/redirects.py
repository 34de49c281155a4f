"""Finds out where a web server redirects to.

FFmpeg follows redirects to any host, or none at all and then does not report where to. So it follows none, and when it
fails, the server is asked once more.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

from visaged.pipelines.source.rtsp.challenges import challenge_fields

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_UNAUTHORIZED = 401
_MOST_CHARACTERS = 4096

Login = tuple[str | None, str | None]
"""User and password."""


def location(url: str, login: Login, tls: ssl.SSLContext, timeout_s: float) -> str | None:
    """Return the absolute URL that a URL redirects to; None if it does not, or if that cannot be found out.

    Args:
        url: URL without a login.
        login: What to answer with where the server asks for a login.
        tls: Which certificates are accepted for https.
        timeout_s: Longest time for all of it, in seconds.
    """
    try:
        status, headers = _ask(url, {}, tls, timeout_s)
        if status == _UNAUTHORIZED and login[0] is not None:
            answer = _authorization(url, headers.get_all("WWW-Authenticate", []), login[0], login[1] or "")
            if answer is not None:
                status, headers = _ask(url, {"Authorization": answer}, tls, timeout_s)
    except (OSError, http.client.HTTPException, ValueError):
        return None
    there = headers.get("Location")
    if status not in _REDIRECTS or there is None or len(there) > _MOST_CHARACTERS:
        return None
    return urljoin(url, there.strip())


def _ask(
    url: str, fields: dict[str, str], tls: ssl.SSLContext, timeout_s: float
) -> tuple[int, http.client.HTTPMessage]:
    parts = urlsplit(url)
    connection = (
        http.client.HTTPSConnection(parts.netloc, timeout=timeout_s, context=tls)
        if parts.scheme == "https"
        else http.client.HTTPConnection(parts.netloc, timeout=timeout_s)
    )
    with contextlib.closing(connection), _deadline(connection, timeout_s):
        target = url.partition("://")[2][len(parts.netloc) :].partition("#")[0]
        target = target if target.startswith("/") else f"/{target}"
        connection.request("GET", target, headers={"User-Agent": "visaged", "Accept": "*/*", **fields})
        response = connection.getresponse()
        return response.status, response.headers


@contextlib.contextmanager
def _deadline(connection: http.client.HTTPConnection, timeout_s: float) -> Iterator[None]:
    """End a connection after a time, whatever comes: the timeout of a socket limits silence alone."""

    def end() -> None:
        with contextlib.suppress(OSError):
            if connection.sock is not None:
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _authorization(url: str, challenges: list[str], user: str, password: str) -> str | None:
    """Return the header that answers a server's challenge for a login; None if no known one is among them."""
    logins = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    logins.add_password(None, url, user, password)
    digest = urllib.request.HTTPDigestAuthHandler(logins)
    for challenge in challenges:
        scheme, _, rest = challenge.strip().partition(" ")
        if scheme.lower() == "digest":
            # ValueError: an algorithm that urllib does not know; OSError: a quality of protection.
            with contextlib.suppress(ValueError, OSError):
                request = urllib.request.Request(url)  # noqa: S310 - it is not opened
                answer = digest.get_authorization(request, challenge_fields(rest))
                if answer is not None:
                    return f"Digest {answer}"
        elif scheme.lower() == "basic":
            return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return None
