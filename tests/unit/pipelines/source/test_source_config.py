"""What a camera's URL says, and which are refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from visaged.pipelines.source.video import SourceConfig


def config(url: str, **more: object) -> SourceConfig:
    return SourceConfig.model_validate({"url": url, **more})


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("video.mp4", "video.mp4"),
        ("/srv/my videos/a b.mp4", "/srv/my videos/a b.mp4"),
        ("./rec:1.mp4", "./rec:1.mp4"),
        ("C:\\videos\\a.mp4", "C:\\videos\\a.mp4"),
        ("d:/videos/a.mp4", "d:/videos/a.mp4"),
        ("file:///srv/a%20b.mp4", "/srv/a b.mp4"),
        ("FILE:///srv/a.mp4", "/srv/a.mp4"),
        ("file:///srv/a%23b.mp4", "/srv/a#b.mp4"),
    ],
)
def test_files(url: str, path: str) -> None:
    c = config(url)
    assert c.is_file
    assert c.device is None
    assert c.path == Path(path)
    assert not c.live


@pytest.mark.parametrize(
    "url",
    ["rtsp://cam", "rtsp://u:p@cam:554/ch1?x=1", "RTSPS://cam/1", "http://cam/mjpeg", "https://[fe80::1]:8443/x",
     "rtmp://h/app", "srt://h:9000", "udp://239.0.0.1:1234", "rtp://h:5004"],
)  # fmt: skip
def test_streams_are_live(url: str) -> None:
    c = config(url)
    assert c.live
    assert not c.is_file
    assert c.device is None


@pytest.mark.parametrize(
    ("url", "device"),
    [
        ("v4l2:/dev/video2", ("v4l2", "/dev/video2")),
        ("avfoundation:FaceTime HD Camera", ("avfoundation", "FaceTime HD Camera")),
        ("dshow:Integrated Camera", ("dshow", "video=Integrated Camera")),
        ("v4l2:///dev/video0", ("v4l2", "/dev/video0")),
    ],
)
def test_usb_cameras_are_live(url: str, device: tuple[str, str]) -> None:
    c = config(url)
    assert c.device == device
    assert c.live
    assert not c.is_file


def test_a_device_file_is_a_camera_on_linux_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert config("/dev/video0").device == ("v4l2", "/dev/video0")
    assert config("/dev/video0").live
    monkeypatch.setattr(sys, "platform", "darwin")
    assert config("/dev/video0").device is None
    assert config("/dev/video0").is_file


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("concat:a.mp4|b.mp4", "scheme 'concat' is not supported"),
        ("ftp://host/a.mp4", "scheme 'ftp' is not supported"),
        ("lavfi:testsrc", "scheme 'lavfi' is not supported"),
        ("subfile,,start,0:a", None),  # no scheme, so a file's name
        ("pipe:0", "scheme 'pipe' is not supported"),
        ("data:text/plain,hello", "scheme 'data' is not supported"),
        ("rtsp://", "names no host"),
        ("rtsp:///ch1", "names no host"),
        ("rtsp:cam/ch1", "names no host"),
        ("rtsp://:554/ch1", "names no host"),
        ("rtsp://cam:port/ch1", "is not a valid URL"),
        ("rtsp://cam:99999/ch1", "is not a valid URL"),
        ("rtsp://[fe80::1/ch1", "is not a valid URL"),
    ],
)
def test_what_is_refused(url: str, said: str | None) -> None:
    if said is None:
        assert config(url).is_file
        return
    with pytest.raises(ValidationError) as caught:
        config(url)
    (error,) = caught.value.errors()
    assert error["loc"] == ("url",)
    assert said in error["msg"]


@pytest.mark.parametrize(
    "url", ["rtsp://admin:geheim#1@cam/ch1", "rtsp://admin:geheim/1@cam", "rtsp://admin:geheim?@cam"]
)
def test_a_refusal_does_not_tell_the_password(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(url)
    assert "geheim" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("more", "live"),
    [
        ({}, False),
        ({"loop": True}, True),
        ({"loop": True, "pace": "fast"}, False),
        ({"pace": "fast"}, False),
    ],
)
def test_a_file_that_loops_at_its_own_speed_counts_as_live(more: dict[str, object], live: bool) -> None:
    assert config("a.mp4", **more).live is live
    assert config("rtsp://cam", **more).live


@pytest.mark.parametrize(
    ("key", "value"),
    [("fps", 0), ("fps", -1), ("fps", 500), ("open_timeout_s", 0), ("read_timeout_s", 1e9), ("transport", "http"),
     ("decoder_threads", 0), ("hardware", "magic"), ("pace", "slow"), ("frames", 5)],
)  # fmt: skip
def test_values_out_of_range_and_unknown_keys_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        config("a.mp4", **{key: value})
    assert caught.value.errors()[0]["loc"] == (key,)


def test_it_cannot_be_changed_afterwards() -> None:
    c = config("a.mp4", fps=None)
    assert c.fps is None
    with pytest.raises(ValidationError):
        c.fps = 3  # type: ignore[misc]
