"""Fetchers for tests, and what is asked of their refusals."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.http_server import WebServer
from visaged.daemon.fetch.errors import FetchError
from visaged.daemon.fetch.fetcher import Fetcher
from visaged.daemon.fetch.settings import FetchSettings

PICTURE = bytes(range(256)) * 40


def fetcher(**keys: Any) -> Fetcher:
    """Return a fetcher that is switched on, with settings by their keys and the seams of a fetcher by their names."""
    seams = {name: keys.pop(name) for name in ("resolve", "dial", "done") if name in keys}
    return Fetcher(FetchSettings.model_validate({"enabled": True} | keys), **seams)


def fetch(url: str, **keys: Any) -> bytes:
    """Fetch with a fetcher of its own; the keys are those of `fetcher`."""
    return asyncio.run(fetcher(**keys).fetch(url))


def refused(url: str, reason: str, **keys: Any) -> str:
    """Fetch what must not be had; return the text of the refusal, which must hold none of the tests' secrets."""
    with pytest.raises(FetchError) as caught:
        fetch(url, **keys)
    assert caught.value.reason == reason, str(caught.value)
    for secret in ("s3cr3t", "signature", "/private/path"):
        assert secret not in str(caught.value)
    return str(caught.value)


def here(server: WebServer, **more: Any) -> dict[str, Any]:
    """Return the keys that allow a server on loopback."""
    return {"allow": [f"127.0.0.1:{server.port}", f"[::1]:{server.port}"], "timeout_s": 5} | more


def url_of(server: WebServer, path: str = "/picture") -> str:
    """Return a URL on a server."""
    return f"http://127.0.0.1:{server.port}{path}"
