"""The option `--camera`: a URL, or the name of a variable or file that holds one, so that no password is in `ps`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from visaged.daemon.config.document import ConfigProblem, SettingsError
from visaged.pipelines.runtime.redact import may_hold_password
from visaged.pipelines.source.address import is_file_name

_MOST_BYTES = 65_536
"""Most bytes of a file with a URL; a recording is larger."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S.*")

EXPOSED = (
    "other users of this machine see the command line, and the URL seems to hold a password; put it into a variable, "
    "or as the first line into a file that only you may read, and give --camera env:VARIABLE or --camera file:PATH"
)


def camera_document(index: int, text: str) -> dict[str, Any]:
    """Return the configuration of the camera that an option names.

    Args:
        index: Number of the option, from 1.
        text: `[NAME=]URL`, `[NAME=]env:VARIABLE` or `[NAME=]file:PATH`; `file:` also names a recording, and is one
            unless the first line of that file is a URL.

    Raises:
        SettingsError: The variable is not set, or the file cannot be read.
    """
    name, url = split_name(text)
    return {"name": name or f"camera{index}", "url": _referred(index, url)}


def split_name(text: str) -> tuple[str | None, str]:
    """Return the name in an option and the rest; a file's name may have an equals sign."""
    named = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=(.+)", text, re.DOTALL)
    return (named[1], named[2]) if named and not is_file_name(text) else (None, text)


def is_exposed(text: str) -> bool:
    """Return whether an option seems to hold a password, which stands in the list of processes."""
    return may_hold_password(split_name(text)[1])


def _referred(index: int, url: str) -> str:
    scheme, mark, rest = url.partition(":")
    if not mark or is_file_name(url):
        return url
    if scheme == "env":
        value = os.environ.get(rest, "").strip()
        if not value:
            problem = f"environment variable {rest} is not set, or empty; it should hold the camera's URL"
            raise SettingsError([ConfigProblem(f"cameras[{index - 1}].url", problem)])
        return value
    if scheme == "file" and is_file_name(rest):
        return _first_line(index, Path(rest)) or url
    return url


def _first_line(index: int, path: Path) -> str | None:
    """Return the URL that is the first line of a file; None if it is something else, such as a recording."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        problem = ConfigProblem(f"cameras[{index - 1}].url", f"{path} cannot be read: {error.strerror}")
        raise SettingsError([problem]) from None
    try:
        line = data.decode("utf-8-sig").partition("\n")[0].strip()
    except UnicodeDecodeError:
        return None
    return line if len(data) <= _MOST_BYTES and _URL.fullmatch(line) else None
