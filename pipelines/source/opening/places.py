"""Where a camera may lead the daemon: to its own host, and to those that its configuration lists.

A redirect or a playlist names further URLs. A camera that is not trusted could so make the daemon ask hosts that it
cannot reach itself. FFmpeg follows whatever is named, so every URL is checked here before FFmpeg gets it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

# Only URLs that every parser reads alike: no login, backslash, blank or control character.
_WEB = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?:[/?#][^\s\\\x00-\x1f\x7f]*)?",
    re.IGNORECASE | re.ASCII,
)
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Place:
    """Scheme, host and port of a URL.

    Attributes:
        scheme: `http` or `https`.
        host: Host in lower case; an IPv6 address has its brackets.
        port: TCP port.
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")

    @property
    def is_loopback(self) -> bool:
        """Whether the host is written as this machine itself."""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")


def place_of(url: str) -> Place | None:
    """Return the place of a web URL without a login; None for every other text."""
    found = _WEB.fullmatch(url)
    if found is None:
        return None
    scheme = found["scheme"].lower()
    return Place(scheme, found["host"].lower().rstrip("."), int(found["port"] or _PORTS[scheme]))


def why_not(came_from: Place, url: str, other_hosts: Sequence[str]) -> str | None:
    """Return why a camera may not lead to a URL; None if it may.

    Args:
        came_from: Place of the camera's own URL.
        url: Where it leads to.
        other_hosts: Hosts that are allowed besides, each perhaps with `:port`, in lower case.
    """
    place = place_of(url)
    if place is None:
        return "what is no plain http or https URL"
    if (came_from.scheme, place.scheme) == ("https", "http"):
        return f"{place}, without the TLS that its own URL has"
    listed = place.host in other_hosts or f"{place.host}:{place.port}" in other_hosts
    if place.host != came_from.host:
        return None if listed else f"{place}, which is another host"
    # The ports of a camera are all its own; those of this machine belong to other programs.
    if place.is_loopback and place.port != came_from.port and not listed:
        return f"{place}, which is another program of this machine"
    return None
