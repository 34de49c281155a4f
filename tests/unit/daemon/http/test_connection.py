"""A connection parses in small steps, refuses what is made to cost time, and parses nothing behind its last answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.support.wire import Echo, Wire
from visaged.daemon.http.wire import connection as connection_module
from visaged.daemon.http.wire.limits import Limits
from visaged.daemon.http.wire.turns import STEPS, Turns

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def sized(size: int, more: bytes = b"") -> bytes:
    return b"POST /b HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n" % (more, size)


def run(scene: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scene

    asyncio.run(bounded())


class CountedTurns(Turns):
    """Counts the steps that are made between two turns of the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0

    def add(self, step: Any, is_urgent: bool = False) -> None:
        def counted() -> None:
            if not self._now:
                asyncio.get_running_loop().call_soon(self._next)
            self._now += 1
            self.most = max(self.most, self._now)
            step()

        super().add(counted, is_urgent)

    def _next(self) -> None:
        self._now = 0


def test_requests_and_answers() -> None:
    async def scene() -> None:
        app = Echo()
        wire = Wire(app)
        await wire.receive(GET)
        await wire.receive(sized(300_000) + bytes(300_000))
        await wire.receive(CHUNKED + b"3\r\nabc\r\n0\r\n\r\n")
        await wire.settle()
        assert app.paths == ["/a", "/b", "/b"]
        assert app.received == 300_003
        assert wire.transport.sent.count(b"HTTP/1.1 200 OK") == 3
        assert not wire.transport.is_closing()
        assert not wire.transport.has_ended

    run(scene())


def test_what_many_connections_send_is_parsed_in_few_steps_a_turn() -> None:
    async def scene() -> None:
        turns = CountedTurns()
        wires = [Wire(Echo(), turns=turns) for _ in range(20)]
        chunks = (b"41\r\n" + bytes(65) + b"\r\n") * 3000
        for wire in wires:
            wire.connection.data_received(CHUNKED + chunks)
        await wires[0].settle(2000)
        assert 1 < turns.most <= STEPS
        for wire in wires:
            await wire.receive(b"0\r\n\r\n")
        await wires[0].settle(2000)
        assert all(b"\r\n\r\n195000" in wire.transport.sent for wire in wires)

    run(scene())


@pytest.mark.parametrize("status", [None, 401])
def test_tiny_chunks_are_refused_after_a_few_steps(status: int | None) -> None:
    async def scene() -> None:
        turns = CountedTurns()
        app = Echo(status)
        wire = Wire(app, turns=turns)
        wire.connection.data_received(CHUNKED + b"1\r\nx\r\n" * 43_000)
        await wire.settle()
        assert wire.transport.sent.startswith(b"HTTP/1.1 %d " % (status or 400))
        assert b"connection: close" in wire.transport.sent.lower()
        assert wire.transport.has_ended
        assert app.received <= 256
        assert turns.most == 1

    run(scene())


def test_pipelined_requests_are_parsed_one_by_one() -> None:
    async def scene() -> None:
        turns = CountedTurns()
        app = Echo()
        wire = Wire(app, turns=turns)
        wire.connection.data_received(GET * 2000)
        await wire.settle(5)
        assert len(app.paths) <= 5
        assert wire.transport.is_paused is False or len(app.paths) < 2000
        await wire.settle(20_000)
        assert len(app.paths) == 2000
        assert turns.most == 1

    run(scene())


def test_a_head_behind_a_small_request_is_bounded_too() -> None:
    async def scene() -> None:
        wire = Wire(Echo())
        wire.connection.data_received(GET + b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a:b\r\n" * 40_000 + b"\r\n")
        await wire.settle()
        assert wire.transport.sent.count(b"HTTP/1.1 200") == 1
        assert wire.transport.sent.count(b"HTTP/1.1 400") == 1
        assert wire.transport.has_ended

    run(scene())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 429, 200, 302, 500])
def test_nothing_behind_an_early_answer_is_parsed(status: int) -> None:
    async def scene() -> None:
        app = Echo(status)
        wire = Wire(app)
        await wire.receive(sized(1000) + b"x" * 10)
        await wire.settle()
        sent = wire.transport.sent
        assert b"connection: close" in sent.lower()
        assert wire.transport.has_ended
        await wire.receive(b"x" * 990 + GET)
        await wire.receive(GET * 1000)
        await wire.settle()
        assert app.paths == ["/b"]
        assert wire.transport.sent == sent
        assert not wire.transport.is_paused  # the rest is dropped, so that the client gets to read the answer

    run(scene())


def test_dropping_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        monkeypatch.setattr(connection_module, "_LINGER_BYTES", 1000)
        wire = Wire(Echo(413))
        await wire.receive(sized(10_000))
        await wire.settle()
        assert not wire.transport.is_closing()
        await wire.receive(bytes(1001))
        assert wire.transport.is_closing()
        monkeypatch.setattr(connection_module, "_LINGER_S", 0.0)
        other = Wire(Echo(413))
        await other.receive(sized(10_000))
        await other.settle()
        assert other.transport.is_closing()

    run(scene())


def test_a_body_that_is_not_wanted_yet_is_not_received() -> None:
    async def scene() -> None:
        gate = asyncio.Event()
        echo = Echo()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        wire = Wire(app)
        sending = asyncio.create_task(wire.receive(sized(2_000_000) + bytes(2_000_000)))
        await wire.settle()
        assert wire.transport.is_paused
        assert not sending.done()
        gate.set()
        await sending
        await wire.settle()
        assert b"\r\n\r\n2000000" in wire.transport.sent
        assert not wire.transport.is_paused

    run(scene())


def test_length_and_chunks_together_are_refused_and_the_connection_closed() -> None:
    async def scene() -> None:
        for both in (
            b"Content-Length: 3\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 0",
            b"transfer-encoding: CHUNKED\r\nContent-Length: 3\r\nContent-Length: 3",
        ):
            app = Echo()
            wire = Wire(app)
            await wire.receive(b"POST / HTTP/1.1\r\nHost: a\r\n" + both + b"\r\n\r\n0\r\n\r\n" + GET)
            await wire.settle()
            assert wire.transport.sent.startswith(b"HTTP/1.1 400 ")
            assert wire.transport.sent.count(b"HTTP/1.1") == 1
            assert wire.transport.has_ended
            assert not app.paths
            assert wire.cut["malformed"]._value.get() == 1

    run(scene())


def test_who_takes_nothing_or_too_little_of_the_answer_is_cut_off() -> None:
    async def scene() -> None:
        for a_window in (0, 999):
            wire = Wire(Echo(), Limits(silence_s=0.01, least_bytes_s=100_000))
            wire.transport.unsent = 100_000
            wire.connection.pause_writing()
            while not wire.transport.is_aborted:
                await asyncio.sleep(0.01)
                wire.transport.unsent -= a_window // 4
            assert wire.cut["unread"]._value.get() == 1

    run(scene())


def test_an_answer_waits_for_its_client_and_ends_with_it() -> None:
    async def scene() -> None:
        done = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": bytes(10_000_000)})
            done.set()

        wire = Wire(app)
        wire.connection.pause_writing()
        await wire.receive(GET)
        await wire.settle()
        assert wire.transport.sent == b""
        assert not done.is_set()
        wire.lose()
        await asyncio.wait_for(done.wait(), 10)
        assert wire.transport.sent == b""

    run(scene())


def test_the_client_is_asked_for_a_body_that_is_wanted() -> None:
    async def scene() -> None:
        wire = Wire(Echo())
        await wire.receive(sized(3, b"Expect: 100-continue\r\n"))
        await wire.settle()
        assert wire.transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
        await wire.receive(b"abc")
        await wire.settle()
        assert b"HTTP/1.1 200 OK" in wire.transport.sent
        other = Wire(Echo(401))
        await other.receive(sized(3, b"Expect: 100-continue\r\n"))
        await other.settle()
        assert other.transport.sent.startswith(b"HTTP/1.1 401")
        assert b"connection: close" in other.transport.sent.lower()

    run(scene())


def test_a_stop_closes_idle_connections_and_lets_the_others_answer() -> None:
    async def scene() -> None:
        idle, busy = Wire(Echo()), Wire(Echo())
        await busy.receive(sized(3) + b"ab")
        await busy.settle()
        for wire in (idle, busy):
            wire.connection.shutdown()
        assert idle.transport.is_closing()
        assert not busy.transport.is_closing()
        await busy.receive(b"c")
        await busy.settle()
        assert b"HTTP/1.1 200 OK" in busy.transport.sent
        assert busy.transport.is_closing()
        # Nothing lingers when the server stops: its loop would end before the connection does.
        gate, echo = asyncio.Event(), Echo(413)

        async def late(scope: Any, receive: Any, send: Any) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        lingering, answering = Wire(echo), Wire(late)
        for wire in (lingering, answering):
            await wire.receive(sized(3))
            await wire.settle()
            wire.connection.shutdown()
        gate.set()
        for wire in (lingering, answering):
            await wire.settle()
            assert b"HTTP/1.1 413" in wire.transport.sent
            assert wire.transport.is_closing()
            assert wire is lingering or not wire.transport.has_ended

    run(scene())


def test_an_application_that_fails_is_answered_for(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async def fails(scope: Any, receive: Any, send: Any) -> None:
            raise RuntimeError("boom")

        async def stops(scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"content-length", b"10")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})

        wire = Wire(fails)
        await wire.receive(GET)
        await wire.settle()
        assert wire.transport.sent.startswith(b"HTTP/1.1 500 ")
        half = Wire(stops)
        await half.receive(GET)
        await half.settle()
        assert half.transport.is_aborted

    run(scene())
    assert "boom" in caplog.text


def test_nothing_is_written_to_a_connection_that_broke() -> None:
    async def scene() -> None:
        done = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            wire.transport.abort()  # as a failed write does, before the connection is reported as lost
            await send({"type": "http.response.body", "body": bytes(10_000_000)})
            done.set()

        wire = Wire(app)
        await wire.receive(GET)
        await asyncio.wait_for(done.wait(), 10)
        assert len(wire.transport.sent) < 1000

    run(scene())
