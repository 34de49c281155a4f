"""Proves that the real parts of tests/support do what other tests take for granted, with PyAV and paho alone."""

from __future__ import annotations

import contextlib
import itertools
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest
from av.container import InputContainer

from tests.support import media, requirements
from tests.support.broker import MosquittoBroker, free_port
from tests.support.certificates import Authority, Certificates
from tests.support.process import ManagedProcess, ProcessError
from tests.support.rtsp import PASSWORD, USER, RtspServer
from tests.support.subscriber import RefusedError, Subscriber

# The bounds are for a busy machine; what a test waits for comes far earlier.
OPEN_TIMEOUT_S = 30.0
READ_TIMEOUT_S = 15.0
# FFmpeg reports a silent camera after twice this time.
SHORT_READ_TIMEOUT_S = 2.0
# How it reports one: mostly the former; the latter (EIO) if the time was up within a packet.
SILENT = (av.error.ExitError, OSError)


def open_stream(url: str, transport: str = "tcp", read_timeout_s: float = READ_TIMEOUT_S) -> InputContainer:
    return av.open(url, options={"rtsp_transport": transport}, timeout=(OPEN_TIMEOUT_S, read_timeout_s))


def read(frames: Iterator[av.VideoFrame], count: int) -> list[av.VideoFrame]:
    return [next(frames) for _ in range(count)]


def read_to_the_end(frames: Iterator[av.VideoFrame]) -> None:
    """Reads until EOF. A connection that is cut within a picture leaves part of it, which the decoder may refuse."""
    with contextlib.suppress(av.error.InvalidDataError):
        for _ in frames:
            pass


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_normal_mount_streams_with_capture_times(rtsp_server: RtspServer, transport: str) -> None:
    with open_stream(rtsp_server.url("/normal"), transport) as stream:
        frames = read(stream.decode(video=0), 40)
        # FFmpeg gives the first picture no time stamp if it has not heard the sender's report yet.
        times = [frame.time for frame in frames if frame.time is not None]
        assert len(times) >= 39
        assert stream.start_time_realtime is not None
        captured_at = stream.start_time_realtime / 1e6 + times[-1]
        assert abs(time.time() - captured_at) < 5.0
    assert times == sorted(times)
    assert frames[-1].width % 2 == 0


def test_time_stamps_go_on_when_the_clip_starts_over(tmp_path: Path) -> None:
    requirements.require(requirements.RTSP_SERVER)
    clip = media.write_video(tmp_path / "short.mp4", size=(320, 240), seconds=1)
    with RtspServer(clip) as server, open_stream(server.url("/normal")) as stream:
        frames = read(stream.decode(video=0), 70)
    times = [frame.time for frame in frames if frame.time is not None]
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert steps == pytest.approx([0.04] * len(steps), abs=0.002)


@pytest.mark.parametrize("source", ["raw", "b-frames"])
def test_server_serves_raw_and_reordered_clips(tmp_path: Path, source: str) -> None:
    requirements.require(requirements.RTSP_SERVER)
    if source == "raw":
        clip = media.write_video(tmp_path / "clip.h264", size=(320, 240))
    else:
        clip = media.write_video(tmp_path / "clip.mp4", size=(320, 240), b_frames=2)
    with RtspServer(clip) as server, open_stream(server.url("/normal")) as stream:
        assert len(read(stream.decode(video=0), 60)) == 60


@pytest.mark.parametrize("method", ["basic", "digest"])
def test_auth_mount_wants_the_password(rtsp_server: RtspServer, method: str) -> None:
    rtsp_server.auth_method(method)
    for user, password in ((None, None), (USER, "wrong"), ("nobody", PASSWORD)):
        with pytest.raises(av.error.HTTPUnauthorizedError):
            open_stream(rtsp_server.url("/auth", user=user, password=password))
    with open_stream(rtsp_server.url("/auth", user=USER, password=PASSWORD)) as stream:
        read(stream.decode(video=0), 3)


def test_unknown_mount_is_not_found(rtsp_server: RtspServer) -> None:
    with pytest.raises(av.error.HTTPNotFoundError):
        open_stream(rtsp_server.url("/nowhere"))


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_stalled_mount_sends_no_picture_and_keeps_the_connection(rtsp_server: RtspServer, transport: str) -> None:
    with open_stream(rtsp_server.url("/stall"), transport, SHORT_READ_TIMEOUT_S) as stream:
        frames = stream.decode(video=0)
        read(frames, 10)
        rtsp_server.stall()
        with pytest.raises(SILENT):
            for _ in frames:
                pass
        assert rtsp_server.stats().clients["/stall"] == 1


def test_stalled_mount_resumes_on_the_same_connection(rtsp_server: RtspServer) -> None:
    with open_stream(rtsp_server.url("/stall")) as stream:
        frames = stream.decode(video=0)
        read(frames, 10)
        rtsp_server.stall()
        before = rtsp_server.stats().pictures["/stall"]
        rtsp_server.resume()
        read(frames, 20)
        assert rtsp_server.stats().pictures["/stall"] > before


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_drop_ends_the_stream_without_an_error(rtsp_server: RtspServer, transport: str) -> None:
    with open_stream(rtsp_server.url("/drop"), transport) as stream, open_stream(rtsp_server.url("/normal")) as other:
        frames = stream.decode(video=0)
        read(frames, 10)
        others_frames = other.decode(video=0)
        read(others_frames, 1)
        assert rtsp_server.drop("/drop") == 1
        read_to_the_end(frames)
        read(others_frames, 10)


def test_killed_server_ends_the_stream_and_comes_back_on_its_port(rtsp_server: RtspServer) -> None:
    url = rtsp_server.url("/normal")
    with open_stream(url) as stream:
        frames = stream.decode(video=0)
        read(frames, 5)
        rtsp_server.kill()
        read_to_the_end(frames)
    with pytest.raises(av.error.ConnectionRefusedError):
        open_stream(url)
    rtsp_server.restart()
    with open_stream(url) as stream:
        read(stream.decode(video=0), 5)


def test_frozen_server_times_out(rtsp_server: RtspServer) -> None:
    with open_stream(rtsp_server.url("/normal"), read_timeout_s=SHORT_READ_TIMEOUT_S) as stream:
        frames = stream.decode(video=0)
        read(frames, 5)
        rtsp_server.process.freeze()
        with pytest.raises(SILENT):
            for _ in frames:
                pass
        rtsp_server.process.thaw()


def test_resize_changes_the_picture_size_within_the_stream(rtsp_server: RtspServer) -> None:
    with open_stream(rtsp_server.url("/resize")) as stream:
        frames = stream.decode(video=0)
        sizes = [(frame.width, frame.height) for frame in read(frames, 5)]
        assert set(sizes) == {(640, 360)}
        rtsp_server.resize(1280, 720)
        for frame in frames:
            sizes.append((frame.width, frame.height))
            if sizes[-1] == (1280, 720) or len(sizes) > 500:
                break
    assert sizes[-1] == (1280, 720)


def test_audio_only_mount_has_no_video(rtsp_server: RtspServer) -> None:
    with open_stream(rtsp_server.url("/audio-only")) as stream:
        assert [track.type for track in stream.streams] == ["audio"]


def test_corrupt_mount_goes_on_with_damaged_pictures(rtsp_server: RtspServer) -> None:
    with open_stream(rtsp_server.url("/corrupt")) as stream:
        is_damaged = False
        for index, frame in enumerate(stream.decode(video=0)):
            is_damaged = is_damaged or bool(frame.is_corrupt)
            if index >= 50 and (is_damaged or index > 500):
                break
    assert is_damaged


def test_burst_mount_withholds_pictures_with_true_time_stamps(rtsp_server: RtspServer) -> None:
    arrivals, times = [], []
    with open_stream(rtsp_server.url("/burst")) as stream:
        for packet in stream.demux(video=0):
            if packet.pts is not None and packet.time_base is not None:
                arrivals.append(time.monotonic())
                times.append(float(packet.pts * packet.time_base))
            if len(times) >= 70:
                break
    pauses = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    # Sent 400-500 ms apart; a busy machine reads them late, and so sees shorter pauses.
    assert max(pauses) > 0.2
    assert max(steps) < 0.1


def test_mjpeg_mount_sends_jpeg(rtsp_server: RtspServer) -> None:
    with open_stream(rtsp_server.url("/mjpeg")) as stream:
        assert stream.streams.video[0].codec_context.name == "mjpeg"
        frame = next(stream.decode(video=0))
    assert (frame.width, frame.height) == (640, 360)


def test_reset_closes_connections_and_clears_faults(rtsp_server: RtspServer) -> None:
    with open_stream(rtsp_server.url("/normal")) as stream:
        frames = stream.decode(video=0)
        read(frames, 3)
        rtsp_server.stall("/normal")
        rtsp_server.resize()
        rtsp_server.reset()
        read_to_the_end(frames)
    with open_stream(rtsp_server.url("/normal")) as stream:
        read(stream.decode(video=0), 10)
    with open_stream(rtsp_server.url("/resize")) as stream:
        assert next(stream.decode(video=0)).width == 640


def test_server_refuses_bad_commands_and_goes_on(rtsp_server: RtspServer) -> None:
    for name, fields in (("nonsense", {}), ("stall", {"mount": "/nowhere"}), ("auth", {"method": "none"})):
        with pytest.raises(ProcessError, match=name):
            rtsp_server.command(name, **fields)
    assert set(rtsp_server.stats().clients.values()) == {0}


def test_server_ends_when_its_stdin_closes(demo_clip: Path) -> None:
    requirements.require(requirements.RTSP_SERVER)
    with RtspServer(demo_clip) as server, open_stream(server.url("/normal")) as stream:
        read(stream.decode(video=0), 3)
        assert server.process.close_stdin(30.0) == 0


def test_process_reports_the_last_lines_of_one_that_ended() -> None:
    argv = [sys.executable, "-c", "print('first'); raise SystemExit('the reason')"]
    with ManagedProcess(argv) as process:
        assert process.wait_for_line("first") == "first"
        assert process.wait(30.0) == 1
        with pytest.raises(ProcessError, match="the reason"):
            process.wait_for_line("never")


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(path) as container:
        return list(container.decode(video=0))


def test_media_have_the_size_rate_and_length_asked_for(tmp_path: Path) -> None:
    frames = decoded(media.write_video(tmp_path / "a.mp4", size=(320, 180), fps=12.5, seconds=2))
    assert len(frames) == 25
    assert {(frame.width, frame.height) for frame in frames} == {(320, 180)}
    assert frames[-1].time == pytest.approx(24 / 12.5, abs=0.001)
    first, last = frames[0].to_ndarray(format="gray"), frames[-1].to_ndarray(format="gray")
    assert first[90, 10] > 200 > last[90, 10]


def test_media_of_variable_rate_keep_their_times(tmp_path: Path) -> None:
    times = [frame.time for frame in decoded(media.write_variable_rate(tmp_path / "a.mp4", size=(320, 180)))]
    steps = {round(later - earlier, 2) for earlier, later in itertools.pairwise(times)}
    assert steps == {0.04, 0.2, 0.8, 0.08}


def test_media_that_cameras_get_wrong(tmp_path: Path) -> None:
    change = decoded(media.write_size_change(tmp_path / "change.h264"))
    assert [(frame.width, frame.height) for frame in change] == [(640, 360)] * 25 + [(1280, 720)] * 25
    full = decoded(media.write_video(tmp_path / "full.mp4", seconds=0.2, is_full_range=True))
    assert full[0].format.name == "yuvj420p"
    with av.open(media.write_audio(tmp_path / "audio.m4a")) as container:
        assert [track.type for track in container.streams] == ["audio"]
    whole = media.write_video(tmp_path / "whole.mp4")
    with pytest.raises(av.error.InvalidDataError):
        decoded(media.truncate(whole, tmp_path / "cut.mp4"))
    raw = media.remux_to_annexb(whole, tmp_path / "whole.h264")
    assert raw.read_bytes()[:4] == b"\0\0\0\1"
    assert len(decoded(raw)) == 50
    assert 20 < len(decoded(media.truncate(raw, tmp_path / "cut.h264", share=0.6))) < 50
    small = decoded(media.transcode(whole, tmp_path / "small.mp4", size=(160, 90), seconds=1))
    assert len(small) == 25
    assert small[0].width == 160


def test_demo_clip_is_h264(demo_clip: Path) -> None:
    with av.open(demo_clip) as container:
        assert container.streams.video[0].codec_context.name == "h264"


def test_broker_delivers_and_subscriber_waits(broker: MosquittoBroker) -> None:
    with Subscriber(broker, "a/#") as subscriber:
        subscriber.publish("a/b", '{"n": 1}')
        subscriber.publish("a/c", b"2", qos=0)
        assert subscriber.wait_for(lambda message: message.topic == "a/b").json() == {"n": 1}
        assert len(subscriber.wait_for_all(lambda messages: len(messages) == 2)) == 2
        with pytest.raises(AssertionError, match="2 messages"):
            subscriber.wait_for(lambda message: message.topic == "a/d", timeout_s=0.1)


def test_broker_refuses_wrong_logins(make_broker: Callable[..., MosquittoBroker]) -> None:
    broker = make_broker(login=("visaged", "secret"))
    for login in (None, ("visaged", "wrong"), ("nobody", "secret")):
        with pytest.raises(RefusedError, match=re.compile("not authori[sz]ed", re.IGNORECASE)):
            Subscriber(broker, login=login).start()
    with Subscriber(broker, login=("visaged", "secret")) as subscriber:
        subscriber.publish("a", b"1")
        subscriber.wait_for(lambda message: message.topic == "a")


def test_broker_with_tls_is_trusted_by_its_own_authority_only(
    make_broker: Callable[..., MosquittoBroker], tmp_path: Path
) -> None:
    broker = make_broker(certificates=Certificates.create(tmp_path / "tls"))
    with Subscriber(broker) as subscriber:
        subscriber.publish("a", b"1")
        subscriber.wait_for(lambda message: message.topic == "a")
    stranger = Authority(tmp_path / "stranger").certificate
    with pytest.raises(ssl.SSLCertVerificationError):
        Subscriber(broker, ca=stranger).start()


def test_broker_with_an_expired_certificate_is_refused(
    make_broker: Callable[..., MosquittoBroker], tmp_path: Path
) -> None:
    broker = make_broker(certificates=Certificates.create(tmp_path / "tls", is_server_expired=True))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        Subscriber(broker).start()


def test_broker_that_wants_client_certificates(make_broker: Callable[..., MosquittoBroker], tmp_path: Path) -> None:
    certificates = Certificates.create(tmp_path / "tls")
    broker = make_broker(certificates=certificates, requires_client_certificate=True)
    pair = certificates.client
    with Subscriber(broker, client_certificate=(pair.certificate, pair.key)) as subscriber:
        subscriber.publish("a", b"1")
        subscriber.wait_for(lambda message: message.topic == "a")
    expired = certificates.authority.issue_client("late", is_expired=True)
    for files in (None, (expired.certificate, expired.key)):
        # TLS 1.3: the client hears of it only after its own handshake, as an error or as a closed connection.
        with pytest.raises((OSError, RefusedError)):
            Subscriber(broker, client_certificate=files).start()


@pytest.mark.parametrize("is_persistent", [True, False])
def test_killed_broker_comes_back_and_keeps_what_it_was_told_to(
    make_broker: Callable[..., MosquittoBroker], is_persistent: bool
) -> None:
    broker = make_broker(is_persistent=is_persistent)
    with Subscriber(broker, "kept") as subscriber:
        port = broker.port
        subscriber.publish("kept", b"1", retain=True)
        subscriber.wait_for(lambda message: not message.is_retained)
        if is_persistent:
            broker.save()
        broker.kill()
        broker.restart()
        assert broker.port == port
        subscriber.wait_for_subscriptions(2)
        if is_persistent:
            assert subscriber.wait_for(lambda message: message.is_retained).payload == b"1"
        else:
            subscriber.publish("kept", b"end")
            subscriber.wait_for(lambda message: message.payload == b"end")
            assert not any(message.is_retained for message in subscriber.messages)


def test_frozen_broker_answers_after_the_thaw(broker: MosquittoBroker) -> None:
    with Subscriber(broker) as subscriber:
        broker.freeze()
        with pytest.raises(AssertionError, match="no subscription"):
            Subscriber(broker).start(timeout_s=0.5)
        broker.thaw()
        subscriber.publish("a", b"1")


def test_no_broker_is_a_refused_connection(tmp_path: Path) -> None:
    absent = MosquittoBroker(tmp_path)
    absent.port = free_port()
    with pytest.raises(ConnectionRefusedError):
        Subscriber(absent).start()


def test_missing_part_skips_or_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    part = requirements.SystemPart("a unicorn", lambda: "install the Debian package unicorn")
    gpu = requirements.SystemPart("a GPU", lambda: "this machine has none", is_hardware=True)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs a unicorn: install the Debian package unicorn"):
        requirements.require(part)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="unicorn"):
        requirements.require(part)
    with pytest.raises(pytest.skip.Exception, match="GPU"):
        requirements.require(gpu)


@requirements.needs(requirements.FFMPEG)
def test_marked_test_runs_where_the_part_is() -> None:
    program = requirements.find_program("ffmpeg")
    assert program is not None
    assert subprocess.run([program, "-version"], capture_output=True, timeout=60, check=False).returncode == 0
