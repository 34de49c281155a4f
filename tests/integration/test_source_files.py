"""Sources that are files: formats, pace, sampling, and what is no video."""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tests.support import media
from tests.support.requirements import NVIDIA_GPU, USB_CAMERA
from tests.support.sources import SourceRun, failure_of
from visaged.models.preprocess import Canvas
from visaged.models.types import Image
from visaged.pipelines.presentation import Turn
from visaged.pipelines.records import Frame
from visaged.pipelines.source.decoding import Decoding
from visaged.pipelines.source.picture.canvases import CanvasPool
from visaged.pipelines.source.picture.scaler import Scaler
from visaged.pipelines.source.picture.surface import VideoSurface
from visaged.pipelines.source.video import SourceError

HERE = Path(__file__).parents[2]


def encode(path: Path, codec: str, pixels: str, size: tuple[int, int], count: int = 10, **options: str) -> Path:
    """Write a video that `media.write_video` cannot: any codec and pixel format, at 25 fps."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.options = options
        for index, picture in enumerate(media.pictures(*size, count)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(path) as container:
        return list(container.decode(video=0))


def play(path: object, **options: Any) -> SourceRun:
    """Read a file to its end, as fast as possible."""
    return SourceRun(path, **({"pace": "fast"} | options)).checked()


@pytest.fixture(scope="module")
def clip(media_dir: Path) -> Path:
    return media.write_video(media_dir / "source-clip.mp4", size=(320, 180), seconds=5)


# What is no video


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.h264", "a.bin"])
@pytest.mark.parametrize("content", [b"", b"hello world\n" * 100, bytes(100_000)], ids=["empty", "text", "zeros"])
def test_file_that_is_no_video(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    error = failure_of(tmp_path / name, pace="fast")
    assert error.cause == "invalid"
    assert name in str(error)


def test_file_that_is_not_there_or_not_a_file(tmp_path: Path) -> None:
    for path, text in ((tmp_path / "gone.mp4", "does not exist"), (tmp_path, "is not a file")):
        error = failure_of(path)
        assert error.cause == "not_found"
        assert text in str(error)
    assert failure_of(f"file://{tmp_path}/gone%20too.mp4").cause == "not_found"


def test_truncated_files(tmp_path: Path, clip: Path) -> None:
    assert failure_of(media.truncate(clip, tmp_path / "no-index.mp4"), pace="fast").cause == "invalid"
    raw = media.remux_to_annexb(clip, tmp_path / "whole.h264")
    assert 50 < len(play(media.truncate(raw, tmp_path / "half.h264")).frames) < 125


@pytest.mark.parametrize("is_looping", [False, True])
def test_file_without_a_picture_that_can_be_decoded(tmp_path: Path, is_looping: bool) -> None:
    """Its index is whole, its pictures are noise. In a loop this would spin for ever."""
    path = media.write_video(tmp_path / "clip.mkv", size=(160, 120), seconds=1, gop=1)
    with av.open(path) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for packet in packets:
        at = data.find(packet)
        data[at : at + len(packet)] = os.urandom(len(packet))
    path.write_bytes(data)
    error = failure_of(path, pace="fast", loop=is_looping)
    assert error.cause == "invalid"


def test_file_that_may_not_be_read(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise av.error.PermissionError(13, "Permission denied")

    monkeypatch.setattr("visaged.pipelines.source.opening.opener.av.open", refuse)
    error = failure_of(clip)
    assert "permission" in str(error)
    assert error.cause == "not_found"


def test_missing_usb_camera_is_named() -> None:
    if not USB_CAMERA.missing():
        pytest.skip("this machine has a camera")
    error = failure_of("/dev/video0")
    assert error.cause in ("device", "not_found")
    assert str(error) == "/dev/video0 does not exist"


def test_device_that_is_no_camera() -> None:
    error = failure_of("v4l2:/dev/null")
    assert error.cause == "device"
    assert "/dev/null cannot be opened" in str(error)


# Formats


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "size"),
    [
        ("mjpeg.avi", "mjpeg", "yuvj420p", (322, 242)),
        ("odd.avi", "mjpeg", "yuvj420p", (321, 241)),
        ("odd444.avi", "mjpeg", "yuvj444p", (321, 241)),
        ("even.mkv", "libx264", "yuv420p", (322, 242)),
        ("odd.mkv", "libx264", "yuv444p", (321, 241)),
        ("full.mkv", "libx264", "yuvj420p", (320, 240)),
        ("ten.mkv", "libx264", "yuv420p10le", (322, 242)),
        ("ten-hevc.mkv", "libx265", "yuv420p10le", (322, 242)),
        ("hevc.mp4", "libx265", "yuv420p", (320, 240)),
        ("grey.mkv", "ffv1", "gray", (320, 240)),
        ("rgb.mkv", "ffv1", "bgr0", (321, 241)),
        ("mpeg4.avi", "mpeg4", "yuv420p", (320, 240)),
    ],
)
def test_formats(tmp_path: Path, name: str, codec: str, pixels: str, size: tuple[int, int]) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = encode(tmp_path / name, codec, pixels, size, **options)
    run = play(path)
    assert len(run.frames) == 10
    assert run.damaged == 0
    assert run.opened[0][1:] == size
    whole = [frame.to_ndarray(format="bgr24") for frame in decoded(path)]
    for frame, expected in zip(run.frames, whole, strict=True):
        width, height = size
        for left, top, right, bottom in (
            (0, 0, width, height), (33, 21, 180, 139), (width - 2, height - 2, width, height), (7, 7, 8, 8),
        ):  # fmt: skip
            region = frame.surface.region(left, top, right, bottom).astype(int)
            assert region.shape == (bottom - top, right - left, 3)
            difference = abs(region - expected[top:bottom, left:right])
            assert difference.mean() < 2.5
        # Scaled as a whole, and black where the canvas is larger.
        canvas = frame.canvas
        assert frame.image.shape == (canvas.height, canvas.width, 3)
        scaled = frame.image[: canvas.picture_height, : canvas.picture_width]
        assert abs(scaled.mean((0, 1)) - expected.mean((0, 1))).max() < 2.5
        assert not frame.image[canvas.picture_height :].any()
        assert not frame.image[:, canvas.picture_width :].any()


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("threads", [1, 2])
def test_pictures_without_the_loop_filter(tmp_path: Path, codec: str, threads: int) -> None:
    options = {"crf": "38"} | ({"x265-params": "log-level=none"} if codec == "libx265" else {})
    path = encode(tmp_path / "coarse.mkv", codec, "yuv420p", (320, 240), **options)
    smooth, coarse = (play(path, loop_filter=loop_filter, decoder_threads=threads) for loop_filter in (True, False))
    assert len(coarse.frames) == len(smooth.frames) == 10
    assert coarse.damaged == 0
    for one, other in zip(smooth.frames, coarse.frames, strict=True):
        assert one.position_s == other.position_s
        difference = abs(one.image.astype(int) - other.image)
        assert 0 < difference.mean() < 2.5


@pytest.mark.parametrize("color_range", [0, 1, 2])
@pytest.mark.parametrize("colorspace", [1, 2, 5, 6, 7, 9])
def test_crops_have_the_colours_of_the_whole_picture(colorspace: int, color_range: int) -> None:
    """HD cameras tag their streams as BT.709, which OpenCV does not know."""
    picture = np.kron(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), np.ones((40, 40, 1), np.uint8))
    frame = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="yuv420p")
    frame.colorspace, frame.color_range = colorspace, color_range
    whole = frame.to_ndarray(format="bgr24").astype(int)
    region = VideoSurface(frame).region(21, 33, 240, 180)
    difference = abs(region - whole[33:180, 21:240])
    assert difference.mean() < 2.0
    assert np.percentile(difference, 99) <= 6


def test_size_changes_within_a_file(tmp_path: Path) -> None:
    run = play(media.write_size_change(tmp_path / "change.h264", sizes=((320, 180), (240, 240), (640, 360))))
    assert run.opened == [("h264", 320, 180), ("h264", 240, 240), ("h264", 640, 360)]
    sizes = [(f.surface.width, f.canvas.width, f.canvas.height) for f in run.frames]
    assert sizes == [(320, 320, 192)] * 25 + [(240, 320, 320)] * 25 + [(640, 320, 192)] * 25
    assert all(a.motion_s < b.motion_s for a, b in itertools.pairwise(run.frames))


def test_time_stamps_that_jump_within_a_file(tmp_path: Path) -> None:
    """Two transport streams one after the other: stamps fall back, and the first one's time base was another's."""
    first = media.write_video(tmp_path / "a.ts", size=(320, 180), seconds=4)
    second = media.write_video(tmp_path / "b.ts", size=(320, 180), fps=10, seconds=4)
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    run = play(both, fps=5.0)
    assert 38 <= len(run.frames) <= 42
    assert run.received >= len(run.frames)


def test_file_whose_stamps_do_not_begin_at_zero(tmp_path: Path) -> None:
    times = [100 + index / 25 for index in range(25)]
    run = SourceRun(media.write_video(tmp_path / "late.ts", size=(160, 120), times=times)).checked()
    assert len(run.frames) == 25
    assert run.seconds < 4.0


@pytest.mark.parametrize(
    "name",
    ["2026-11-26T09:30:00.mp4", "rtsp:1.mp4", "50%.mp4", "a%20b.mp4", " a b.mp4", "what?.mp4", "a#1.mp4", "file:x.mp4",
     "[1]*.mp4", "crypto:x.mp4"],
)  # fmt: skip
def test_files_with_any_name(tmp_path: Path, clip: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).symlink_to(clip)
    for url in (name, tmp_path / name, (tmp_path / name).as_uri()):
        assert len(play(url).frames) == 125


@pytest.mark.parametrize("name", ["frame%03d.jpg", "a*.jpg", "20:15.jpg", "plain.jpg"])
def test_a_picture_is_a_file_of_one_frame(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(cv2.imencode(".jpg", np.full((120, 160, 3), 99, np.uint8))[1].tobytes())
    Path("frame001.jpg").write_bytes(b"another one")
    assert len(play(name).frames) == 1


# Pace


def test_realtime_takes_its_time(clip: Path) -> None:
    run = SourceRun(clip, pace="realtime").checked()
    assert 4.5 < run.seconds < 8.0
    assert len(run.frames) == 125
    lags = [frame.arrived_s - run.frames[0].arrived_s - (frame.position_s or 0.0) for frame in run.frames]
    assert min(lags) > -0.02, "never ahead of its time"


def test_fast_is_faster(clip: Path) -> None:
    run = play(clip)
    assert run.seconds < 3.0
    assert len(run.frames) == 125
    steps = [b.motion_s - a.motion_s for a, b in itertools.pairwise(run.frames)]
    assert steps == pytest.approx([0.04] * 124, abs=1e-3), "the scene moves at its own speed"


def test_raw_file_is_paced_at_its_nominal_rate(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "raw.h264", size=(160, 120), seconds=2)
    run = SourceRun(path, pace="realtime", fps=5.0).checked()
    assert 1.7 < run.seconds < 5.0
    assert len(run.frames) == 10
    assert run.received == 50


def test_stop_while_a_paced_file_waits(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "slides.mp4", size=(160, 120), times=[0.0, 60.0, 120.0])
    began = time.monotonic()
    with SourceRun(path, pace="realtime") as run:
        run.wait_for_frames(1)
    assert time.monotonic() - began < 10.0


def test_pauses_of_a_looping_file_are_no_failure(tmp_path: Path) -> None:
    """It counts as a live camera, yet its pictures may lie further apart than a read timeout."""
    path = media.write_video(tmp_path / "slides.mp4", size=(160, 120), times=[0.0, 1.0, 2.0])
    with SourceRun(path, pace="realtime", loop=True, read_timeout_s=0.2) as run:
        run.wait_for_frames(4)
    assert run.error is None


@pytest.mark.parametrize("pace", ["fast", "realtime"])
@pytest.mark.parametrize("suffix", ["mp4", "ts", "h264"])
def test_loop_goes_on_with_one_time_line(tmp_path: Path, pace: str, suffix: str) -> None:
    path = media.write_video(tmp_path / f"short.{suffix}", size=(160, 120), seconds=0.6)
    with SourceRun(path, pace=pace, loop=True) as run:
        frames = run.wait_for_frames(50)
    steps = [b.motion_s - a.motion_s for a, b in itertools.pairwise(frames)]
    if pace == "fast":
        assert steps == pytest.approx([0.04] * 49, abs=0.002)
    else:
        # A looping file is a live camera: its age must not grow with every round.
        assert min(steps) >= 0.0
        assert frames[-1].motion_s - frames[0].motion_s == pytest.approx(49 * 0.04, abs=0.7)
        assert all(frame.ready_s - frame.captured_s < 0.7 for frame in frames)
    assert run.opened == [("h264", 160, 120)]
    assert {frame.stream for frame in frames} == {1}


def test_source_whose_frames_are_refused_ends(clip: Path) -> None:
    """As when the daemon stops: a looping file would be opened again and again."""
    run = SourceRun(clip, pace="fast", loop=True, limit=3).checked()
    assert len(run.frames) == 3


# Sampling


def test_sampler_takes_five_a_second_and_only_those_are_scaled(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scaled = 0

    class Counting(Scaler):
        def scale(self, frame: av.VideoFrame, turn: Turn, canvas: Canvas, slot: Image) -> None:
            nonlocal scaled
            scaled += 1
            super().scale(frame, turn, canvas, slot)

    monkeypatch.setattr("visaged.pipelines.source.reading.Scaler", Counting)
    run = play(clip, fps=5.0)
    assert len(run.frames) == scaled == 25
    assert run.received == 125
    positions = [frame.position_s for frame in run.frames]
    assert positions == pytest.approx([index / 5 for index in range(25)], abs=0.001)


def test_variable_rate_is_sampled_by_time(tmp_path: Path) -> None:
    path = media.write_variable_rate(tmp_path / "variable.mp4", size=(160, 120))
    positions = [frame.position_s or 0.0 for frame in play(path, fps=5.0).frames]
    steps = [b - a for a, b in itertools.pairwise(positions)]
    assert min(steps) > 0.1
    assert len(positions) == pytest.approx(3.0 * 5 - 3, abs=2), "3 s at 5 fps, less a pause of 0.8 s"
    assert len(play(path).frames) == 37


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("fps", [2.0, 5.0, 10.0, 12.0])
def test_skipping_pictures_that_nobody_needs_changes_nothing(
    media_dir: Path, fps: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = media_dir / "b-frames.mp4"
    if not path.exists():
        media.write_video(path, size=(320, 180), seconds=5, b_frames=3)
    run = play(path, fps=fps, decoder_threads=threads)
    if threads == 1 and fps < 12:
        assert run.received < 125, "some were not even decoded"
    with monkeypatch.context() as patch:
        patch.setattr("visaged.pipelines.source.reading.Sampler.certainly_not", lambda *_: False)
        plain = play(path, fps=fps, decoder_threads=threads)
    assert plain.received == 125
    assert [f.position_s for f in run.frames] == [f.position_s for f in plain.frames]
    truth = {frame.time: frame for frame in decoded(path)}
    for frame in run.frames:
        expected = VideoSurface(truth[frame.position_s]).region(0, 0, 320, 180)
        assert np.array_equal(frame.surface.region(0, 0, 320, 180), expected)


# Traps


def test_hardware_decoder_that_is_not_there(clip: Path, caplog: pytest.LogCaptureFixture) -> None:
    for hardware in ("cuda", "vaapi"):
        if hardware == "cuda" and not NVIDIA_GPU.missing():
            continue
        caplog.clear()
        with SourceRun(clip, hardware=hardware, loop=True, pace="fast") as run:
            run.wait_for_frames(260)  # in its third round
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) == 1, warnings
        assert hardware in warnings[0]
        assert "in software" in warnings[0]


def test_canvases_are_used_again(clip: Path) -> None:
    seen: list[int] = []

    def look(frame: Frame) -> None:
        seen.append(id(frame.image))
        frame.release()

    play_and_release = SourceRun(clip, pace="fast", on_frame=look).checked()
    assert len(play_and_release.frames) == 125
    assert len(set(seen)) == 1
    pool = CanvasPool(play_and_release.frames[0].canvas)
    first, second = pool.take(), pool.take()
    assert first is not second
    pool.give(first)
    assert pool.take() is first


def test_frames_that_are_held_do_not_hold_scalers(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "clip.mp4", size=(640, 360), seconds=6)
    script = """
import sys
from tests.support.sources import SourceRun, resident_bytes
before = 0
def look(frame):
    global before
    if len(run.frames) == 10:
        before = resident_bytes()
run = SourceRun(sys.argv[1], pace="fast", limit=130, on_frame=look)
run.checked()
print((resident_bytes() - before) // 2**20)
"""
    # 120 pictures of 640 x 360 and canvases of 320 x 192 are 62 MB; with a scaler each it was 98.
    assert int(run_script(script, str(path))) < 80


def run_script(script: str, *arguments: str, timeout_s: float = 90.0) -> str:
    """Run Python code in a process of its own, which must end well; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True, text=True, timeout=timeout_s, check=False, cwd=HERE,
    )  # fmt: skip
    assert done.returncode == 0, f"status {done.returncode}\n{done.stderr}"
    return done.stdout


def test_whatever_the_library_raises_is_a_failure_of_the_source(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for raised in (
        ValueError("rtsp://janitor:hunter2@10.0.0.1/x"), MemoryError(), RuntimeError("Clock has been changed"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ):  # fmt: skip

        def fail(*_: object, raised: Exception = raised, **__: object) -> None:
            raise raised

        with monkeypatch.context() as patch:
            patch.setattr("visaged.pipelines.source.opening.opener.av.open", fail)
            error = failure_of(clip)
        assert error.cause == "other"
        assert type(raised).__name__ in str(error)
        assert "hunter2" not in str(error)

        class Broken:
            scale = fail

        with monkeypatch.context() as patch:
            patch.setattr("visaged.pipelines.source.reading.Scaler", Broken)
            assert failure_of(clip).cause == "other"


def test_what_our_own_code_raises_is_a_bug_and_let_through(clip: Path) -> None:
    for raised in (ValueError("a bug"), OSError("a bug"), av.error.InvalidDataError(1, "a bug")):

        def fail(frame: Frame, raised: Exception = raised) -> None:
            raise raised

        run = SourceRun(clip, pace="fast", on_frame=fail).start().finish()
        assert run.error is raised
        assert not isinstance(run.error, SourceError)


def test_one_bad_packet_does_not_end_a_stream(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = SourceRun(clip, pace="fast")
    raised: Iterator[Exception] = iter([ValueError("odd"), MemoryError(), av.error.InvalidDataError(1, "bad")])
    count = itertools.count()
    decode = Decoding.decode

    def sometimes(self: Decoding, *arguments: Any) -> list[av.VideoFrame]:
        if next(count) in (30, 60, 90):
            raise next(raised)
        return decode(self, *arguments)

    monkeypatch.setattr(Decoding, "decode", sometimes)
    run.checked()
    assert run.damaged >= 3
    assert len(run.frames) >= 100


def test_connections_do_not_pile_up(clip: Path) -> None:
    before = (len(os.listdir("/proc/self/fd")), threading.active_count())
    for _ in range(20):
        with SourceRun(clip, pace="fast", decoder_threads=2) as run:
            run.wait_for_frames(3)
    assert len(os.listdir("/proc/self/fd")) <= before[0]
    assert threading.active_count() <= before[1]
