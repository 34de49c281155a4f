"""RTSP cameras that lead elsewhere, ask for a login, or speak strangely; and that the relay is for FFmpeg alone."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.http_server import WebServer, serves, web_server
from tests.support.odd_servers import tcp_server
from tests.support.rtsp import PASSWORD, USER, RtspServer
from tests.support.sources import SourceRun, failure_of
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.rtsp.relay import Relay

SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    "a=rtpmap:96 H264/90000\r\na=control:{0}\r\n"
)


def camera(answer: Callable[[str, str], str], asked: list[str]) -> Callable[[socket.socket, threading.Event], None]:
    """A camera that answers each request, by its method and text."""

    def talk(connection: socket.socket, stopping: threading.Event) -> None:
        data = b""
        while not stopping.is_set():
            try:
                piece = connection.recv(65536)
            except TimeoutError:
                continue
            if not piece:
                return
            data += piece
            while b"\r\n\r\n" in data:
                head, _, data = data.partition(b"\r\n\r\n")
                text = head.decode()
                asked.append(text)
                if text.startswith("RTSP/"):  # an answer to a request of the camera
                    continue
                number = re.search(r"CSeq: (\d+)", text)
                assert number is not None
                connection.sendall(answer(text.split()[0], text).replace("CSEQ", f"CSeq: {number[1]}").encode())

    return talk


def ok(more: str = "", body: str = "") -> str:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"RTSP/1.0 200 OK\r\nCSEQ\r\n{more}{length}\r\n{body}"


@pytest.fixture
def inner() -> Iterator[WebServer]:
    with web_server(serves(b"")) as server:
        yield server


@pytest.mark.parametrize("method", ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\n\r"])
def test_redirects(inner: WebServer, method: str, end: str) -> None:
    def answer(asked: str, text: str) -> str:
        if asked == method:
            location = f"Location: rtsp://user:pw@127.0.0.1:{inner.port}/x"
            return end.join(["RTSP/1.0 302 Found", "CSEQ", location, end])
        if asked == "DESCRIBE":
            return ok("Content-Type: application/sdp\r\n", SDP.format("track"))
        return ok("Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n")

    with tcp_server(camera(answer, [])) as port:
        error = failure_of(f"rtsp://127.0.0.1:{port}/live")
    assert error.cause == "redirected"
    assert f"redirects to another URL at 127.0.0.1:{inner.port}; name that URL itself" in str(error)
    assert not inner.connections


@pytest.mark.parametrize("transport", ["tcp", "udp", "udp+tcp", "tcp+udp"])
def test_redirects_with_a_transport_by_an_option(inner: WebServer, transport: str) -> None:
    def answer(asked: str, text: str) -> str:
        return f"RTSP/1.0 302 Found\r\nCSEQ\r\nLocation: rtsp://127.0.0.1:{inner.port}/x\r\n\r\n"

    with tcp_server(camera(answer, [])) as port:
        error = failure_of(f"rtsp://127.0.0.1:{port}/live", options={"rtsp_transport": transport})
    assert error.cause == "redirected"
    assert not inner.connections


@pytest.mark.parametrize(
    "first",
    [
        "RTSP/1.0 200 OK\r\nCSEQ\r\nX: y\n\nRTSP/1.0 302 Found\r\nCSEQ\r\nLocation: rtsp://127.0.0.1:{0}/\r\n\r\n",
        "RTSP/1.0 200 OK\r\nCSEQ\r\nLocation: rtsp://127.0.0.1:{0}/\r\n\r\nRTSP/1.0 302 Found\r\nCSEQ\r\n\r\n",
        "RTSP/1.0 0302 Found\r\nCSEQ\r\nLocation: rtsp://127.0.0.1:{0}/\r\n\r\n",
        "RTSP/1.0  302\r\nCSEQ\r\nLocation: rtsp://127.0.0.1:{0}/\r\n\r\n",
        " RTSP/1.0 302 Found\r\nCSEQ\r\nLocation: rtsp://127.0.0.1:{0}/\r\n\r\n",
        "\r\n\r\nRTSP/1.0 399 Found\r\nCSEQ\r\nLOCATION: rtsp://127.0.0.1:{0}/\r\n\r\n",
        "REDIRECT rtsp://127.0.0.1/ RTSP/1.0\r\nCSEQ\r\nLocation: rtsp://127.0.0.1:{0}/\r\n\r\n",
        "RTSP/1.0 200 OK\r\nCSEQ\r\nContent-Length: 3\r\nContent-Length: 0\r\n\r\nRTSP/1.0 302 Found\r\n\r\n",
        "$\0\0\x05abRTSP/1.0 302 Found\r\nCSEQ\r\nLocation: rtsp://127.0.0.1:{0}/\r\n\r\n",
        "RTSP/1.0 200 OK\r\0\nCSEQ\r\n\r\r\nRTSP/1.0 302 x\r\nCSEQ\r\nLocation: rtsp://127.0.0.1:{0}/\r\n\r\n",
    ],
)
def test_answers_that_readers_may_split_differently(inner: WebServer, first: str) -> None:
    with tcp_server(camera(lambda method, text: first.format(inner.port), [])) as port:
        failure_of(f"rtsp://127.0.0.1:{port}/live", open_timeout_s=1.0, read_timeout_s=0.5)
    assert not inner.connections


def test_addresses_in_a_description_are_not_asked(inner: WebServer) -> None:
    asked: list[str] = []

    def answer(method: str, text: str) -> str:
        if method == "DESCRIBE":
            return ok("Content-Base: rtsp://127.0.0.1/\r\n", SDP.format(f"rtsp://127.0.0.1:{inner.port}/track"))
        return ok("Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n")

    with tcp_server(camera(answer, asked)) as port:
        failure_of(f"rtsp://127.0.0.1:{port}/live", open_timeout_s=1.0, read_timeout_s=0.5)
    assert any(text.startswith(f"SETUP rtsp://127.0.0.1:{inner.port}/track") for text in asked)
    assert not inner.connections


def test_udp_goes_to_the_camera_alone() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim:
        victim.bind(("127.0.0.2", 0))
        victim.settimeout(0.2)
        port = victim.getsockname()[1] & ~1

        def answer(method: str, text: str) -> str:
            if method == "DESCRIBE":
                return ok("Content-Type: application/sdp\r\n", SDP.format("track"))
            transport = re.search(r"client_port=([0-9-]+)", text)
            ports = transport[1] if transport else "2-3"
            where = f"source=127.0.0.2;client_port={ports};server_port={port}-{port + 1}"
            return ok(f"Session: 1\r\nTransport: RTP/AVP/UDP;unicast;{where}\r\n")

        with tcp_server(camera(answer, [])) as listening:
            failure_of(f"rtsp://127.0.0.1:{listening}/", transport="udp", open_timeout_s=1.5, read_timeout_s=0.5)
        with pytest.raises(TimeoutError):
            victim.recv(100)


def test_garbage_between_frames_and_two_slashes(rtsp_server: RtspServer) -> None:
    """As cameras send and want them; what FFmpeg made of it before, it makes of it still."""

    def talk(connection: socket.socket, stopping: threading.Event) -> None:
        with socket.create_connection(("127.0.0.1", rtsp_server.port)) as real:
            connection.settimeout(0.01)
            real.settimeout(0.01)
            seen = b""
            while not stopping.is_set():
                for source, sink in ((connection, real), (real, connection)):
                    try:
                        data = source.recv(65536)
                    except TimeoutError:
                        continue
                    if not data:
                        return
                    if source is connection:
                        seen += data
                        data = data.replace(b"//normal#1", b"/normal")
                    elif b"PLAY " in seen and data[:1] == b"$" and len(seen) < 10_000:
                        seen += bytes(10_000)
                        data = b"oops\n" + data
                    sink.sendall(data)

    with tcp_server(talk) as port, SourceRun(f"rtsp://127.0.0.1:{port}//normal#1") as run:
        run.wait_for_frames(5)


@pytest.mark.parametrize("method", ["basic", "digest"])
def test_logins(rtsp_server: RtspServer, method: str) -> None:
    rtsp_server.auth_method(method)
    for url, login in (
        (rtsp_server.url("/auth", user=USER, password=PASSWORD), (None, None)),
        (rtsp_server.url("/auth"), (USER, PASSWORD)),
    ):
        with SourceRun(url, arguments={"credentials": login}) as run:
            run.wait_for_frames(3)
    assert failure_of(rtsp_server.url("/auth"), arguments={"credentials": (USER, "wrong")}).cause == "unauthorized"
    assert failure_of(rtsp_server.url("/auth")).cause == "unauthorized"


def test_over_tls(rtsp_server: RtspServer, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue_server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)

    def talk(connection: socket.socket, stopping: threading.Event) -> None:
        with (
            context.wrap_socket(connection, server_side=True) as stream,
            socket.create_connection(("127.0.0.1", rtsp_server.port)) as camera,
        ):
            stream.settimeout(0.01)
            camera.settimeout(0.01)
            while not stopping.is_set():
                for source, sink in ((stream, camera), (camera, stream)):
                    try:
                        data = source.recv(65536)
                    except TimeoutError:
                        continue
                    if not data:
                        return
                    sink.sendall(data)

    with tcp_server(talk) as port:
        tls = {"ca_file": str(authority.certificate)}
        with SourceRun(f"rtsps://127.0.0.1:{port}/normal", tls=tls) as run:
            run.wait_for_frames(10)


def test_the_relay_is_for_those_who_know_its_secret(rtsp_server: RtspServer) -> None:
    relay = Relay(
        SourceConfig(url=rtsp_server.url("/auth", user=USER, password=PASSWORD), open_timeout_s=5), (None, None)
    )
    url = relay.open()
    found = re.fullmatch(r"rtsp://127\.0\.0\.1:(\d+)(/[\w-]{20,})/auth", url)
    assert found is not None
    try:
        for line in (f"DESCRIBE rtsp://127.0.0.1:{found[1]}/auth RTSP/1.0", "GET / HTTP/1.1", "\0" * 100):
            with socket.create_connection(("127.0.0.1", int(found[1])), 5.0) as stranger:
                stranger.sendall(f"{line}\r\nCSeq: 1\r\n\r\n".encode("latin-1"))
                assert stranger.recv(1000) == b""
        with socket.create_connection(("127.0.0.1", int(found[1])), 5.0) as friend:
            friend.sendall(f"DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
            assert friend.recv(1000).startswith(b"RTSP/1.0 200 OK\r\n")
    finally:
        relay.close()


def test_no_thread_is_left(rtsp_server: RtspServer) -> None:
    with SourceRun(rtsp_server.url("/normal")) as run:
        run.wait_for_frames(2)
        assert any(thread.name == "rtsp relay" for thread in threading.enumerate())
    failure_of(rtsp_server.url("/nothing"))
    assert not any(thread.name == "rtsp relay" for thread in threading.enumerate())
