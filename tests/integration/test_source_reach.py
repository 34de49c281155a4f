"""Cameras and files that name other places: the daemon asks none of them, unless the configuration lists it."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.integration.test_source_jpegs import picture
from tests.support import media
from tests.support.certificates import Authority
from tests.support.http_server import Visit, WebServer, redirects, serves, web_server
from tests.support.odd_servers import says, tcp_server
from tests.support.sources import SourceRun, failure_of
from tests.support.web_files import file_server, playlist, write_segments

SNAPSHOT = serves(picture(1))
HLS = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:1\n"
SEGMENT = "#EXTINF:1,\n"


@pytest.fixture
def inner() -> Iterator[WebServer]:
    """A host that only the daemon can reach."""
    with web_server(SNAPSHOT) as server:
        yield server


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segments")
    write_segments(folder, 3)
    return folder


def hls(*lines: str) -> str:
    return HLS + "\n".join(lines) + "\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_a_redirect_to_another_program_of_this_machine(inner: WebServer, status: str) -> None:
    with web_server(redirects(f"http://127.0.0.1:{inner.port}/admin?do=it", status)) as camera:
        error = failure_of(f"http://127.0.0.1:{camera.port}/live")
    assert error.cause == "redirected"
    assert f"redirects to http://127.0.0.1:{inner.port}, which is another program of this machine" in str(error)
    assert "other_hosts" in str(error)
    assert not inner.connections


@pytest.mark.parametrize(
    "there",
    ["http://localhost:{0}/", "//localhost:{0}/", "http://user:secret@127.0.0.1:{0}/", "http://127.0.0.1:{0}\\@x/",
     "file:///etc/passwd", "rtsp://127.0.0.1:{0}/", "tcp://127.0.0.1:{0}/", "concat:http://127.0.0.1:{0}/|x",
     "data:image/jpeg;base64,AAAA", "http://2130706433:{0}/", "http://[::1]:{0}/", "HTTP://LOCALHOST:{0}/"],
)  # fmt: skip
def test_redirects_elsewhere(inner: WebServer, there: str) -> None:
    with web_server(redirects(there.format(inner.port))) as camera:
        assert failure_of(f"http://127.0.0.1:{camera.port}/live").cause == "redirected"
    assert not inner.connections


def test_a_listed_host_gets_no_login(inner: WebServer) -> None:
    with web_server(redirects(f"http://localhost:{inner.port}/s.jpg")) as server:
        url = f"http://127.0.0.1:{server.port}/live"
        for hosts in ([f"localhost:{inner.port}"], ["LOCALHOST"]):
            run = SourceRun(url, fps=20.0, other_hosts=hosts, arguments={"credentials": ("eye", "secret")})
            with run:
                run.wait_for_frames(2)
        assert failure_of(url, other_hosts=[f"localhost:{inner.port + 1}", "local"]).cause == "redirected"
    assert all("authorization" not in visit.headers for visit in inner.visits)


def test_a_listed_host_gets_no_headers_of_the_camera(segments: Path) -> None:
    names: list[str] = []

    def answer(visit: Visit) -> None:
        names.extend(visit.headers)
        visit.answer("200 OK", (segments / Path(visit.path).name).read_bytes())

    options = {"headers": "X-Login: secret\r\n", "cookies": "a=secret; path=/; domain=localhost;", "referer": "secret"}
    with web_server(answer) as other:
        lines = [SEGMENT + f"http://localhost:{other.port}/{path.name}" for path in sorted(segments.glob("*.ts"))]
        assert lines

        def lead(visit: Visit) -> None:
            assert visit.headers.get("x-login") == "secret"
            visit.answer("200 OK", hls(*lines).encode())

        with web_server(lead) as camera:
            url = f"http://127.0.0.1:{camera.port}/live.m3u8"
            SourceRun(url, pace="fast", other_hosts=["localhost"], options=options).checked()
        with web_server(redirects(f"http://localhost:{other.port}/{min(segments.glob('*.ts')).name}")) as camera:
            url = f"http://127.0.0.1:{camera.port}/live"
            SourceRun(url, pace="fast", other_hosts=["localhost"], options=options).checked()
    assert "host" in names
    assert not {"x-login", "cookie", "referer"} & set(names)


def test_a_redirect_on_the_same_host_keeps_the_login() -> None:
    asked = []

    def answer(visit: Visit) -> None:
        asked.append((visit.path, visit.headers.get("authorization")))
        if asked[-1][1] is None:
            visit.answer("401 Unauthorized", WWW_Authenticate='Basic realm="camera"')
        elif asked[-1][0] == "/":
            visit.answer("302 Found", Location="/deep/s.jpg")
        else:
            SNAPSHOT(visit)

    with (
        web_server(answer) as server,
        SourceRun(f"http://eye:s%40cret@127.0.0.1:{server.port}/", fps=20.0) as run,
    ):
        run.wait_for_frames(2)
    assert ("/deep/s.jpg", "Basic " + base64.b64encode(b"eye:s@cret").decode()) in asked


def test_from_tls_to_none(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue_server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with web_server(SNAPSHOT) as plain, web_server(redirects(f"http://127.0.0.1:{plain.port}/"), tls=context) as camera:
        error = failure_of(
            f"https://127.0.0.1:{camera.port}/", tls={"ca_file": str(authority.certificate)}, other_hosts=["127.0.0.1"]
        )
        assert "without the TLS that its own URL has" in str(error)
        assert not plain.connections


def test_redirects_for_ever() -> None:
    with web_server(redirects("/again")) as camera:
        assert "more than 5 times" in str(failure_of(f"http://127.0.0.1:{camera.port}/"))


@pytest.mark.parametrize("path", ["/live", "/live.jpg", "/live.mp4", "/live.ts", "/m3u8", "/x?y=.m3u8", "/a.m3u8/b"])
def test_a_playlist_where_the_url_says_none(inner: WebServer, path: str) -> None:
    text = hls(SEGMENT + f"http://127.0.0.1:{inner.port}/s.ts").encode()

    def answer(visit: Visit) -> None:
        visit.answer("200 OK", text, Content_Type="application/vnd.apple.mpegurl")

    with web_server(answer) as camera:
        error = failure_of(f"http://127.0.0.1:{camera.port}{path}")
    assert error.cause == "invalid"
    assert "format: hls" in str(error)
    assert not inner.connections


IV = bytes(range(16))
KEY = b"k" * 16


@pytest.mark.parametrize(
    "lines",
    [
        (SEGMENT + "http://127.0.0.1:{0}/s.ts",),
        (SEGMENT + "http://localhost:{0}/s.ts",),
        (SEGMENT + "//localhost:{0}/s.ts",),
        (SEGMENT + "http://eye:secret@127.0.0.1:{0}/s.ts",),
        (SEGMENT + "away.ts",),
        ('#EXT-X-KEY:METHOD=AES-128,URI="http://127.0.0.1:{0}/key"', SEGMENT + "s0.ts"),
        ('#EXT-X-KEY:METHOD=AES-128,URI="data:text/plain,kkkkkkkkkkkkkkkk"', SEGMENT + "s0.ts"),
        ('#EXT-X-MAP:URI="http://127.0.0.1:{0}/init.mp4"', SEGMENT + "s0.ts"),
        ("#EXT-X-STREAM-INF:BANDWIDTH=1", "http://127.0.0.1:{0}/variant.m3u8"),
        ('#EXT-X-MEDIA:TYPE=VIDEO,GROUP-ID="v",NAME="v",URI="http://127.0.0.1:{0}/v.m3u8"',
         '#EXT-X-STREAM-INF:BANDWIDTH=1,VIDEO="v"', "http://127.0.0.1:{0}/v.m3u8"),
        (SEGMENT + "file:///etc/hostname.ts",),
        (SEGMENT + "tcp://127.0.0.1:{0}/s.ts",),
        (SEGMENT + "subfile,,start,0,end,9,,:http://127.0.0.1:{0}/s.ts",),
        (SEGMENT + "concat:http://127.0.0.1:{0}/s.ts|http://127.0.0.1:{0}/t.ts",),
        (SEGMENT + "crypto+http://127.0.0.1:{0}/s.ts",),
        (SEGMENT + "crypto:file:///etc/hostname",),
        (SEGMENT + "http://127.0.0.1:{0}\\@127.0.0.1/s.ts",),
        (SEGMENT + "async:http://127.0.0.1:{0}/s.ts",),
        (SEGMENT + "cache:http://127.0.0.1:{0}/s.ts",),
    ],
)  # fmt: skip
def test_what_a_playlist_may_not_name(inner: WebServer, segments: Path, lines: tuple[str, ...]) -> None:
    text = hls(*(line.format(inner.port) for line in lines))
    answers = {
        "/live.m3u8": serves(text.encode()),
        "/s0.ts": serves((segments / "s0.ts").read_bytes()),
        "/away.ts": redirects(f"http://127.0.0.1:{inner.port}/"),
    }
    with web_server(answers) as camera:
        error = failure_of(f"http://127.0.0.1:{camera.port}/live.m3u8")
    is_web = any("\nhttp" in line or '"http' in line or line.startswith("http") for line in lines)
    # Other schemes are refused by FFmpeg already.
    assert error.cause == "redirected" or (error.cause == "invalid" and not is_web), error
    assert not inner.connections


def test_a_live_playlist_that_turns(inner: WebServer, segments: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = []

    def live(visit: Visit) -> None:
        asked.append(1)
        names = ["s0.ts", "s1.ts"] if len(asked) < 2 else [f"http://127.0.0.1:{inner.port}/{n}.ts" for n in range(9)]
        lines = "\n".join(SEGMENT + name for name in names)
        visit.answer("200 OK", f"{HLS}#EXT-X-MEDIA-SEQUENCE:{len(asked)}\n{lines}\n".encode())

    answers = {f"/s{index}.ts": serves((segments / f"s{index}.ts").read_bytes()) for index in range(3)}
    with web_server({**answers, "/live.m3u8": live}) as camera:
        error = failure_of(f"http://127.0.0.1:{camera.port}/live.m3u8")
    assert error.cause == "redirected"
    assert not inner.connections
    assert capfd.readouterr() == ("", "")


def test_a_playlist_on_the_cameras_own_host(segments: Path, tmp_path: Path) -> None:
    """Variants, a redirect, a login and encryption."""
    encrypted = padding.PKCS7(128).padder()
    data = (segments / "s0.ts").read_bytes()
    cipher = Cipher(algorithms.AES(KEY), modes.CBC(IV)).encryptor()
    data = cipher.update(encrypted.update(data) + encrypted.finalize()) + cipher.finalize()
    master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=100000\ndeep/variant.m3u8\n"
    key = f'#EXT-X-KEY:METHOD=AES-128,URI="/key",IV=0x{IV.hex()}'
    variant = hls(key, SEGMENT + "c0.ts", "#EXT-X-KEY:METHOD=NONE", SEGMENT + "s1.ts")
    files = {
        "/new/main.m3u8": master.encode(),
        "/new/deep/variant.m3u8": variant.encode(),
        "/new/deep/c0.ts": data,
        "/new/deep/s1.ts": (segments / "s1.ts").read_bytes(),
        "/key": KEY,
    }

    def answer(visit: Visit) -> None:
        if "authorization" not in visit.headers:
            visit.answer("401 Unauthorized", WWW_Authenticate='Basic realm="camera"')
        elif visit.path == "/main.m3u8":
            visit.answer("302 Found", Location="/new/main.m3u8")
        else:
            serves(files[visit.path])(visit)

    with web_server(answer) as camera:
        url = f"http://127.0.0.1:{camera.port}/main.m3u8"
        run = SourceRun(url, pace="fast", arguments={"credentials": ("eye", "secret")}).checked()
    assert len(run.frames) == 50


def test_fragmented_mp4(tmp_path: Path) -> None:
    options = {"hls_time": "1", "hls_segment_type": "fmp4", "hls_playlist_type": "vod"}
    with av.open(str(tmp_path / "x.m3u8"), "w", format="hls", options=options) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "25"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for image in media.pictures(160, 120, 75):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    with file_server(tmp_path) as url:
        assert len(SourceRun(f"{url}/x.m3u8", pace="fast").checked().frames) == 75
    assert len(SourceRun(tmp_path / "x.m3u8", pace="fast").checked().frames) == 75


def test_segments_at_a_listed_host(segments: Path, inner: WebServer) -> None:
    with file_server(segments) as cdn:
        there = cdn.replace("127.0.0.1", "localhost")
        text = hls(*(f"{SEGMENT}{there}/s{index}.ts" for index in range(3)))
        with web_server(serves(text.encode())) as camera:
            url = f"http://127.0.0.1:{camera.port}/any"
            run = SourceRun(url, pace="fast", format="hls", other_hosts=["localhost"]).checked()
    assert len(run.frames) == 75


def test_segments_that_are_gone_are_left_out(segments: Path) -> None:
    text = hls(*(f"{SEGMENT}{name}" for name in ("s0.ts", "gone.ts", "s2.ts")))
    answers = {f"/s{index}.ts": serves((segments / f"s{index}.ts").read_bytes()) for index in range(3)}
    with web_server({**answers, "/live.m3u8": serves(text.encode())}) as camera:
        run = SourceRun(f"http://127.0.0.1:{camera.port}/live.m3u8", pace="fast").checked()
        assert len(run.frames) == 50
        assert failure_of(f"http://127.0.0.1:{camera.port}/gone.m3u8").cause == "not_found"


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.jpg", "a.mkv", "a", "a.sdp", "a.txt", "a.ffconcat"])
@pytest.mark.parametrize("kind", ["hls", "concat", "sdp", "local hls"])
def test_a_file_that_is_really_a_list(inner: WebServer, tmp_path: Path, segments: Path, name: str, kind: str) -> None:
    texts = {
        "hls": hls(SEGMENT + f"http://127.0.0.1:{inner.port}/s.ts"),
        "concat": f"ffconcat version 1.0\nfile '{segments / 's0.ts'}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "local hls": hls(SEGMENT + str(segments / "s0.ts")),
    }
    path = tmp_path / name
    path.write_text(texts[kind])
    error = failure_of(path, open_timeout_s=1.0, read_timeout_s=0.5)
    if (kind, path.suffix) == ("sdp", ".sdp"):
        assert error.cause == "timeout"
    else:
        assert error.cause == "invalid", error
    assert not inner.connections


def test_a_playlist_in_a_folder(segments: Path, tmp_path: Path, inner: WebServer) -> None:
    folder = tmp_path / "recording"
    folder.mkdir()
    for index in range(3):
        (folder / f"s{index}.ts").write_bytes((segments / f"s{index}.ts").read_bytes())
    path = folder / "whole.m3u8"
    path.write_text(playlist(0, 3, is_complete=True))
    assert len(SourceRun(path, pace="fast").checked().frames) == 75
    os.symlink(segments, folder / "elsewhere")
    for named in (
        str(segments / "s0.ts"),
        "../../s0.ts",
        "elsewhere/s0.ts",
        f"http://127.0.0.1:{inner.port}/s.ts",
        "/etc/hostname.ts",
        "data:video/mp2t;base64,AAAA",
    ):
        path.write_text(hls(SEGMENT + named))
        assert failure_of(path).cause == ("invalid" if named.startswith("data:") else "redirected"), named
    assert not inner.connections


@pytest.mark.parametrize("scheme", ["tcp", "rtmp"])
def test_what_comes_over_a_bare_connection(inner: WebServer, scheme: str) -> None:
    text = hls(SEGMENT + f"http://127.0.0.1:{inner.port}/s.ts").encode()
    with tcp_server(says(text * 20)) as port:
        failure_of(f"{scheme}://127.0.0.1:{port}", open_timeout_s=1.0, read_timeout_s=1.0)
    assert not inner.connections
