"""`visaged doctor` at real cameras: good ones, damaged ones, and what is none."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from tests.support.odd_servers import answers, begin, full_listener, http_server, tcp_server
from tests.support.rtsp import PASSWORD, USER, RtspServer
from tests.support.ts_camera import ts_camera
from tests.support.waiting import until
from visaged.daemon.cli.main import app

VISAGED = Path(sys.executable).with_name("visaged")
DEMO = Path(__file__).parents[2] / "daemon" / "demo" / "demo.mp4"
HIDDEN = "s3cr3t"

Doctor = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(CliRunner().invoke(app, ["schema", "doctor"]).stdout)
    return document


@pytest.fixture
def doctor(schema: dict[str, Any]) -> Doctor:
    """Runs the command within this process; returns its exit code and its document, which is as its schema says."""

    def run(*arguments: object, seconds: float = 2.0, **environment: str) -> tuple[int, dict[str, Any]]:
        words = ["doctor", "--json", "--seconds", str(seconds), *map(str, arguments)]
        done = CliRunner(env=environment).invoke(app, words)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        document = json.loads(done.stdout)
        jsonschema.validate(document, schema)
        return done.exit_code, document

    return run


@pytest.mark.timed
def test_a_good_camera(rtsp_server: RtspServer, doctor: Doctor) -> None:
    code, report = doctor(rtsp_server.url("/normal"), seconds=4)
    assert report["camera"] == rtsp_server.url("/normal")
    assert report["stream"]["transport"] == "RTSP over TCP"
    assert (report["stream"]["codec"], report["stream"]["profile"]) == ("h264", "High")
    assert (report["stream"]["width"], report["stream"]["height"]) == (1280, 720)
    assert report["frames"]["true_fps"] == pytest.approx(25, abs=1.5)
    assert report["frames"]["promised_fps"] == 25
    assert report["frames"]["key_interval_max_s"] == pytest.approx(2.0, abs=0.2)
    assert report["damage"] == {"damaged_packets": 0, "corrupt_frames": 0, "lost_rtp_packets": 0}
    assert report["camera_time"]["is_plausible"] is True
    assert report["faces"]["with_faces"] > 0
    assert report["cost"]["decode_ms"] > 0
    assert report["failure"] is None
    keys = {finding["key"] for finding in report["findings"]}
    assert keys <= {"bursts", "frame_rate", "too_slow"}  # what a busy machine brings about
    assert keys or (code, report["verdict"]) == (0, "good")


def test_damage_is_seen(rtsp_server: RtspServer, doctor: Doctor) -> None:
    code, report = doctor(rtsp_server.url("/corrupt"), seconds=2)
    assert (code, report["verdict"]) == (6, "unusable")
    assert report["damage"]["corrupt_frames"] + report["damage"]["damaged_packets"] > 5
    assert report["findings"][0]["key"] == "damage"


@pytest.mark.timed
def test_bursts_are_seen(rtsp_server: RtspServer, doctor: Doctor) -> None:
    code, report = doctor(rtsp_server.url("/burst"), seconds=4)
    assert code == 5
    assert "bursts" in {finding["key"] for finding in report["findings"]}
    assert report["arrival"]["jitter_p95_ms"] > 200


def test_logins_come_from_the_configuration_and_are_not_shown(
    rtsp_server: RtspServer, doctor: Doctor, tmp_path: Path
) -> None:
    camera = {"name": "door", "url": rtsp_server.url("/auth"), "username": USER, "password": PASSWORD, "fps": 2}
    config = tmp_path / "visaged.yaml"
    config.write_text(yaml.safe_dump({"cameras": [camera], "state_dir": str(tmp_path / "state")}))
    code, report = doctor("--config", config, "door", seconds=1.5)
    assert code in (0, 5)
    assert report["cost"]["fps"] == 2
    assert not (tmp_path / "state").exists()
    refused = CliRunner().invoke(app, ["doctor", "--config", str(config), "gate"])
    assert (refused.exit_code, "it has door" in refused.stderr) == (2, True)


def test_a_wrong_password_and_none(rtsp_server: RtspServer, doctor: Doctor) -> None:
    url = rtsp_server.url("/auth", user=USER, password=HIDDEN)
    code, report = doctor("env:CAMERA_URL", CAMERA_URL=url)
    assert (code, report["failure"]["cause"]) == (6, "unauthorized")
    assert "check user and password" in report["failure"]["advice"]
    assert HIDDEN not in json.dumps(report)
    code, report = doctor(rtsp_server.url("/auth"))
    assert (code, report["stream"]) == (6, None)
    assert "asks for a login" in report["failure"]["advice"]


def test_a_wrong_path_and_one_without_video(rtsp_server: RtspServer, doctor: Doctor) -> None:
    code, report = doctor(rtsp_server.url("/nothing"))
    assert (code, report["failure"]["cause"]) == (6, "not_found")
    code, report = doctor(rtsp_server.url("/audio-only"))
    assert code == 6
    assert "sound" in report["failure"]["advice"]


def test_what_does_not_answer(doctor: Doctor, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert "nothing listens" in doctor(f"rtsp://127.0.0.1:{unused.getsockname()[1]}/a")[1]["failure"]["advice"]

    def patient(port: int) -> dict[str, Any]:
        config = tmp_path / "visaged.yaml"
        camera = {"name": "door", "url": f"rtsp://127.0.0.1:{port}/a", "open_timeout_s": 0.5, "read_timeout_s": 0.5}
        config.write_text(yaml.safe_dump({"cameras": [camera]}))
        failure: dict[str, Any] = doctor("--config", config, "door")[1]["failure"]
        return failure

    with full_listener() as port:
        assert "ping" in patient(port)["advice"]
    with tcp_server(lambda connection, stopping: stopping.wait(60.0) and None) as port:
        silent = patient(port)
        assert silent["cause"] == "timeout"
        assert "then says nothing" in silent["advice"]


def test_what_is_no_camera(doctor: Doctor, tmp_path: Path) -> None:
    with tcp_server(answers(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        assert "another service" in doctor(f"rtsp://127.0.0.1:{port}/a")[1]["failure"]["advice"]

    def page(handler: Any) -> None:
        begin(handler, "text/html")
        handler.wfile.write(b"<!DOCTYPE html>\n<html><body>Log in</body></html>" * 50)

    with http_server(page) as url:
        assert "is a web page" in doctor(url + "/")[1]["failure"]["text"]
    text = tmp_path / "notes.txt"
    text.write_text("not a video\n" * 100)
    assert doctor(text)[1]["failure"]["cause"] == "invalid"
    assert "check the path" in doctor(tmp_path / "none.mp4")[1]["failure"]["advice"]
    assert "plug it in" in doctor("/dev/video99")[1]["failure"]["advice"]


def test_a_recording_is_read_as_fast_as_it_can_be(doctor: Doctor) -> None:
    code, report = doctor(DEMO, seconds=6)
    assert (code, report["stream"]["kind"]) == (0, "recording")
    assert report["frames"]["true_fps"] == pytest.approx(25, abs=0.1)
    assert report["arrival"]["jitter_p95_ms"] is None


@pytest.mark.timed
def test_stamps_that_run_at_a_wrong_rate(doctor: Doctor) -> None:
    with ts_camera(DEMO, factor=0.84) as url:
        code, report = doctor(url, seconds=8)
    assert code == 5
    assert report["stamps"]["rate"] == pytest.approx(0.84, abs=0.03)
    assert "stamps" in {finding["key"] for finding in report["findings"]}


def test_ctrl_c_ends_with_what_is_known(rtsp_server: RtspServer) -> None:
    before = rtsp_server.stats().pictures["/normal"]
    command = [VISAGED, "doctor", rtsp_server.url("/normal"), "--seconds", "600"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"NO_COLOR": "1"}
    )
    until(lambda: rtsp_server.stats().pictures["/normal"] >= before + 60 or process.poll() is not None, 20)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode in (0, 5)
    assert "stopped after" in out
    assert "Pictures" in out
    assert err == ""


@pytest.mark.parametrize("url", ["ftp://host/a", "env:NO_SUCH_VARIABLE", "rtsp://"])
def test_wrong_usage(url: str) -> None:
    done = CliRunner().invoke(app, ["doctor", url])
    assert done.exit_code == 2
    assert "URL" in done.stderr
    assert "cameras[0]" not in done.stderr
