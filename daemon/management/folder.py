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
        # Open until `close`, or the end of the process, which releases the locks however it ends.
        self._locks: list[int] = []
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _hold_folder(path, self._locks)
            lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _hold(lock, path)
            self._locks.append(lock)
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno == errno.EISDIR:
                raise StartError(f"state_dir: {path / LOCK_NAME} is a folder; remove it") from None
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

    def close(self) -> None:
        """Let the folder go, for a process that goes on."""
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()


def _owner(path: Path) -> str:
    """Return who owns the folder, or the nearest folder above it that this process may look at."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            status = place.stat()
            return f"{place} belongs to user {status.st_uid}, mode {status.st_mode & 0o7777:o}"
    return "nothing of the path can be looked at"


def _hold_folder(path: Path, locks: list[int]) -> None:
    """Lock the folder itself, where that is possible: also on a read-only disk, and whatever becomes of the lock file.

    Raises:
        StartError: Another process has it.
    """
    with contextlib.suppress(OSError):  # some systems cannot lock or open folders; then the lock file counts alone
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        _lock(number, path)
        locks.append(number)


def _hold(lock: int, path: Path) -> None:
    """Lock the file and write this process's number into it; raises `StartError` if another process has it."""
    if _lock(lock, path):
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())


def _lock(number: int, path: Path) -> bool:
    """Lock an open file or folder; return whether this system can.

    Raises:
        StartError: Another process has it; it is closed then.
        OSError: The file system cannot lock it.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system: nothing is held
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        raise _in_use(path) from None
    return True


def _in_use(path: Path) -> StartError:
    try:
        with open(path / LOCK_NAME, "rb") as file:
            pid = file.read(20).decode("ascii", "replace").strip()
    except OSError:
        pid = ""
    pid = pid or _holder(path)  # the disk may have been full
    return StartError(
        f"state_dir: {path} is in use by another visaged, process {pid}; stop that one, or give each "
        "daemon a state_dir of its own"
    )


def _holder(path: Path) -> str:
    """Return the number of the process that has locked a folder, as the kernel tells it."""
    with contextlib.suppress(OSError, IndexError):
        status = path.stat()
        place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5] == place:
                return words[4]
    return "unknown"
