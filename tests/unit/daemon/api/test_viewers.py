"""Answers without an end: how they end, who gets one, and what becomes of a client that does not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

import pytest

from tests.support.wire import Wire
from visaged.daemon.api.viewers import Endless, Viewers
from visaged.daemon.http.head import HeadAsGet
from visaged.daemon.http.problems import Problem
from visaged.daemon.http.wire.limits import Limits
from visaged.pipelines.runtime.metrics import Metrics

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"


def run(scene: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scene

    asyncio.run(bounded())


class Source:
    """Parts that a test hands out; knows whether it was closed."""

    def __init__(self, viewers: Viewers) -> None:
        self.queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.begun = self.closed = 0
        self._viewers = viewers

    async def parts(self) -> AsyncGenerator[bytes]:
        self.begun += 1
        try:
            while (part := await self.queue.get()) is not None:
                if isinstance(part, Exception):
                    raise part
                yield part
        finally:
            self.closed += 1

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await Endless(self._viewers, "live", self.parts, "text/plain")(scope, receive, send)


def taken(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("visaged_live_viewers", {"kind": "live"}) or 0.0


def test_an_answer_goes_on_until_its_parts_end() -> None:
    async def scene() -> None:
        metrics = Metrics()
        source = Source(Viewers(1, metrics))
        wire = Wire(source)
        await wire.receive(GET)
        for part in (b"one", b"two"):
            source.queue.put_nowait(part)
            await wire.settle()
            assert part in wire.transport.sent
        assert b"content-length" not in wire.transport.sent.lower()
        assert taken(metrics) == 1
        source.queue.put_nowait(None)
        await wire.settle()
        assert wire.transport.sent.endswith(b"0\r\n\r\n")
        assert not wire.transport.is_closing(), "the connection serves the next request"
        assert (taken(metrics), source.closed) == (0, 1)

    run(scene())


def test_it_ends_when_the_daemon_stops_and_when_the_client_goes() -> None:
    async def scene() -> None:
        metrics = Metrics()
        viewers = Viewers(2, metrics)
        one, other = Source(viewers), Source(viewers)
        stays, goes = Wire(one), Wire(other)
        await stays.receive(GET)
        await goes.receive(GET)
        await goes.settle()
        assert taken(metrics) == 2
        goes.connection.connection_lost(None)
        await goes.settle()
        assert (taken(metrics), other.closed) == (1, 1)
        viewers.close()
        await stays.settle()
        assert stays.transport.sent.endswith(b"0\r\n\r\n")
        assert (taken(metrics), one.closed) == (0, 1)
        await stays.receive(GET)
        await stays.settle()
        assert stays.transport.sent.count(b"0\r\n\r\n") == 2, "who still comes is sent away at once"

    run(scene())


def test_a_part_that_fails_breaks_the_connection_off() -> None:
    async def scene() -> None:
        metrics = Metrics()
        source = Source(Viewers(1, metrics))
        wire = Wire(source)
        await wire.receive(GET)
        source.queue.put_nowait(ValueError("no"))
        await wire.settle()
        assert wire.transport.is_aborted
        assert (taken(metrics), source.closed) == (0, 1)

    run(scene())


def test_a_client_that_never_reads_is_cut_off_and_only_one_part_waits_for_it() -> None:
    async def scene() -> None:
        metrics = Metrics()
        source = Source(Viewers(1, metrics))
        wire = Wire(source, Limits(silence_s=0.1, least_bytes_s=10_000))
        await wire.receive(GET)
        for _ in range(100):
            source.queue.put_nowait(bytes(10_000))
        wire.transport.unsent = 10_000
        wire.connection.pause_writing()
        await wire.settle()
        assert source.queue.qsize() >= 98
        await asyncio.sleep(0.3)
        assert wire.transport.is_aborted
        wire.connection.connection_lost(None)
        await wire.settle()
        assert (taken(metrics), source.closed) == (0, 1)
        assert wire.cut["unread"]._value.get() == 1

    run(scene())


def test_a_client_that_does_not_read_does_not_hold_up_the_end() -> None:
    async def scene() -> None:
        metrics = Metrics()
        viewers = Viewers(1, metrics)
        source = Source(viewers)
        wire = Wire(source)
        await wire.receive(GET)
        await wire.settle()
        wire.transport.unsent = 10_000
        wire.connection.pause_writing()
        source.queue.put_nowait(bytes(10_000))
        await wire.settle()
        viewers.close()
        while not wire.transport.is_aborted:
            await asyncio.sleep(0.01)
        assert (taken(metrics), source.closed) == (0, 1)

    run(scene())


def test_head_takes_no_seat() -> None:
    async def scene() -> None:
        source = Source(Viewers(0, Metrics()))
        wire = Wire(HeadAsGet(source))
        await wire.receive(GET.replace(b"GET", b"HEAD"))
        await wire.settle()
        assert wire.transport.sent.startswith(b"HTTP/1.1 200 ")
        assert source.begun == 0

    run(scene())


@pytest.mark.parametrize(("most", "kind"), [(0, "no-viewers"), (2, "too-many-viewers")])
def test_seats(most: int, kind: str) -> None:
    async def scene() -> None:
        viewers = Viewers(most, Metrics())
        seats = [viewers.seat("mjpeg") for _ in range(most + 1)]
        for seat in seats[:most]:
            seat.__enter__()
        with pytest.raises(Problem) as refused:
            seats[most].__enter__()
        assert (refused.value.status, refused.value.kind) == (503, kind)
        assert "live.max_viewers" in refused.value.detail
        for seat in seats[:most]:
            seat.__exit__(None, None, None)
        if most:
            with viewers.seat("events"):
                pass

    run(scene())
