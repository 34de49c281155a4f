"""Who may change the configuration over HTTP: holders of an admin key; without keys, programs of this machine.

Requests that a page of another site caused in a browser do not come this far (`PageGuard`). Without keys, changes are
bound to this machine besides: `Host` must be a loopback address, and no proxy may have passed the request on.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request

from visaged.daemon.config.base import is_loopback
from visaged.daemon.http.access import holder_of
from visaged.daemon.http.browsers.hosts import host_name
from visaged.daemon.http.problems import Problem
from visaged.daemon.http.settings import HttpSettings

_PROXIES = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_KEY = "make a key with `visaged key NAME --role admin`, put its lines under http.keys, and send it"


def check_may_change(request: Request, settings: HttpSettings) -> None:
    """Return if a request may change the configuration.

    Args:
        request: The request; its key has been checked already.
        settings: Which keys there are, and where the server listens.

    Raises:
        Problem: The request may not; the text says what to do.
    """
    holder = holder_of(request)
    if holder is not None:
        if holder.role != "admin":
            raise _forbidden(
                f"key {holder.name} has the role reader, and changes take the role admin: give it `role: admin` under "
                "http.keys and restart visaged, or use a key that `visaged key NAME --role admin` made"
            )
        return
    if settings.without_keys or not is_loopback(settings.host):
        raise _forbidden(f"without keys, changes are possible only where the server listens on loopback; {_KEY}")
    trouble = _from_elsewhere(request)
    if trouble is not None:
        raise _forbidden(f"without keys, changes are only for programs of this machine, and {trouble}; {_KEY}")


def check_may_name(request: Request, camera: Mapping[str, Any]) -> None:
    """Return if a request may set the keys of a camera that it sets.

    The first line of a password file, or the value of a variable, is sent to the host in the camera's URL. Without
    keys, any user of this machine could read files in this way that only the daemon may read.

    Args:
        request: The request, which may change the configuration.
        camera: The configuration of a camera, or a patch for one.

    Raises:
        Problem: The request may not; the text says what to do.
    """
    named = [key for key in ("password_file", "password_env") if camera.get(key) is not None]
    if named and holder_of(request) is None:
        raise _forbidden(f"without keys, {' and '.join(named)} can be set in the configuration's file alone; {_KEY}")


def _from_elsewhere(request: Request) -> str | None:
    """Return what shows that a request comes from another machine or through a proxy; None if nothing does."""
    if not is_loopback(host_name(request.headers.get("host", "")) or ""):
        return "the Host header is neither localhost nor a loopback address"
    if any(name in request.headers for name in _PROXIES):
        return "a header shows that a proxy passed this on"
    return None


def _forbidden(detail: str) -> Problem:
    return Problem(HTTPStatus.FORBIDDEN, "forbidden", detail)
