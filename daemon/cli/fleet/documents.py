"""Configurations of fleets, and cameras that are added to them, read and checked on the machine of the command line."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from visaged.daemon.cli.cameras import camera_document, split_name
from visaged.daemon.config.document import ConfigFile, ConfigProblem, SettingsError, read
from visaged.daemon.fleet.problems import fleet_problems
from visaged.daemon.management.patches import Patches, name_of, patched
from visaged.daemon.settings import Settings, parse

_SUFFIXES = (".yaml", ".yml", ".json")


class FleetFile:
    """The file with a fleet's configuration.

    Args:
        path: Where it is.

    Attributes:
        identity: Names this file on this machine, so that two of them are not taken for one.
    """

    def __init__(self, path: Path) -> None:
        self._file = ConfigFile(path)
        self.identity = f"{path.resolve()} on {socket.gethostname()}"

    def read(self) -> tuple[dict[str, Any], Settings]:
        """Return the configuration, as it is written and as settings.

        Raises:
            SettingsError: It cannot be read, or used by a fleet.
        """
        document = self._file.read()
        return document, checked(document)


def checked(document: dict[str, Any]) -> Settings:
    """Return the settings of a fleet's configuration. Files and passwords in it are the nodes', and not looked at.

    Raises:
        SettingsError: It cannot be used by a fleet; names every problem by the path of its key.
    """
    settings = parse(document)
    problems = fleet_problems(document)
    if problems:
        raise SettingsError(problems)
    return settings


def camera_to_add(text: str, document: dict[str, Any], patches: Patches) -> dict[str, Any]:
    """Return the camera that the argument of `visaged fleet add` describes.

    Args:
        text: `NAME=URL` and the other forms of `visaged run --camera`, but with a name; or a YAML or JSON file with the
            keys of one camera.
        document: The configuration of the fleet, which must be valid with it.
        patches: Changes of its cameras.

    Raises:
        SettingsError: It is no such thing, or the configuration cannot be used with it.
    """
    path = Path(text)
    if path.suffix.lower() in _SUFFIXES:
        camera, where = read(path), str(path)
    elif split_name(text)[0] is None:
        problem = "give a name: NAME=URL, NAME=env:VARIABLE or NAME=file:PATH; or a YAML or JSON file with its keys"
        raise SettingsError([ConfigProblem("CAMERA", problem)])
    else:
        camera, where = camera_document(1, text), "CAMERA"
    others = [one for one in patched(document.get("cameras") or [], patches)[0] if name_of(one) != name_of(camera)]
    try:
        checked(document | {"cameras": [*others, camera]})
    except SettingsError as error:
        own = f"cameras[{len(others)}]"
        raise SettingsError(
            [
                ConfigProblem(f"{where}{problem.path.removeprefix(own)}", problem.text)
                if problem.path.startswith(own)
                else problem
                for problem in error.problems
            ]
        ) from None
    return camera
