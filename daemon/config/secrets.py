"""Secrets of the configuration: in plain text, as the first line of a file, or in an environment variable.

A part of the configuration with a secret `name` has the keys `name`, `name_file` and `name_env`, of which one is given.
A file may be a credential of systemd, `credential:NAME`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from visaged.pipelines.runtime.config import StrictConfig
from visaged.pipelines.runtime.credentials import file_of


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret and where it is stored; it is never shown, and is read only when it is needed.

    Attributes:
        name: The key for plain text, such as `password`; the other keys are this with `_file` and `_env`.
        text: The secret itself, if it is given in plain text.
        file: File whose first line is the secret; see `credentials.file_of`.
        variable: Environment variable that holds the secret.
    """

    name: str
    text: SecretStr | None
    file: Path | None
    variable: str | None

    @classmethod
    def given(cls, settings: StrictConfig, name: str) -> Secret | None:
        """Return the secret of a part of the configuration; None if none of its keys is given.

        Raises:
            ValueError: More than one of the keys is given, or the plain text is empty.
        """
        keys = (name, f"{name}_file", f"{name}_env")
        names = [key for key in keys if getattr(settings, key) is not None]
        if len(names) > 1:
            raise ValueError(f"give one of {', '.join(keys)}, not {' and '.join(names)}")
        if not names:
            return None
        secret = cls(name, *(getattr(settings, key) for key in keys))
        if secret.text is not None and not secret.text.get_secret_value():
            raise ValueError(f"{name} is empty; leave it out if there is none")
        return secret

    @classmethod
    def required(cls, settings: StrictConfig, name: str) -> Secret:
        """Return the secret of a part of the configuration; raises `ValueError` if there is none."""
        secret = cls.given(settings, name)
        if secret is None:
            raise ValueError(f"give one of {name}, {name}_file, {name}_env")
        return secret

    @property
    def key(self) -> str:
        """The key by which the secret is given, such as `password_file`."""
        return f"{self.name}_file" if self.file is not None else f"{self.name}_env" if self.variable else self.name

    def read(self) -> str:
        """Return the secret.

        From a file, the first line is taken, without line ending and byte order mark; spaces are kept. From a variable,
        the whole value is taken.

        Raises:
            ValueError: The file or variable holds no secret; the text names the file or variable.
        """
        if self.text is not None:
            return self.text.get_secret_value()
        if self.file is not None:
            return self._first_line(self.file)
        value = os.environ.get(self.variable or "", "")
        if not value:
            raise ValueError(f"environment variable {self.variable} ({self.key}) is not set, or empty")
        return value

    def _first_line(self, file: Path) -> str:
        try:
            text = file_of(file).read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise ValueError(f"{self.key} {file} cannot be read: {reason}") from None
        # `splitlines` would also split at characters that a password may have.
        line = text.replace("\r\n", "\n").replace("\r", "\n").partition("\n")[0]
        if not line.strip():
            raise ValueError(f"{self.key} {file} is empty: its first line has nothing but spaces")
        return line
