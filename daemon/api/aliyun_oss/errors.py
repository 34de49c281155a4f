"""Errors in the format of OSS: a code, an XML body, and the same in a header where there is no body."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from xml.sax.saxutils import escape

from starlette.responses import Response

STATUSES = {
    "PreconditionFailed": 412,
    "InvalidRange": 416,
    "BadRequest": 400,
    "EntityTooLarge": 400,
    "ImageTooLarge": 400,
    "InvalidArgument": 400,
    "InvalidBucketName": 400,
    "InvalidObjectName": 400,
    "MissingArgument": 400,
    "AccessDenied": 403,
    "InvalidAccessKeyId": 403,
    "RequestTimeTooSkewed": 403,
    "SignatureDoesNotMatch": 403,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "MethodNotAllowed": 405,
    "InternalError": 500,
    "NotImplemented": 501,
    "ServiceUnavailable": 503,
}
"""HTTP status by code. The codes are those of OSS; `ServiceUnavailable` stands for all its codes that mean "later"."""

# The fine-grained codes that OSS's documents name. It warns against building on them, and only these few are known.
_FINE = {
    "AccessDenied": "0003-00000001",
    "InvalidAccessKeyId": "0002-00000902",
    "MissingArgument": "0016-00000502",
    "NoSuchBucket": "0015-00000101",
    "NoSuchKey": "0026-00000001",
    "RequestTimeTooSkewed": "0002-00000504",
    "SignatureDoesNotMatch": "0002-00000040",
}
_UNKNOWN = "0000-00000000"

# Characters that XML 1.0 cannot hold even escaped.
_UNSAYABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class OssError(Exception):
    """An error that is answered in the format of OSS.

    Args:
        code: Code of the error, one of `STATUSES`.
        message: What was wrong and what to do.
        details: Additional elements of the body, by name.
        headers: Additional headers of the answer.
    """

    def __init__(
        self,
        code: str,
        message: str,
        details: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.details, self.headers = dict(details or {}), dict(headers or {})

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUSES[self.code]

    @property
    def fine_code(self) -> str:
        """The fine-grained code, which OSS calls EC."""
        return _FINE.get(self.code, _UNKNOWN)


def error_response(error: OssError, request_id: str, host: str, head: bool) -> Response:
    """Return an error as a response.

    Args:
        error: The error.
        request_id: Id of the request, 24 upper-case hex digits.
        host: The request's Host header, which OSS repeats in the body.
        head: Whether the request is HEAD; the answer then has no body, and clients read `x-oss-err`.
    """
    headers = {"x-oss-ec": error.fine_code, **error.headers}
    if head:
        # Details can be longer than a header may be.
        headers["x-oss-err"] = base64.b64encode(_document(error, request_id, host, {})).decode()
        return Response(None, error.status, headers, "application/xml")
    return Response(_document(error, request_id, host, error.details), error.status, headers, "application/xml")


def _document(error: OssError, request_id: str, host: str, details: Mapping[str, str]) -> bytes:
    elements = {
        "Code": error.code,
        "Message": error.message,
        "RequestId": request_id,
        "HostId": host,
        **details,
        "EC": error.fine_code,
    }
    lines = [f"  <{name}>{escape(_UNSAYABLE.sub('?', text))}</{name}>" for name, text in elements.items()]
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', "<Error>", *lines, "</Error>", ""]).encode()
