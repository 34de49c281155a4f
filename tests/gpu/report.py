"""Rows of results: printed as they come, kept as JSON lines, so that what a section found survives its end."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Value = str | float | int | bool | None


@dataclass(frozen=True, slots=True)
class Options:
    """How the kit runs.

    Attributes:
        provider: What the networks run on: cuda or cpu.
        quick: Whether to do as little as shows that everything runs.
        scratch: An empty folder for files.
        clip: A 1080p25 H.264 clip.
    """

    provider: str
    quick: bool
    scratch: Path
    clip: Path

    def seconds(self, full: float) -> float:
        """Return how long to measure something, of the time that it gets in a full run."""
        return full / 5 if self.quick else full


class Report:
    """The rows of one section.

    Args:
        path: File to which rows are added, one JSON object a line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def row(self, name: str, /, **values: Value) -> None:
        """Add a row, on a line of its own: the one before may have been broken off."""
        line = json.dumps({"name": name, "values": values}, default=str)
        with self._path.open("a") as file:
            file.write(f"\n{line}\n")

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """Turn an exception into a row with its text; the traceback goes to the log."""
        try:
            yield
        except Exception as error:  # the next row is measured all the same
            traceback.print_exc()
            self.row(name, error=f"{type(error).__module__}.{type(error).__name__}: {error}")

    def attempt(self, name: str, work: Callable[[], dict[str, Value]]) -> None:
        """Add a row with what `work` returns, or with its error."""
        with self.guarded(name):
            self.row(name, **work())


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a section; none where it wrote none. What it was ended in the middle of is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def table(section: str, rows: list[dict[str, Any]]) -> str:
    """Return a section's rows as text."""
    lines = [f"== {section}"]
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        values = "  ".join(f"{name} {_text(value)}" for name, value in row["values"].items())
        lines.append(f"  {row['name']:{width}}  {values}")
    return "\n".join(lines)


def _text(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return " | ".join(line for line in str(value).splitlines() if line.strip())
