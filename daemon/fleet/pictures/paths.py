"""Which requests of a fleet's clients are for which door of a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import Scope

from visaged.daemon.api.aliyun_oss.requests import HostRouter
from visaged.daemon.api.aws_kit.settings import KIT_PATH
from visaged.daemon.fleet.pictures.doors import API, OSS

_FACES = "/v1/faces"


@dataclass(frozen=True, slots=True)
class Served:
    """What is served, of a configuration.

    Attributes:
        kit: Whether the paths of the AWS kit are.
        oss: Whether the OSS-compatible endpoint is.
        endpoints: Host names of that endpoint.
        domains: Names of its buckets by further host names.
    """

    kit: bool
    oss: bool
    endpoints: tuple[str, ...]
    domains: Mapping[str, str]


class Paths:
    """Sorts requests by their path and Host.

    Names of buckets are OSS's; the paths of single pictures are the API's; all other paths are OSS's in path style,
    where that endpoint is served. (So there is no object `faces` in a bucket `v1` by path.)

    Args:
        served: What is served.
    """

    def __init__(self, served: Served) -> None:
        self._with_kit = served.kit
        self._buckets = HostRouter(served.endpoints, served.domains) if served.oss else None

    def door(self, scope: Scope) -> str | None:
        """Return the name of the door for a request; None if there is none."""
        host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
        if self._buckets is not None and self._buckets.bucket(host) is not None:
            return OSS
        path = scope["path"]
        if path == _FACES or (self._with_kit and KIT_PATH.fullmatch(path) is not None):
            return API
        return None if self._buckets is None else OSS
