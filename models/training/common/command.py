"""How every program of this training ends: an error in its input is printed as one line, not as a traceback."""

from __future__ import annotations

import csv
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from visaged.models.errors import ModelError

WRONG_INPUT = (ModelError, ValueError, OSError, tarfile.TarError, zipfile.BadZipFile, csv.Error)
"""What files and directories that are missing, damaged or of another kind raise."""

EXIT_WRONG_INPUT = 2


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a program and leave with its exit code; of what its input raises, only the text is shown."""
    try:
        sys.exit(main())
    except WRONG_INPUT as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_WRONG_INPUT)


def named_files(texts: list[str]) -> dict[str, Path]:
    """Read `--model NAME=FILE`, once or more; raises `ValueError`."""
    if wrong := [text for text in texts if "=" not in text]:
        raise ValueError(f"--model takes NAME=FILE, not {wrong[0]}")
    return {name: Path(file) for name, file in (text.split("=", 1) for text in texts)}
