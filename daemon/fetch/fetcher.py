"""Fetches pictures by URL for clients that are not trusted, from a daemon that may be inside a trusted network."""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus

import httpcore2

from visaged.daemon.fetch.errors import FetchError
from visaged.daemon.fetch.policy import Policy
from visaged.daemon.fetch.resolver import Resolve, SystemResolver
from visaged.daemon.fetch.s3 import S3Client
from visaged.daemon.fetch.settings import FetchSettings
from visaged.daemon.fetch.transport import PinnedBackend, Reply, exchange, tls_context
from visaged.daemon.fetch.urls import Target, parse, parse_s3, scheme_of

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {"User-Agent": "visaged", "Accept": "image/jpeg,image/png,image/bmp,image/webp,*/*;q=0.1"}

Done = Callable[[str, float, int], None]
"""Called after a fetch with result (`ok`, the reason of a `FetchError`, `cancelled` or `failed`), seconds, bytes."""


class Fetcher:
    """Fetches http, https and s3 URLs within the bounds of the configuration, for one event loop.

    The Content-Type of an answer is ignored: decoding shows whether the bytes are a picture.

    Args:
        settings: The configuration of `fetch`.
        resolve: Looks names up; the system's resolver unless given.
        dial: Makes connections to addresses.
        done: Called after every fetch.
    """

    def __init__(
        self,
        settings: FetchSettings,
        *,
        resolve: Resolve | None = None,
        dial: httpcore2.AsyncNetworkBackend | None = None,
        done: Done = lambda result, seconds, size: None,
    ) -> None:
        self._settings = settings
        self._policy = Policy(settings)
        self._resolve = resolve or SystemResolver(2 * settings.max_concurrent)
        self._dial = dial or httpcore2.AnyIOBackend()
        self._done = done
        self._s3 = None if settings.s3 is None else S3Client(settings.s3, resolve=self._resolve, dial=self._dial)
        self._most_bytes = int(settings.max_mb * 1e6)
        self._running = 0
        self._closed = False

    async def fetch(self, url: str) -> bytes:
        """Return the bytes at a URL.

        Args:
            url: `http://`, `https://` or `s3://bucket/key`.

        Raises:
            FetchError: Nothing was fetched; the text is for the client that sent the URL.
        """
        began_s = time.monotonic()
        result, size = "failed", 0  # stays so for an unexpected exception
        try:
            data = await self._admitted(url)
            result, size = "ok", len(data)
            return data
        except FetchError as error:
            result = error.reason
            raise
        except asyncio.CancelledError:
            result = "cancelled"  # the client went away
            raise
        finally:
            self._done(result, time.monotonic() - began_s, size)

    async def close(self) -> None:
        """Refuse new fetches. Running ones end with their tasks or at their deadline; nothing else is open."""
        self._closed = True

    async def _admitted(self, url: str) -> bytes:
        if not self._settings.enabled:
            raise FetchError(
                "disabled",
                "fetching URLs is switched off; send the picture itself, or whoever runs the daemon sets fetch.enabled "
                "to true and says in fetch.allow where from",
            )
        if self._closed:
            raise FetchError("busy", "the daemon is stopping; try again")
        if self._running >= self._settings.max_concurrent:
            raise FetchError("busy", "too many URLs are being fetched; try again")
        self._running += 1
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await (self._from_s3(url) if scheme_of(url) == "s3" else self._from_web(url))
        except TimeoutError:
            raise FetchError(
                "timeout", f"what the URL names was not fetched within {self._settings.timeout_s:g} s (fetch.timeout_s)"
            ) from None
        finally:
            self._running -= 1

    async def _from_s3(self, url: str) -> bytes:
        target = parse_s3(url)
        if self._s3 is None:
            raise FetchError(
                "disabled", "s3 URLs are switched off; whoever runs the daemon describes the storage in fetch.s3"
            )
        found = await self._s3.request("GET", target.bucket, target.key, self._most_bytes)
        return found.data

    async def _from_web(self, url: str) -> bytes:
        target = parse(url)
        for _ in range(self._settings.max_redirects + 1):
            answer = await self._step(target)
            if isinstance(answer, bytes):
                return answer
            target = answer
        raise FetchError("redirects", f"there were more than {self._settings.max_redirects} redirects")

    async def _step(self, target: Target) -> bytes | Target:
        """Return the bytes at a target, or the target that it redirects to."""
        self._policy.admit(target)
        host = target.host
        found = await self._resolve(host, target.port) if isinstance(host, str) else [host]
        addresses = self._policy.check(target, found)
        backend = PinnedBackend(addresses, self._dial, may_be_own=self._policy.is_listed)
        tls = self._tls if target.scheme == "https" else None
        async with exchange("GET", target, _HEADERS, backend, tls) as reply:
            if reply.status in _REDIRECTS:
                return self._redirected(target, reply)
            return await self._taken(target, reply)

    def _redirected(self, target: Target, reply: Reply) -> Target:
        location = reply.headers.get("location")
        if location is None:
            raise FetchError("status", f"{target.site} answered {reply.phrase} and does not say where to")
        try:
            # Header fields are bytes; browsers decode a Location that is not ASCII as UTF-8.
            there = target.joined(location.encode("latin-1").decode())
        except UnicodeDecodeError:
            raise FetchError("redirects", f"{target.site} redirects to what is not text") from None
        except FetchError as error:
            raise FetchError("redirects", f"after a redirect from {target.site}, {error}") from None
        if target.scheme == "https" and there.scheme == "http" and not self._settings.allow_downgrade:
            raise FetchError(
                "redirects", f"{target.site} redirects from https to http (followed only with fetch.allow_downgrade)"
            )
        return there

    async def _taken(self, target: Target, reply: Reply) -> bytes:
        if reply.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            raise FetchError("not_found", f"{target.site} answered {reply.phrase}: there is no such thing")
        if reply.status != HTTPStatus.OK:
            raise FetchError("status", f"{target.site} answered {reply.phrase}")
        if reply.encoding is not None:
            raise FetchError("status", f"{target.site} answered with Content-Encoding, and was asked not to")
        data = await reply.body(self._most_bytes)
        if data is None:
            raise FetchError("too_large", f"the file is larger than {self._settings.max_mb:g} MB (fetch.max_mb)")
        return data

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        return tls_context(self._settings.ca_file)
