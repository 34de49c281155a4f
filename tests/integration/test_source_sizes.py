"""Cameras that send pictures too large to decode: refused with their size, and before they take memory."""

from __future__ import annotations

import http.server
import re
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.integration.test_source_jpegs import MIXED, picture
from tests.support import media
from tests.support.odd_servers import begin, http_server
from tests.support.sources import PATIENCE_S, SourceRun, failure_of, resident_bytes


def claiming(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header names another size."""
    found = re.search(rb"\xff\xc0\x00.\x08", data)
    assert found is not None
    return data[: found.end()] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[found.end() + 4 :]


HUGE = claiming(picture(1), 16_000, 16_000)


@pytest.mark.parametrize("kind", ["snapshot", "stream", "grows"])
def test_jpegs_of_256_megapixels(kind: str) -> None:
    def camera(handler: http.server.BaseHTTPRequestHandler) -> None:
        if kind == "snapshot":
            begin(handler, "image/jpeg")
            handler.wfile.write(HUGE)
            return
        begin(handler, MIXED + "next")
        for data in [picture(1)] * (5 if kind == "grows" else 0) + [HUGE] * 20:
            handler.wfile.write(b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data))
            handler.wfile.write(data + b"\r\n")

    before = resident_bytes()
    with http_server(camera) as url:
        error = failure_of(f"{url}/live?password=geheim")
    assert error.cause == "too_large"
    assert "sends pictures of 16000 x 16000 pixels, 256 megapixels; at most 40 are taken" in str(error)
    assert "max_megapixels" in str(error)
    assert "geheim" not in str(error)
    assert resident_bytes() - before < 100e6


def write(path: Path, codec: str) -> Path:
    if codec == "libx264":
        return media.write_video(path, size=(640, 360), seconds=1.0)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = 640, 360
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for image in media.pictures(640, 360, 25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.ts", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mjpeg"), ("a.h264", "libx264")],
)  # fmt: skip
def test_containers_and_codecs(tmp_path: Path, name: str, codec: str) -> None:
    path = write(tmp_path / name, codec)
    error = failure_of(path, max_megapixels=0.2)
    assert error.cause == "too_large"
    assert "640 x 360 pixels" in str(error)
    assert len(SourceRun(path, max_megapixels=0.25).checked().frames) == 25


def test_a_codec_whose_size_is_not_known(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", "libvpx-vp9")
    error = failure_of(path, max_megapixels=0.2)
    assert "no picture that can be decoded; its pictures may have more than 0.2 megapixels (max_megapixels)" in str(
        error
    )
    assert len(SourceRun(path, max_megapixels=0.25).checked().frames) == 25


@pytest.mark.parametrize("kind", [".png", ".bmp", ".webp"])
def test_other_snapshots(kind: str) -> None:
    def camera(handler: http.server.BaseHTTPRequestHandler) -> None:
        begin(handler, "application/octet-stream")
        handler.wfile.write(picture(1, (640, 360), kind))

    with http_server(camera) as url:
        error = failure_of(f"{url}/snapshot", max_megapixels=0.2)
        assert (error.cause, "640 x 360 pixels" in str(error)) == ("too_large", True)


def test_a_stream_that_grows(tmp_path: Path) -> None:
    small = media.write_video(tmp_path / "small.ts", size=(320, 180), seconds=1.0)
    large = media.write_video(tmp_path / "large.ts", size=(1280, 720), times=[1 + index / 25 for index in range(25)])
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    run = SourceRun(both, max_megapixels=0.5).start()
    error = run.failure()
    assert error.cause == "too_large"
    assert "1280 x 720" in str(error)
    assert len(run.frames) >= 20


def test_one_picture_file(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    path.write_bytes(HUGE)
    assert failure_of(path, timeout_s=PATIENCE_S).cause == "too_large"
    cv2.imwrite(str(path), np.zeros((4320, 7680, 3), np.uint8))
    assert SourceRun(path).checked().opened == [("mjpeg", 7680, 4320)]
