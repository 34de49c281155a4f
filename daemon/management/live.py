"""The keys of the configuration that can change while the daemon runs; all others take a restart."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from visaged.pipelines.tracking.tracker import TrackerConfig

_LIVE_PARTS = frozenset({"cameras", "attributes", "min_confidence", "fleet"})
"""Top-level keys that can change with everything below them."""

_LIVE_KEYS = {
    # The detector is loaded with `low_confidence` as its floor.
    "tracker": frozenset(TrackerConfig.model_fields) - {"low_confidence"},
    "inference": frozenset({"min_confidence", "update_s", "refresh_s", "min_face_px", "close_up"}),
    "log": frozenset({"level"}),
}
"""Keys that can change, by their part of the configuration; the other keys of these parts cannot."""


def in_force(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration that takes the keys that can change at run time from the new one, all others from the old.

    Args:
        old: The configuration in force, as plain data.
        new: A configuration without problems, as plain data.
    """
    result = {key: value for key, value in old.items() if key not in _LIVE_PARTS}
    result |= {key: value for key, value in new.items() if key in _LIVE_PARTS}
    for part, keys in _LIVE_KEYS.items():
        values = {key: value for key, value in old.get(part, {}).items() if key not in keys}
        values |= {key: value for key, value in new.get(part, {}).items() if key in keys}
        result[part] = values
    return result


def differences(one: BaseModel, other: BaseModel, path: str = "") -> list[str]:
    """Return the keys, by their paths, in which two parts of the configuration of the same kind differ.

    A list or mapping counts as one key.
    """
    paths = []
    for name in type(one).model_fields:
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, BaseModel) and type(a) is type(b):
            paths += differences(a, b, f"{path}{name}.")
        elif a != b:
            paths.append(path + name)
    return paths
