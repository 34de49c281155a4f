"""Types and defaults that several parts of the configuration share."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""Letters, digits, `_`, `.`, `-`; it becomes a level of MQTT topics and a label of metrics."""


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is a loopback address, which other machines cannot reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def default_state_dir() -> Path | None:
    """Return the default state folder; None if the user has no home folder.

    It is the first folder in `STATE_DIRECTORY`, which systemd sets, or else `visaged` in the XDG folder for state.
    """
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(base):  # the XDG specification says to ignore relative paths
        return Path(base) / "visaged"
    try:
        return Path.home() / ".local" / "state" / "visaged"
    except RuntimeError:
        return None
