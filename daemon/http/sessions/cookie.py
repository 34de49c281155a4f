"""The cookie that carries a session.

Its name has the port that the browser asked: browsers send cookies to every port of a host, so that two daemons on one
machine, or behind two tunnels of one, would take each other's sessions away. Over HTTPS the name begins with `__Host-`:
browsers take such a cookie over HTTPS alone, and from no other host of the domain.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.types import Scope

NAME = "visaged_session"
_SECURE = "__Host-"
_PORT = re.compile(r":([0-9]{1,5})$")


def token_of(scope: Scope) -> str | None:
    """Return the session's token in a request's cookies.

    None if there is none, or if there are several that differ: another server on this host may have set one of them.
    """
    found, plain = _cookies(scope), _name(scope)
    tokens = found.get(_SECURE + plain, set())
    if not tokens and scope["scheme"] != "https":
        tokens = found.get(plain, set())
    return tokens.pop() if len(tokens) == 1 else None


def set_cookie(scope: Scope, token: str, seconds: int) -> tuple[bytes, bytes]:
    """Return the header that gives a browser its session.

    Args:
        scope: Scope of the request that is answered.
        token: The token.
        seconds: How long the browser keeps it.
    """
    return _header(_SECURE if _is_secure(scope) else "", _name(scope), token, seconds)


def clear_cookies(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Return the headers that make a browser forget its session."""
    return [_header(prefix, _name(scope), "", 0) for prefix in ((_SECURE, "") if _is_secure(scope) else ("",))]


def _name(scope: Scope) -> str:
    port = _PORT.search(Headers(scope=scope).get("host", ""))
    return f"{NAME}_{port[1]}" if port else NAME


def _is_secure(scope: Scope) -> bool:
    """Return whether the browser speaks HTTPS, with this server or with a proxy before it.

    Where a proxy does not say so, `Origin` shows it; in a GET, a cookie that goes over HTTPS alone does.
    """
    return (
        scope["scheme"] == "https"
        or Headers(scope=scope).get("origin", "").lower().startswith("https://")
        or _SECURE + _name(scope) in _cookies(scope)
    )


def _cookies(scope: Scope) -> dict[str, set[str]]:
    """Return the values of a request's cookies by name."""
    found: dict[str, set[str]] = {}
    for line in Headers(scope=scope).getlist("cookie"):
        for pair in line.split(";"):
            name, is_pair, value = pair.strip().partition("=")
            if is_pair:
                found.setdefault(name, set()).add(value)
    return found


def _header(prefix: str, name: str, token: str, seconds: int) -> tuple[bytes, bytes]:
    parts = [f"{prefix}{name}={token}", "Path=/", f"Max-Age={seconds}", "HttpOnly", "SameSite=Strict"]
    if prefix:
        parts.append("Secure")
    return b"set-cookie", "; ".join(parts).encode()
