"""Credentials of systemd, as files that the configuration names: `credential:NAME`.

systemd puts what `LoadCredential=NAME:...` of a service names into a folder in memory that only the service can read,
and names the folder in `CREDENTIALS_DIRECTORY`. Its path is not the same everywhere, so a configuration names the
credential alone.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

_PREFIX = "credential:"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,254}")

OUTSIDE = "there are no credentials here, as systemd has not started this process"
"""Part of the error where it cannot be known which credentials the service will have."""


def file_of(path: Path) -> Path:
    """Return the file that a path of the configuration means: that of a credential, or the path as it is.

    Raises:
        OSError: There is no such credential; `strerror` says what to do.
    """
    text = str(path)
    if not text.startswith(_PREFIX):
        return path
    name = text.removeprefix(_PREFIX)
    if not _NAME.fullmatch(name):
        raise _error(f"{name!r} cannot be the name of a credential; letters, digits, _ . @ - are possible")
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not folder:
        raise _error(f"{OUTSIDE} with any; name a file, or run visaged as a service that loads {name}")
    file = Path(folder, name)
    if not file.is_file():
        raise _error(f"the service has no credential {name}: name it in LoadCredential (systemctl edit visaged)")
    return file


def _error(text: str) -> OSError:
    return OSError(errno.ENOENT, text)
