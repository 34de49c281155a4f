"""Buckets whose objects are files on this machine."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from visaged.daemon.api.aliyun_oss.bucket import Meta, StoredObject, content_type, no_such_key, too_large
from visaged.daemon.api.aliyun_oss.errors import OssError
from visaged.pipelines.runtime.ratelimit import LimitedLog

# Any client can cause this line as often as it likes.
_complain = LimitedLog(logging.getLogger(__name__))

_CHUNK = 1 << 18
# Larger files have an ETag made of size and time, as OSS's ETags of multipart uploads are no MD5 digests either.
_MAX_DIGESTED = 64 << 20


class FileBucket:
    """A bucket of listed files.

    Args:
        files: Paths of the files by key.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = dict(files)

    def head(self, key: str) -> Meta:
        """Return the metadata of an object; raises `OssError`."""
        with closing(self.open(key)) as stored:
            return stored.meta

    def open(self, key: str, most_bytes: int | None = None) -> StoredObject:
        """Open an object; raises `OssError`."""
        stored = StoredFile(self._path(key), key)
        if most_bytes is not None and stored.meta.size > most_bytes:
            stored.close()
            raise too_large(stored.meta.size, most_bytes)
        return stored

    def _path(self, key: str) -> Path:
        if key not in self._files:
            raise no_such_key(key)
        return self._files[key]


class FolderBucket(FileBucket):
    """A bucket of the files in a folder.

    Nothing outside of the folder is ever served: keys with `.` or `..`, empty parts, backslashes or NUL do not exist,
    and symbolic links are followed before the check. Hidden files (with a leading dot) are not served either.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__({})
        self._folder = folder

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        # On Windows, a colon begins a path on a drive, or names a stream of a file.
        bad = "\\\0:" if os.name == "nt" else "\\\0"
        if any(not part or part.startswith(".") or any(char in part for char in bad) for part in parts):
            raise no_such_key(key)
        try:
            folder = self._folder.resolve(strict=True)
            path = folder.joinpath(*parts).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):  # a loop of links; a name that is too long
            raise no_such_key(key) from None
        inside = path.relative_to(folder).parts if path.is_relative_to(folder) else (".",)
        if any(part.startswith(".") for part in inside):
            raise no_such_key(key)
        return path


class StoredFile:
    """A file as an object.

    Args:
        path: Path of the file.
        key: Key of the object, whose ending gives the MIME type.

    Raises:
        OssError: The path is no regular file, or cannot be read.
    """

    def __init__(self, path: Path, key: str) -> None:
        # O_NONBLOCK, because opening a pipe would wait for its writer; what is no regular file is refused below.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            descriptor = os.open(path, flags)
        except PermissionError:
            _complain("the daemon may not read %s", path)
            raise OssError("AccessDenied", "The daemon may not read the object's file.") from None
        except OSError:
            raise no_such_key(key) from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise no_such_key(key)
            self._file: BinaryIO = open(descriptor, "rb", closefd=False)  # noqa: SIM115 - closed by `close`
            self._descriptor: int | None = descriptor
            self.meta = self._describe(status, key)
        except BaseException:
            os.close(descriptor)
            raise

    def read(self, start: int, length: int) -> Iterator[bytes]:
        """Yield `length` bytes, beginning with byte `start`."""
        self._file.seek(start)
        while length > 0:
            chunk = self._file.read(min(_CHUNK, length))
            if not chunk:  # the file was truncated meanwhile; the server notices that the answer is too short
                return
            length -= len(chunk)
            yield chunk

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._file.close()
            os.close(descriptor)

    def _describe(self, status: os.stat_result, key: str) -> Meta:
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        is_digest = status.st_size <= _MAX_DIGESTED
        if is_digest:
            digest = _DIGESTS(identity, self._file)
        else:
            digest = hashlib.md5(repr(identity).encode(), usedforsecurity=False).hexdigest().upper() + "-1"
        return Meta(
            size=status.st_size,
            etag=f'"{digest}"',
            modified=datetime.fromtimestamp(status.st_mtime_ns // 1_000_000_000, UTC),
            content_type=content_type(key),
            object_type="Normal" if is_digest else "Multipart",
        )


class _Digests:
    """Cache of MD5 digests of recently used files, so that repeated requests do not read a whole file each time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[tuple[int, ...], str] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, identity: tuple[int, ...], file: BinaryIO) -> str:
        """Return the upper-case hex digest of an open file, cached by device, inode, size and time."""
        with self._lock:
            known = self._known.get(identity)
            if known is not None:
                self._known.move_to_end(identity)
                return known
        digest = hashlib.md5(usedforsecurity=False)
        file.seek(0)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        text = digest.hexdigest().upper()
        with self._lock:
            self._known[identity] = text
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return text


_DIGESTS = _Digests(4096)
