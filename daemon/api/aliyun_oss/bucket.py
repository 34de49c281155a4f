"""The interface of buckets, wherever their objects are stored. All calls block."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from urllib.parse import quote

from visaged.daemon.api.aliyun_oss.errors import OssError

# Does not read this machine's tables, so that a file has the same type on every machine.
_TYPES = mimetypes.MimeTypes()
_TYPES.add_type("image/webp", ".webp")
_OTHER = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Meta:
    """Metadata of an object.

    Attributes:
        size: Size of the object in bytes.
        etag: ETag with its quotation marks.
        modified: Time of the last change in UTC, in whole seconds.
        content_type: MIME type of the object.
        object_type: `Normal` where the tag is the MD5 of the bytes, `Multipart` otherwise.
    """

    size: int
    etag: str
    modified: datetime
    content_type: str
    object_type: str = "Normal"


class StoredObject(Protocol):
    """An open object."""

    meta: Meta

    def read(self, start: int, length: int) -> Iterator[bytes]:
        """Yield `length` bytes, beginning with byte `start`."""
        ...

    def close(self) -> None:
        """Close the object; may be called more than once."""
        ...


class Bucket(Protocol):
    """A bucket."""

    def head(self, key: str) -> Meta:
        """Return the metadata of an object; raises `OssError`."""
        ...

    def open(self, key: str, most_bytes: int | None = None) -> StoredObject:
        """Open an object; raises `OssError`.

        Args:
            key: Key of the object.
            most_bytes: Largest object; larger ones are refused with EntityTooLarge. None for the bucket's own limit,
                if it has one.
        """
        ...


def no_such_key(key: str) -> OssError:
    """Return the error for an object that does not exist."""
    return OssError("NoSuchKey", "The specified key does not exist.", {"Key": key})


def too_large(size: int, most_bytes: int) -> OssError:
    """Return the error for an object that is larger than the limit."""
    return OssError("EntityTooLarge", f"The object has {size} bytes; at most {most_bytes} are taken.")


def content_type(key: str) -> str:
    """Return the MIME type for the ending of a key."""
    return _TYPES.guess_type(f"file:{quote(key)}", strict=False)[0] or _OTHER
