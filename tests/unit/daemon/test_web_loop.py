"""The HTTP server's event loop."""

from __future__ import annotations

import asyncio

import pytest

from visaged.daemon import web


def test_it_is_asyncios_own_where_the_process_has_another_policy() -> None:
    uvloop = pytest.importorskip("uvloop", reason="it comes with the extra fleet, on Linux and macOS")
    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # as in Ray's processes
    try:
        with asyncio.Runner(loop_factory=web._LOOP) as runner:
            assert isinstance(runner.get_loop(), asyncio.SelectorEventLoop)
    finally:
        asyncio.set_event_loop_policy(before)
