"""The configuration file as plain data, and the errors that report problems by the path of the key, without secrets."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from visaged.pipelines.runtime.redact import redact, shown


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


# A thousand cameras take a quarter of it; a device or a recording that is named by mistake would fill the memory.
_MOST_BYTES = 1 << 20


def read(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        SettingsError: The file cannot be read, is larger than a configuration can be, or is not a YAML mapping.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise SettingsError([ConfigProblem("", f"{path} is larger than 1 MiB, so it is no configuration")])
        document = yaml.load(data.decode("utf-8-sig"), _Loader)  # noqa: S506 - it is a SafeLoader
    except OSError as error:
        raise SettingsError([ConfigProblem("", f"cannot read {path}: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise SettingsError([ConfigProblem("", f"{path} is not UTF-8 text")]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: such as 2024-13-45
        raise SettingsError([ConfigProblem("", f"{path} is not YAML: {_yaml_trouble(error)}")]) from None
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


def _yaml_trouble(error: Exception) -> str:
    """Return what is wrong and where. PyYAML's own text quotes the line, which may hold a password."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error).partition("\n")[0]
    mark, problem = error.problem_mark, str(error.problem)
    if "key" not in problem:  # an alias or a tag may be a password that lacks its quotes
        problem = re.sub(r"'.*'", "...", problem)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


class _Loader(yaml.SafeLoader):
    """Refuses what PyYAML accepts silently: a key that stands twice, and NUL characters, which no path can hold."""

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        text: str = super().construct_scalar(node)
        if "\0" in text:
            raise yaml.constructor.ConstructorError(None, None, "there is a NUL character", node.start_mark)
        return text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = None if key_node.tag == "tag:yaml.org,2002:merge" else self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key is None:
                continue  # what cannot be a key is refused below
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown(str(key))!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
