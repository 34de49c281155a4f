"""What the relay makes of cameras that answer oddly, end to end between a camera's socket and FFmpeg's."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import urllib.request
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import pytest

from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.rtsp.relay import Relay
from visaged.pipelines.source.rtsp.transport import from_camera

TIMEOUT_S = 5.0


class Ends:
    """Both ends of a relay: the camera's, and the one that FFmpeg has.

    Args:
        login: User and password.
        path: Path of the camera's URL.
        host: Address of the camera.
    """

    def __init__(
        self, login: tuple[str | None, str | None] = (None, None), path: str = "/live", host: str = "127.0.0.1"
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        shown = f"[{host}]" if ":" in host else host
        self.site = f"rtsp://{shown}:{self._listener.getsockname()[1]}"
        self.relay = Relay(SourceConfig(url=self.site + path, open_timeout_s=5, read_timeout_s=5), login)
        self.url = self.relay.open()
        self.camera, _ = self._listener.accept()
        self.camera.settimeout(TIMEOUT_S)
        parts = urlsplit(self.url)
        self.ffmpeg = socket.create_connection((parts.hostname, parts.port), TIMEOUT_S)

    def ask(self, method: str, number: int) -> str:
        """Send a request as FFmpeg; return it as the camera gets it."""
        self.ffmpeg.sendall(f"{method} {self.url} RTSP/1.0\r\nCSeq: {number}\r\n\r\n".encode())
        return self.asked()

    def asked(self) -> str:
        """Return the next message that the camera gets."""
        return message(self.camera)

    def answer(self, text: str) -> None:
        """Send as the camera."""
        self.camera.sendall(text.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.ffmpeg.close()
        self.relay.close()
        self.camera.close()
        self._listener.close()


def message(end: socket.socket) -> str:
    """Return the next message without a body; empty at the end of the connection."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = end.recv(1)
        if not piece:
            return ""
        data += piece
    return data.decode()


def login_wanted(challenge: str, number: object = 1) -> str:
    return f"RTSP/1.0 401 Unauthorized\r\nCSeq: {number}\r\nWWW-Authenticate: {challenge}\r\n\r\n"


@pytest.mark.parametrize("numbers", [(1, 1, 1), (0, 0, 0), (7, 8, 9), ("x", "", "1 "), (2, 1, 2)])
def test_a_login_with_a_camera_that_answers_wrong_numbers(numbers: tuple[object, ...]) -> None:
    with Ends(("user", "pw")) as ends:
        ends.ask("OPTIONS", 1)
        ends.answer(f"RTSP/1.0 200 OK\r\nCSeq: {numbers[0]}\r\n\r\n")
        assert message(ends.ffmpeg).startswith("RTSP/1.0 200")
        ends.ask("DESCRIBE", 2)
        ends.answer(login_wanted("Basic realm=x", numbers[1]))
        again = ends.asked()
        assert again.startswith(f"DESCRIBE {ends.site}/live ")
        assert "Authorization: Basic dXNlcjpwdw==" in again
        ends.answer(f"RTSP/1.0 200 OK\r\nCSeq: {numbers[2]}\r\n\r\n")
        assert message(ends.ffmpeg).startswith("RTSP/1.0 200")


def test_requests_of_a_camera_are_answered() -> None:
    """As cameras send them to see whether their client lives; FFmpeg answers OPTIONS and GET_PARAMETER with 200."""
    with Ends() as ends:
        ends.ask("PLAY", 1)
        ends.answer("RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n")
        message(ends.ffmpeg)
        ends.answer("OPTIONS rtsp://x/ RTSP/1.0\r\nCSeq: 1\r\n\r\n")
        assert message(ends.ffmpeg).startswith("OPTIONS ")
        ends.ffmpeg.sendall(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n")
        assert ends.asked().startswith("RTSP/1.0 200 OK")
        assert ends.ask("GET_PARAMETER", 2).startswith(f"GET_PARAMETER {ends.site}/live ")


@pytest.mark.parametrize("session", ["", "$\0\0\x04abcd"])
def test_the_last_request_reaches_the_camera(session: str) -> None:
    """A camera that gets no TEARDOWN sends UDP for another minute, and may take no further session meanwhile."""
    for _ in range(20):
        with Ends() as ends:
            ends.ask("PLAY", 1)
            ends.answer("RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n")
            message(ends.ffmpeg)
            ends.answer(session)
            ends.ffmpeg.sendall(f"TEARDOWN {ends.url} RTSP/1.0\r\nCSeq: 2\r\n\r\n".encode())
            ends.ffmpeg.close()
            ends.relay.close()
            assert ends.asked().startswith(f"TEARDOWN {ends.site}/live ")


def test_a_camera_that_never_takes_the_login() -> None:
    with Ends(("user", "pw")) as ends:
        ends.ask("DESCRIBE", 1)
        tries = 0
        for tries in range(20):
            ends.answer(login_wanted(f'Digest realm="x", nonce="{tries}", stale=true'))
            ends.camera.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                ends.asked()
                continue
            break
        assert tries == 2
        assert message(ends.ffmpeg).startswith("RTSP/1.0 401")


@pytest.mark.parametrize(
    "challenge",
    ['Digest realm=, nonce="x"', "Digest", "Digest =", 'Digest ",,="', 'Digest nonce="', "Basic", "", ",", "Digest x"],
)
def test_strange_challenges(challenge: str) -> None:
    with Ends(("user", "pw")) as ends:
        ends.ask("DESCRIBE", 1)
        ends.answer(login_wanted(challenge))
        ends.camera.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            ends.asked()
            ends.answer(login_wanted(challenge))
        assert message(ends.ffmpeg).startswith("RTSP/1.0 401")


@pytest.mark.parametrize("user", ["user", "Jürgen", "вход", 'a"b\\c'])
@pytest.mark.parametrize("realm", ["camera", "Überwachung"])
@pytest.mark.parametrize("path", ["/live", "/tür?a=ł"])
def test_digest_of_characters_beyond_ascii(user: str, realm: str, path: str) -> None:
    with Ends((user, "pä€s"), path) as ends:
        ends.ask("DESCRIBE", 1)
        ends.answer(login_wanted(f'Digest realm="{realm}", nonce="n"'))
        again = ends.asked()
        found = re.search(r"Authorization: Digest (.*)\r", again)
        assert found is not None
        fields = urllib.request.parse_keqv_list(urllib.request.parse_http_list(found[1]))

        def md5(text: str) -> str:
            return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

        assert fields["username"] == user
        assert fields["realm"] == realm
        assert fields["uri"] == ends.site + path
        expected = md5(f"{md5(f'{user}:{realm}:pä€s')}:n:{md5(f'DESCRIBE {ends.site}{path}'.replace(' ', ':'))}")
        assert fields["response"] == expected


@pytest.mark.parametrize(
    "transport",
    [
        "RTP/AVP;unicast;source=10.0.0.1;server_port=2-3;x=/tcp",
        "RTP/AVP;unicast;source=10.0.0.1;server_port=2-3;x=multicast",
        "RTP/AVP/UDP;unicast;server_port=2-3,RTP/AVP",
        "RTP/AVP/UDP;unicast,RTP/AVP;source=10.0.0.1",
        "RTP/AVP;unicast;server_port=2-3;\0",
        "RTP/AVP;unicast;server_port=2-3;a=\0b;source=10.0.0.1",
        f"RTP/AVP;unicast;server_port=2-3;x={'y' * 5000}",
        "RTP/AVP;multicast;destination=10.0.0.1;port=2-3",
        "x-pn-tng/udp;source=10.0.0.1",
        "RTP/AVP/TCP/UDP;source=10.0.0.1",
        "/tcp;source=10.0.0.1",
    ],
)
def test_media_comes_from_the_camera(transport: str) -> None:
    """FFmpeg reads the first of several transports, up to a NUL, of some 4,000 characters."""
    with Ends() as ends:
        ends.ask("SETUP", 1)
        ends.answer(f"RTSP/1.0 200 OK\r\nCSeq: 1\r\nTransport: {transport}\r\n\r\n")
        head = message(ends.ffmpeg)
        found = re.search(r"Transport: (.*)\r", head)
        assert found is not None
        read = found[1].split("\0")[0][:4000].split(",")[0]
        assert re.findall(r"source *=([^;,]*)", read) == ["127.0.0.1"]
        assert "10.0.0.1" not in read


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=1A2B", "RTP/AVP/TCP;{};unicast;interleaved=0-1;ssrc=1A2B"),
        ("RTP/AVP;unicast;client_port=4-5;server_port=6-7", "RTP/AVP;{};unicast;client_port=4-5;server_port=6-7"),
        (' RTP/AVP/UDP;unicast; server_port= 6-7 ;mode="PLAY"', 'RTP/AVP/UDP;{};unicast;server_port=6-7;mode="PLAY"'),
    ],
)
def test_transports_of_honest_cameras(sent: str, read: str) -> None:
    assert from_camera(sent, "10.0.0.2") == read.format("source=10.0.0.2")


def test_ipv6() -> None:
    """FFmpeg's socket for media by UDP has the family of the address that it connects to."""
    with Ends(host="::1") as ends:
        assert ends.url.startswith("rtsp://[::1]:")
        assert ends.ask("SETUP", 1).startswith(f"SETUP {ends.site}/live ")
        ends.answer("RTSP/1.0 200 OK\r\nCSeq: 1\r\nTransport: RTP/AVP;unicast;server_port=2-3\r\n\r\n")
        assert "Transport: RTP/AVP;source=::1;unicast;server_port=2-3\r\n" in message(ends.ffmpeg)
