"""What several parts of the configuration have in common."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""Letters, digits, `_`, `.`, `-`; it becomes a level of MQTT topics and a label of metrics."""


def is_loopback(host: str) -> bool:
    """Return whether a name or address is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
