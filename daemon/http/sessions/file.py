"""The file `sessions.json` of the state folder, so that a restart logs nobody out."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from visaged.daemon.config.files import replace_file

log = logging.getLogger(__name__)

FILE_NAME = "sessions.json"
_MOST_BYTES = 10_000_000
_LAST_S = 253_402_300_799  # the year 9999
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class KeptSession:
    """A session as it is kept.

    Attributes:
        sha256: SHA-256 of its token in hexadecimal digits.
        key: Name of the key that it was begun with, for whoever reads the file.
        fingerprint: SHA-256 of that key's SHA-256: another key of the same name does not continue the session.
        used_at: When it was last used, in seconds since 1970.
    """

    sha256: str
    key: str
    fingerprint: str
    used_at: int


class SessionFile:
    """The file; without a folder, a file that holds nothing.

    Args:
        folder: The state folder; None for none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / FILE_NAME

    def read(self) -> list[KeptSession]:
        """Return what is kept; nothing if the file cannot be read or is damaged, which is logged."""
        if self._path is None:
            return []
        try:
            with self._path.open("rb") as file:
                return [_session(entry) for entry in json.loads(file.read(_MOST_BYTES))["sessions"]]
        except FileNotFoundError:
            return []
        except OSError as error:
            reason = error.strerror or str(error)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            reason = "it is damaged"
        log.warning("%s cannot be read: %s; whoever was logged in has to log in again", self._path, reason)
        return []

    def write(self, sessions: Iterable[KeptSession]) -> None:
        """Replace the file atomically; only its owner may read it.

        Raises:
            OSError: The file cannot be written.
        """
        if self._path is not None:
            replace_file(self._path, json.dumps({"sessions": [asdict(session) for session in sessions]}, indent=1))


def _session(entry: Any) -> KeptSession:
    """Return an entry of the file; raises ValueError, TypeError or KeyError if it is none."""
    session = KeptSession(entry["sha256"], entry["key"], entry["fingerprint"], int(entry["used_at"]))
    if not (_HASH.fullmatch(session.sha256) and _HASH.fullmatch(session.fingerprint)):
        raise ValueError("it holds no SHA-256")
    if abs(session.used_at) > _LAST_S:
        raise ValueError("it holds no time")
    return session
