"""JSON objects as bodies of requests, read strictly."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from visaged.daemon.http.problems import Problem
from visaged.daemon.http.uploads import read_body

MOST_BYTES = 65_536
"""Largest body in bytes."""


async def read_object(request: Request, types: Sequence[str]) -> dict[str, Any]:
    """Return the JSON object that a request carries.

    Args:
        request: The request.
        types: Media types that its body may have.

    Raises:
        Problem: The body has another type, is too large, too slow or cut short, or is no JSON object. Keys that stand
            twice, NaN, infinity, unpaired surrogates, and NUL characters, which no path can hold, are refused.
    """
    check_type(request, types)
    try:
        body = await read_body(request, MOST_BYTES)
    except Problem as problem:
        if problem.kind == "body-too-large":  # its text names the limit for pictures
            problem.detail = f"the body is larger than {MOST_BYTES // 1024} KiB"
        raise
    except ClientDisconnect:  # nobody reads this but the log
        raise Problem(HTTPStatus.BAD_REQUEST, "body-cut-short", "the body ended too early") from None
    try:
        document = json.loads(body, object_pairs_hook=_once, parse_constant=_refused)
        texts = "".join(_texts(document))
        texts.encode()
    except RecursionError:
        raise _malformed("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise _malformed(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeError:
        raise _malformed("it has characters that there are not in UTF-8") from None
    except ValueError as error:
        raise _malformed(str(error)) from None
    if "\0" in texts:
        raise _malformed("there is a NUL character")
    if not isinstance(document, dict):
        raise _malformed("it is no object; send the keys and values between { and }")
    return document


def check_type(request: Request, types: Sequence[str]) -> None:
    """Raise `Problem` if the media type of a request's body is none of the given ones."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in types:
        detail = f"send the body as {' or '.join(types)} (the Content-Type header)"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return result


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _texts(node: Any) -> Iterator[str]:
    """Yield every text of a JSON document, keys too."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)


def _malformed(text: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "malformed-json", f"the body is not what it should be: {text}")
