"""Reads the bodies of requests within bounds of size, time and memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from visaged.daemon.http.problems import Problem
from visaged.daemon.http.wire.forms import only_file
from visaged.daemon.http.wire.limits import LEAST_BYTES_S
from visaged.daemon.http.wire.memory import Upload

# Seconds of silence after which a client counts as gone.
_BODY_SILENCE_S = 20.0
# Seconds for any body, beside those that the least rate allows for its bytes.
_BODY_GRACE_S = 10.0
# Most seconds for a whole body.
_BODY_MOST_S = 300.0
# Bytes from which on bodies are put together in a thread.
_QUICK_BYTES = 2_000_000
# Room in a body for what a form has around the picture.
_FORM_BYTES = 65_536


async def read_picture(
    request: Request, most_bytes: int, upload: Upload | None = None, clock: Callable[[], float] = time.monotonic
) -> bytes:
    """Return the picture that a request carries, as its body or as the file of a form.

    Args:
        request: The request.
        most_bytes: Largest picture in bytes.
        upload: Counts the bytes that are held in memory.
        clock: Returns monotonic seconds.

    Raises:
        Problem: The picture is too large or too slow, or the multipart form is wrong, or there is no memory for it.
        ClientDisconnect: The client went away.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        return await read_body(request, most_bytes, upload, clock)
    form = await _read(request, most_bytes, _FORM_BYTES, upload, clock)
    data = await only_file(content_type, form)
    if len(data) > most_bytes:
        raise _too_long(most_bytes)
    return data


async def read_body(
    request: Request, most_bytes: int, upload: Upload | None = None, clock: Callable[[], float] = time.monotonic
) -> bytes:
    """Return a request's body; see `read_picture`."""
    return await _read(request, most_bytes, 0, upload, clock)


async def _read(
    request: Request, most_bytes: int, spare_bytes: int, upload: Upload | None, clock: Callable[[], float]
) -> bytes:
    # The rest of a body that is refused is not read; the server closes the connection.
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most_bytes + spare_bytes:
        raise _too_long(most_bytes)
    pieces: list[bytes] = []
    received = 0
    began_s = clock()
    stream = aiter(request.stream())
    while True:
        left_s = min(_BODY_MOST_S, _BODY_GRACE_S + received / LEAST_BYTES_S) - (clock() - began_s)
        piece = await _next(stream, min(_BODY_SILENCE_S, left_s), upload)
        if piece is None:
            # Python lets the event loop go on while it joins bytes in another thread.
            return b"".join(pieces) if received < _QUICK_BYTES else await run_in_threadpool(b"".join, pieces)
        received += len(piece)
        if received > most_bytes + spare_bytes:
            raise _too_long(most_bytes)
        if upload is not None:
            upload.add(len(piece))
        pieces.append(piece)


async def _next(stream: AsyncIterator[bytes], patience_s: float, upload: Upload | None) -> bytes | None:
    """Return the next piece of a body; None at its end."""
    try:
        async with asyncio.timeout(patience_s) as scope:
            with upload.waiting(scope) if upload is not None else contextlib.nullcontext():
                return await anext(stream, None)
    except TimeoutError:
        if upload is not None:
            upload.check()
        raise _too_slow() from None


def _too_slow() -> Problem:
    detail = (
        f"nothing came for {_BODY_SILENCE_S:g} s, or less than {LEAST_BYTES_S / 1000:g} kB a second for longer than "
        f"{_BODY_GRACE_S:g} s, or not all within {_BODY_MOST_S:g} s; send it in one go"
    )
    return Problem(HTTPStatus.REQUEST_TIMEOUT, "slow-body", detail)


def _too_long(most_bytes: int) -> Problem:
    detail = f"the body is larger than {most_bytes / 1e6:.4g} MB (http.max_body_mb)"
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large", detail)
