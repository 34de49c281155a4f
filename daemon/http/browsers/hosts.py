"""The Host header: whether a request was meant for this server.

A web page can make a name of its own resolve to the address of this server (DNS rebinding). The browser then takes the
server for a part of that page's site, and lets the page read all answers. Only the Host header shows it, which has the
page's name. An IP address or localhost there cannot come from such a page, because no name of its own led here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:/?#@\s]*))(?::[0-9]*)?")


def host_name(host: str) -> str | None:
    """Return the name or address in a Host header, in lower case, without port, brackets and the dot at its end.

    It is empty if the header is; None if the header is malformed.
    """
    found = _HOST.fullmatch(host.strip())
    if found is None:
        return None
    return (found["address"] or found["name"]).lower().removesuffix(".")


class KnownHosts:
    """The names and addresses under which a server answers requests that prove no right of their own.

    Args:
        names: Names besides IP addresses, localhost and names below it, which browsers resolve to loopback alone.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower() for name in names)

    def know(self, host: str) -> bool:
        """Return whether a Host header has such a name. An empty or absent one counts as known: browsers send one."""
        if not host.strip():
            return True
        name = host_name(host) or ""
        return name == "localhost" or name.endswith(".localhost") or name in self._names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
