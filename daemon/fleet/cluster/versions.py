"""Versions that have to be the same on all machines of a fleet."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Versions:
    """What runs in a process.

    Attributes:
        visaged: Version of visaged.
        ray: Version of Ray.
        python: Version of Python; the first two numbers count.
    """

    visaged: str
    ray: str
    python: str

    @classmethod
    def here(cls) -> Self:
        """Return the versions of this process."""
        version = importlib.metadata.version
        return cls(version("visaged"), version("ray"), platform.python_version())

    def against(self, other: Versions) -> str:
        """Return why a process with these versions cannot work with one of others; empty if it can."""
        pairs = (
            ("visaged", self.visaged, other.visaged),
            ("Ray", self.ray, other.ray),
            ("Python", _minor(self.python), _minor(other.python)),
        )
        wrong = [f"{name} {ours}, and the fleet {theirs}" for name, ours, theirs in pairs if ours != theirs]
        return f"it has {'; '.join(wrong)}: install the same versions on all machines" if wrong else ""


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
