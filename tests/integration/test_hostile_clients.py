"""A running daemon among clients that try to hold it up, on both of its ports: others are answered all the same."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.access_server import answer
from tests.support.waiting import until
from visaged.daemon.app import Daemon
from visaged.daemon.http.wire import seats
from visaged.daemon.settings import parse

PATIENCE_S = 60.0
CONNECTIONS = 24
HOST = "evil.example"
PICTURE = Path(__file__).parents[2] / "daemon" / "demo" / "picture.jpg"


@dataclass(frozen=True)
class Target:
    """A daemon, by its two ports."""

    daemon: Daemon

    def port(self, name: str) -> int:
        address = self.daemon.web.http_address if name == "http" else self.daemon.web.oss_address
        port = urlsplit(str(address)).port
        assert port is not None
        return port

    def raw(self, name: str = "http") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port(name)), PATIENCE_S)

    def get(self, path: str) -> httpx.Response:
        """Ask on a connection of its own, as a supervisor does."""
        url = f"http://127.0.0.1:{self.port('http')}{path}"
        return httpx.get(url, timeout=PATIENCE_S, trust_env=False, headers={"Connection": "close"})

    def cut(self, name: str, cause: str) -> float:
        labels = {"listener": name, "cause": cause}
        value = self.daemon.metrics.registry.get_sample_value("visaged_http_connections_cut_total", labels)
        return value or 0.0


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    (tmp_path_factory.mktemp("bucket") / "a.txt").write_text("a")
    document = {
        "http": {"port": 0, "max_connections": CONNECTIONS, "max_waiting": 2},
        "oss": {
            "enabled": True,
            "port": 0,
            "buckets": [{"name": "bucket", "folder": str(tmp_path_factory.getbasetemp()), "public_read": True}],
        },
        "mqtt": {"host": "127.0.0.1", "port": 1},
    }
    daemon = Daemon(parse(document), "test")
    thread = threading.Thread(target=daemon.run)
    thread.start()
    found = Target(daemon)
    try:
        until(lambda: found.get("/healthz").status_code == 200, PATIENCE_S)
        yield found
    finally:
        daemon.stop()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def rest(connection: socket.socket) -> bytes:
    """Return what comes until the connection is closed."""
    pieces = []
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("port", ["http", "oss"])
@pytest.mark.parametrize("path", ["/v1/faces", "/face_detection", "/nothing", "/healthz", "/bucket/a.txt"])
def test_tiny_chunks_end_the_connection(target: Target, port: str, path: str) -> None:
    with target.raw(port) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            )
            connection.sendall(b"1\r\nx\r\n" * 100_000)
        text = rest(connection)
    # It may still have been sending when it was cut off.
    if text:
        assert text.startswith(b"HTTP/1.1 4")
        assert b"connection: close" in text.lower()
        assert text.count(b"HTTP/1.1 ") == 1
    assert target.get("/healthz").status_code == 200


@pytest.mark.parametrize("port", ["http", "oss"])
def test_a_length_beside_chunks_ends_the_connection(target: Target, port: str) -> None:
    with target.raw(port) as connection:
        head = b"POST /v1/faces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"0\r\n\r\n" + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, headers, body = answer(connection)
        assert (status, headers["connection"]) == (400, "close")
        assert "Content-Length and Transfer-Encoding" in json.loads(body)["detail"]
        assert rest(connection) == b""


def test_silent_clients_keep_nobody_out(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats, "SILENT_S", 0.3)
    before = target.cut("http", "too_many")
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(target.raw()) for _ in range(CONNECTIONS)]
        assert target.get("/healthz").status_code == 200
        assert target.get("/readyz").status_code in (200, 503)
        # Who was silent for a while gives way.
        until(lambda: target.get("/v1/cameras").status_code == 200, PATIENCE_S)
        assert target.cut("http", "too_many") > before
        silent[0].settimeout(PATIENCE_S)
        assert rest(silent[0]) == b""


def test_connections_whose_requests_are_in_progress_keep_their_seats_and_health_is_answered(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "SILENT_S", 0.0)
    with contextlib.ExitStack() as stack:
        head = b"POST /v1/faces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx"
        slow = [stack.enter_context(target.raw()) for _ in range(CONNECTIONS)]
        for connection in slow:
            connection.sendall(head)
        until(lambda: target.get("/v1/cameras").status_code == 503, PATIENCE_S)
        assert target.get("/healthz").status_code == 200
    until(lambda: target.get("/v1/cameras").status_code == 200, PATIENCE_S)


def test_slow_bodies_take_no_place_of_a_picture(target: Target) -> None:
    head = b"POST /v1/faces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    kit = head.replace(b"/v1/faces", b"/face_detection")
    with contextlib.ExitStack() as stack:
        for number in range(10):  # there are two places
            stack.enter_context(target.raw()).sendall((head, kit)[number % 2] + b"x" * 1000)
        with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
            url = f"http://127.0.0.1:{target.port('http')}/v1/faces"
            assert client.post(url, content=PICTURE.read_bytes()).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/healthz/", "/readyz/", "/v1/cameras/", "/v1/faces/", "/metrics/", "/docs/", "/openapi.json/", "//healthz"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_no_answer_leads_to_the_host_that_a_client_names(target: Target, method: str, path: str) -> None:
    for host in (HOST, f"{HOST}/a?b#c", f"{HOST}:1@localhost", "[", "]:x", f"http://{HOST}", "a b", ""):
        with target.raw() as connection:
            connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            text = rest(connection)
        status = int(text.split()[1])
        assert 400 <= status < 500, text
        assert b"location" not in text.lower()
        assert HOST.encode() not in text


@pytest.mark.parametrize("host", [HOST, f"{HOST}:1@localhost", "[", f"http://{HOST}"])
def test_the_page_is_not_shown_under_a_name_that_is_not_this_server_s(target: Target, host: str) -> None:
    with target.raw() as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        text = rest(connection)
    assert int(text.split()[1]) in (400, 421), text
    assert HOST.encode() not in text


def test_connections_beyond_the_seats_are_closed_after_their_answer(target: Target) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(target.raw())
        with target.raw() as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            status, headers, _ = answer(connection)
            assert (status, headers["connection"]) == (200, "close")
            assert rest(connection) == b""
        with target.raw() as connection:
            assert answer(connection)[0] == 503
            assert rest(connection) == b""
