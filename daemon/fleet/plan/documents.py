"""The configuration of a fleet as plain data: the file's, the changes laid over it, and what each node is sent of it.

The coordinator does not import the settings: they bring OpenCV and ONNX Runtime, and it has to start at once. Whoever
hands a configuration in has checked it (`fleet_problems`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from pydantic import ValidationError

from visaged.daemon.config.base import NAME_PATTERN
from visaged.daemon.fleet.plan.placement import Need
from visaged.daemon.fleet.settings import CameraFleet, FleetSettings
from visaged.daemon.management.patches import Patches, name_of, patch_between, patched

Document = dict[str, Any]


class FleetError(Exception):
    """What was asked of the fleet cannot be done; the text says why, and what to do."""


class Catalogue:
    """A configuration with changes of its cameras: what the cameras need, and what each node is sent.

    Args:
        document: The configuration as plain data, checked.
        patches: Changes of cameras that were made since, by their names.

    Attributes:
        document: The configuration without the changes.
        patches: The changes.
        fleet: The part about the fleet.
        needs: What each camera needs, by its name.

    Raises:
        FleetError: The part about the fleet is not valid.
    """

    def __init__(self, document: Document, patches: Patches) -> None:
        self.document, self.patches = document, patches
        cameras = patched(_cameras(document), patches)[0]
        self._cameras: dict[str, Document] = {name: camera for camera in cameras if (name := name_of(camera))}
        self._shared = {key: value for key, value in document.items() if key != "cameras"}
        self._shared_version = _version(orjson.dumps(self._shared))
        try:
            self.fleet = FleetSettings.model_validate(document.get("fleet") or {})
            self.needs = {name: need_of(camera) for name, camera in self._cameras.items()}
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise FleetError(f"fleet: {where} is not valid: {error.errors()[0]['msg']}") from None

    def has(self, camera: str) -> bool:
        """Return whether there is a camera of this name."""
        return camera in self._cameras

    def part(self, cameras: Iterable[str]) -> tuple[bytes, str]:
        """Return the configuration with some of its cameras alone, as JSON, and a version that tells it from others."""
        chosen = [self._cameras[name] for name in sorted(cameras) if name in self._cameras]
        data = orjson.dumps(self._shared | {"cameras": chosen})
        return data, _version(self._shared_version.encode() + orjson.dumps(chosen))

    def with_camera(self, camera: Document) -> Catalogue:
        """Return the configuration with another camera; raises `FleetError`."""
        name = name_of(camera)
        if name is None or re.fullmatch(NAME_PATTERN, name) is None:
            raise FleetError("a camera needs a name of letters, digits, _ . - (at most 64)")
        if self.has(name):
            raise FleetError(f"there is a camera {name} already; remove it first, or give this one another name")
        if not isinstance(camera.get("url"), str):
            raise FleetError(f"camera {name} needs a url")
        before = next((one for one in _cameras(self.document) if name_of(one) == name), None)
        whole = {key: value for key, value in camera.items() if key != "name"}
        patches = dict(self.patches)
        if before is None:
            patches[name] = whole
        else:  # it was removed by a patch
            del patches[name]
            patch = patch_between({key: value for key, value in before.items() if key != "name"}, whole)
            patches |= {name: patch} if patch else {}
        return Catalogue(self.document, patches)

    def without_camera(self, name: str) -> Catalogue:
        """Return the configuration without a camera; raises `FleetError`."""
        if not self.has(name):
            raise FleetError(f"there is no camera {name[:70]!r}")
        patches = dict(self.patches)
        patches.pop(name, None)
        if any(name_of(one) == name for one in _cameras(self.document)):
            patches[name] = None
        return Catalogue(self.document, patches)


def need_of(camera: Document) -> Need:
    """Return what a camera needs, from its settings as plain data; raises `ValidationError`."""
    given = CameraFleet.model_validate(camera.get("fleet") or {})
    priority = camera.get("priority", 0)
    return Need(
        camera["name"],
        given.weight,
        given.site,
        None if given.nodes is None else frozenset(given.nodes),
        priority if isinstance(priority, int) else 0,
    )


def _cameras(document: Mapping[str, Any]) -> list[Any]:
    cameras = document.get("cameras") or []
    return cameras if isinstance(cameras, list) else []


def _version(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()
