"""Changes of the configuration's cameras: JSON merge patches (RFC 7386) over a list of named cameras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Patch = dict[str, Any]
"""Changed keys of a camera, without its name; null removes a key."""

Patches = dict[str, Patch | None]
"""Patches by names of cameras; None removes the camera."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a camera of a patched list comes from.

    Attributes:
        index: Index of the camera in the configuration; None if the configuration does not have it.
        name: Name of the camera.
        patch: Patch that was laid over the camera; None if there was none.
    """

    index: int | None
    name: str
    patch: Mapping[str, Any] | None


def merged(target: Any, patch: Any) -> Any:
    """Return plain data with a merge patch applied, as RFC 7386 defines it; the arguments are not changed."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def patch_between(old: Mapping[str, Any], new: Mapping[str, Any]) -> Patch:
    """Return the merge patch that makes the old mapping the new one.

    A merge patch cannot set a key to null. A key that is null in the new mapping is removed instead.
    """
    patch: Patch = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif old[key] != value:
            is_deep = isinstance(old[key], Mapping) and isinstance(value, Mapping)
            patch[key] = patch_between(old[key], value) if is_deep else value
    return patch


def patched(cameras: list[Any], patches: Mapping[str, Patch | None]) -> tuple[list[Any], list[Place], list[str]]:
    """Lay patches over a configuration's cameras.

    A patch for a camera that the configuration does not have is a whole camera. If it has no `url`, it was meant for a
    camera that is gone from the configuration, and has no effect.

    Args:
        cameras: The cameras as plain data; an entry that is no mapping with a name is left as it is.
        patches: The changes, by names of cameras.

    Returns:
        The cameras; where each comes from; the names of the patches without effect.
    """
    result: list[Any] = []
    places: list[Place] = []
    seen = set()
    for index, camera in enumerate(cameras):
        name = name_of(camera)
        if name is None or name not in patches:
            result.append(camera)
            places.append(Place(index, name or "", None))
            continue
        seen.add(name)
        patch = patches[name]
        if patch is not None:
            result.append(merged(camera, patch))
            places.append(Place(index, name, patch))
    stale = []
    for name, patch in patches.items():
        if name in seen or patch is None:
            continue
        if "url" in patch:
            result.append({"name": name} | patch)
            places.append(Place(None, name, patch))
        else:
            stale.append(name)
    return result, places, stale


def name_of(camera: Any) -> str | None:
    """Return the name of a camera in plain data; None if it has none."""
    name = camera.get("name") if isinstance(camera, Mapping) else None
    return name if isinstance(name, str) else None
