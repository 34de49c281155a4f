"""The configuration in force: a document, such as a YAML file, with changes of its cameras laid over it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visaged.daemon.config.base import default_state_dir
from visaged.daemon.config.document import ConfigFile, ConfigProblem, SettingsError
from visaged.daemon.management.live import differences, in_force
from visaged.daemon.management.patches import Patches, Place, name_of, patched
from visaged.daemon.management.state import StateFile
from visaged.daemon.settings import Settings, check, parse

log = logging.getLogger(__name__)

Document = dict[str, Any]

_OVER_HTTP = "changes made over HTTP"
"""Stands in problems where the file's name would, for changes that are held in memory only."""
_FROM_ENVIRONMENT = frozenset({"node", "state_dir"})
"""Keys whose value comes from the environment where the configuration does not give it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Settings without problems, and the documents that they were made from.

    Attributes:
        settings: The settings.
        document: The configuration as plain data, without changes of cameras.
        patches: The changes of cameras.
        needs_restart: Paths of the keys whose new value in the configuration is not in `settings`, because they cannot
            change at run time.
    """

    settings: Settings
    document: Document
    patches: Patches
    needs_restart: tuple[str, ...] = ()


class Configuration:
    """The configuration in force, and how it is read again. Its methods must be called from one thread.

    Args:
        read_document: Returns the configuration as plain data, read anew; raises `SettingsError`.
        is_kept: Whether changes of cameras are written to the state folder, if there is one; otherwise they are lost
            when the process ends.

    Attributes:
        in_force: What the daemon runs with; None before `load`.
        state: File that keeps changes of cameras; None if they are not kept.
    """

    def __init__(self, read_document: Callable[[], Document], is_kept: bool) -> None:
        self._read_document = read_document
        self._is_kept = is_kept
        self.state: StateFile | None = None
        self.chosen: frozenset[str] = frozenset()
        self.in_force: Candidate | None = None

    @classmethod
    def of_file(cls, path: Path) -> Configuration:
        """Return the configuration of a file."""
        return cls(ConfigFile(path).read, is_kept=True)

    @classmethod
    def of_settings(cls, settings: Settings) -> Configuration:
        """Return a configuration made from settings alone, which a reload finds unchanged."""
        document = settings.model_dump(exclude_unset=True)
        configuration = cls(lambda: dict(document), is_kept=False)
        configuration.accept(Candidate(settings, document, {}))
        return configuration

    @property
    def current(self) -> Candidate:
        """What the daemon runs with, after `load`."""
        assert self.in_force is not None
        return self.in_force

    def load(self) -> Settings:
        """Read the configuration for the start of the daemon, and return its settings.

        Raises:
            SettingsError: The configuration cannot be used; names every problem by the path of its key.
        """
        document = self._read_document()
        self.chosen = frozenset(document)
        folder = _state_dir(document) if self._is_kept else None
        self.state = None if folder is None else StateFile(folder)
        self.accept(self._checked(document, {} if self.state is None else self.state.read()))
        return self.current.settings

    def reread(self) -> Candidate:
        """Read the configuration again, and return it with the changes that can take effect without a restart.

        Raises:
            SettingsError: The configuration cannot be used; names every problem by the path of its key.
        """
        document = self._read_document()
        if not document and self.current.document.keys() - _FROM_ENVIRONMENT:
            # Many programs empty a file before they write it anew.
            text = "the configuration is empty; write `cameras: []` if there are to be no cameras"
            raise SettingsError([ConfigProblem("", text)])
        patches = self.current.patches if self.state is None else self.state.read()
        wanted = self._checked(document, patches)
        effective = in_force(self.current.document, document)
        try:
            settings = self._parsed(effective, patches)
        except SettingsError as error:
            remark = "; this is so until visaged is restarted, because another key cannot change before"
            raise SettingsError([ConfigProblem(p.path, p.text + remark) for p in error.problems]) from None
        return Candidate(settings, effective, patches, tuple(differences(wanted.settings, settings)))

    def with_patches(self, patches: Patches) -> Candidate:
        """Return the configuration in force with other changes of cameras; raises `SettingsError`.

        Files and other resources that the settings name are not checked.
        """
        document = self.current.document
        return Candidate(self._parsed(document, patches), document, patches)

    def report(self) -> None:
        """Log what the state folder changes about the configuration's cameras."""
        patches, cameras = self.current.patches, _cameras(self.current.document)
        if not patches or self.state is None:
            return
        stale = patched(cameras, patches)[2]
        laid = [name for name, patch in patches.items() if patch is not None and name not in stale]
        removed = [name for name in map(name_of, cameras) if name is not None and patches.get(name, {}) is None]
        if laid or removed:
            names = [", ".join(some) or "none" for some in (laid, removed)]
            log.info("%s adds or changes cameras: %s; removes: %s", self.state.path, *names)
        if stale:
            text = "%s changes cameras that the configuration does not have any more, without effect: %s"
            log.warning(text, self.state.path, ", ".join(stale))

    def accept(self, candidate: Candidate) -> None:
        """Note that the daemon runs with this from now on."""
        # The defaults of these keys come from the environment, and could differ when the document is parsed again.
        fixed = {key: getattr(candidate.settings, key) for key in _FROM_ENVIRONMENT}
        document = candidate.document | fixed
        self.in_force = Candidate(candidate.settings, document, candidate.patches, candidate.needs_restart)

    def _checked(self, document: Document, patches: Patches) -> Candidate:
        """Return settings that are valid, and whose files and secrets can be used; raises `SettingsError`."""
        settings = self._parsed(document, patches)
        problems = check(settings)
        if problems:
            _, places, _ = patched(_cameras(document), patches)
            raise SettingsError([self._located(problem, places) for problem in problems])
        return Candidate(settings, document, patches)

    def _parsed(self, document: Document, patches: Patches) -> Settings:
        """Return the settings of a configuration with changes of its cameras; raises `SettingsError`."""
        if not patches or not isinstance(document.get("cameras", []), list):
            return parse(document)
        cameras, places, _ = patched(_cameras(document), patches)
        try:
            return parse(document | {"cameras": cameras})
        except SettingsError as error:
            own = _problems(document)
            problems = [p if p.path == "cameras" and p in own else self._located(p, places) for p in error.problems]
            raise SettingsError(problems) from None

    def _located(self, problem: ConfigProblem, places: Sequence[Place]) -> ConfigProblem:
        """Return a problem of the patched cameras, with its path changed to where the faulty value is written."""
        where = _OVER_HTTP if self.state is None else str(self.state.path)
        if problem.path == "cameras" and any(place.patch is not None for place in places):
            return ConfigProblem(f"{where}: cameras", problem.text)
        found = re.fullmatch(r"cameras\[(\d+)\](.*)", problem.path, re.DOTALL)
        if found is None:
            return problem
        place, rest = places[int(found[1])], found[2]
        key = re.split(r"[.\[]", rest.removeprefix("."), maxsplit=1)[0]
        if place.patch is not None and (place.index is None or not key or key in place.patch):
            return ConfigProblem(f"{where}: cameras.{place.name}{rest}", problem.text)
        return ConfigProblem(f"cameras[{place.index}]{rest}", problem.text)


def _cameras(document: Document) -> list[Any]:
    cameras = document.get("cameras", [])
    return cameras if isinstance(cameras, list) else []


def _problems(document: Document) -> list[ConfigProblem]:
    try:
        parse(document)
    except SettingsError as error:
        return error.problems
    return []


def _state_dir(document: Document) -> Path | None:
    """Return the state folder of a configuration, whose other keys may be invalid; None if it has none."""
    if "state_dir" not in document:
        return default_state_dir()
    given = document["state_dir"]
    return Path(given) if isinstance(given, str) and given else None
