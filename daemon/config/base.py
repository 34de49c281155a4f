"""Types and defaults that several parts of the configuration share."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""Letters, digits, `_`, `.`, `-`; it becomes a level of MQTT topics and a label of metrics."""

_LABEL = "[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_HOST = rf"{_LABEL}(\.{_LABEL})*"


def fitting(pattern: str, words: str) -> AfterValidator:
    """Return a validator that refuses a text in words: pydantic's own error would show only the pattern."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"is not {words}")
        return text

    return AfterValidator(check)


HostName = Annotated[
    str,
    Field(max_length=253),
    fitting(
        _HOST,
        "a host's name alone, in lower case, without scheme, port and path; not ASCII: in its form xn--...",
    ),
    WithJsonSchema({"type": "string", "maxLength": 253, "pattern": f"^{_HOST}$"}),
]
"""A DNS name in lower case, without a port."""


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
