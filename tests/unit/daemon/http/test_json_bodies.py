"""JSON bodies are read in time that grows with their length alone."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from fastapi import Request

from visaged.daemon.http.json_bodies import MOST_BYTES, read_object
from visaged.daemon.http.problems import Problem


async def read(body: bytes | None) -> dict[str, Any]:
    """Read a body; None for one that is cut short."""

    async def receive() -> dict[str, Any]:
        if body is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", b"application/json")]
    return await read_object(
        Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive), ("application/json",)
    )


def test_texts_deep_in_a_document_cost_no_more_than_others() -> None:
    depth = 400
    texts = b",".join([b'"a"'] * 15_000)
    body = b'{"a":' + b"[" * depth + texts + b"]" * depth + b"}"
    assert len(body) <= MOST_BYTES
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        document = asyncio.run(read(body))
    finally:
        sys.setprofile(None)
    assert list(document) == ["a"]
    assert calls < 50_000


@pytest.mark.parametrize(
    "body", [b'{"a": "\\u0000"}', b'{"a": [["\\ud800"]]}', b'{"a": {"b\\u0000": 1}}', b'{"a": NaN}']
)
def test_texts_that_no_setting_can_have_are_refused_wherever_they_stand(body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        asyncio.run(read(body))
    assert refused.value.kind == "malformed-json"


def test_a_body_that_is_cut_short_is_no_error_of_the_server() -> None:
    with pytest.raises(Problem) as refused:
        asyncio.run(read(None))
    assert refused.value.kind == "body-cut-short"
