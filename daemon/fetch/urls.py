"""Parses URLs once, so that what is checked is what is connected to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote, urljoin

import idna

from visaged.daemon.fetch.addresses import Address
from visaged.daemon.fetch.errors import FetchError

_MOST_CHARACTERS = 8192
DEFAULT_PORTS = {"http": 80, "https": 443}

_PARTS = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<target>[^#]*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]+)(?::(?P<port>[0-9]{0,5}))?")
# Parsers disagree on these: some drop them, some take a backslash for a slash.
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
# Underscores are not valid in host names, but common in compose files and on Windows.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"0[0-7]*|[1-9][0-9]*|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed http or https URL.

    Attributes:
        scheme: `http` or `https`.
        host: Host of the URL: a name in lower-case ASCII without a final dot, or an address.
        port: TCP port.
        path: Path and query in ASCII, as they are sent in the request.
    """

    scheme: str
    host: str | Address
    port: int
    path: str

    @property
    def site(self) -> str:
        """Scheme, host and port: the part of a URL that texts may show."""
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and port as the `Host` header has them."""
        host = f"[{self.host}]" if isinstance(self.host, IPv6Address) else str(self.host)
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def joined(self, location: str) -> Target:
        """Return the target of a redirect from here; raises `FetchError` if the location is no valid URL."""
        try:
            return parse(urljoin(f"{self.site}{self.path}", location.replace(" ", "%20")))
        except ValueError:
            raise _bad("it is not a valid URL") from None


@dataclass(frozen=True, slots=True)
class S3Target:
    """An object of a bucket: `s3://bucket/key`, the key taken literally, as the tools of AWS do."""

    bucket: str
    key: str


def scheme_of(url: str) -> str:
    """Return the scheme of a URL: `http`, `https` or `s3`; raises `FetchError` if it has another or none."""
    scheme = url.partition("://")[0].lower()
    if scheme not in (*DEFAULT_PORTS, "s3"):
        raise _bad("it does not start with https://, http:// or s3://")
    return scheme


def parse(url: str) -> Target:
    """Parse an http or https URL.

    Raises:
        FetchError: The text is no such URL, or is written in a way that parsers disagree on.
    """
    _check(url)
    found = _PARTS.match(url)
    if found is None:
        raise _bad("it does not start with https:// or http://")
    if _UNSAFE.search(url):
        raise _bad("it is not a valid URL; percent-encode spaces, control characters and backslashes")
    scheme = found["scheme"].lower()
    if "@" in found["authority"]:
        raise _bad("it has a user or password, and none are taken from URLs")
    host, port = _split(found["authority"])
    target = quote(found["target"], safe="/?!#$%&'()*+,;=:@[]~-._\"<>^`{|}")
    return Target(
        scheme,
        parse_host(host),
        DEFAULT_PORTS[scheme] if port is None else port,
        target if target.startswith("/") else f"/{target}",
    )


def parse_s3(url: str) -> S3Target:
    """Parse an s3 URL; raises `FetchError` if it does not name a bucket and a key."""
    _check(url)
    bucket, _, key = url[len("s3://") :].partition("/")
    if url[: len("s3://")].lower() != "s3://" or not bucket or not key:
        raise _bad("it does not name a bucket and a key: s3://bucket/key")
    check_object(bucket, key)
    return S3Target(bucket, key)


def check_object(bucket: str, key: str) -> None:
    """Check the name of a bucket and the key of an object; raises `FetchError` if they are not valid."""
    # The bucket becomes part of a host name (docs.aws.amazon.com/AmazonS3, "Bucket naming rules").
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket) or ".." in bucket:
        raise _bad("its bucket has a name that buckets cannot have")
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        raise _bad("its key has characters that are not Unicode") from None
    if not 1 <= length <= 1024:
        raise _bad("its key is not of 1 to 1024 bytes")


def parse_host(text: str) -> str | Address:
    """Return a host in its canonical spelling, which is checked and connected to.

    Full-width and encircled letters, ideographic dots and the like are mapped to ASCII (UTS 46); decimal, octal,
    hexadecimal and short forms of IPv4 addresses become addresses, as browsers and the C library read them.

    Args:
        text: A name, an IPv4 address, or an IPv6 address in brackets.

    Raises:
        FetchError: The text is none of them.
    """
    if text.startswith("["):
        if not text.endswith("]") or "%" in text:
            raise _bad("its IPv6 address is not valid; zones are not taken")
        try:
            return IPv6Address(text[1:-1])
        except ValueError:
            raise _bad("its IPv6 address is not valid") from None
    if not text.isascii():
        if len(text) > 253:
            raise _bad("its host is not a valid name")
        try:
            text = idna.uts46_remap(text, std3_rules=False, transitional=False)
            text = text if text.isascii() else idna.encode(text).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise _bad("its host is not a valid name") from None
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _bad("its host is not a valid name")
    return _ipv4(labels) if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]) else name


def _ipv4(labels: list[str]) -> IPv4Address:
    """Return the IPv4 address of numeric labels, as the WHATWG URL standard's parser and `inet_aton` read them."""
    numbers = []
    if all(_NUMBER.fullmatch(label) for label in labels):
        numbers = [
            int(label[2:] or "0", 16) if label.startswith("0x") else int(label, 8 if label.startswith("0") else 10)
            for label in labels
        ]
    # Each number but the last is one byte; the last one fills the remaining bytes.
    if not 1 <= len(numbers) <= 4 or max(numbers[:-1], default=0) > 255 or numbers[-1] >= 256 ** (5 - len(numbers)):
        raise _bad("its host ends in a number and is not a valid address")
    return IPv4Address(sum(number << (24 - 8 * index) for index, number in enumerate(numbers[:-1])) + numbers[-1])


def _split(authority: str) -> tuple[str, int | None]:
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise _bad("it names no host, has an IPv6 address without brackets, or a port that is no number")
    if not found["port"]:
        return found["host"], None
    if not 1 <= int(found["port"]) <= 65535:
        raise _bad("its port is not a number from 1 to 65535")
    return found["host"], int(found["port"])


def _check(url: str) -> None:
    if len(url) > _MOST_CHARACTERS:
        raise _bad(f"it is longer than {_MOST_CHARACTERS} characters")
    try:
        url.encode()
    except UnicodeEncodeError:
        raise _bad("it has characters that are not Unicode") from None


def _bad(text: str) -> FetchError:
    return FetchError("bad_url", f"the URL cannot be fetched: {text}")
