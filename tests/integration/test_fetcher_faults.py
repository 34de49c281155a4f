"""Fetching from servers that are slow, broken or hostile: every fetch ends in time and within its memory."""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
import threading
import time
import tracemalloc
from typing import Any

import h11
import pytest

from tests.support.broker import free_port
from tests.support.fetching import fetch, fetcher, here, refused, url_of
from tests.support.http_server import Visit, serves, silent, web_server
from tests.support.odd_servers import full_listener
from visaged.daemon.fetch.errors import FetchError


def test_ports_that_nothing_listens_at() -> None:
    port = free_port()
    refused(f"http://127.0.0.1:{port}/", "unreachable", allow=[f"127.0.0.1:{port}"])


def test_a_host_that_drops_connections() -> None:
    with full_listener() as port:
        began = time.monotonic()
        refused(f"http://127.0.0.1:{port}/", "timeout", allow=[f"127.0.0.1:{port}"], timeout_s=0.5)
        assert time.monotonic() - began < 2.0


def drips_headers(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 200 OK\r\nX: ")
    while not visit.stopping.wait(0.05):
        visit.send(b"a")


def drips_body(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not visit.stopping.wait(0.05):
        visit.send(b"a")


def drips_chunks(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not visit.stopping.wait(0.05):
        visit.send(b"1\r\na\r\n")


def early_hints(visit: Visit) -> None:
    while not visit.stopping.wait(0.01):
        visit.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")


def slow_redirects(visit: Visit) -> None:
    visit.stopping.wait(0.3)
    visit.answer("302 Found", Location="/again")


@pytest.mark.parametrize("answer", [silent, drips_headers, drips_body, drips_chunks, early_hints, slow_redirects])
def test_slow_servers_end(answer: Any) -> None:
    with web_server(answer) as server:
        began = time.monotonic()
        assert "1 s" in refused(url_of(server), "timeout", **here(server, timeout_s=1))
        assert time.monotonic() - began < 3.0


def test_a_handshake_that_never_comes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        refused(f"https://127.0.0.1:{port}/", "timeout", allow=[f"127.0.0.1:{port}"], timeout_s=0.5)
    gc.collect()  # a connection that was left open would be told of here


def test_a_name_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, release = [], threading.Event()

    def hangs(host: str, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        release.wait(20.0)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hangs)

    async def many() -> list[str]:
        one = fetcher(public=True, timeout_s=0.2, max_concurrent=1)
        reasons = []
        for _ in range(3):
            with pytest.raises(FetchError) as caught:
                await one.fetch("http://tarpit.example/")
            reasons.append(caught.value.reason)
        return reasons

    began = time.monotonic()
    # Look-ups that were given up still hold their threads, and there are only so many.
    assert asyncio.run(many()) == ["timeout", "timeout", "busy"]
    assert time.monotonic() - began < 2.0
    assert len(asked) == 2
    release.set()


def gushes(visit: Visit, head: bytes, piece: bytes, times: int, sent: list[int]) -> None:
    visit.send(head)
    for _ in range(times):
        if visit.stopping.is_set():
            return
        visit.send(piece)
        sent.append(len(piece))


MB = b"a" * 1_000_000


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000000000\r\n\r\n", MB),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"f4240\r\n" + MB + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n77359400\r\n", MB),
        (b"HTTP/1.1 200 OK\r\n\r\n", MB),
    ],
)
def test_two_gigabytes_are_not_taken(head: bytes, piece: bytes) -> None:
    sent: list[int] = []
    with web_server(lambda visit: gushes(visit, head, piece, 2000, sent)) as server:
        tracemalloc.start()
        try:
            assert "2 MB" in refused(url_of(server), "too_large", **here(server, max_mb=2))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 12e6
    assert sum(sent) < 40e6


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Long: " + b"a" * 10_000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", MB),
        (b"", MB),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", MB),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", MB),
    ],
)
def test_heads_without_end(head: bytes, piece: bytes) -> None:
    with web_server(lambda visit: gushes(visit, head, piece, 2000, [])) as server:
        tracemalloc.start()
        try:
            refused(url_of(server), "unreachable", **here(server))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 12e6


def chunks(size: int, count: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%s\r\n" % (size, b"a" * size) * count


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (chunks(1, 50_000), "pieces of a few bytes each"),
        (chunks(20, 20_000), "pieces of a few bytes each"),
        (chunks(5000, 20) + b"1\r\na\r\n" * 50_000, "pieces of a few bytes each"),
        (b"HTTP/1.1 103 E\r\n\r\n" * 50_000, "1xx answers without end"),
        (b"HTTP/1.1 100 C\r\n\r\n" * 50_000, "1xx answers without end"),
        (b"HTTP/1.1 200 OK\r\n" + b"a:b\r\n" * 50_000, "a head that is too long"),
        (b"HTTP/1.1 200 OK\r\n" + b"a:b\r\n" * 10_000 + b"\r\n", "a head that is too long"),
        (chunks(5000, 2) + b"0\r\n" + b"a:b\r\n" * 10_000 + b"\r\n", "a head that is too long"),
        (chunks(5000, 2) + b"1" + b";a=b" * 10_000 + b"\r\nb\r\n0\r\n\r\n", "a head that is too long"),
    ],
    ids=["1", "20", "later", "103", "100", "headers", "whole", "trailers", "extensions"],
)
def test_answers_that_keep_the_parser_busy(answer: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop, in which the server runs too, gets its turn after few events."""
    events, most = 0, 0
    next_event = h11.Connection.next_event

    def counted(connection: h11.Connection) -> Any:
        nonlocal events, most
        events += 1
        most = max(most, events)
        return next_event(connection)

    monkeypatch.setattr(h11.Connection, "next_event", counted)

    async def others() -> None:
        nonlocal events
        while True:
            events = 0
            await asyncio.sleep(0)

    async def both(url: str, **keys: Any) -> str:
        beside = asyncio.create_task(others())
        try:
            await fetcher(**keys).fetch(url)
        except FetchError as error:
            return str(error)
        finally:
            beside.cancel()
        return ""

    with web_server(lambda visit: visit.send(answer)) as server:
        assert said in asyncio.run(both(url_of(server), **here(server)))
    assert 0 < most < 600


def test_small_pieces_now_and_then() -> None:
    body = chunks(1, 100) + b"1000\r\n%s\r\n" % (b"a" * 4096) + b"1\r\na\r\n" * 50 + b"0\r\n\r\n"
    with web_server(lambda visit: visit.send(body)) as server:
        assert len(fetch(url_of(server), **here(server))) == 100 + 4096 + 50


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nBad Header\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 999999 No\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_answers_that_are_no_http(answer: bytes) -> None:
    with web_server(lambda visit: visit.send(answer)) as server:
        refused(url_of(server), "unreachable", **here(server))


def test_more_than_was_announced_is_left() -> None:
    def lies(visit: Visit) -> None:
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")

    with web_server(lies) as server:
        assert fetch(url_of(server), **here(server)) == b"hello"


def test_nothing_is_unpacked() -> None:
    bomb = gzip.compress(bytes(100_000_000), 9)
    with web_server({
        "/labelled": lambda visit: visit.answer("200 OK", bomb, Content_Encoding="gzip"),
        "/bare": serves(bomb),
    }) as server:  # fmt: skip
        tracemalloc.start()
        try:
            assert "Content-Encoding" in refused(url_of(server, "/labelled"), "status", **here(server))
            assert fetch(url_of(server, "/bare"), **here(server)) == bomb
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 5e6


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("404 Not Found", "not_found"),
        ("410 Gone", "not_found"),
        ("401 Unauthorized", "status"),
        ("403 Forbidden", "status"),
        ("500 Internal Server Error", "status"),
        ("503 Service Unavailable", "status"),
        ("204 No Content", "status"),
        ("206 Partial Content", "status"),
        ("304 Not Modified", "status"),
        ("300 Multiple Choices", "status"),
        ("599 s3cr3t of the server", "status"),
    ],
)
def test_statuses(status: str, reason: str) -> None:
    with web_server(lambda visit: visit.answer(status)) as server:
        text = refused(url_of(server, "/private/path?signature=s3cr3t"), reason, **here(server))
    assert status[:3] in text
