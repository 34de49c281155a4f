"""Requests of the AWS AI Solution Kit's face detection: JSON with a picture's URL, or with the picture in base64."""

from __future__ import annotations

import binascii
import secrets
from collections.abc import Iterable, Iterator
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

    Large bodies are to be given in another thread than the event loop's, which can go on meanwhile: no step here holds
    Python's lock for long. In one piece, 26 MB of base64 in JSON would take 70 ms.

    Raises:
        Problem: The body is no JSON object with either `url` or `img`, or `img` is no base64.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    start, end = _long_text(body)
    mark = secrets.token_hex(16)  # stands for the long text while the rest is parsed
    small = body if start == end else body[:start] + mark.encode() + body[end:]
    # Objects take up to 40 times the bytes of their JSON: 26 MB of [] became 800 MB.
    if len(small) > _MOST_BYTES:
        raise _invalid(f"the body has more than {_MOST_BYTES} bytes beside the picture")
    document = _object(small)
    if "url" in document and "img" in document:
        raise Problem(HTTPStatus.BAD_REQUEST, "url-and-img", "there are both url and img; send one of them")
    if "url" in document:
        if not isinstance(document["url"], str):
            raise Problem(HTTPStatus.BAD_REQUEST, "fetch-bad-url", "url is no string; send the address of a picture")
        return KitInput("url", url=document["url"].strip())
    if not isinstance(document.get("img"), str):
        raise Problem(HTTPStatus.BAD_REQUEST, "no-picture", "there is no string url or img; send one of them")
    if document["img"] == mark and start != end:
        return KitInput("img", data=_decoded(_texts(body, start, end)))
    return KitInput("img", data=from_base64(document["img"]))


# Most bytes of JSON that are parsed at once, and the least length of a text that is taken out before.
_MOST_BYTES = 200_000
_LONG_BYTES = 50_000
_MOST_QUOTES = 1000

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
    return _decoded(text[start : start + _SLICE] for start in range(0, len(text), _SLICE))


def _long_text(body: bytes) -> tuple[int, int]:
    """Return where the first long text without quotation marks lies in a JSON document; the same twice if nowhere."""
    quote = body.find(b'"')
    for _ in range(_MOST_QUOTES):
        following = body.find(b'"', quote + 1)
        if quote < 0 or following < 0:
            break
        if following - quote > _LONG_BYTES:
            return quote + 1, following
        quote = following
    return 0, 0


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # The error's text may quote the body.
        raise _invalid(
            f"the body is no JSON (line {error.lineno}, column {error.colno})" if body else "the body is empty"
        ) from None
    if not isinstance(document, dict):
        raise _invalid("the body is no JSON object")
    return document


def _texts(body: bytes, start: int, end: int) -> Iterator[str]:
    """Yield the text that stands in a JSON document from one offset to another, in slices."""
    while start < end:
        stop = min(start + _SLICE, end)
        # No escape such as \u002b, which some clients write for +, may be cut in two.
        escape = body.rfind(b"\\", max(start, stop - 6), stop)
        if stop < end and escape > start:
            stop = escape if body[escape - 1] != 0x5C else escape - 1
        try:
            yield orjson.loads(b'"' + body[start:stop] + b'"')
        except orjson.JSONDecodeError:
            raise _invalid("the text of img is none of JSON") from None
        start = stop


def _decoded(texts: Iterable[str]) -> bytes:
    """Return the bytes of a base64 text that comes in slices."""
    parts, rest, is_padded = [], b"", False
    try:
        for text in _without_prefix(texts):
            coded = text.encode("ascii").translate(_TO_STANDARD, _WHITE.encode())
            bare = coded.rstrip(b"=")
            if b"=" in bare or (is_padded and bare):
                raise ValueError("it is padded in the middle")
            is_padded |= len(bare) < len(coded)
            coded = rest + bare
            whole = len(coded) & ~3  # four characters are three bytes
            parts.append(binascii.a2b_base64(coded[:whole], strict_mode=True))
            rest = coded[whole:]
        parts.append(binascii.a2b_base64(rest + b"=" * (-len(rest) % 4), strict_mode=True))
    except ValueError as error:  # binascii.Error and UnicodeEncodeError are subclasses
        reason = "it has other characters than base64's" if isinstance(error, UnicodeError) else str(error)
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid-base64", f"img is no base64: {reason}") from None
    return b"".join(parts)


def _without_prefix(texts: Iterable[str]) -> Iterator[str]:
    """Yield the slices of a text without the prefix of a data URL, which only the first can have."""
    for number, text in enumerate(texts):
        if number or text[:64].lstrip()[:5].lower() != "data:":
            yield text
            continue
        head, comma, data = text.partition(",")
        if not comma or not head.lower().rstrip().endswith(";base64"):
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                "invalid-base64",
                "img is a data URL without base64; send data:image/...;base64,...",
            )
        yield data


def _invalid(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "invalid-body", f"{detail}; send an object with url or img")


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
