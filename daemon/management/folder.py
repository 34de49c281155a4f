"""The state folder as a whole: it is made, and held against a second daemon."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path

from visaged.daemon.errors import StartError

log = logging.getLogger(__name__)

LOCK_NAME = "lock"

_WRONG = {errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
_FORBIDDEN = {errno.EACCES, errno.EPERM}


class StateFolder:
    """The state folder, held by this process until its end.

    Two daemons that used one folder would each take the other's events, cameras and epoch for their own.

    Args:
        path: The folder; it is made if it is not there.
        is_default: Whether nobody has chosen the folder; then one that must not be written is done without.

    Raises:
        StartError: Another process holds the folder, or it can never be used; the text says what to do.

    Attributes:
        path: The folder; None if it is done without. It may be unusable for now: a disk that is full or read-only.
    """

    def __init__(self, path: Path, is_default: bool) -> None:
        self.path: Path | None = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Open until the end of the process, which releases the lock however it ends.
            self._lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _hold(self._lock, path)
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in _WRONG:
                raise StartError(f"state_dir: {path} cannot be a folder: {reason}; name another one") from None
            if error.errno in _FORBIDDEN and not is_default:
                raise StartError(
                    f"state_dir: {path} cannot be written by user {os.geteuid()} ({reason}: {_owner(path)}); run "
                    "visaged as the folder's owner, or set state_dir to a folder of its own, or to null"
                ) from None
            if error.errno in _FORBIDDEN:
                self.path = None
            log.warning(
                "the state folder %s cannot be used: %s; changes of cameras, the number of the run and events are not "
                "kept over a restart%s", path, reason,
                "; set state_dir to a folder that can be written" if self.path is None else " until it can",
            )  # fmt: skip


def _owner(path: Path) -> str:
    """Return who owns the folder, or the nearest folder above it that this process may look at."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            status = place.stat()
            return f"{place} belongs to user {status.st_uid}, mode {status.st_mode & 0o7777:o}"
    return "nothing of the path can be looked at"


def _hold(lock: int, path: Path) -> None:
    """Lock the file and write this process's number into it; raises `StartError` if another process has it."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: nothing is held
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(lock, 20).decode("ascii", "replace").strip() or "unknown"
        raise StartError(
            f"state_dir: {path} is in use by another visaged, process {pid}; stop that one, or give each daemon a "
            "state_dir of its own"
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
