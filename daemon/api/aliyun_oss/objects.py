"""Reading objects: conditions, ranges and headers of GET and HEAD, as OSS answers them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from http import HTTPStatus

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from visaged.daemon.api.aliyun_oss.bucket import Meta, StoredObject
from visaged.daemon.api.aliyun_oss.errors import OssError
from visaged.daemon.api.aliyun_oss.requests import OssRequest

_OVERRIDES = {
    b"response-cache-control": "cache-control",
    b"response-content-disposition": "content-disposition",
    b"response-content-encoding": "content-encoding",
    b"response-content-language": "content-language",
    b"response-content-type": "content-type",
    b"response-expires": "expires",
}


_HARMLESS = re.compile(
    r"(?:(?:image|audio|video)/(?P<kind>[a-z0-9.+-]+)|text/plain|application/(?:json|octet-stream))"
    r"(?: ?; ?charset=(?:[a-z0-9_-]+|\"[a-z0-9_-]+\"))?",
    re.IGNORECASE,
)
"""Content types that hold no scripts, strictly: browsers take the last of several types, and mend what is malformed."""


class ObjectResponse(StreamingResponse):
    """Sends bytes of an object, and closes it however the answer ends, also if the client goes away before it begins.

    Args:
        stored: The object.
        start: Offset of the first byte.
        length: Number of bytes.
        status: Status of the answer.
        headers: Headers of the answer.
    """

    def __init__(
        self, stored: StoredObject, start: int, length: int, status: HTTPStatus, headers: Mapping[str, str]
    ) -> None:
        super().__init__(stored.read(start, length), status, headers)
        self._stored = stored

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the bytes."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stored.close()


def check_conditions(request: OssRequest, meta: Meta) -> Response | None:
    """Return an answer with status 304 if the client has the object already; None if the object must be sent.

    Raises:
        OssError: A condition does not hold (PreconditionFailed).
    """
    if_match, if_none_match = request.header(b"if-match"), request.header(b"if-none-match")
    unmodified, modified = _date(request.header(b"if-unmodified-since")), _date(request.header(b"if-modified-since"))
    if if_match and not _names(if_match, meta.etag):
        raise _failed("If-Match")
    if not if_match and unmodified is not None and meta.modified > unmodified:
        raise _failed("If-Unmodified-Since")
    if if_none_match:
        unchanged = _names(if_none_match, meta.etag)
    else:
        unchanged = modified is not None and meta.modified <= modified
    if not unchanged:
        return None
    return Response(None, HTTPStatus.NOT_MODIFIED, {"ETag": meta.etag, "Last-Modified": _http_date(meta.modified)})


def head_response(request: OssRequest, meta: Meta, is_signed: bool) -> Response:
    """Return the answer to HEAD."""
    return Response(None, HTTPStatus.OK, _headers(request, meta, is_signed))


def get_response(request: OssRequest, stored: StoredObject, is_signed: bool) -> Response:
    """Return the answer to GET; it closes the object.

    Raises:
        OssError: The range is not satisfiable (InvalidRange), or a `response-*` parameter is not valid.
    """
    meta = stored.meta
    headers = _headers(request, meta, is_signed)
    start, length = 0, meta.size
    status = HTTPStatus.OK
    wanted = byte_range(request.header(b"range"), meta.size, request.header(b"x-oss-range-behavior") == b"standard")
    if wanted is not None:
        start, length = wanted
        status = HTTPStatus.PARTIAL_CONTENT
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{meta.size}"
        headers["Content-Length"] = str(length)
    return ObjectResponse(stored, start, length, status, headers)


def byte_range(header: bytes, size: int, standard: bool) -> tuple[int, int] | None:
    """Return the offset of the first byte and the number of bytes of a Range header; None for the whole object.

    OSS sends the whole object if a range does not lie within it. With `x-oss-range-behavior: standard`, it sends the
    part that exists, or status 416. For several ranges, the whole object is sent.

    Args:
        header: Value of the Range header.
        size: Size of the object in bytes.
        standard: Whether the client asked for the standard behaviour.

    Raises:
        OssError: No byte of the range exists (InvalidRange); only with the standard behaviour.
    """
    found = re.fullmatch(rb"bytes=(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})", header.strip())
    if found is None or not (found["first"] or found["last"]):
        return None
    if not found["first"]:
        count = int(found["last"])
        if 0 < count <= size or (standard and count and size):
            return max(0, size - count), min(count, size)
    else:
        first, last = int(found["first"]), int(found["last"] or size - 1)
        if found["last"] and last < first:
            return None  # not a valid range, by RFC 9110 14.1.1
        if first < size and (last < size or standard):
            return first, min(last, size - 1) - first + 1
    if standard:
        text = "The requested range cannot be satisfied."
        raise OssError("InvalidRange", text, {"ActualObjectSize": str(size)}, {"Content-Range": f"bytes */{size}"})
    return None


def _headers(request: OssRequest, meta: Meta, is_signed: bool) -> dict[str, str]:
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(meta.size),
        "Content-Type": meta.content_type,
        "ETag": meta.etag,
        "Last-Modified": _http_date(meta.modified),
        "x-oss-object-type": meta.object_type,
        "x-oss-storage-class": "Standard",
    } | _overrides(request, is_signed)
    if not is_harmless(headers["Content-Type"]):
        # The type stays as it is for programs; OSS does the same with HTML at its own host names.
        headers["Content-Disposition"] = _as_attachment(headers.get("Content-Disposition", ""))
        headers["x-oss-force-download"] = "true"
    return headers


def is_harmless(content_type: str) -> bool:
    """Return whether a browser may show objects of a type: pictures, sound, video, plain text, JSON, and raw bytes.

    Others may hold scripts, as HTML, SVG and XML do, or parts of any type, and are for saving only.
    """
    found = _HARMLESS.fullmatch(content_type)
    if found is None:
        return False
    kind = (found["kind"] or "").lower()
    return not kind.startswith("svg") and not kind.endswith("xml")


def _as_attachment(disposition: str) -> str:
    """Return a Content-Disposition that has the browser save the object, with the file name of the given one."""
    _, semicolon, parameters = disposition.partition(";")
    return f"attachment{semicolon}{parameters}"


def _overrides(request: OssRequest, is_signed: bool) -> dict[str, str]:
    """Return the headers of the answer that the request overrides by `response-*` parameters."""
    found: dict[str, str] = {}
    for name, header in _OVERRIDES.items():
        value = request.argument(name)
        if value is None:
            continue
        if not is_signed:
            text = f"{name.decode()} is for requests alone that are signed with one of the endpoint's keys (oss.keys)."
            raise OssError("InvalidArgument", text)
        if not re.fullmatch(rb"[\x20-\x7e\x80-\xff]{1,1024}", value) or value != value.strip(b" "):
            raise OssError("InvalidArgument", f"{name.decode()} is no value of a header.")
        found[header.title()] = value.decode("latin-1")
    return found


def _names(tags: bytes, etag: str) -> bool:
    """Return whether a list of ETags contains a tag; clients send tags with and without quotation marks."""
    bare = etag.strip('"').lower()
    given = [tag.strip().removeprefix("W/").strip('"').lower() for tag in tags.decode("latin-1").split(",")]
    return "*" in given or bare in given


def _date(header: bytes) -> datetime | None:
    try:
        moment = parsedate_to_datetime(header.decode("latin-1"))
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None  # a condition without a valid date is ignored


def _http_date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


def _failed(condition: str) -> OssError:
    text = "At least one of the pre-conditions you specified did not hold."
    return OssError("PreconditionFailed", text, {"Condition": condition})
