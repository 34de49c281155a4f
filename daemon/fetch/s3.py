"""Reads objects from storage with the S3 protocol, such as AWS, MinIO or Ceph.

Requests are signed by botocore, the core of boto3, and sent like every other fetch. boto3 itself is not used: it looks
for credentials, endpoints, proxies and authorities in variables, in `~/.aws` and at the cloud's metadata service, and
its time-outs limit silence alone. Here, signing depends on the configuration alone.
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import importlib
import logging
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Literal
from urllib.parse import quote

import httpcore2

from visaged.daemon.fetch.errors import FetchError
from visaged.daemon.fetch.resolver import Resolve, SystemResolver
from visaged.daemon.fetch.settings import S3_MISSING, S3Settings
from visaged.daemon.fetch.transport import PinnedBackend, Reply, exchange, tls_context
from visaged.daemon.fetch.urls import Target, check_object, parse
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)

# At debug it logs signatures, the access key's id and objects' keys.
logging.getLogger("botocore").setLevel(logging.WARNING)

_ATTEMPTS = 2
_PAUSE_S = 0.2
_LOOK_UPS = 64
_MOST_ERROR_BYTES = 65536

# docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; MinIO and Ceph use the same.
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_CREDENTIALS = {
    "InvalidAccessKeyId": "it does not know access_key_id",
    "SignatureDoesNotMatch": "secret_access_key is not that of access_key_id",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
    "AccessDenied": "the access key may not read it, or it does not exist",
}
_REGION = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "InvalidRegion"})


@dataclass(frozen=True, slots=True)
class S3Object:
    """An object, or from `head` its metadata alone.

    Attributes:
        data: Bytes of the object; empty from `head`.
        size: Size of the object in bytes.
        etag: The ETag header with its quotation marks; empty if there was none.
        last_modified: Time of the last change, with its time zone; None if the storage sent none.
        content_type: Content-Type that was stored with the object; it may be wrong.
    """

    data: bytes
    size: int
    etag: str
    last_modified: datetime | None
    content_type: str | None


class S3Client:
    """Reads objects of one endpoint with one access key. Its methods may be called from any thread.

    Args:
        settings: Endpoint and access key. The daemon's owner sets them, so the endpoint may have any address.
        name: Path of the settings in the configuration, for error texts.
        resolve: Looks names up; the system's resolver unless given.
        dial: Makes connections to addresses.
    """

    def __init__(
        self,
        settings: S3Settings,
        name: str = "fetch.s3",
        *,
        resolve: Resolve | None = None,
        dial: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._settings = settings
        self._name = name
        self._log = LimitedLog(log)
        self._resolve = resolve or SystemResolver(_LOOK_UPS)
        self._dial = dial or httpcore2.AnyIOBackend()

    def get(self, bucket: str, key: str, most_bytes: int, timeout_s: float) -> S3Object:
        """Return an object; blocks, so it must not be called in the thread of an event loop.

        Args:
            bucket: Name of the bucket.
            key: Key of the object, not percent-encoded.
            most_bytes: Largest object that is fetched, in bytes.
            timeout_s: Longest time for the whole fetch, in seconds.

        Raises:
            FetchError: The object was not fetched; the text says why, without the key and without credentials.
        """
        return asyncio.run(self._within("GET", bucket, key, most_bytes, timeout_s))

    def head(self, bucket: str, key: str, timeout_s: float) -> S3Object:
        """Return the metadata of an object, without its bytes; blocks and raises like `get`."""
        return asyncio.run(self._within("HEAD", bucket, key, 0, timeout_s))

    async def _within(
        self, method: Literal["GET", "HEAD"], bucket: str, key: str, most_bytes: int, timeout_s: float
    ) -> S3Object:
        try:
            async with asyncio.timeout(timeout_s):
                return await self.request(method, bucket, key, most_bytes)
        except TimeoutError:
            raise FetchError("timeout", f"the storage did not answer within {timeout_s:g} s") from None

    async def request(self, method: Literal["GET", "HEAD"], bucket: str, key: str, most_bytes: int) -> S3Object:
        """Return an object (GET) or its metadata (HEAD), without a time limit.

        Raises:
            FetchError: The object was not fetched.
        """
        check_object(bucket, key)
        buckets = self._settings.buckets
        if buckets is not None and bucket not in buckets:
            raise FetchError("forbidden", f"nothing is fetched from the bucket {bucket}: not in {self._name}.buckets")
        target = self._target(bucket, key)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._attempt(method, bucket, target, most_bytes)
            except FetchError as error:
                lost = error.reason == "unreachable"
                if attempt == _ATTEMPTS and lost:
                    # The client is not shown where the storage is.
                    self._log("%s: %s", self._name, error)
                    raise FetchError(
                        "unreachable", "the storage cannot be reached; the daemon's log says why"
                    ) from None
                if attempt == _ATTEMPTS or not (lost or isinstance(error, _Passing)):
                    raise
            await asyncio.sleep(_PAUSE_S)
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, method: Literal["GET", "HEAD"], bucket: str, target: Target, most_bytes: int) -> S3Object:
        host = target.host
        addresses = await self._resolve(host, target.port) if isinstance(host, str) else [host]
        backend = PinnedBackend(addresses, self._dial)
        tls = self._tls if target.scheme == "https" else None
        # In a thread, because it may import botocore and read secrets from files.
        headers = await asyncio.to_thread(self._signed, method, target)
        async with exchange(method, target, headers, backend, tls) as reply:
            if reply.status != HTTPStatus.OK:
                raise await self._error(bucket, reply)
            if reply.encoding is not None:
                raise FetchError("status", f"the object is stored with Content-Encoding {reply.encoding[:20]!r}")
            data = b"" if method == "HEAD" else await reply.body(most_bytes)
            if data is None:
                raise FetchError("too_large", f"the object is larger than {most_bytes / 1e6:.4g} MB")
            size = (reply.length or 0) if method == "HEAD" else len(data)
            return _object(data, size, reply.headers)

    def _target(self, bucket: str, key: str) -> Target:
        settings = self._settings
        suffix = "amazonaws.com.cn" if settings.region.startswith("cn-") else "amazonaws.com"
        site = parse(settings.endpoint or f"https://s3.{settings.region}.{suffix}")
        style = settings.addressing_style
        path_style = style == "path" or (style == "auto" and settings.endpoint is not None)
        # A certificate for *.endpoint does not cover bucket names with dots, and IP addresses have no subdomains.
        if path_style or "." in bucket or not isinstance(site.host, str):
            return Target(site.scheme, site.host, site.port, f"/{bucket}/{quote(key, safe='/~')}")
        return Target(site.scheme, f"{bucket}.{site.host}", site.port, f"/{quote(key, safe='/~')}")

    def _signed(self, method: str, target: Target) -> dict[str, str]:
        """Return the headers of a request, signed by Signature Version 4."""
        try:
            auth = importlib.import_module("botocore.auth")
            awsrequest = importlib.import_module("botocore.awsrequest")
            credentials = importlib.import_module("botocore.credentials")
        except ImportError:
            raise FetchError("disabled", f"s3 {S3_MISSING}") from None
        try:
            # Read for each request: secrets in files may be replaced while the daemon runs.
            key = credentials.Credentials(self._settings.access_key_id, self._settings.secret())
        except ValueError as error:
            raise FetchError("credentials", f"{self._name}: {error}") from None
        request = awsrequest.AWSRequest(method, f"{target.site}{target.path}")
        auth.S3SigV4Auth(key, "s3", self._settings.region).add_auth(request)
        return {"User-Agent": "visaged", **dict(request.headers.items())}

    async def _error(self, bucket: str, reply: Reply) -> FetchError:
        body = await reply.body(_MOST_ERROR_BYTES) or b""
        found = re.search(rb"<Code>([A-Za-z0-9]{1,64})</Code>", body)
        code = found[1].decode() if found is not None else ""
        if code in _REGION or reply.status in (HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.TEMPORARY_REDIRECT):
            return FetchError("status", f"the bucket {bucket} is in another region than {self._name}.region says")
        if reply.status == HTTPStatus.NOT_FOUND:
            what = "no such bucket" if code == "NoSuchBucket" else "no such object in the bucket"
            return FetchError("not_found", f"there is {what}: {bucket}")
        if reply.status in _REFUSED or code in _CREDENTIALS:
            why = _CREDENTIALS.get(code, "the access key may not read it, or is not accepted")
            return FetchError("credentials", f"the storage refuses to give an object of {bucket}: {why} ({self._name})")
        text = f"the storage answered {reply.phrase}{f' ({code})' if code else ''}"
        kind = _Passing if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR else FetchError
        return kind("status", text)

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        return tls_context(self._settings.ca_file)


class _Passing(FetchError):
    """An error of the storage (5xx) that may be gone at the next attempt."""


def _object(data: bytes, size: int, headers: Mapping[str, str]) -> S3Object:
    try:
        modified = email.utils.parsedate_to_datetime(headers.get("last-modified", ""))
    except (TypeError, ValueError):
        modified = None
    return S3Object(data, size, headers.get("etag", ""), modified, headers.get("content-type"))
