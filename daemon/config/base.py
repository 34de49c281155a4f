"""What several parts of the configuration have in common."""

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
    """Return whether a name or address is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def default_state_dir() -> Path | None:
    """Return the folder for what the daemon keeps by itself; None where this user has none.

    It is the first that systemd names (`STATE_DIRECTORY`), or else `visaged` in the XDG base directory for state.
    """
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(base):  # its specification has others ignored
        return Path(base) / "visaged"
    try:
        return Path.home() / ".local" / "state" / "visaged"
    except RuntimeError:
        return None
