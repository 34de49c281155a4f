"""The configuration of the HTTP server: where it listens, who may use it, and its limits."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from visaged.daemon.config.base import HostName, Name, is_loopback
from visaged.daemon.config.document import ConfigProblem
from visaged.daemon.config.tls import TlsError, TlsSettings
from visaged.daemon.fleet.settings import ServedPictures
from visaged.pipelines.runtime.config import HiddenText, StrictConfig

Role = Literal["reader", "admin"]


class ApiKeySettings(StrictConfig):
    """An API key. `visaged key NAME` makes one and prints these lines."""

    name: Name
    """Name of the key in metrics and the log, such as that of its holder."""
    sha256: HiddenText
    """SHA-256 of the key in hexadecimal digits. The key itself is stored nowhere; only its holder has it."""
    role: Role = "reader"
    """What the key's holder may do: a `reader` has pictures analysed and sees states; an `admin` may also reload the
    configuration, and add, change and remove cameras."""
    max_per_second: Annotated[float, Field(ge=0.001, le=100_000)] | None = None
    """Requests that the key may make a second, on average; null for any number."""
    burst: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Requests that may come at once after a pause; null for as many as `max_per_second`, rounded up."""
    max_at_once: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Requests of the key that may be in progress at a time; null for any number."""

    @field_validator("sha256")
    @classmethod
    def _is_a_hash(cls, value: str) -> str:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
            # The value may be the key itself, so the text does not repeat it.
            raise ValueError(
                "is not a SHA-256 in 64 hexadecimal digits; write what `visaged key` printed as sha256, not the key"
            )
        return value.lower()

    @model_validator(mode="after")
    def _burst_of_a_rate(self) -> ApiKeySettings:
        if self.burst is not None and self.max_per_second is None:
            raise ValueError("burst is given, but no max_per_second that it belongs to")
        return self


class HttpSettings(StrictConfig):
    """The HTTP server."""

    host: str = "127.0.0.1"
    """Address to listen on. Beyond loopback it takes `keys` (or `without_keys`)."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port to listen on; 0 for any free one."""
    hosts: list[HostName] = Field(default=[])
    """Names of this server in the URLs of clients that send no key, besides localhost. IP addresses need no entry.
    Requests without a key for other names are refused, because a web page could have made such a name lead here."""
    keys: list[ApiKeySettings] = Field(default=[])
    """API keys. With any, every request but those for health and documentation must have one, on loopback too."""
    without_keys: bool = False
    """Listen beyond loopback without keys, because a proxy in front has a login of its own. The names that the proxy
    passes on as Host belong in `hosts`."""
    open_metrics: bool = False
    """Answer `/metrics` without a key. The answer contains the names of cameras and keys."""
    tls: TlsSettings | None = None
    """Certificate and key for HTTPS; null for HTTP."""
    access_log: bool = True
    """Log a line for every request at info. Successful requests for health and metrics, and all requests if this is
    off, are logged at debug."""
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Most open connections; one more takes the place of one that is silent, or is answered with 503 and closed. Some
    are kept for this machine, and a few more may ask for health alone."""
    max_connections_per_address: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Most open connections of an address of another machine (of IPv6, of a network of 64 bits); one more takes the
    place of one that is silent, or may ask for health alone. For a proxy on another machine, as many as it opens."""
    header_timeout_s: Annotated[float, Field(ge=0.001, le=300)] = 10.0
    """Longest time in seconds from the start of a connection to the end of a request's headers."""
    max_body_mb: Annotated[float, Field(ge=0.001, le=100)] = 20
    """Largest picture file in megabytes."""
    max_bodies_mb: Annotated[float, Field(ge=0.001, le=100_000)] = 256
    """Most megabytes of pictures' files in memory at a time, as they were sent; one more is refused with 503 and
    Retry-After, or one that has been coming for long gives way. At least 1.5 times `max_body_mb`."""
    max_megapixels: Annotated[float, Field(ge=0.001, le=250)] = 50
    """Largest picture in megapixels. Decoding takes up to 13 bytes a pixel, and pictures of twice this many pixels in
    all are decoded at a time."""
    long_side: Annotated[int, Field(ge=160, le=4096)] = 1280
    """Long side in pixels of the largest canvas on which single pictures are searched, beside `inference.long_side` and
    a small one. Time and memory grow with its square: 4096 finds faces of 10 px in a photo of 12 megapixels, takes ten
    times as long as 1280 and 1 GB of memory while it lasts. Not a quarter larger than `inference.long_side`: no such
    canvas. Pictures of at least half this size are put on it, enlarged where they are smaller."""
    max_waiting: Annotated[int, Field(ge=1, le=1000)] = 16
    """Most pictures that are analysed or wait at a time; further ones are refused with 503 and Retry-After."""
    deadline_s: Annotated[float, Field(ge=0.001, le=300)] = 10.0
    """Longest time in seconds from the last byte of a picture to its answer, which is 503 with Retry-After then."""
    fleet: ServedPictures = ServedPictures()
    """Single pictures by a whole fleet."""

    @property
    def max_pixels(self) -> int:
        """Largest picture in pixels."""
        return int(self.max_megapixels * 1e6)

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, document: Any) -> Any:
        if isinstance(document, dict) and "allow_remote" in document:
            raise ValueError(
                "there is no allow_remote any more: make a key with `visaged key NAME` and put it under keys, "
                "or, if a proxy in front has a login of its own, write without_keys: true instead"
            )
        return document

    @field_validator("keys")
    @classmethod
    def _differ(cls, keys: list[ApiKeySettings]) -> list[ApiKeySettings]:
        for what in ("name", "sha256"):
            double = [value for value, n in Counter(getattr(key, what) for key in keys).items() if n > 1]
            if double:
                names = ", ".join(sorted({key.name for key in keys if getattr(key, what) in double}))
                raise ValueError(f"more than one has the same {what} ({names}); give each its own")
        return keys

    @model_validator(mode="after")
    def _bodies_hold_the_largest(self) -> HttpSettings:
        if self.max_bodies_mb < 1.5 * self.max_body_mb:  # base64 takes a third more
            raise ValueError(
                f"max_bodies_mb is {self.max_bodies_mb:g}, which does not hold a picture of max_body_mb in base64; "
                f"make it at least {1.5 * self.max_body_mb:g}"
            )
        return self

    @model_validator(mode="after")
    def _guarded(self) -> HttpSettings:
        if self.keys and self.without_keys:
            raise ValueError("there are keys, and without_keys is true; drop one of them")
        if not (self.keys or self.without_keys or is_loopback(self.host)):
            raise ValueError(
                f"host {self.host} can be reached from other machines, and there are no keys: make one with "
                "`visaged key NAME` and put its lines under keys, or set host to 127.0.0.1, or, if a proxy in front "
                "has a login of its own, set without_keys to true"
            )
        if self.fleet.enabled and not (self.keys or self.without_keys or is_loopback(self.fleet.host)):
            raise ValueError(
                f"fleet.host {self.fleet.host} can be reached from other machines, and there are no keys: make one "
                "with `visaged key NAME` and put its lines under keys, or set fleet.host to 127.0.0.1, or, if a proxy "
                "in front has a login of its own, set without_keys to true"
            )
        return self


def check_http(settings: HttpSettings) -> list[ConfigProblem]:
    """Return what keeps the server from working: TLS files that are missing or do not match."""
    if settings.tls is None:
        return []
    try:
        settings.tls.context()
    except TlsError as error:
        return [ConfigProblem("http.tls", str(error))]
    return []


def http_warnings(settings: HttpSettings) -> list[ConfigProblem]:
    """Return advice about settings that `check_http` finds nothing wrong with."""
    warnings = []
    if settings.tls is not None:
        # A certificate that is a credential of the service cannot be read elsewhere.
        trouble = None if check_http(settings) else settings.tls.warning()
        if trouble is not None:
            warnings.append(ConfigProblem("http.tls.certificate", f"{settings.tls.certificate}: {trouble}"))
    elif settings.keys and not is_loopback(settings.host):
        warnings.append(
            ConfigProblem(
                "http.tls", "keys and pictures travel unencrypted: give tls, or put a proxy with TLS in front"
            )
        )
    return warnings
