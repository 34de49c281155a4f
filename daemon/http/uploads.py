"""Reads the bodies of requests within bounds of size and time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from http import HTTPStatus

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from visaged.daemon.http.problems import Problem

# Seconds of silence after which a client counts as gone.
_BODY_SILENCE_S = 20.0
# Most seconds for a whole body, so that a client that sends a byte now and then does not keep its place for ever.
_BODY_MOST_S = 300.0
# A body that is refused is still received and dropped within these bounds: closing with unread bytes resets the
# connection, and the reset can overtake the answer that says why.
_DRAIN_S = 2.0
_DRAIN_BYTES = 100_000_000


async def read_picture(request: Request, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> bytes:
    """Return the picture that a request carries, as its body or as the first file of a form.

    Args:
        request: The request.
        most_bytes: Largest picture in bytes.
        clock: Returns monotonic seconds.

    Raises:
        Problem: The picture is too large or too slow, or the multipart form is wrong.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data":
        await _check_length(request, most_bytes)
        return await _multipart(request, most_bytes, clock)
    return await read_body(request, most_bytes, clock)


async def read_body(request: Request, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> bytes:
    """Return a request's body.

    Raises:
        Problem: The body is larger than `most_bytes` or too slow.
    """
    await _check_length(request, most_bytes)
    return b"".join([chunk async for chunk in _chunks(request, most_bytes, clock)])


async def _check_length(request: Request, most_bytes: int) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most_bytes:
        if "expect" not in request.headers:  # a client that sends `Expect` has not sent the body yet
            await _drain(aiter(request.stream()))
        raise _too_long(most_bytes)


async def _drain(stream: AsyncIterator[bytes]) -> None:
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(_DRAIN_S):
            received = 0
            async for chunk in stream:
                received += len(chunk)
                if received > _DRAIN_BYTES:
                    return


async def _chunks(request: Request, most_bytes: int, clock: Callable[[], float]) -> AsyncGenerator[bytes, None]:
    received = 0
    stream = aiter(request.stream())
    last_s = clock() + _BODY_MOST_S
    while True:
        try:
            async with asyncio.timeout(min(_BODY_SILENCE_S, last_s - clock())):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            detail = f"nothing came for {_BODY_SILENCE_S:g} s, or not all in {_BODY_MOST_S:g} s; send it in one go"
            raise Problem(HTTPStatus.REQUEST_TIMEOUT, "slow-body", detail, {"Connection": "close"}) from None
        received += len(chunk)
        if received > most_bytes:
            await _drain(stream)
            raise _too_long(most_bytes)
        yield chunk


async def _multipart(request: Request, most_bytes: int, clock: Callable[[], float]) -> bytes:
    chunks = _chunks(request, most_bytes + 65536, clock)
    parser = MultiPartParser(request.headers, chunks, max_files=1, max_fields=10)
    parser.spool_max_size = most_bytes + 1  # pictures stay in memory: none may be left on a disk
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        text = getattr(error, "message", None) or "it has no boundary"
        await _drain(chunks)
        raise Problem(HTTPStatus.BAD_REQUEST, "bad-multipart", f"the multipart body is wrong: {text}") from None
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise Problem(
                HTTPStatus.BAD_REQUEST, "bad-multipart", "the form has no file; send the picture as a file field"
            )
        data = await files[0].read()
    finally:
        await form.close()
    if len(data) > most_bytes:
        raise _too_long(most_bytes)
    return data


def _too_long(most_bytes: int) -> Problem:
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "body-too-large",
        f"the body is larger than {most_bytes / 1e6:.4g} MB (http.max_body_mb)",
        {"Connection": "close"},
    )
