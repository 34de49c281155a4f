"""Bodies of JSON that are not as they should be."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import Request
from starlette.types import Message

from visaged.daemon.http.json_bodies import read_object
from visaged.daemon.http.problems import Problem


def test_a_client_that_hangs_up_in_the_middle_is_no_error_of_the_server() -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b'{"fps": ', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"100")]
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)
    with pytest.raises(Problem) as caught:
        asyncio.run(read_object(request, ("application/json",)))
    assert (caught.value.status, caught.value.kind) == (400, "body-cut-short")
