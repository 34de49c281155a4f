"""The HTTP server among slow, silent, broken and too many clients, and with TLS."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.access_server import KEY, MUCH, OTHER, PATIENCE_S, Running, answer, bearer, is_problem, key
from tests.support.certificates import Certificates
from tests.support.waiting import until
from visaged.daemon.config.tls import TlsSettings
from visaged.daemon.http.server import Limits


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with Running(keys=[key("shop", KEY), key("till", OTHER)]) as server:
        yield server


QUICK = Limits(head_s=0.5, silence_s=0.3, idle_s=1)


# The kernel takes megabytes before it says so, which looks like silence: these are for who reads, but slowly.
PATIENT = Limits(head_s=0.5, silence_s=5, idle_s=1)


def ends(connection: socket.socket) -> bytes:
    """Return what still comes until the connection is closed."""
    pieces = []
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def test_who_says_nothing_is_cut_off_without_a_word() -> None:
    with Running(limits=QUICK) as server, server.raw() as connection:
        assert ends(connection) == b""
        assert server.value("http_connections_cut_total", listener="http", cause="slow") == 1
        until(lambda: server.value("http_connections", listener="http") == 0, PATIENCE_S)


@pytest.mark.parametrize("before", [b"", b"GET /docs HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_who_drips_headers_is_cut_off(before: bytes) -> None:
    with Running(limits=QUICK) as server, server.raw() as connection:
        connection.sendall(before)
        if before:
            assert answer(connection)[0] == 200
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 2000:
                connection.sendall(bytes([byte]))
                if time.monotonic() > began + 5:
                    break
                time.sleep(0.01)
        assert time.monotonic() - began < 4
        # What the server said may be lost, for the client went on sending.
        assert server.value("http_connections_cut_total", listener="http", cause="slow") == 1


def test_who_stops_in_the_headers_is_told() -> None:
    with Running(limits=QUICK) as server, server.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
        status, headers, body = answer(connection)
        assert status == 408
        assert headers["connection"] == "close"
        assert json.loads(body)["type"] == "urn:visaged:problem:slow-headers"
        assert ends(connection) == b""


def test_headers_in_pieces_in_time_are_fine_and_long_work_too() -> None:
    with Running(limits=QUICK) as server, server.raw() as connection:
        for piece in (b"GET /wait HT", b"TP/1.1\r\nHos", b"t: a\r\nX-API-Key: ", KEY.encode(), b"\r\n\r\n"):
            connection.sendall(piece)
            time.sleep(0.02)
        time.sleep(2 * QUICK.head_s)
        server.gate.set()
        assert answer(connection)[0] == 200
        connection.sendall(f"GET /id HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\n\r\n".encode())
        assert answer(connection)[0] == 200


def test_who_goes_on_sending_after_the_answer_is_cut_off() -> None:
    with Running(limits=QUICK) as server, server.raw() as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        assert answer(connection)[0] == 401
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < began + 5:
                connection.sendall(b"x")
                time.sleep(0.02)
        assert time.monotonic() - began < 4


def test_who_does_not_take_the_answer_is_cut_off() -> None:
    with Running(limits=QUICK) as server, server.raw() as connection:
        connection.sendall(f"GET /much HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\n\r\n".encode())
        until(lambda: server.value("http_connections_cut_total", listener="http", cause="unread") == 1, PATIENCE_S)
        until(lambda: server.value("http_requests_active", key="shop") == 0, PATIENCE_S)
        assert len(ends(connection)) < len(MUCH)


def slowly(connection: socket.socket) -> bytes:
    """Read an answer with long pauses, over twice the time that a connection may be idle."""
    text = bytearray()
    began = time.monotonic()
    while len(text) < len(MUCH) or not text.endswith(MUCH):
        if time.monotonic() < began + 2.5 * PATIENT.idle_s:
            time.sleep(0.1)
        piece = connection.recv(500_000)
        assert piece, f"cut off after {len(text)} bytes"
        text += piece
    return bytes(text)


def test_who_takes_the_answer_slowly_gets_it_all() -> None:
    with Running(limits=PATIENT) as server, server.raw() as connection:
        connection.sendall(f"GET /much HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\n\r\n".encode())
        assert slowly(connection).endswith(b"\r\n\r\n" + MUCH)


def test_more_connections_than_there_may_be() -> None:
    with Running(limits=Limits(connections=2)) as server:
        with server.raw() as first, server.raw() as second:
            until(lambda: server.value("http_connections", listener="http") == 2, PATIENCE_S)
            with server.raw() as third:
                status, headers, body = answer(third)
                assert status == 503
                assert headers["retry-after"] == "1"
                assert json.loads(body)["type"] == "urn:visaged:problem:overloaded"
            # Those that are open go on.
            for connection in (first, second):
                connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
                assert answer(connection)[0] == 200
        until(lambda: server.value("http_connections", listener="http") == 0, PATIENCE_S)
        assert server.client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /id\r\n\r\n",
        b"GET /id HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /id HTTP/1.1\r\nHost: a\r\n" + b"X-Many: b\r\n" * 10_000 + b"\r\n",
        b"GET /id HTTP/1.1\r\nHost: a\r\nX-Endless: " + b"a" * 3_000_000,
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /id HTTP/1.1\r\nHost: a\r\nX\x00: b\r\n\r\n",
    ],
)
def test_what_is_no_http_is_a_problem(running: Running, request_: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with running.raw() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(request_)
        text = ends(connection)
    if text:  # long ones may be cut off while they are still being sent
        assert text.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert json.loads(text.partition(b"\r\n\r\n")[2])["type"] == "urn:visaged:problem:malformed-request"
    assert running.client.get("/readyz").status_code == 200
    assert "Traceback" not in caplog.text


def test_a_broken_body_ends_the_request() -> None:
    with Running() as server, server.raw() as connection:
        head = f"POST /echo HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode() + b"5\r\nhello\r\nZZZ\r\n")
        assert ends(connection).startswith(b"HTTP/1.1 400")
        until(lambda: server.value("http_requests_active", key="shop") == 0, PATIENCE_S)


def test_websockets_are_not_spoken(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    upgrade = (
        b"GET /id HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    for _ in range(5):
        assert running.ask(upgrade)[0] == 401
    # Any client can send these as often as it likes.
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 2
    assert "pip install" not in caplog.text


def test_answers_do_not_wait_for_acknowledgements(running: Running) -> None:
    # Head and body are two writes; without TCP_NODELAY the second waits 40 ms each time.
    running.client.get("/readyz")
    began = time.monotonic()
    for _ in range(50):
        running.client.get("/readyz")
    assert time.monotonic() - began < 50 * 0.035


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.create(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(certificates: Certificates) -> Iterator[Running]:
    pair = certificates.server
    with Running(tls=TlsSettings(certificate=pair.certificate, key=pair.key).context(), limits=QUICK) as server:
        yield server


def trusting(ca: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca))


@contextlib.contextmanager
def encrypted(server: Running, certificates: Certificates) -> Iterator[ssl.SSLSocket]:
    context = trusting(certificates.ca)
    with server.raw() as plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
        yield connection


def test_tls(secure: Running, certificates: Certificates) -> None:
    url = f"https://localhost:{secure.address[1]}"
    with httpx.Client(verify=trusting(certificates.ca), trust_env=False, timeout=PATIENCE_S) as client:
        body = bytes(range(256)) * 4000
        assert client.post(f"{url}/echo", content=body, headers=bearer(KEY)).content == body
        is_problem(client.get(f"{url}/id"), 401, "key-missing")
        assert client.get(f"{url}/much", headers=bearer(KEY)).content == MUCH


def test_clients_that_do_not_know_the_authority_refuse(secure: Running) -> None:
    with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client, pytest.raises(httpx.ConnectError):
        client.get(f"https://localhost:{secure.address[1]}/readyz")


def test_old_tls_is_not_spoken(secure: Running, certificates: Certificates) -> None:
    context = trusting(certificates.ca)
    context.check_hostname = True
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with secure.raw() as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(plain, server_hostname="localhost")


def test_plain_http_to_the_tls_port(
    secure: Running, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    with secure.raw() as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"HTTP" not in ends(connection)
    with encrypted(secure, certificates) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer(connection)[0] == 200
    assert "Traceback" not in caplog.text


def test_slow_headers_within_tls(secure: Running, certificates: Certificates) -> None:
    with encrypted(secure, certificates) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert answer(connection)[0] == 408


def test_who_does_not_take_the_answer_within_tls(secure: Running, certificates: Certificates) -> None:
    before = secure.value("http_connections_cut_total", listener="http", cause="unread")
    with encrypted(secure, certificates) as connection:
        connection.sendall(f"GET /much HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\n\r\n".encode())
        until(
            lambda: secure.value("http_connections_cut_total", listener="http", cause="unread") == before + 1,
            PATIENCE_S,
        )
    until(lambda: secure.value("http_requests_active", key="shop") == 0, PATIENCE_S)


def test_who_takes_the_answer_slowly_within_tls_gets_it_all(certificates: Certificates) -> None:
    pair = certificates.server
    tls = TlsSettings(certificate=pair.certificate, key=pair.key).context()
    with Running(tls=tls, limits=PATIENT) as server, encrypted(server, certificates) as connection:
        connection.sendall(f"GET /much HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-API-Key: {KEY}\r\n\r\n".encode())
        assert slowly(connection).endswith(b"\r\n\r\n" + MUCH)
