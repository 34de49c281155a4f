"""Requests as OSS reads them: bucket and key, with every byte as it was sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.types import Scope

from visaged.daemon.api.aliyun_oss.errors import OssError
from visaged.daemon.http.browsers.hosts import KnownHosts, host_name
from visaged.daemon.http.browsers.origins import foreign_page

MAX_KEY_BYTES = 1023
"""Longest key in bytes, as in OSS."""

_PATH = re.compile(rb"/(?P<bucket>[^/]*)(?P<slash>/?)(?P<key>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class OssRequest:
    """A request.

    Attributes:
        method: HTTP method: GET, HEAD, ...
        bucket: Name of the bucket; None for requests to the service as such.
        key: Key of the object, decoded; empty for requests to the bucket as such.
        query: Names and values of the query parameters, decoded, in the order sent.
        headers: Names in lower case and values of the headers, in the order sent.
        host: Value of the Host header.
        page: What shows that a web page of another origin caused the request in a browser; None if nothing does.
    """

    method: str
    bucket: str | None
    key: bytes
    query: tuple[tuple[bytes, bytes], ...]
    headers: tuple[tuple[bytes, bytes], ...]
    host: str
    page: str | None = None

    def argument(self, name: bytes) -> bytes | None:
        """Return the first value of a query parameter; None if it was not sent."""
        return next((value for key, value in self.query if key == name), None)

    def header(self, name: bytes) -> bytes:
        """Return a header's value; empty if it was not sent."""
        return next((value for key, value in self.headers if key == name), b"")

    def key_text(self) -> str:
        """Return the key as text.

        Raises:
            OssError: The key is not UTF-8, or too long.
        """
        if len(self.key) > MAX_KEY_BYTES:
            raise OssError("InvalidObjectName", f"The object's name is longer than {MAX_KEY_BYTES} bytes.")
        try:
            return self.key.decode()
        except UnicodeDecodeError:
            raise OssError("InvalidObjectName", "The object's name is not UTF-8; percent-encode its bytes.") from None


class HostRouter:
    """Finds the bucket that a Host header names.

    Args:
        endpoints: Host names of the endpoint; `<bucket>.<endpoint>` means a bucket.
        domains: Names of buckets by further host names, each of which means one bucket.
    """

    def __init__(self, endpoints: Iterable[str], domains: Mapping[str, str]) -> None:
        endpoints = tuple(endpoints)
        self._suffixes = tuple(f".{name}" for name in endpoints)
        self._hosts = KnownHosts(endpoints)
        self._domains = dict(domains)

    def knows(self, host: str) -> bool:
        """Return whether a Host header has a name of this endpoint: an IP address, localhost or a configured name.

        A web page could make a name of its own lead here (DNS rebinding), and read what is served without a signature.
        """
        return self._hosts.know(host) or self.bucket(host) is not None

    def bucket(self, host: str) -> str | None:
        """Return the bucket that a Host header names; None where the path names it."""
        name = host_name(host) or ""
        if name in self._domains:
            return self._domains[name]
        # The longest suffix, so that the right one of the endpoints `a.b` and `b` is removed.
        fitting = [suffix for suffix in self._suffixes if name.endswith(suffix) and len(name) > len(suffix)]
        return name.removesuffix(max(fitting, key=len)) if fitting else None


def read_request(scope: Scope, names: HostRouter) -> OssRequest:
    """Return the request in an ASGI scope.

    The key is decoded from the path as it was sent: `%2F` and `/` are the same, as in OSS, and nothing is normalised.

    Raises:
        OssError: The path does not begin with a slash.
    """
    headers = tuple((bytes(name).lower(), bytes(value).strip()) for name, value in scope["headers"])
    host = next((value for name, value in headers if name == b"host"), b"").decode("latin-1")
    raw: bytes = scope["raw_path"]
    bucket, key = names.bucket(host), raw[1:]
    found = _PATH.fullmatch(raw)
    if found is None:
        raise OssError("InvalidArgument", "The request's path does not begin with a slash.")
    if bucket is None:
        # Bytes that are not ASCII become U+FFFD, which no bucket has in its name.
        bucket, key = unquote_to_bytes(found["bucket"]).decode("ascii", "replace") or None, found["key"]
    query = tuple(_pair(part) for part in scope["query_string"].split(b"&") if part)
    page = foreign_page(Headers(scope=scope), scope["scheme"])
    return OssRequest(scope["method"], bucket, unquote_to_bytes(key), query, headers, host, page)


def _pair(part: bytes) -> tuple[bytes, bytes]:
    # Clients send a space in a parameter as + or %20, and sign it as %20.
    name, _, value = part.replace(b"+", b" ").partition(b"=")
    return unquote_to_bytes(name), unquote_to_bytes(value)
