"""Buckets whose objects are in an S3-compatible store."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from visaged.daemon.api.aliyun_oss.bucket import Meta, StoredObject, content_type, no_such_key
from visaged.daemon.api.aliyun_oss.errors import OssError
from visaged.daemon.fetch.errors import FetchError
from visaged.daemon.fetch.s3 import S3Client, S3Object
from visaged.pipelines.runtime.ratelimit import LimitedLog

# Any client can cause these lines as often as it likes.
_complain = LimitedLog(logging.getLogger(__name__))

# Most objects of a bucket that are in memory at a time.
_MOST_AT_A_TIME = 8
# Most requests for metadata at a time. Each holds a thread of the pool that pictures use too until the store answers.
_MOST_HEADS = 8


class S3Bucket:
    """A bucket of an S3-compatible store.

    Args:
        client: Client of the store.
        name: Name of the bucket in the store.
        most_bytes: Largest object that is sent, in bytes; it is held in memory.
        timeout_s: Longest time in seconds for one answer of the store.
    """

    def __init__(self, client: S3Client, name: str, most_bytes: int, timeout_s: float) -> None:
        self._client = client
        self._name = name
        self._most_bytes = most_bytes
        self._timeout_s = timeout_s
        self._places = threading.BoundedSemaphore(_MOST_AT_A_TIME)
        self._heads = threading.BoundedSemaphore(_MOST_HEADS)

    def head(self, key: str) -> Meta:
        """Return the metadata of an object; raises `OssError`."""
        if not self._heads.acquire(blocking=False):
            text = f"The store of this bucket is being asked about {_MOST_HEADS} objects; try again."
            raise OssError("ServiceUnavailable", text, headers={"Retry-After": "1"})
        try:
            return _s3_meta(self._client.head(self._name, key, self._timeout_s), key)
        except FetchError as error:
            raise _store_error(error, key) from None
        finally:
            self._heads.release()

    def open(self, key: str, most_bytes: int | None = None) -> StoredObject:
        """Fetch an object into memory; raises `OssError`."""
        most = self._most_bytes if most_bytes is None else min(most_bytes, self._most_bytes)
        # Refused and not waited for, because waiting would hold a thread of the shared pool.
        if not self._places.acquire(blocking=False):
            text = f"{_MOST_AT_A_TIME} objects of this bucket are being sent; try again."
            raise OssError("ServiceUnavailable", text, headers={"Retry-After": "1"})
        try:
            return StoredBytes(self._client.get(self._name, key, most, self._timeout_s), key, self._places.release)
        except BaseException as error:
            self._places.release()
            if isinstance(error, FetchError):
                raise _store_error(error, key) from None
            raise


class StoredBytes:
    """An object in memory.

    Args:
        fetched: The object, as the store returned it.
        key: Key of the object.
        release: Called once, when the object is closed.
    """

    def __init__(self, fetched: S3Object, key: str, release: Callable[[], None]) -> None:
        self._data = fetched.data
        self._release: Callable[[], None] | None = release
        self.meta = _s3_meta(fetched, key)

    def read(self, start: int, length: int) -> Iterator[bytes]:
        """Yield `length` bytes, beginning with byte `start`."""
        yield self._data[start : start + length]

    def close(self) -> None:
        """Release the bytes; may be called more than once."""
        self._data = b""
        release, self._release = self._release, None
        if release is not None:
            release()


def _s3_meta(found: S3Object, key: str) -> Meta:
    modified = found.last_modified or datetime.fromtimestamp(0, UTC)
    etag = found.etag if re.fullmatch(r'"[\x21\x23-\x7e]*"', found.etag) else '""'
    given = found.content_type or ""
    return Meta(
        size=found.size,
        etag=etag,
        modified=modified.astimezone(UTC).replace(microsecond=0),
        content_type=given if re.fullmatch(r"[\x20-\x7e]+", given) else content_type(key),
        object_type="Multipart" if "-" in etag else "Normal",
    )


def _store_error(error: FetchError, key: str) -> OssError:
    """Return the error for a client: its own faults in full, faults of the store or configuration without details."""
    match error.reason:
        case "not_found":
            return no_such_key(key)
        case "too_large":
            return OssError("EntityTooLarge", f"The object cannot be had: {error}.")
        case "bad_url":
            return OssError("InvalidObjectName", "The store behind the bucket has no such names.")
        case "forbidden":
            return OssError("AccessDenied", "The configuration does not let the daemon read this bucket's store.")
        case "credentials":
            # Stores answer the same for an object that does not exist if the key may not list the bucket.
            _complain("the store of a bucket does not let the daemon in: %s", error)
            text = "The store behind the bucket does not let the daemon read the object, or it does not exist."
            return OssError("AccessDenied", text)
        case "disabled" | "redirects" | "status":
            _complain("the store of a bucket does not answer as it should: %s", error)
            return OssError("InternalError", "The store behind the bucket did not give the object; see the log.")
        case "busy" | "unreachable" | "timeout":
            _complain("the store of a bucket cannot be asked: %s", error)
            headers = {"Retry-After": "5"}
            return OssError("ServiceUnavailable", "The store behind the bucket does not answer.", headers=headers)
