"""The keys of `log`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from visaged.daemon.config.document import ConfigProblem
from visaged.pipelines.runtime.config import StrictConfig


class LogSettings(StrictConfig):
    """The log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level of the lines that are logged."""
    file: Path | None = None
    """File to write to as well as to stderr; it is rotated."""
    max_mb: Annotated[float, Field(ge=0.001, le=1_000_000)] = 10
    """Size in MiB at which the file is rotated."""
    keep: Annotated[int, Field(ge=0, le=1000)] = 5
    """Number of rotated files to keep; with 0, the file begins anew when it is full."""


def check_log(settings: LogSettings) -> list[ConfigProblem]:
    """Return why the log's file cannot be written."""
    file = settings.file
    if file is None:
        return []
    if file.is_dir():
        return [ConfigProblem("log.file", f"{file} is a folder; name a file in it")]
    if file.is_fifo() or file.is_socket():  # to open a pipe waits for a reader
        return [ConfigProblem("log.file", f"{file} is a pipe or socket; name a file")]
    if not file.parent.is_dir():
        return [ConfigProblem("log.file", f"there is no folder {file.parent}; make it, or name a file elsewhere")]
    return []
