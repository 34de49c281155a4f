"""Sources on the network: cameras that work, cameras that break, and what is no camera at all."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from tests.support import media
from tests.support.broker import free_port
from tests.support.odd_servers import answers, begin, drips, full_listener, http_server, says, tcp_server
from tests.support.requirements import RTSP_SERVER, require
from tests.support.rtsp import PASSWORD, USER, RtspServer
from tests.support.sources import SourceRun, failure_of

pytestmark = pytest.mark.timed

SLACK_S = 6.0


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_frames_come_in_order_with_the_cameras_own_times(rtsp_server: RtspServer, transport: str) -> None:
    with SourceRun(rtsp_server.url("/normal"), transport=transport) as run:
        run.wait_for(lambda: sum(frame.clock == "camera" for frame in run.frames) >= 20)
        now_s, now_at = time.monotonic(), time.time()
        frames = list(run.frames)
    positions = [frame.position_s for frame in frames if frame.position_s is not None]
    assert len(positions) >= len(frames) - 1, "only the first frame may come without a stamp"
    assert all(a < b for a, b in itertools.pairwise(positions))
    # FFmpeg dates one packet, the first after a report over UDP, by the frame after it: both have the same time then.
    steps_s = [b.captured_s - a.captured_s for a, b in itertools.pairwise(frames) if a.clock == b.clock]
    assert min(steps_s) > -0.001
    assert all(a.motion_s <= b.motion_s for a, b in itertools.pairwise(frames))
    assert next(i for i, frame in enumerate(frames) if frame.clock == "camera") < 40, "the first report takes half a s"
    ages = sorted(f.ready_s - f.captured_s for f in frames if f.clock == "camera")
    assert 0.0 <= ages[0] < 1.5, "the first ones waited while the stream was opened"
    last = frames[-1]
    assert abs((now_at - last.captured_at) - (now_s - last.captured_s)) < 0.1, "both clocks tell the same age"
    assert run.opened[0][0] == "h264"


def test_a_cameras_clock_that_is_an_hour_off_is_not_believed(
    rtsp_server: RtspServer, caplog: pytest.LogCaptureFixture
) -> None:
    run = SourceRun(rtsp_server.url("/normal"), arguments={"wall": lambda: time.time() - 3600})
    with run:
        frames = run.wait_for_frames(100)
    assert {frame.clock for frame in frames} == {"arrival"}
    assert all(-0.001 <= frame.ready_s - frame.captured_s < 2.0 for frame in frames)
    warnings = [record.message for record in caplog.records if "its clock" in record.message]
    assert len(warnings) == 1
    assert re.search(r"its clock is (3599|3600)\.\d s ahead of", warnings[0]), "says by how much and which way"


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_the_first_picture_does_not_wait_for_the_second_key_frame(tmp_path: Path, transport: str) -> None:
    """With `fflags=nobuffer` it did, for 10 s: FFmpeg threw away what it had read to find out what the stream is."""
    require(RTSP_SERVER)
    clip = media.write_video(tmp_path / "clip.mp4", size=(320, 180), seconds=20, gop=250)
    with RtspServer(clip) as server, SourceRun(server.url("/normal"), transport=transport) as run:
        began = time.monotonic()
        run.wait_for_frames(10)
    assert time.monotonic() - began < 6.0
    assert (run.frames[1].position_s or 0.0) < 1.0


def test_wrong_path_is_not_found(rtsp_server: RtspServer) -> None:
    error = failure_of(rtsp_server.url("/nowhere"))
    assert (error.cause, "404" in str(error)) == ("not_found", True)


@pytest.mark.parametrize("method", ["basic", "digest"])
@pytest.mark.parametrize("where", ["url", "credentials"])
def test_wrong_password_is_named_but_never_shown(
    rtsp_server: RtspServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    method: str,
    where: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    rtsp_server.auth_method(method)
    login = ("janitor", "hunter2")
    if where == "url":
        error = failure_of(rtsp_server.url("/auth", user=login[0], password=login[1]))
    else:
        error = failure_of(rtsp_server.url("/auth"), arguments={"credentials": login})
    assert error.cause == "unauthorized"
    shown = str(error) + repr(error) + caplog.text + "".join(capfd.readouterr())
    assert not any(secret in shown for secret in login)
    assert "/auth" in str(error)


def test_right_credentials_open_the_camera(rtsp_server: RtspServer) -> None:
    with SourceRun(rtsp_server.url("/auth"), arguments={"credentials": (USER, PASSWORD)}) as run:
        run.wait_for_frames(3)


def test_refused_connection() -> None:
    error = failure_of(f"rtsp://127.0.0.1:{free_port()}/x")
    assert error.cause == "refused"
    assert "nothing listens" in str(error)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_host_that_swallows_connections_times_out(scheme: str) -> None:
    with full_listener() as port:
        run = SourceRun(f"{scheme}://janitor:hunter2@127.0.0.1:{port}/x", open_timeout_s=1.0, read_timeout_s=1.0)
        error = run.start().failure()
    assert error.cause == "timeout"
    assert "hunter2" not in str(error)
    assert run.seconds < 1.0 + SLACK_S


def test_name_that_does_not_resolve() -> None:
    error = failure_of("rtsp://janitor:hunter2@camera.invalid/x")
    assert error.cause == "unreachable"
    assert "check host" in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
@pytest.mark.parametrize(
    "talk",
    [
        pytest.param(says(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"), id="ssh"),
        pytest.param(answers(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>hello</html>"), id="http"),
        pytest.param(says(os.urandom(4096)), id="garbage"),
        pytest.param(says(b""), id="silence"),
        pytest.param(drips, id="drip"),
    ],
)
def test_port_that_speaks_something_else(scheme: str, talk: object) -> None:
    with tcp_server(talk) as port:  # type: ignore[arg-type]
        run = SourceRun(f"{scheme}://janitor:hunter2@127.0.0.1:{port}/x", open_timeout_s=1.5, read_timeout_s=1.0)
        error = run.start().failure()
    assert error.cause in ("invalid", "timeout", "refused", "unreachable"), str(error)
    assert "hunter2" not in str(error)
    assert run.seconds < 1.5 + SLACK_S
    assert not run.frames


def test_camera_without_video(rtsp_server: RtspServer) -> None:
    error = failure_of(rtsp_server.url("/audio-only"))
    assert error.cause == "refused"
    assert "without video" in str(error)


def test_corrupt_stream_goes_on(rtsp_server: RtspServer) -> None:
    with SourceRun(rtsp_server.url("/corrupt"), decoder_threads=2) as run:
        run.wait_for(lambda: len(run.frames) >= 60 and run.damaged > 0)
    assert run.error is None


@pytest.mark.parametrize("page", ["index.html", "readme.txt"])
def test_web_page_is_not_a_camera(page: str) -> None:
    """FFmpeg would even draw the letters of a text."""
    text = b"<html><body>" + b"<p>Welcome to your router</p>\n" * 200

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    with http_server(answer) as url:
        assert failure_of(f"{url}/{page}").cause == "invalid"


def test_http_statuses_have_causes() -> None:
    def refuse(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_error(int(handler.path.strip("/")))

    with http_server(refuse) as url:
        causes = [failure_of(f"{url}/{status}").cause for status in (401, 403, 404, 500, 503)]
    assert causes == ["unauthorized", "unauthorized", "not_found", "refused", "refused"]


def test_endless_zeros_cost_no_memory() -> None:
    def zeros(handler: http.server.BaseHTTPRequestHandler) -> None:
        begin(handler, "video/mp4" if handler.path.endswith("mp4") else "application/octet-stream")
        while True:
            handler.wfile.write(bytes(1 << 16))

    script = """
import resource, sys
from tests.support.sources import failure_of
failure_of(sys.argv[1] + "/first")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(failure_of(sys.argv[1] + "/x.mp4", open_timeout_s=2.0).cause, failure_of(sys.argv[1] + "/x.ts").cause)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    with http_server(zeros) as url:
        causes, growth_mb = _run_script(script, url).splitlines()
    assert set(causes.split()) <= {"invalid", "timeout"}
    assert int(growth_mb) < 40


def _run_script(script: str, *arguments: str, timeout_s: float = 90.0) -> str:
    """Run Python code in a process of its own, which must end well; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True, text=True, timeout=timeout_s, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, f"status {done.returncode}\n{done.stderr}"
    return done.stdout


def test_jpegs_over_http_keep_the_time_of_their_arrival(tmp_path: Path) -> None:
    """FFmpeg gives such a stream 25 stamps a second; this camera sends 10 pictures."""
    jpegs = _jpegs(tmp_path)

    def camera(handler: http.server.BaseHTTPRequestHandler) -> None:
        begin(handler, "multipart/x-mixed-replace; boundary=next")
        for index in itertools.count():
            jpeg = jpegs[index % len(jpegs)]
            handler.wfile.write(b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg))
            handler.wfile.write(jpeg + b"\r\n")
            time.sleep(0.1)

    with http_server(camera) as url, SourceRun(f"{url}/stream", fps=5.0) as run:
        run.wait_for(lambda: run.frames and run.frames[-1].arrived_s - run.frames[0].arrived_s > 3.0)
        frames = list(run.frames)
    assert all(frame.ready_s - frame.captured_s < 1.0 for frame in frames)
    assert all(frame.position_s is None for frame in frames)
    # 5 a second of its own 10; by FFmpeg's stamps it would be 2.
    seconds = frames[-1].arrived_s - frames[0].arrived_s
    assert 3.5 <= (len(frames) - 1) / seconds <= 5.5
    moved = frames[-1].motion_s - frames[0].motion_s
    assert moved == pytest.approx(seconds, abs=0.3)


def _jpegs(folder: Path) -> list[bytes]:
    path = folder / "pictures.avi"
    with av.open(path, "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuvj420p"
        for index, picture in enumerate(media.pictures(160, 120, 10)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(path) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_stall_is_seen_within_twice_the_read_timeout(rtsp_server: RtspServer, transport: str) -> None:
    with SourceRun(rtsp_server.url("/stall"), transport=transport, read_timeout_s=1.0) as run:
        run.wait_for_frames(10)
        rtsp_server.stall()
        began = time.monotonic()
        error = run.failure()
        seconds = time.monotonic() - began
    assert error.cause == "timeout"
    assert seconds < 2 * 1.0 + SLACK_S


def test_camera_that_is_stalled_already_fails_too(rtsp_server: RtspServer) -> None:
    rtsp_server.stall()
    run = SourceRun(rtsp_server.url("/stall"), open_timeout_s=2.0, read_timeout_s=0.7).start()
    assert run.failure().cause == "timeout"
    assert run.seconds < 2.0 + 2 * 0.7 + SLACK_S
    assert len(run.frames) <= 1


def test_drop_is_a_failure(rtsp_server: RtspServer) -> None:
    with SourceRun(rtsp_server.url("/drop")) as run:
        run.wait_for_frames(10)
        rtsp_server.drop("/drop")
        assert run.failure().cause == "ended"


def test_new_size_gets_a_new_canvas_and_right_crops(rtsp_server: RtspServer) -> None:
    with SourceRun(rtsp_server.url("/resize"), fps=10.0) as run:
        run.wait_for_frames(3)
        rtsp_server.resize(480, 480)
        run.wait_for(lambda: run.frames[-1].surface.width == 480)
        frames = [run.frames[0], run.frames[-1]]
    assert [size for _, *size in run.opened] == [[640, 360], [480, 480]]
    assert [(f.canvas.width, f.canvas.height) for f in frames] == [(320, 192), (320, 320)]
    for frame in frames:
        assert frame.image.shape == (frame.canvas.height, frame.canvas.width, 3)
        width, height = frame.surface.width, frame.surface.height
        crop = frame.surface.region(width // 4, height // 4, width // 2, height // 2)
        assert crop.shape == (height // 2 - height // 4, width // 2 - width // 4, 3)
        # The canvas shows the same: its part there has the same mean colour.
        part = frame.image[
            frame.canvas.picture_height // 4 : frame.canvas.picture_height // 2,
            frame.canvas.picture_width // 4 : frame.canvas.picture_width // 2,
        ]
        assert abs(part.mean((0, 1)) - crop.mean((0, 1))).max() < 6.0


def test_mjpeg_over_rtsp(rtsp_server: RtspServer) -> None:
    with SourceRun(rtsp_server.url("/mjpeg")) as run:
        run.wait_for_frames(10)
    assert run.opened == [("mjpeg", 640, 360)]


def test_bursts_do_not_disturb_the_times_of_the_scene(rtsp_server: RtspServer) -> None:
    with SourceRun(rtsp_server.url("/burst")) as run:
        frames = run.wait_for_frames(80)[20:]
    steps = [b.motion_s - a.motion_s for a, b in itertools.pairwise(frames)]
    assert sorted(steps)[len(steps) // 2] == pytest.approx(0.04, abs=0.01)
    arrivals = [b.arrived_s - a.arrived_s for a, b in itertools.pairwise(frames)]
    assert max(arrivals) > 0.2


def test_pictures_that_stop_while_sound_goes_on_are_missed(tmp_path: Path) -> None:
    """The connection is alive, so no read timeout strikes."""
    path = _with_sound(tmp_path / "clip.ts")
    data = path.read_bytes()

    def camera(handler: http.server.BaseHTTPRequestHandler) -> None:
        begin(handler, "video/mp2t")
        for start in range(0, len(data), 188 * 20):
            handler.wfile.write(data[start : start + 188 * 20])
            time.sleep(0.02)

    with http_server(camera) as url:
        run = SourceRun(f"{url}/x.ts", read_timeout_s=1.0).start()
        error = run.failure()
    assert run.frames
    assert error.cause == "invalid"
    assert "no picture" in str(error)


def _with_sound(path: Path) -> Path:
    """Write a second of video and a minute of sound."""
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        video.options = {"bf": "0", "preset": "veryfast"}
        sound = container.add_stream("mp2", rate=48_000, layout="mono")
        for index, picture in enumerate(media.pictures(160, 120, 25)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        silence = av.AudioFrame(format="s16", layout="mono", samples=1152)
        silence.planes[0].update(bytes(silence.planes[0].buffer_size))
        silence.sample_rate = 48_000
        for index in range(48_000 * 60 // 1152):
            silence.pts = index * 1152
            container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    return path


def test_flood_without_a_picture_is_given_up(tmp_path: Path) -> None:
    """After its first pictures the camera sends data that no decoder can use, for ever."""
    jpegs = _jpegs(tmp_path)

    def camera(handler: http.server.BaseHTTPRequestHandler) -> None:
        begin(handler, "multipart/x-mixed-replace; boundary=next")
        for index in itertools.count():
            data = jpegs[index % len(jpegs)] if index < 40 else b"\xff\xd8" + bytes(500)
            handler.wfile.write(b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data))
            handler.wfile.write(data + b"\r\n")
            time.sleep(0.02)

    with http_server(camera) as url:
        run = SourceRun(f"{url}/x", read_timeout_s=0.5).start()
        error = run.failure()
    assert run.frames
    assert error.cause == "invalid"
    assert "no picture" in str(error)
    assert run.damaged > 10


@contextlib.contextmanager
def rtp_camera(form: str) -> Iterator[int]:
    """Send pictures as RTP to a UDP port of this machine, as cameras do that are told where to; yield the port."""
    port = free_port()
    stopping = threading.Event()

    def send() -> None:
        with av.open(f"rtp://127.0.0.1:{port}", "w", format=form) as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
            stream.options = {"bf": "0", "preset": "veryfast", "g": "5"}
            for index, picture in enumerate(itertools.cycle(list(media.pictures(160, 120, 10)))):
                if stopping.wait(0.02):
                    return
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = index
                for packet in stream.encode(frame):
                    with contextlib.suppress(OSError):  # nobody listens yet
                        container.mux(packet)

    thread = threading.Thread(target=send, name="rtp camera", daemon=True)
    thread.start()
    try:
        yield port
    finally:
        stopping.set()
        thread.join(10.0)


def test_transport_stream_over_rtp() -> None:
    with rtp_camera("rtp_mpegts") as port, SourceRun(f"RTP://127.0.0.1:{port}") as run:
        run.wait_for_frames(10)


def test_plain_rtp_needs_its_sdp(tmp_path: Path) -> None:
    with rtp_camera("rtp") as port:
        error = failure_of(f"rtp://127.0.0.1:{port}")
        assert error.cause == "invalid"
        assert "SDP" in str(error)
        sdp = tmp_path / "cam.sdp"
        sdp.write_text(
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=camera\nc=IN IP4 127.0.0.1\nt=0 0\n"
            f"m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=1\n"
        )
        with SourceRun(sdp) as run:
            run.wait_for_frames(10)
        assert run.config.live


@contextlib.contextmanager
def joined_between_key_frames(folder: Path, gop_s: float, *, codec: str = "libx264") -> Iterator[str]:
    """Serve a live transport stream from behind its first key frame on, ten times as fast as time goes."""
    path = folder / "rare.ts"
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.options = {"preset": "veryfast", "bf": "0", "sc_threshold": "0", "x265-params": "log-level=none"}
        stream.codec_context.gop_size = round(gop_s * 25)
        for index, picture in enumerate(media.pictures(160, 120, round(gop_s * 25) + 50)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    begin_at = len(data) // 20 // 188 * 188
    step = max(188, round(len(data) / (gop_s + 2) / 100) // 188 * 188)

    def camera(handler: http.server.BaseHTTPRequestHandler) -> None:
        begin(handler, "video/mp2t")
        for start in range(begin_at, len(data), step):
            handler.wfile.write(data[start : start + step])
            time.sleep(step / len(data) * (gop_s + 2) / 10)
        time.sleep(2.0)

    with http_server(camera) as url:
        yield f"{url}/live"


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_key_frame_that_is_far_off_is_waited_for(tmp_path: Path, codec: str) -> None:
    """As long as the camera takes, which is longer than pictures may fail to come later on."""
    said: list[str] = []
    options = {"read_timeout_s": 1.0, "open_timeout_s": 8.0, "arguments": {"on_waiting": said.append}}
    with (
        joined_between_key_frames(tmp_path, 40.0, codec=codec) as url,
        SourceRun(url, **options) as run,  # type: ignore[arg-type]
    ):
        run.wait_for_frames(10)
    assert len(said) == 1
    assert "key frame" in said[0]
    assert run.damaged == 0
    assert run.frames[0].canvas.width == 320


def test_video_without_key_frames_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visaged.pipelines.source.times.waiting.MOST_KEY_FRAME_S", 4.0)
    with joined_between_key_frames(tmp_path, 80.0) as url:
        run = SourceRun(url, read_timeout_s=1.0, open_timeout_s=8.0).start()
        error = run.failure()
    assert error.cause == "invalid"
    assert "no key frame" in str(error)
    assert not run.frames
