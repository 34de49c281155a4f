"""The verdict on cameras as they were recorded: a good one, with one thing after another made wrong."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from rich.console import Console

from visaged.daemon.doctor.failures import Case, failure_of
from visaged.daemon.doctor.judging import Setting, findings, verdict
from visaged.daemon.doctor.looking import estimate
from visaged.daemon.doctor.report import (
    Arrival,
    Bits,
    CameraTime,
    Cost,
    Damage,
    Faces,
    Facts,
    Frames,
    Light,
    Reach,
    Report,
    Stamps,
    Stream,
)
from visaged.daemon.doctor.telling import tell
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.errors import SourceError

# As seen on the test camera's mount /normal.
GOOD = Facts(
    looked_s=15.0,
    reach=Reach(connect_ms=1.2, open_ms=1080, first_packet_ms=1081, first_picture_ms=1085),
    stream=Stream(
        kind="live",
        transport="RTSP over TCP",
        container="rtsp",
        codec="h264",
        profile="High",
        level="3.1",
        width=1280,
        height=720,
        pixel_aspect=1.0,
        sizes=1,
        pixel_format="yuv420p",
        full_range=False,
    ),
    frames=Frames(
        packets=376,
        true_fps=25.0,
        promised_fps=25.0,
        key_frames=8,
        key_interval_min_s=0.9,
        key_interval_median_s=2.0,
        key_interval_max_s=2.0,
    ),
    bits=Bits(mean_kbit_s=699, peak_kbit_s=926, largest_frame_kbyte=52),
    arrival=Arrival(jitter_p95_ms=4, longest_gap_ms=56, waiting_share=0.9),
    damage=Damage(lost_rtp_packets=0),
    stamps=Stamps(longest_step_ms=40, rate=1.0),
    camera_time=CameraTime(is_sent=True, behind_ms=41, is_plausible=True),
    cost=Cost(
        decode_ms=1.9,
        read_ms_per_s=82,
        detect_ms=10.9,
        detector="detector-v4",
        provider="cpu",
        cores=2,
        fps=5,
        cameras=9,
        computed="so",
    ),
    faces=Faces(
        searched=72,
        with_faces=60,
        height_min_px=56,
        height_median_px=140,
        height_max_px=218,
        compared=9,
        compared_faces=9,
        blur=0.14,
    ),
    light=Light(mean_percent=59, dark_percent=4, bright_percent=2),
)


def changed(**parts: dict[str, Any]) -> Facts:
    """The good camera with some values of its parts changed."""
    update: dict[str, Any] = {}
    for name, values in parts.items():
        part: BaseModel = getattr(GOOD, name)
        assert set(values) <= set(type(part).model_fields)
        update[name] = part.model_copy(update=values)
    return GOOD.model_copy(update=update)


def test_a_good_camera_has_nothing_to_change() -> None:
    assert findings(GOOD, Setting()) == []
    assert verdict(GOOD, [], None) == "good"


LONG_GOP = {"key_interval_median_s": 10.0}
ONE_KEY = {"key_frames": 1, "key_interval_median_s": None, "key_interval_at_least_s": 14.0}
NO_KEY = {"key_frames": 0, "key_interval_median_s": None}


@pytest.mark.parametrize(
    ("facts", "key", "severity", "advice"),
    [
        (changed(frames=LONG_GOP), "key_interval", "advice", "one or two seconds"),
        (changed(frames=ONE_KEY), "key_interval", "advice", "one or two seconds"),
        (changed(frames={"true_fps": 12.0}), "frame_rate", "advice", "exposure"),
        (changed(frames={"true_fps": 3.0, "promised_fps": 3.0}), "frame_rate", "advice", "lower fps"),
        (changed(cost={"read_ms_per_s": 300.0}), "frame_rate", "advice", "10 to 15"),
        (changed(arrival={"jitter_p95_ms": 407.0}), "bursts", "advice", "network"),
        (changed(arrival={"longest_gap_ms": 3000.0}), "gap", "advice", "wireless"),
        (changed(arrival={"longest_gap_ms": 8000.0}), "gap", "fault", "wireless"),
        (changed(arrival={"waiting_share": 0.01}), "too_slow", "fault", "smaller stream"),
        (changed(cost={"cameras": 0}), "too_slow", "fault", "smaller stream"),
        (changed(damage={"lost_rtp_packets": 3}), "damage", "advice", "cable"),
        (changed(damage={"damaged_packets": 1}), "damage", "advice", "cable"),
        (changed(damage={"corrupt_frames": 81}), "damage", "fault", "cable"),
        (changed(stamps={"rate": 0.84}), "stamps", "advice", "frame rate"),
        (changed(stamps={"jumps": 2, "steps_back": 1}), "stamps", "advice", "firmware"),
        (changed(camera_time={"behind_ms": -3600e3, "is_plausible": False}), "clock", "advice", "NTP"),
        (changed(stream={"width": 3840, "height": 2160}, faces={"height_min_px": 300.0}), "size", "advice", "smaller"),
        (changed(stream={"width": 320, "height": 180}, faces={"height_median_px": 30.0}), "size", "advice", "larger"),
        (changed(stream={"interlaced": True}), "interlaced", "advice", "progressive"),
        (changed(stream={"sizes": 3}), "sizes", "advice", "one size"),
        (changed(faces={"compared_faces": 20, "missed_small": 8}), "small_faces", "advice", "long_side: 1280"),
        (changed(faces={"compared_faces": 9, "missed_large": 5}), "close_up", "advice", "close_up: true"),
        (changed(faces={"height_median_px": 14.0}), "small_faces", "advice", "closer"),
        (changed(light={"mean_percent": 3.0}), "dark", "advice", "exposure"),
        (changed(light={"bright_percent": 55.0}), "bright", "advice", "exposure"),
        (changed(faces={"blur": 0.75}), "blur", "advice", "focus"),
    ],
)  # fmt: skip
def test_one_thing_that_is_wrong_is_named_with_what_to_do(facts: Facts, key: str, severity: str, advice: str) -> None:
    (found,) = findings(facts, Setting())
    assert (found.key, found.severity) == (key, severity)
    assert advice in found.advice
    assert verdict(facts, [found], None) == ("unusable" if severity == "fault" else "usable")


def test_without_a_key_frame_there_is_no_picture() -> None:
    nothing = GOOD.model_copy(update={"faces": Faces(), "light": Light(), "reach": Reach(open_ms=900)})
    silent = nothing.model_copy(update={"frames": Frames(packets=0)})
    keyless = nothing.model_copy(update={"frames": GOOD.frames.model_copy(update=NO_KEY)})
    assert [found.key for found in findings(silent, Setting()) if found.severity == "fault"] == ["no_picture"]
    assert [found.key for found in findings(keyless, Setting()) if found.severity == "fault"] == ["no_key_frame"]


def test_a_still_picture_is_no_camera() -> None:
    still = GOOD.model_copy(
        update={
            "stream": GOOD.stream and GOOD.stream.model_copy(update={"kind": "recording"}),
            "frames": Frames(packets=1),
        }
    )
    assert "POST /v1/faces" in findings(still, Setting())[0].advice


def test_what_is_lost_by_udp_is_sent_again_by_tcp() -> None:
    (found,) = findings(changed(damage={"lost_rtp_packets": 3}), Setting(is_udp=True))
    assert "transport: tcp" in found.advice


def test_a_stall_is_not_told_as_bursts_too() -> None:
    facts = changed(arrival={"longest_gap_ms": 3000.0, "jitter_p95_ms": 3000.0})
    assert [found.key for found in findings(facts, Setting())] == ["gap"]


def test_a_large_stream_with_small_faces_is_needed() -> None:
    facts = changed(stream={"width": 3840, "height": 2160}, faces={"height_min_px": 40.0})
    assert findings(facts, Setting()) == []


def test_how_many_cameras_are_carried() -> None:
    cost = Cost(read_ms_per_s=75.0, detect_ms=11.0, cores=2, fps=5.0)
    assert estimate(cost, on_gpu=False).cameras == int(0.68 * 2000 / (75 + 55))
    assert estimate(cost, on_gpu=True).cameras == int(0.68 * 1000 / 55)  # the GPU is what is full first


@pytest.mark.parametrize(
    ("url", "cause", "text", "known", "advice"),
    [
        ("rtsp://h/a", "unauthorized", "refused the user or password (401)", {}, "rtsp://user:password@host"),
        ("http://h/a", "unauthorized", "refused the user or password (401)", {}, "http://user:password@host"),
        ("rtsp://h/a", "unauthorized", "refused the user or password (401)", {"has_login": True}, "check user and"),
        ("rtsp://h/a", "not_found", "has no such stream (404)", {}, "/Streaming/Channels/101"),
        ("http://h/a", "not_found", "has no such stream (404)", {}, "MJPEG"),
        ("rtsp://h/a", "refused", "refused the connection: nothing listens at this port", {}, "554"),
        ("rtsp://h/a", "timeout", "did not answer in time", {}, "ping"),
        ("rtsp://h/a", "timeout", "did not answer in time", {"was_connected": True}, "says nothing"),
        ("rtsp://h/a", "timeout", "stopped sending: x", {"was_connected": True, "was_open": True}, "power"),
        ("https://h/a", "certificate", "has a certificate", {}, "openssl"),
        ("http://h/", "invalid", "is a web page, not a video or a picture", {}, "browser"),
        ("rtsp://h/a", "invalid", "h: no decoder for its video", {}, "H.264"),
        ("rtsp://h/a", "invalid", "has no video", {}, "sound"),
        ("/none.mp4", "not_found", "does not exist", {}, "path"),
        ("/dev/video9", "not_found", "does not exist", {}, "v4l2-ctl"),
        ("/dev/video0", "device", "may not be opened: permission denied", {}, "usermod"),
        ("rtsp://h/a", "other", "failed", {}, "another player"),
    ],
)
def test_every_failure_has_a_next_step(url: str, cause: str, text: str, known: dict[str, bool], advice: str) -> None:
    facts = {"has_login": False, "was_connected": False, "was_open": False} | known
    case = Case(SourceError(cause, text), SourceConfig(url=url), **facts)
    assert advice in failure_of(case).advice


@pytest.mark.parametrize("facts", [GOOD, changed(damage={"corrupt_frames": 81}, arrival={"jitter_p95_ms": 407.0})])
def test_the_text_fits_a_screen_and_a_half(facts: Facts) -> None:
    found = findings(facts, Setting())
    report = Report(
        **dict(facts), visaged="1", camera="rtsp://h/a", verdict=verdict(facts, found, None), findings=found
    )
    console = Console(width=100)
    with console.capture() as captured:
        console.print(tell(report))
    text = captured.get()
    assert len(text.splitlines()) <= 36
    assert "25.0 a second; promised are 25" in text
    assert "carries about 9 such cameras" in text
