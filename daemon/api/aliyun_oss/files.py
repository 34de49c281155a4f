"""Buckets whose objects are files on this machine."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from visaged.daemon.api.aliyun_oss.beneath import open_beneath, open_file
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
        try:
            descriptor = self._descriptor(key)
        except PermissionError:
            _complain("the daemon may not read the file of the object %r, or a folder on the way to it", key)
            raise OssError("AccessDenied", "The daemon may not read the object's file.") from None
        except (OSError, RuntimeError, ValueError):  # a loop of links; a name that is too long
            raise no_such_key(key) from None
        stored = StoredFile(descriptor, key)
        if most_bytes is not None and stored.meta.size > most_bytes:
            stored.close()
            raise too_large(stored.meta.size, most_bytes)
        return stored

    def _descriptor(self, key: str) -> int:
        """Return a descriptor of an object's file; raises OSError, RuntimeError or ValueError if there is none."""
        if key not in self._files:
            raise no_such_key(key)
        return open_file(self._files[key])


class FolderBucket(FileBucket):
    """A bucket of the files in a folder.

    Nothing outside of the folder is ever served: keys with `.` or `..`, empty parts, backslashes or NUL do not exist,
    and symbolic links are followed only while they stay in the folder, also if it changes meanwhile. Hidden files (with
    a leading dot) are not served either. A hard link cannot be told from the file itself and is served; the system lets
    only those make one who own the file or may write to it.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__({})
        self._folder = folder

    def _descriptor(self, key: str) -> int:
        parts = key.split("/")
        # On Windows, a colon begins a path on a drive, or names a stream of a file.
        bad = "\\\0:" if os.name == "nt" else "\\\0"
        if any(not part or part.startswith(".") or any(char in part for char in bad) for part in parts):
            raise no_such_key(key)
        return open_beneath(self._folder, parts)


class StoredFile:
    """A file as an object. It is sent with the size that it had when it was opened.

    Args:
        descriptor: Descriptor of the file, which is regular; it is closed with the object.
        key: Key of the object, whose ending gives the MIME type.
    """

    def __init__(self, descriptor: int, key: str) -> None:
        try:
            self._file: BinaryIO = open(descriptor, "rb", closefd=False)  # noqa: SIM115 - closed by `close`
            self._descriptor: int | None = descriptor
            self.meta = self._describe(descriptor, key)
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

    def _describe(self, descriptor: int, key: str) -> Meta:
        status = os.fstat(descriptor)
        digest = None
        if status.st_size <= _MAX_DIGESTED:
            digest = _DIGESTS(_identity(status), self._file, lambda: _identity(os.fstat(descriptor)))
        tag = digest or hashlib.md5(repr(_identity(status)).encode(), usedforsecurity=False).hexdigest().upper() + "-1"
        return Meta(
            size=status.st_size,
            etag=f'"{tag}"',
            modified=datetime.fromtimestamp(status.st_mtime_ns // 1_000_000_000, UTC),
            content_type=content_type(key),
            object_type="Normal" if digest else "Multipart",
        )


class _Identity(NamedTuple):
    """What changes when the bytes of a file do."""

    device: int
    inode: int
    size: int
    modified_ns: int


def _identity(status: os.stat_result) -> _Identity:
    return _Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class _Digests:
    """Cache of MD5 digests of recently used files, so that repeated requests do not read a whole file each time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[_Identity, str] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, identity: _Identity, file: BinaryIO, look: Callable[[], _Identity]) -> str | None:
        """Return the upper-case hex digest of an open file; None if the file changed while it was read.

        Args:
            identity: Identity of the file before.
            file: The file; no more than the size in `identity` is read, however fast it grows.
            look: Returns the identity of the file now.
        """
        with self._lock:
            known = self._known.get(identity)
            if known is not None:
                self._known.move_to_end(identity)
                return known
        digest = hashlib.md5(usedforsecurity=False)
        file.seek(0)
        left = identity.size
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            left -= len(chunk)
            digest.update(chunk)
        if look() != identity:
            return None
        text = digest.hexdigest().upper()
        with self._lock:
            self._known[identity] = text
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return text


_DIGESTS = _Digests(4096)
