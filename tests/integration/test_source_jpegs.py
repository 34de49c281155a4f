"""Cameras that give JPEGs over HTTP: one a request, or many in one answer, in all the ways there are."""

from __future__ import annotations

import base64
import hashlib
import http.server
import itertools
import re
import threading
import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from tests.integration.test_cameras import Rig
from tests.support.odd_servers import begin, http_server
from tests.support.sources import SourceRun, failure_of
from visaged.pipelines.source.video import SourceError

pytestmark = pytest.mark.timed

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def picture(number: int, size: tuple[int, int] = (160, 120), kind: str = ".jpg") -> bytes:
    """Return a picture whose brightness is its number, encoded; a JPEG as large as a camera's, by a comment."""
    image = np.full((size[1], size[0], 3), 10 * (number % 20) + 20, np.uint8)
    data = cv2.imencode(kind, image)[1].tobytes()
    if kind != ".jpg":
        return data
    comment = (b"no end \xff\xd9, no beginning \xff\xd8\xff" * 2000)[:20_000]
    return data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]


PICTURES = [picture(number) for number in range(20)]
MIXED = "multipart/x-mixed-replace; boundary="


def stream(
    content_type: str,
    line: bytes = b"--next\r\n",
    part: bytes | None = b"image/jpeg",
    *,
    preamble: bytes = b"",
    has_length: bool = True,
    tail: bytes = b"\r\n",
) -> Answer:
    """Return a camera that sends 20 pictures a second as parts of one answer."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        begin(handler, content_type)
        handler.wfile.write(preamble)
        for index in itertools.count():
            data = PICTURES[index % 20]
            head = line
            if part is not None:
                head += b"Content-Type: %s\r\n" % part
            if has_length:
                head += b"Content-Length: %d\r\n" % len(data)
            handler.wfile.write(head + b"\r\n" * (line != b"") + data + tail)
            time.sleep(0.05)

    return answer


@pytest.mark.parametrize(
    "camera",
    [
        pytest.param(stream(MIXED + "next"), id="as FFmpeg wants it"),
        pytest.param(stream(MIXED + "next", part=b"image/jpg"), id="image/jpg"),
        pytest.param(stream(MIXED + "next", part=b"image/pjpeg"), id="image/pjpeg"),
        pytest.param(stream(MIXED + "next", part=b"image/jpeg; charset=binary"), id="type with a parameter"),
        pytest.param(stream(MIXED + "next", part=None), id="parts without a type"),
        pytest.param(stream(MIXED + "next", has_length=False), id="parts without a length"),
        pytest.param(stream(MIXED + "next", part=b"image/jpg", has_length=False), id="image/jpg without a length"),
        pytest.param(stream(MIXED + "next", preamble=b"This is a multi-part message.\r\n"), id="preamble"),
        pytest.param(stream(MIXED + "next", preamble=b"\r\n\r\n"), id="empty preamble"),
        pytest.param(stream(MIXED + "--next"), id="dashes in the header"),
        pytest.param(stream(MIXED + "--next", b"----next\r\n"), id="dashes in both"),
        pytest.param(stream(MIXED + "next", b"next\r\n"), id="no dashes at all"),
        pytest.param(stream(MIXED + '"next"'), id="quotes"),
        pytest.param(stream("multipart/x-mixed-replace"), id="no boundary named"),
        pytest.param(stream("application/octet-stream"), id="another type"),
        pytest.param(stream("video/mjpeg", b"", None, has_length=False, tail=b""), id="bare"),
        pytest.param(stream("image/jpeg", b"", None, has_length=False, tail=b""), id="bare image/jpeg"),
        pytest.param(stream(MIXED + "x", b"", None, has_length=False, tail=b""), id="bare, said to be parts"),
    ],
)
def test_streams_of_jpegs(camera: Answer) -> None:
    with http_server(camera) as url, SourceRun(f"{url}/video.cgi") as run:
        frames = run.wait_for_frames(30)
    assert run.opened == [("mjpeg", 160, 120)]
    assert run.source.live
    levels = [int(frame.surface.region(0, 0, 1, 1)[0, 0, 0]) for frame in frames]
    assert all(5 <= (b - a) % 200 <= 15 for a, b in itertools.pairwise(levels)), "each picture once, in order"
    assert all(frame.position_s is None for frame in frames)
    seconds = frames[-1].arrived_s - frames[5].arrived_s
    assert seconds == pytest.approx(24 * 0.05, abs=0.6)


def test_the_dialect_is_remembered() -> None:
    requests = []

    def camera(handler: http.server.BaseHTTPRequestHandler) -> None:
        requests.append(handler.path)
        begin(handler, MIXED + "next")
        for data in PICTURES:
            handler.wfile.write(b"--next\r\nContent-Type: image/jpg\r\n\r\n" + data + b"\r\n")

    with http_server(camera) as url:
        run = SourceRun(f"{url}/x").start()
        run.failure()
        assert len(requests) == 2
        with pytest.raises(SourceError):
            run.source.run(run.stopping)
    assert len(requests) == 3


# Snapshots


class Snapshots:
    """A camera that gives one picture a request; it counts them."""

    def __init__(
        self,
        kind: str = ".jpg",
        content_type: str | None = "image/jpeg",
        has_length: bool = True,
        boundary: bytes | None = None,
    ) -> None:
        self.requests: list[float] = []
        self.delay_s = 0.0
        self.status = 200
        self.size = (160, 120)
        self._kind = kind
        self._content_type = content_type
        self._has_length = has_length
        self._boundary = boundary

    def __call__(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.requests.append(time.monotonic())
        number = len(self.requests)
        time.sleep(self.delay_s)
        if self.status != 200:
            handler.send_error(self.status)
            return
        data = picture(number, self.size, self._kind)
        if self._boundary:
            data = b"--%s\r\nContent-Type: image/jpeg\r\n\r\n%s\r\n--%s--\r\n" % (self._boundary, data, self._boundary)
        handler.send_response(200)
        if self._content_type:
            handler.send_header("Content-Type", self._content_type)
        if self._has_length:
            handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


@pytest.mark.parametrize(
    "camera",
    [
        pytest.param(Snapshots(), id="jpeg"),
        pytest.param(Snapshots(has_length=False), id="without a length"),
        pytest.param(Snapshots(content_type="application/octet-stream"), id="another type"),
        pytest.param(Snapshots(content_type=None), id="no type"),
        pytest.param(Snapshots(content_type=MIXED + "x", boundary=b"x"), id="an answer of one part"),
        pytest.param(Snapshots(".png", "image/png"), id="png"),
        pytest.param(Snapshots(".bmp", "image/bmp"), id="bmp"),
    ],
)
def test_a_url_that_gives_one_picture_is_asked_again_and_again(camera: Snapshots) -> None:
    with http_server(camera) as url, SourceRun(f"{url}/snapshot.jpg", fps=10.0) as run:
        frames = run.wait_for_frames(12)
    assert run.error is None
    assert len(run.opened) == 1
    assert run.source.live
    levels = [int(frame.surface.region(0, 0, 1, 1)[0, 0, 0]) for frame in frames]
    assert all(5 <= (b - a) % 200 <= 15 for a, b in itertools.pairwise(levels)), "each a new one, none left out"
    steps = [b - a for a, b in itertools.pairwise(camera.requests[:12])]
    assert sorted(steps)[5] == pytest.approx(0.1, abs=0.04)
    assert {frame.stream for frame in frames} == {1}
    assert frames[-1].motion_s - frames[0].motion_s == pytest.approx(1.1, abs=0.3)
    assert all(frame.ready_s - frame.captured_s < 1.0 for frame in frames)
    assert all(frame.position_s is None for frame in frames)


def test_five_a_second_where_nothing_is_said() -> None:
    camera = Snapshots()
    with http_server(camera) as url, SourceRun(f"{url}/snapshot.jpg") as run:
        run.wait_for_frames(6)
    steps = [b - a for a, b in itertools.pairwise(camera.requests[:6])]
    assert sorted(steps)[2] == pytest.approx(0.2, abs=0.05)


def test_a_camera_that_takes_longer_than_the_interval() -> None:
    camera = Snapshots()
    camera.delay_s = 0.3
    with http_server(camera) as url, SourceRun(f"{url}/snapshot.jpg", fps=10.0) as run:
        frames = run.wait_for_frames(6)
        camera.delay_s = 0.0
        run.wait_for_frames(10)
    steps = [b.arrived_s - a.arrived_s for a, b in itertools.pairwise(frames)]
    assert sorted(steps)[2] == pytest.approx(0.3, abs=0.1)
    late = [b - a for a, b in itertools.pairwise(camera.requests[7:])]
    assert min(late) > 0.05, "what it missed is not asked for"


def test_the_size_changes_from_picture_to_picture() -> None:
    camera = Snapshots()
    with http_server(camera) as url, SourceRun(f"{url}/snapshot.jpg", fps=20.0) as run:
        run.wait_for_frames(3)
        camera.size = (320, 240)
        run.wait_for(lambda: run.frames[-1].surface.width == 320)
    assert run.opened == [("mjpeg", 160, 120), ("mjpeg", 320, 240)]


@pytest.mark.parametrize(("status", "cause"), [(401, "unauthorized"), (404, "not_found"), (503, "refused")])
def test_a_camera_that_begins_to_refuse(status: int, cause: str) -> None:
    camera = Snapshots()
    with http_server(camera) as url:
        camera.status = status
        assert failure_of(f"{url}/snapshot.jpg").cause == cause
        camera.status = 200
        run = SourceRun(f"{url}/snapshot.jpg", fps=20.0).start()
        run.wait_for_frames(3)
        camera.status = status
        assert run.failure().cause == cause


def test_a_camera_that_refuses_now_and_then() -> None:
    """A busy camera answers some requests with an error; that is a picture less and no lost camera."""
    snapshots = Snapshots()

    def camera(handler: http.server.BaseHTTPRequestHandler) -> None:
        snapshots.status = [200, 200, 200, 200, 404, 503][len(snapshots.requests) % 6]
        snapshots(handler)

    with http_server(camera) as url, SourceRun(f"{url}/snapshot.jpg", fps=20.0) as run:
        run.wait_for_frames(10)
    assert run.error is None
    assert run.damaged >= 4


def test_a_camera_that_hangs() -> None:
    camera = Snapshots()
    with http_server(camera) as url:
        run = SourceRun(f"{url}/snapshot.jpg", fps=20.0, open_timeout_s=1.0, read_timeout_s=1.0).start()
        run.wait_for_frames(3)
        camera.delay_s = 5.0
        began_s = time.monotonic()
        assert run.failure().cause == "timeout"
    assert time.monotonic() - began_s < 6.0


def test_a_redirect_and_a_digest_login() -> None:
    snapshots = Snapshots()
    nonce = "f00d"

    def camera(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path == "/old.jpg":
            handler.send_response(302)
            handler.send_header("Location", "/snapshot.jpg")
            handler.end_headers()
            return
        given = dict(re.findall(r'(\w+)="([^"]*)"', handler.headers.get("Authorization", "")))

        def digest(text: str) -> str:
            return hashlib.md5(text.encode()).hexdigest()

        expected = digest(f"{digest('eye:camera:secret')}:{nonce}:{digest('GET:/snapshot.jpg')}")
        if given.get("response") != expected:
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", f'Digest realm="camera", nonce="{nonce}"')
            handler.end_headers()
            return
        snapshots(handler)

    with http_server(camera) as url:
        with SourceRun(f"{url}/old.jpg", fps=20.0, arguments={"credentials": ("eye", "secret")}) as run:
            run.wait_for_frames(3)
        error = failure_of(f"{url}/old.jpg", arguments={"credentials": ("eye", "wrong")})
    assert error.cause == "unauthorized"


def test_a_basic_login() -> None:
    snapshots = Snapshots()

    def camera(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.headers.get("Authorization") != "Basic " + base64.b64encode(b"eye:s/cret").decode():
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", 'Basic realm="camera"')
            handler.end_headers()
            return
        snapshots(handler)

    with (
        http_server(camera) as url,
        SourceRun(f"{url}/snapshot.jpg", fps=20.0, arguments={"credentials": ("eye", "s/cret")}) as run,
    ):
        run.wait_for_frames(3)


def test_it_stops_between_two_pictures() -> None:
    with http_server(Snapshots()) as url:
        began_s = time.monotonic()
        with SourceRun(f"{url}/snapshot.jpg", fps=0.05) as run:
            run.wait_for_frames(1)
    assert time.monotonic() - began_s < 5.0


def test_a_snapshot_camera_streams_and_comes_back() -> None:
    camera = Snapshots()
    with http_server(camera) as url, Rig() as rig:
        rig.add(f"{url}/snapshot.jpg", fps=20.0)
        rig.wait_for_state("streaming")
        rig.wait_for(lambda: len(rig.frames) >= 5)
        camera.status = 503
        waiting = rig.wait_for_state("waiting")
        assert waiting.cause == "refused"
        camera.status = 200
        count = len(rig.frames)
        rig.wait_for(lambda: len(rig.frames) > count + 3)
    assert not any(status.state == "ended" for status in rig.statuses)


def test_connections_and_threads_do_not_pile_up() -> None:
    before = threading.active_count()
    with http_server(Snapshots()) as url, SourceRun(f"{url}/snapshot.jpg", fps=100.0) as run:
        run.wait_for_frames(100)
    assert threading.active_count() <= before + 2
