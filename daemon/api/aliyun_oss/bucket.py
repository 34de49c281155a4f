"""What a bucket is, whatever holds its objects. Everything here blocks."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from urllib.parse import quote

from visaged.daemon.api.aliyun_oss.errors import OssError

# Without the tables of this machine, so that the same file has the same type everywhere.
_TYPES = mimetypes.MimeTypes()
_TYPES.add_type("image/webp", ".webp")
_OTHER = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Meta:
    """What is known of an object without its bytes.

    Attributes:
        size: Bytes.
        etag: With its quotes.
        modified: Whole seconds, in UTC.
        content_type: MIME type.
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
        """Yield the bytes from `start`, `length` of them."""
        ...

    def close(self) -> None:
        """Let go of it; more than once does no harm."""
        ...


class Bucket(Protocol):
    """A bucket."""

    def head(self, key: str) -> Meta:
        """Return what is known of an object; raises `OssError`."""
        ...

    def open(self, key: str, most_bytes: int | None = None) -> StoredObject:
        """Open an object; raises `OssError`.

        Args:
            key: Its key.
            most_bytes: Larger ones are refused with EntityTooLarge; None for the bucket's own limit, if any.
        """
        ...


def no_such_key(key: str) -> OssError:
    """Return the error for an object that is not there."""
    return OssError("NoSuchKey", "The specified key does not exist.", {"Key": key})


def too_large(size: int, most_bytes: int) -> OssError:
    """Return the error for an object that is larger than is taken."""
    return OssError("EntityTooLarge", f"The object has {size} bytes; at most {most_bytes} are taken.")


def content_type(key: str) -> str:
    """Return the MIME type that a key's ending tells."""
    return _TYPES.guess_type(f"file:{quote(key)}", strict=False)[0] or _OTHER
