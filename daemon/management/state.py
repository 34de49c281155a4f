"""The state folder: it keeps changes made over HTTP, and the number of the last run, over a restart."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import yaml

from visaged.daemon.config.base import NAME_PATTERN
from visaged.daemon.config.document import ConfigProblem, SettingsError, read
from visaged.daemon.config.files import replace_file
from visaged.daemon.management.patches import Patches

log = logging.getLogger(__name__)

FILE_NAME = "cameras.yaml"
_EPOCH_NAME = "epoch"

# In the year 2248; larger numbers come from damage, and events could not be numbered after them.
_END_OF_TIME = 1 << 43

_HEADER = (
    "# Written by visaged: cameras that were added, changed or removed over HTTP. JSON merge patches (RFC 7386) over\n"
    "# the cameras of the configuration, whole cameras where it has none of that name, null where one was removed.\n"
    "# After an edit by hand, reload the configuration.\n"
)
_REMEDY = (
    "mend it, restore it from a backup, or move it away; without it, the cameras are those of the configuration alone"
)


class StateFile:
    """The file `cameras.yaml` of the state folder.

    Args:
        folder: The state folder; it is made when the file is first written.

    Attributes:
        path: Path of the file.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME

    def read(self) -> Patches:
        """Return the changes of cameras; none if there is no file.

        Raises:
            SettingsError: The file cannot be read, or is damaged; the text names it, and says what to do.
        """
        try:
            self.path.lstat()
        except FileNotFoundError:
            return {}
        except NotADirectoryError:
            text = f"{self.path.parent} is or lies in a file; name a folder"
            raise SettingsError([ConfigProblem("state_dir", text)]) from None
        except OSError as error:
            raise SettingsError([ConfigProblem("", f"cannot read {self.path}: {error.strerror}; {_REMEDY}")]) from None
        try:
            document = read(self.path)
        except SettingsError as error:
            raise SettingsError([ConfigProblem(p.path, f"{p.text}; {_REMEDY}") for p in error.problems]) from None
        problems = [ConfigProblem(f"{self.path}: {where}", f"{text}; {_REMEDY}") for where, text in _troubles(document)]
        if problems:
            raise SettingsError(problems)
        return dict(document.get("cameras") or {})

    def write(self, patches: Patches) -> None:
        """Replace the file atomically; only its owner may read it, because it may hold passwords.

        Raises:
            OSError: The file cannot be written.
        """
        replace_file(self.path, _HEADER + yaml.safe_dump({"cameras": patches}, allow_unicode=True, sort_keys=False))


def next_epoch(folder: Path | None, now: float) -> int:
    """Return the number of this run, and keep it, so that the next one has a larger number whatever the clock says.

    Args:
        folder: The state folder; None if there is none, and the clock alone counts.
        now: Seconds since 1970.
    """
    epoch = max(0, int(now * 1000))
    if folder is None:
        return epoch
    path = folder / _EPOCH_NAME
    try:
        last = _number(path)
        if last is not None and last >= epoch:
            log.warning(
                "the clock of this machine is behind that of its last run by %.0f s; epoch counts on from %d",
                (last - epoch) / 1000, last,
            )  # fmt: skip
            epoch = last + 1
        replace_file(path, f"{epoch}\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        log.warning(
            "the number of this run (epoch) cannot be kept in %s: %s; if the clock goes back, consumers may take new "
            "messages for old ones; mend the file or folder, or set state_dir to a folder that can be written",
            path, reason,
        )  # fmt: skip
    return epoch


def _number(path: Path) -> int | None:
    """Return the number in a file; None if there is none. Raises `OSError`, or `ValueError` if it is no number."""
    try:
        with path.open("rb") as file:
            text = file.read(100)
    except FileNotFoundError:
        return None
    if not re.fullmatch(rb"[0-9]{1,15}\s*", text) or int(text) >= _END_OF_TIME:
        raise ValueError("it holds no number")
    return int(text)


def _troubles(document: dict[Any, Any]) -> list[tuple[str, str]]:
    """Return what is wrong with the structure of the file: pairs of a key and a text without values."""
    troubles = [(str(key), "is not a known key; there is cameras alone") for key in document if key != "cameras"]
    cameras = document.get("cameras")
    if cameras is None:
        return troubles
    if not isinstance(cameras, dict):
        return [*troubles, ("cameras", "is not a mapping of names to cameras")]
    for name, patch in cameras.items():
        where = f"cameras.{name}"
        if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
            troubles.append((where, "is not a name of a camera: letters, digits, _ . - are possible"))
        elif patch is not None and not isinstance(patch, dict):
            troubles.append((where, "is neither a mapping of the camera's keys nor null"))
    return troubles
