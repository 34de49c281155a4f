"""How every program of this training ends: an error in its input is printed as one line, not as a traceback."""

from __future__ import annotations

import csv
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, cast, get_args

from visaged.models.errors import ModelError
from visaged.models.openvino import Precision
from visaged.models.session import Provider, SessionConfig

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


def runtimes(texts: list[str], models: Mapping[str, Path]) -> dict[str, SessionConfig]:
    """Read `--run NAME=PROVIDER` or `NAME=PROVIDER:PRECISION` of the models; the others run on ONNX Runtime's CPU.

    Raises:
        ValueError: A name is none of the models', or a provider or precision is none that there is.
    """
    found = dict.fromkeys(models, SessionConfig(provider="cpu"))
    for text in texts:
        name, _, how = text.partition("=")
        provider, _, precision = how.partition(":")
        if name not in found:
            raise ValueError(f"--run takes NAME=PROVIDER of a --model (there: {', '.join(models)}), not {text}")
        if provider not in get_args(Provider) or (precision or "auto") not in get_args(Precision):
            raise ValueError(
                f"--run takes a provider of {', '.join(get_args(Provider))}, after it maybe a colon and a precision of "
                f"{', '.join(get_args(Precision))}, not {how}"
            )
        found[name] = SessionConfig(
            provider=cast("Provider", provider), precision=cast("Precision", precision or "auto")
        )
    return found
