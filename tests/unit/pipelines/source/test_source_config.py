"""What a camera's URL says, and which are refused."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import pytest
from pydantic import ValidationError

from visaged.pipelines.source.address import has_protocol
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
    assert c.address.path == Path(path)
    assert not c.live


@pytest.mark.parametrize(
    "url",
    ["rtsp://cam", "rtsp://u:p@cam:554/ch1?x=1", "RTSPS://cam/1", "http://cam/mjpeg", "https://[fe80::1]:8443/x",
     "rtmp://h/app", "udp://239.0.0.1:1234", "udp://@:1234", "udp://:1234", "rtp://h:5004", "tcp://h:8000"],
)  # fmt: skip
def test_streams_are_live(url: str) -> None:
    c = config(url)
    assert c.live
    assert c.address.kind == "stream"


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
    assert c.address.kind == "device"
    assert (c.address.format, c.address.target) == device
    assert c.live
    assert not c.is_file


def test_a_device_file_is_a_camera_on_linux_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert (config("/dev/video0").address.format, config("/dev/video0").address.target) == ("v4l2", "/dev/video0")
    assert config("/dev/video0").live
    monkeypatch.setattr(sys, "platform", "darwin")
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
        ("nowhere:1.mp4", "there is no file of that name"),
        ("udp://239.0.0.1", "names no port"),
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


def test_schemes_are_those_of_the_installed_ffmpeg() -> None:
    """PyAV's wheels have no SRT, other builds do."""
    if has_protocol("srt"):
        assert config("srt://h:9000").live
    else:
        with pytest.raises(ValidationError) as caught:
            config("srt://h:9000")
        text = caught.value.errors()[0]["msg"]
        assert "srt:// cannot be opened by the FFmpeg in this PyAV" in text
        assert "possible are rtsp, " in text
        assert "rtsp://" in text, "what to do instead"
    assert has_protocol("rtsp")
    assert not has_protocol("nosuchthing")


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("RTSP://Cam/Ch1?X=1", "rtsp://Cam/Ch1?X=1"),
        ("Rtsps://cam", "rtsps://cam"),
        ("HTTP://cam/Live.MJPG", "http://cam/Live.MJPG"),
        ("  rtsp://cam/1\n", "rtsp://cam/1"),
        ("V4L2:/dev/video2", "/dev/video2"),
    ],
)
def test_schemes_in_capitals_and_blanks_at_the_ends(url: str, target: str) -> None:
    assert config(url).address.target == target


@pytest.mark.parametrize(
    "name",
    ["2026-11-26T09:30:00.mp4", "cam:1.mp4", "rtsp:1.mp4", "http:a.mp4", "50%.mp4", "a%20b.mp4", "a b.mp4", " a.mp4 ",
     "what?.mp4", "a#1.mp4", "file:x.mp4", "v4l2:x.mp4", "data:x,y.mp4", "a=b.mp4", "[1].mp4", "f%03d.jpg", "ä.mp4"],
)  # fmt: skip
def test_a_file_that_exists_is_a_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    whole = f"{tmp_path}/{name}"
    urls = [name, f"./{name}", whole, *(f"file:{form}" for form in (name, whole, f"//{whole}", f"//localhost{whole}"))]
    for url in (*urls, (tmp_path / name).as_uri()):
        c = config(url)
        assert c.is_file, url
        assert c.address.path is not None
        assert c.address.path.samefile(name), url
        assert c.address.missing() is None
    one = config(name)
    Path(name).unlink()
    assert one.is_file, "it went away, and is a file that is missing"
    assert "does not exist" in (one.address.missing() or "")


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


@pytest.mark.parametrize(
    ("option", "key"),
    [("tls_verify", "tls.verify"), ("ca_file", "tls.ca_file"), ("cafile", "tls.ca_file"), ("verifyhost", "tls.verify")],
)
def test_options_do_not_switch_off_what_keys_stand_for(option: str, key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config("https://cam/1", options={option: "0"})
    assert f"{option} cannot be set here; use the camera's key {key}" in str(caught.value)


def test_it_cannot_be_changed_afterwards() -> None:
    c = config("a.mp4", fps=None)
    assert c.fps is None
    with pytest.raises(ValidationError):
        c.fps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("aspect", "shape"),
    [("16:9", Fraction(16, 9)), (" 4 : 3", Fraction(4, 3)), ("1.85:1", Fraction(37, 20)), ("9:16", Fraction(9, 16))],
)
def test_the_shape_of_the_whole_picture(aspect: str, shape: Fraction) -> None:
    assert config("a.mp4", aspect=aspect).display_aspect == shape
    assert config("a.mp4").display_aspect is None


@pytest.mark.parametrize(
    ("aspect", "said"),
    [
        (969, 'put it in quotes: "16:9"'),  # what YAML makes of 16:9
        (243, 'put it in quotes: "4:3"'),
        (2, "put it in quotes"),
        (True, "is a boolean"),
        ("16/9", "width and height as in"),
        ("16:0", "width and height as in"),
        ("0:9", "width and height as in"),
        ("-16:9", "width and height as in"),
        ("100:1", "width and height as in"),
        ("wide", "width and height as in"),
        ("", "width and height as in"),
    ],
)
def test_what_is_no_shape_of_a_picture(aspect: object, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config("a.mp4", aspect=aspect)
    (error,) = caught.value.errors()
    assert error["loc"] == ("aspect",)
    assert said in error["msg"]


@pytest.mark.parametrize("rotate", [45, -90, 360, "90", 1.5])
def test_only_quarters_are_turned(rotate: object) -> None:
    with pytest.raises(ValidationError):
        config("a.mp4", rotate=rotate)
    assert config("a.mp4", rotate=270).rotate == 270


@pytest.mark.parametrize("host", ["", "http://a", "a/b", "u:p@a", "a b", "a:", "a:123456", "*.a", "fe80::1"])
def test_what_is_no_other_host(host: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config("http://cam/1", other_hosts=[host])
    assert "is not a host; give a name or an address" in str(caught.value)
    good = ["CDN.example.com", "a:8080", "[FE80::1]:80", "192.0.2.1"]
    assert config("http://cam/1", other_hosts=good).other_hosts == [text.lower() for text in good]
