"""The file of a multipart form (RFC 7578)."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus

from visaged.daemon.http.problems import Problem

_MOST_PARTS = 11
"""A file and ten fields."""
_MOST_FIELD_BYTES = 1_000_000
_MOST_HEAD_BYTES = 4096
# A search holds up everything else; so other tasks have their turn after so many bytes.
_WINDOW_BYTES = 262_144

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)
_DISPOSITION = re.compile(rb"^content-disposition:[ \t]*form-data\b(.*)$", re.IGNORECASE | re.MULTILINE)
_PARAMETER = re.compile(rb';\s*(name|filename\*?)=("(?:[^"\\]|\\.)*"|[^;\s]*)', re.IGNORECASE)


async def only_file(content_type: str, body: bytes) -> bytes:
    """Return the bytes of a form's file.

    Args:
        content_type: The request's Content-Type, with its boundary.
        body: The form.

    Raises:
        Problem: The form is not well-formed, has no file or several, or too many or too large fields.
    """
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise _wrong("its Content-Type has no boundary")
    delimiter = b"\r\n--" + (boundary[1] or boundary[2]).encode("latin-1")
    # What stands before the first delimiter is no part; the line break before that may be absent.
    start = len(delimiter) - 2 if body.startswith(delimiter[2:]) else await _after(body, delimiter, 0)
    files: list[bytes] = []
    for _ in range(_MOST_PARTS + 1):
        if body[start : start + 2] == b"--":
            break
        head_end = body.find(b"\r\n\r\n", start, start + _MOST_HEAD_BYTES)
        if head_end < 0:
            raise _wrong(f"a part has no headers that end within {_MOST_HEAD_BYTES} bytes")
        is_file = _is_file(body[start:head_end])
        end = await _after(body, delimiter, head_end + 2)
        first, last = head_end + 4, end - len(delimiter)
        if is_file:
            files.append(body[first : max(first, last)])
        elif last - first > _MOST_FIELD_BYTES:
            raise _wrong(f"a field that is no file has more than {_MOST_FIELD_BYTES} bytes")
        if len(files) > 1:
            raise _wrong("there are several files; send one")
        start = end
    else:
        raise _wrong(f"there are more than {_MOST_PARTS} parts")
    if not files:
        raise _wrong("there is no file; send the picture as a file field")
    return files[0]


def _is_file(head: bytes) -> bool:
    """Return whether the part with these headers is a file."""
    if not head.startswith(b"\r\n") and head[:2].strip(b" \t"):
        raise _wrong("something else than a line break follows its boundary")
    found = _DISPOSITION.search(head)
    names = {} if found is None else {name.lower(): value for name, value in _PARAMETER.findall(found[1])}
    if b"name" not in names:
        raise _wrong("a part has no Content-Disposition with a name")
    return b"filename" in names or b"filename*" in names


async def _after(body: bytes, delimiter: bytes, start: int) -> int:
    """Return the offset behind the next delimiter."""
    for begin in range(start, len(body), _WINDOW_BYTES):
        found = body.find(delimiter, begin, begin + _WINDOW_BYTES + len(delimiter) - 1)
        if found >= 0:
            return found + len(delimiter)
        await asyncio.sleep(0)
    raise _wrong("it ends before its last boundary")


def _wrong(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "bad-multipart", f"the multipart body is wrong: {detail}")
