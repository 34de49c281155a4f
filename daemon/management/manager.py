"""Changes of the configuration while the daemon runs: reloads, and cameras that are added, changed and removed.

Changes are made one after another in the thread that runs the cameras; a request for a change returns a future.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationError

from visaged.daemon.config.document import ConfigProblem, SettingsError
from visaged.daemon.config.errors import problems_of
from visaged.daemon.logs.setup import set_level
from visaged.daemon.management.configuration import Candidate, Configuration
from visaged.daemon.management.live import differences
from visaged.daemon.management.patches import Patch, Patches, merged, name_of, patch_between, patched
from visaged.daemon.settings import CameraSettings, Settings, check
from visaged.pipelines.cameras import Changes
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.source.tls import CameraTls

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_PASSWORDS = ("password", "password_file", "password_env")

# Windows has no EDQUOT.
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class CameraExists(Exception):
    """There is a camera of that name already."""


class NoSuchCamera(Exception):
    """There is no camera of that name."""


class EditedByHand(Exception):
    """The file that keeps the changes was edited since it was last read or written; the text says what to do."""


class NotKept(Exception):
    """The change could not be written to the state file, and was not made.

    Attributes:
        is_full: Whether the disk or a quota was full.
    """

    def __init__(self, text: str, is_full: bool) -> None:
        super().__init__(text)
        self.is_full = is_full


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did.

    Attributes:
        changes: Names of the cameras that were added, replaced, removed and kept.
        needs_restart: Paths of the keys that have a new value which takes effect with the next start.
    """

    changes: Changes
    needs_restart: tuple[str, ...]


class Manager:
    """Changes the configuration of a running daemon.

    Args:
        configuration: The configuration in force.
        apply: Makes the daemon run with other settings; raises `SettingsError`, without any change, if it cannot.
        call: Schedules a function for the thread in which `apply` must run; safe in signal handlers.
        metrics: Metrics that report whether and when the last reload succeeded.
        clock: Returns seconds since 1970.
        reloading: Returns a context in which a reload is done.
        fleet: Name of the fleet that holds the cameras, and the configuration; empty on one machine.

    Attributes:
        fleet: Name of the fleet.
        reloaded: Whether the last reload succeeded; true before the first.
    """

    def __init__(
        self,
        configuration: Configuration,
        apply: Callable[[Settings], Changes],
        call: Callable[[Callable[[], None]], None],
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        reloading: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        fleet: str = "",
    ) -> None:
        self.fleet = fleet
        self._configuration = configuration
        self._apply = apply
        self._call = call
        self._successful = metrics.reload_successful
        self._success_time = metrics.reload_success_time
        self._reloading = reloading
        self._clock = clock
        self._note_reload(True)

    def reload(self) -> Future[Reloaded]:
        """Read the configuration again, and run with it as far as that can change at run time.

        May be called from a signal handler. The future raises `SettingsError` if nothing has changed because the
        configuration cannot be used.
        """
        return self._soon(self.reload_now)

    def add(self, document: dict[str, Any]) -> Future[str]:
        """Add a camera.

        Args:
            document: Configuration of the camera as plain data.

        Returns:
            A future for the camera's name. It raises `SettingsError`, with paths within the document, `CameraExists`,
            `EditedByHand` or `NotKept`; nothing has changed then.
        """
        return self._soon(lambda: self._add(document))

    def change(self, name: str, patch: Patch) -> Future[None]:
        """Change a camera by a JSON merge patch.

        Returns:
            A future that raises `SettingsError`, with paths within the patch, `NoSuchCamera`, `EditedByHand` or
            `NotKept`; nothing has changed then.
        """
        return self._soon(lambda: self._change(name, patch))

    def remove(self, name: str) -> Future[None]:
        """Remove a camera.

        Returns:
            A future that raises `NoSuchCamera`, `EditedByHand` or `NotKept`; nothing has changed then.
        """
        return self._soon(lambda: self._remove(name))

    def camera(self, name: str) -> CameraSettings | None:
        """Return the configuration of a camera; None if there is none of that name. May be called from any thread."""
        cameras = self._configuration.current.settings.cameras
        return next((camera for camera in cameras if camera.name == name), None)

    def is_kept(self, name: str) -> bool:
        """Return whether a camera will be the same after a restart. May be called from any thread."""
        return self._configuration.state is not None or name not in self._configuration.current.patches

    def _soon(self, work: Callable[[], _Result]) -> Future[_Result]:
        future: Future[_Result] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return  # the request timed out, and was answered that nothing has changed
            try:
                future.set_result(work())
            except (SettingsError, CameraExists, NoSuchCamera, EditedByHand, NotKept) as refused:
                future.set_exception(refused)
            except Exception as error:
                log.exception("the configuration could not be changed")
                future.set_exception(error)

        self._call(run)
        return future

    def reload_now(self) -> Reloaded:
        """Do what `reload` does, at once; only in the thread that runs the cameras. Raises `SettingsError`."""
        with self._reloading():
            return self._reread()

    def _reread(self) -> Reloaded:
        try:
            candidate = self._configuration.reread()
            changes = self._run_with(candidate)
        except SettingsError as error:
            self._note_reload(False)
            log.error("the configuration was not reloaded, and nothing has changed; problems: %d", len(error.problems))
            for problem in error.problems:
                log.error("not reloaded: %s", problem)
            raise
        except Exception:
            self._note_reload(False)
            raise
        self._note_reload(True)
        self._configuration.report()
        log.info("the configuration was reloaded; cameras %s", _summary(changes))
        if candidate.needs_restart:
            log.warning("changed, but in effect only after a restart: %s", ", ".join(candidate.needs_restart))
        return Reloaded(changes, candidate.needs_restart)

    def _add(self, document: dict[str, Any]) -> str:
        camera = _camera(document)
        if self.camera(camera.name) is not None:
            raise CameraExists(camera.name)
        self._put(camera, document)
        log.info("camera %s was added", camera.name)
        return camera.name

    def _change(self, name: str, patch: Patch) -> None:
        before = self.camera(name)
        if before is None:
            raise NoSuchCamera(name)
        if patch.get("name", name) != name:
            raise SettingsError(
                [ConfigProblem("name", "cannot change; remove the camera, and add it with its new name")]
            )
        document = merged(self._effective(name), patch)
        camera = _camera(document)
        if _takes_a_password_elsewhere(before, camera, patch):
            text = (
                "leads to another host, which would be sent the camera's password; give the password anew in the same "
                "PATCH, by the key that it has, or null for none"
            )
            raise SettingsError([ConfigProblem("url", text)])
        if _accepts_others(before, camera, patch):
            text = (
                "accepts other certificates, and who has one would be sent the camera's password; give it anew in the "
                "same PATCH, by the key that it has (`url`, if it stands there), or null for none"
            )
            raise SettingsError([ConfigProblem("tls", text)])
        self._put(camera, document)
        log.info("camera %s was changed", name)

    def _remove(self, name: str) -> None:
        if self.camera(name) is None:
            raise NoSuchCamera(name)
        patches = dict(self._configuration.current.patches)
        patches.pop(name, None)
        if self._configured(name) is not None:
            patches[name] = None
        self._keep(self._configuration.with_patches(patches))
        log.info("camera %s was removed", name)

    def _put(self, camera: CameraSettings, document: dict[str, Any]) -> None:
        """Run with a new or changed camera, which was parsed from a document."""
        patches = self._with(camera, document)
        try:
            candidate = self._configuration.with_patches(patches)
        except SettingsError as error:
            # The camera is valid by itself, so only its name can clash with the rest of the configuration.
            raise SettingsError([ConfigProblem("name", problem.text) for problem in error.problems]) from None
        problems = check(candidate.settings.model_copy(update={"cameras": [camera]}))
        own = [p for p in problems if p.path.startswith("cameras[0]")]
        if own:
            raise SettingsError(
                [ConfigProblem(p.path.removeprefix("cameras[0]").removeprefix("."), p.text) for p in own]
            )
        self._keep(candidate)

    def _with(self, camera: CameraSettings, document: dict[str, Any]) -> Patches:
        """Return the changes in force, with the one that makes a camera equal to a document; raises `SettingsError`."""
        name = camera.name
        patches = dict(self._configuration.current.patches)
        patches.pop(name, None)
        configured = self._configured(name)
        if configured is None:
            return patches | {name: {key: value for key, value in document.items() if key != "name"}}
        patch = patch_between(configured, document)
        lost = differences(_camera(merged(configured, patch)), camera)
        if lost:
            text = "cannot be null: the configuration has this camera too, and null would leave its value out"
            raise SettingsError([ConfigProblem(key, text) for key in lost])
        return patches | {name: patch} if patch else patches

    def _keep(self, candidate: Candidate) -> None:
        """Write changes of cameras to the state file, and run with them; if either fails, restore what was before."""
        state, before = self._configuration.state, self._configuration.current.patches
        if state is not None:
            try:
                written = state.read()
            except SettingsError as error:
                raise EditedByHand(str(error)) from None
            if written != before:
                raise EditedByHand(
                    f"{state.path} was changed by hand; reload the configuration (POST /v1/reload) first"
                )
            self._write(candidate.patches)
        try:
            self._run_with(candidate)
        except BaseException:
            if state is not None:
                self._write(before)
            raise

    def _write(self, patches: Patches) -> None:
        state = self._configuration.state
        assert state is not None
        try:
            state.write(patches)
        except OSError as error:
            text = f"{state.path} cannot be written ({error.strerror}), so nothing was changed"
            log.error("%s", text)
            raise NotKept(text, error.errno in _FULL) from None

    def _run_with(self, candidate: Candidate) -> Changes:
        before = self._configuration.current.settings
        changes = self._apply(candidate.settings)
        self._configuration.accept(candidate)
        if candidate.settings.log.level != before.log.level:
            set_level(candidate.settings.log.level)
        return changes

    def _configured(self, name: str) -> dict[str, Any] | None:
        """Return a camera as the configuration file has it, without changes; None if it has no such camera."""
        cameras = self._configuration.current.document.get("cameras", [])
        return next((dict(camera) for camera in cameras if name_of(camera) == name), None)

    def _effective(self, name: str) -> dict[str, Any]:
        """Return an existing camera as plain data, with its changes."""
        current = self._configuration.current
        cameras, _, _ = patched(current.document.get("cameras", []), current.patches)
        return next(dict(camera) for camera in cameras if name_of(camera) == name)

    def _note_reload(self, is_good: bool) -> None:
        self.reloaded = is_good
        self._successful.set(is_good)
        if is_good:
            self._success_time.set(self._clock())


def _camera(document: dict[str, Any]) -> CameraSettings:
    """Return the camera settings in plain data; raises `SettingsError` with paths within the data."""
    try:
        return CameraSettings.model_validate(document)
    except ValidationError as error:
        raise SettingsError(problems_of(error, CameraSettings)) from None


def _takes_a_password_elsewhere(before: CameraSettings, after: CameraSettings, patch: Patch) -> bool:
    """Return whether a patch would send a password that it does not repeat to another host than before."""
    if any(key in patch for key in _PASSWORDS) or all(getattr(after, key) is None for key in _PASSWORDS):
        return False
    return _site(before.url) != _site(after.url)


def _accepts_others(before: CameraSettings, after: CameraSettings, patch: Patch) -> bool:
    """Return whether a patch would send a password that it does not repeat to holders of other certificates."""
    if after.tls == before.tls or after.tls == CameraTls() or any(key in patch for key in (*_PASSWORDS, "url")):
        return False
    return "@" in urlsplit(after.url).netloc or any(getattr(after, key) is not None for key in _PASSWORDS)


def _site(url: str) -> str:
    """Return the host and port of a URL, without user and password."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return url


def _summary(changes: Changes) -> str:
    return "; ".join(
        f"{what}: {', '.join(names) or 'none'}"
        for what, names in (("added", changes.added), ("replaced", changes.replaced), ("removed", changes.removed))
    )
