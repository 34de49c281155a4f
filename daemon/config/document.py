"""The configuration file as plain data, and the errors that report problems by the path of the key, without secrets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visaged.models.documents import MOST_BYTES, DocumentError, parse
from visaged.pipelines.runtime.redact import redact


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """Something wrong with a configuration: the key's path, and what to do; both without what looks like a secret."""

    path: str
    text: str

    def __post_init__(self) -> None:
        # Users paste URLs with logins everywhere, also where a key belongs.
        object.__setattr__(self, "path", redact(self.path))
        object.__setattr__(self, "text", redact(self.text))

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


class SettingsError(Exception):
    """A configuration that cannot be used."""

    def __init__(self, problems: list[ConfigProblem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


def read(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        SettingsError: The file cannot be read, is larger than a configuration can be, or is not a YAML mapping.
    """
    try:
        with path.open("rb") as file:
            document = parse(file.read(MOST_BYTES + 1))
    except OSError as error:
        raise SettingsError([ConfigProblem("", f"cannot read {path}: {error.strerror}")]) from None
    except DocumentError as error:
        raise SettingsError([ConfigProblem("", f"{path} {error}")]) from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise SettingsError(
            [ConfigProblem("", f"{path} holds a {type(document).__name__}; expected keys such as cameras")]
        )
    return document


class ConfigFile:
    """A configuration's file, which is read again while the daemon runs.

    Args:
        path: Where it is; the first time, a pipe will do.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._was_read = self._had_keys = False

    def read(self) -> dict[str, Any]:
        """Return what it holds now.

        Raises:
            SettingsError: See `read`; or it held something before and is empty now, or it cannot be read twice.
        """
        if self._was_read and self._path.exists() and not self._path.is_file():  # to open a pipe may take for ever
            raise SettingsError([ConfigProblem("", f"{self._path} is not a file, so it cannot be read again")])
        document = read(self._path)
        if self._had_keys and not document:  # many programs empty a file before they write it anew
            text = f"{self._path} is empty; write `cameras: []` if there are to be no cameras"
            raise SettingsError([ConfigProblem("", text)])
        self._was_read, self._had_keys = True, bool(document)
        return document
