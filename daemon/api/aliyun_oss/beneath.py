"""Opening files that are beneath a folder, whatever is renamed or linked in it meanwhile.

A path that is checked and then opened by name can lead elsewhere by the time it is opened: a folder in it may have been
swapped with a symbolic link. So a path is opened part by part, each beneath the folder that is open already, and links
are never followed by the system: their targets are walked in the same way. Linux has openat2 with RESOLVE_BENEATH for
this, but Python has no call for it, and containers often forbid it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Sequence
from pathlib import Path

# O_NONBLOCK and O_NOCTTY, because opening a pipe would wait for its writer, and opening a terminal would adopt it.
_FILE = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
# O_PATH opens a folder that may be entered but not listed; systems other than Linux do not have it.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
# Most symbolic links in a path, as for Linux itself.
_MOST_LINKS = 40
_CAN_WALK = {os.open, os.stat, os.readlink} <= os.supports_dir_fd and os.stat in os.supports_follow_symlinks


def open_file(path: Path) -> int:
    """Return a descriptor of a file, whose symbolic links are followed; raises OSError if it is no regular file."""
    return _open_regular(os.fspath(path), os.stat(path), None, 0)


def open_beneath(folder: Path, parts: Sequence[str]) -> int:
    """Return a descriptor of a regular file beneath a folder, open for reading.

    Symbolic links are followed as long as they do not lead out of the folder, not even for a part of their way. The
    folder itself may be one. Parts that begin with a dot are refused, in targets of links too, and parts with a slash.

    Args:
        folder: The folder.
        parts: The names of the folders on the way, and of the file.

    Raises:
        OSError: There is no such file, it is no regular file, it may not be read, or it is not beneath the folder.
    """
    if not _CAN_WALK:  # Windows
        return open_file(_resolved(folder, parts))
    walk = _Walk(folder)
    try:
        return walk.open(parts)
    finally:
        walk.close()


class _Walk:
    """The way through a folder: the open folders from the first to the one that has been reached.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = [os.open(folder, _FOLDER)]

    def open(self, parts: Sequence[str]) -> int:
        """Return a descriptor of the file."""
        left, links = deque(parts), 0
        while left:
            part = left.popleft()
            if part == "..":
                self._leave()
                continue
            if part.startswith(".") or "/" in part:
                raise _not_found(part)
            status = os.stat(part, dir_fd=self._open[-1], follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, "too many symbolic links", part)
                left.extendleft(reversed(self._target(part)))
            elif left:
                self._open.append(os.open(part, _FOLDER | _NO_LINK, dir_fd=self._open[-1]))
            else:
                return _open_regular(part, status, self._open[-1], _NO_LINK)
        raise IsADirectoryError(errno.EISDIR, "is a folder", os.fspath(self._folder))

    def close(self) -> None:
        """Close the folders."""
        while self._open:
            os.close(self._open.pop())

    def _leave(self) -> None:
        if len(self._open) == 1:
            raise _not_found("..")
        os.close(self._open.pop())

    def _target(self, link: str) -> Sequence[str]:
        """Return the parts of a link's target; those of an absolute one begin at the folder."""
        target = Path(os.readlink(link, dir_fd=self._open[-1]))
        if not target.is_absolute():
            return target.parts
        for base in (self._folder.absolute(), self._folder.resolve()):
            if target.is_relative_to(base):
                while len(self._open) > 1:
                    os.close(self._open.pop())
                return target.relative_to(base).parts
        raise _not_found(link)


def _open_regular(path: str, status: os.stat_result, dir_fd: int | None, flags: int) -> int:
    # Looked at before it is opened too, because opening a device can have an effect.
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is no regular file", path)
    descriptor = os.open(path, _FILE | flags, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file", path)
    return descriptor


def _resolved(folder: Path, parts: Sequence[str]) -> Path:
    """Return the path of a file where folders cannot be opened part by part; a swap may go unnoticed there."""
    folder = folder.resolve(strict=True)
    path = folder.joinpath(*parts).resolve(strict=True)
    inside = path.relative_to(folder).parts if path.is_relative_to(folder) else (".",)
    if any(part.startswith(".") for part in inside):
        raise _not_found(os.fspath(path))
    return path


def _not_found(name: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
