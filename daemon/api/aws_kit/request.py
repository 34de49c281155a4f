"""Requests of the AWS AI Solution Kit's face detection: JSON with a picture's URL, or with the picture in base64."""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

import orjson

from visaged.daemon.http.problems import Problem


@dataclass(frozen=True, slots=True)
class KitInput:
    """The picture of a request: the bytes of its file, or its URL."""

    parameter: Literal["url", "img"]
    url: str = ""
    data: bytes = b""


def given_picture(body: bytes) -> KitInput:
    """Return the picture that the body of a request names or holds.

    Raises:
        Problem: The body is no JSON object with either `url` or `img`, or `img` is no base64.
    """
    # Objects take up to 40 times the bytes of their JSON: 26 MB of [] became 800 MB, and blocked all other requests
    # for 2.6 s.
    if sum(map(body.count, _PARTS)) > _MOST_PARTS:
        detail = f"the body has more than {_MOST_PARTS} commas and brackets; send an object with url or img"
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid-body", detail)
    try:
        document = orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        # The error's text may quote the body.
        detail = f"the body is no JSON (line {error.lineno}, column {error.colno})" if body else "the body is empty"
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid-body", f"{detail}; send an object with url or img") from None
    if not isinstance(document, dict):
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid-body", "the body is no JSON object; send one with url or img")
    if "url" in document and "img" in document:
        raise Problem(HTTPStatus.BAD_REQUEST, "url-and-img", "there are both url and img; send one of them")
    if "url" in document:
        if not isinstance(document["url"], str):
            raise Problem(HTTPStatus.BAD_REQUEST, "fetch-bad-url", "url is no string; send the address of a picture")
        return KitInput("url", url=document["url"].strip())
    if not isinstance(document.get("img"), str):
        raise Problem(HTTPStatus.BAD_REQUEST, "no-picture", "there is no string url or img; send one of them")
    return KitInput("img", data=from_base64(document["img"]))


# Every value of a JSON document beyond the first costs one of these; a picture's base64 has none.
_PARTS = (b",", b"[", b"{")
_MOST_PARTS = 100_000

_WHITE = " \t\r\n\v\f"
# Python holds the GIL while it decodes: a picture of 20 MB in one piece would block all threads for 100 ms.
_SLICE = 1 << 18
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def from_base64(text: str) -> bytes:
    """Return the bytes of a base64 text.

    It may have a prefix `data:...;base64,`, the usual or the URL-safe alphabet, white space, and no padding.

    Raises:
        Problem: The text is no base64.
    """
    if text[:64].lstrip()[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().rstrip().endswith(";base64"):
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                "invalid-base64",
                "img is a data URL without base64; send data:image/...;base64,...",
            )
    text = text.rstrip(_WHITE + "=")
    parts, rest = [], b""
    try:
        if "=" in text:
            raise ValueError("it is padded in the middle")
        for start in range(0, len(text), _SLICE):
            coded = rest + text[start : start + _SLICE].encode("ascii").translate(_TO_STANDARD, _WHITE.encode())
            whole = len(coded) & ~3  # four characters are three bytes
            parts.append(binascii.a2b_base64(coded[:whole], strict_mode=True))
            rest = coded[whole:]
        parts.append(binascii.a2b_base64(rest + b"=" * (-len(rest) % 4), strict_mode=True))
    except ValueError as error:  # binascii.Error and UnicodeEncodeError are subclasses
        reason = "it has other characters than base64's" if isinstance(error, UnicodeError) else str(error)
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid-base64", f"img is no base64: {reason}") from None
    return b"".join(parts)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "url": {
            "type": "string",
            "description": "URL of the picture: `http://`, `https://` or `s3://bucket/key`. Only URLs that `fetch` in "
            "the configuration allows are fetched.",
        },
        "img": {
            "type": "string",
            "contentEncoding": "base64",
            "description": "The picture itself, with or without the prefix `data:image/...;base64,`.",
        },
    },
    "oneOf": [{"required": ["url"]}, {"required": ["img"]}],
    "description": "A JPEG, PNG or BMP picture, of at most 4096 pixels a side unless configured otherwise.",
}
"""JSON Schema of the body."""

EXAMPLE = {"img": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"}
"""A body with a picture of one black pixel."""
