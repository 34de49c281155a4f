"""Secrets of the configuration: in plain text, as the first line of a file, or in an environment variable.

A part of the configuration that has a secret `name` has the fields `name`, `name_file` and `name_env`.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import SecretStr

from visaged.daemon.config.base import Frozen


def check_given(settings: Frozen, name: str) -> None:
    """Check that a secret is given in one way, and if in plain text is not empty; raises `ValueError`."""
    names = (name, f"{name}_file", f"{name}_env")
    given = [one for one in names if getattr(settings, one) is not None]
    if len(given) != 1:
        raise ValueError(f"give one of {', '.join(names)}, not {' and '.join(given) or 'none'}")
    plain: SecretStr | None = getattr(settings, name)
    if plain is not None and not plain.get_secret_value():
        raise ValueError(f"{name} is empty")


def read_secret(settings: Frozen, name: str) -> str:
    """Return a secret that is given in one way.

    Raises:
        ValueError: The file or variable that should hold it does not; the text names it.
    """
    plain: SecretStr | None = getattr(settings, name)
    path: Path | None = getattr(settings, f"{name}_file")
    if plain is not None:
        return plain.get_secret_value()
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise ValueError(f"{name}_file {path} cannot be read: {reason}") from None
        if not lines or not lines[0].strip():
            raise ValueError(f"{name}_file {path} is empty")
        return lines[0].strip()
    variable: str = getattr(settings, f"{name}_env")
    if not os.environ.get(variable):
        raise ValueError(f"environment variable {variable} ({name}_env) is not set")
    return os.environ[variable]
