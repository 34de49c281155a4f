"""Reloads of a running daemon: what changes, what goes on undisturbed, and what is refused."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.broker import MosquittoBroker, free_port
from tests.support.program import START_S, RunningDaemon
from tests.support.subscriber import Message, Subscriber
from tests.support.waiting import until

pytestmark = pytest.mark.timed

SECRET = "s3cr3t-hunter2"


def camera(name: str, clip: Path, **more: Any) -> dict[str, Any]:
    return {"name": name, "url": str(clip), "loop": True, "fps": 4} | more


@pytest.fixture
def daemon(tmp_path: Path, demo_clip: Path, broker: MosquittoBroker) -> Iterator[RunningDaemon]:
    document = {"mqtt": {"port": broker.port}, "cameras": [camera("door", demo_clip), camera("yard", demo_clip, fps=3)]}
    with RunningDaemon(tmp_path, document) as running:
        yield running


def faces(subscriber: Subscriber, name: str) -> list[Any]:
    return [message.json() for message in subscriber.messages if message.topic == f"visaged/{name}/faces"]


def test_the_cameras_that_do_not_change_lose_no_frame_and_no_track(
    daemon: RunningDaemon, broker: MosquittoBroker, demo_clip: Path
) -> None:
    with Subscriber(broker, "visaged/#") as subscriber:

        def has(name: str, more: int) -> None:
            count = len(faces(subscriber, name)) + more
            until(lambda: len(faces(subscriber, name)) >= count, START_S)

        def seen(message: Message) -> bool:
            return message.topic == "visaged/door/faces" and bool(message.json()["faces"])

        first = subscriber.wait_for(seen).json()
        has("door", 5)
        has("yard", 5)
        dropped = daemon.metric("frames_dropped_total", camera="door")
        for cameras, changed in (
            ([camera("door", demo_clip), camera("yard", demo_clip, fps=2)], ("replaced", "yard")),
            ([camera("door", demo_clip)], ("removed", "yard")),
            ([camera("hall", demo_clip, fps=2), camera("door", demo_clip)], ("added", "hall")),
        ):
            daemon.configure(cameras=cameras)
            answer = daemon.client.post("/v1/reload").json()
            what, name = changed
            assert answer["cameras"][what] == [name]
            assert answer["cameras"]["kept"] == ["door"]
            assert answer["needs_restart"] == []
            assert sorted(daemon.cameras()) == sorted(one["name"] for one in cameras)
            has("door", 4)
        has("hall", 2)
        documents = faces(subscriber, "door")
        assert [b["seq"] - a["seq"] for a, b in pairwise(documents)] == [1] * (len(documents) - 1)
        assert daemon.metric("frames_dropped_total", camera="door") == dropped
        # The clip's first face stays for more than the seconds that this takes at the start of a round.
        events = [m.json() for m in subscriber.messages if m.topic == "visaged/door/events"]
        assert not [event for event in events if event["event"] == "end" and event["reason"] != "lost"]
        assert len({event["epoch"] for event in events} | {first["epoch"]}) == 1
        begun = [event["track_id"] for event in events if event["event"] == "begin"]
        assert len(begun) == len(set(begun))
        subscriber.wait_for(lambda m: m.topic == "visaged/yard/status" and m.payload == b"")
    with Subscriber(broker, "visaged/+/status") as late:
        late.wait_for(lambda m: m.topic == "visaged/door/status")
        late.wait_for(lambda m: m.topic == "visaged/hall/status")
        assert "visaged/yard/status" not in {message.topic for message in late.messages}
    assert "yard" not in daemon.client.get("/readyz").json()["cameras"]
    daemon.end()


def test_a_face_keeps_its_number_while_another_camera_changes(
    daemon: RunningDaemon, broker: MosquittoBroker, demo_clip: Path
) -> None:
    with Subscriber(broker, "visaged/door/#") as subscriber:
        event = subscriber.wait_for(lambda m: m.topic.endswith("/events") and m.json()["event"] == "begin").json()
        daemon.configure(cameras=[camera("door", demo_clip), camera("yard", demo_clip, fps=1)])
        daemon.process.send(signal.SIGHUP)
        daemon.process.wait_for_line("the configuration was reloaded", START_S)
        subscriber.clear()
        document = subscriber.wait_for(lambda m: m.topic.endswith("/faces")).json()
        assert event["track_id"] in {face.get("track_id") for face in document["faces"]}
    assert "replaced: yard" in daemon.text


def test_a_bad_file_changes_nothing_and_says_every_problem(daemon: RunningDaemon, demo_clip: Path) -> None:
    assert daemon.metric("config_last_reload_successful") == 1
    began = daemon.metric("config_last_reload_success_timestamp_seconds")
    assert abs(time.time() - began) < START_S
    wrong = [camera("door", demo_clip, url=f"ftp://u:{SECRET}@h"), camera("hall", demo_clip, password=SECRET)]
    daemon.configure(cameras=wrong, http={"port": -1})
    daemon.process.send(signal.SIGHUP)
    for path in ("cameras[0].url", "cameras[1]", "http.port"):
        daemon.process.wait_for_line(f"not reloaded: {path}: ", START_S)
    until(lambda: daemon.metric("config_last_reload_successful") == 0, START_S)
    answer = daemon.client.post("/v1/reload")
    assert answer.status_code == 422
    assert {error["path"] for error in answer.json()["errors"]} == {"cameras[0].url", "cameras[1]", "http.port"}
    for text in ("cameras: [", "- a", f"password: {SECRET}: ["):
        daemon.config.write_text(text)
        assert daemon.client.post("/v1/reload").status_code == 422
    daemon.config.unlink()
    assert "cannot read" in daemon.client.post("/v1/reload").json()["detail"]
    assert daemon.cameras() == ["door", "yard"]
    assert daemon.metric("config_last_reload_success_timestamp_seconds") == began
    assert SECRET not in daemon.text + answer.text
    daemon.configure()
    assert daemon.client.post("/v1/reload").status_code == 200
    assert daemon.metric("config_last_reload_successful") == 1
    assert daemon.metric("config_last_reload_success_timestamp_seconds") > began


def test_what_takes_a_restart_is_named_and_the_rest_is_in_effect(daemon: RunningDaemon, demo_clip: Path) -> None:
    daemon.configure(
        cameras=[camera("door", demo_clip)], http={"port": free_port()}, mqtt={"port": 1}, attributes={"age": False},
        tracker={"low_confidence": 0.3, "lost_s": 1}, log={"level": "debug"},
    )  # fmt: skip
    answer = daemon.client.post("/v1/reload").json()
    assert answer["needs_restart"] == ["mqtt.port", "http.port", "tracker.low_confidence"]
    assert answer["cameras"] == {"added": [], "replaced": ["door"], "removed": ["yard"], "kept": []}
    daemon.process.wait_for_line("only after a restart: mqtt.port, http.port, tracker.low_confidence", START_S)
    picture = (Path(demo_clip).parent / "person.jpg").read_bytes()
    (face,) = daemon.client.post("/v1/faces", content=picture).json()["faces"]
    assert "gender" in face["attributes"]
    assert "age" not in face["attributes"]
    daemon.client.get("/healthz")
    daemon.process.wait_for_line("DEBUG", START_S)


def test_reloads_at_a_time_are_done_one_after_another(daemon: RunningDaemon) -> None:
    for _ in range(20):
        daemon.process.send(signal.SIGHUP)
        time.sleep(0.01)  # signals of a kind that wait are one
    assert daemon.client.post("/v1/reload").status_code == 200
    assert daemon.cameras() == ["door", "yard"]
    daemon.end()


def test_a_damaged_state_file_keeps_the_daemon_from_starting(tmp_path: Path, demo_clip: Path) -> None:
    config = tmp_path / "visaged.yaml"
    config.write_text(yaml.safe_dump({"state_dir": str(tmp_path), "mqtt": {"port": free_port()}}))
    (tmp_path / "cameras.yaml").write_text(f"cameras: {{door: '{SECRET}'}}")
    done = subprocess.run(
        [Path(sys.executable).with_name("visaged"), "run", "--config", config],
        capture_output=True, text=True, timeout=START_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{tmp_path}/cameras.yaml: cameras.door: " in done.stderr
    assert "move it away" in done.stderr
    assert SECRET not in done.stderr


def test_a_terminal_that_is_closed_ends_the_program(tmp_path: Path) -> None:
    config = tmp_path / "visaged.yaml"
    config.write_text(yaml.safe_dump({"http": {"port": 0}, "mqtt": {"port": free_port()}, "state_dir": None}))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(Path(sys.executable).with_name("visaged"), ["visaged", "run", "--config", str(config)])
    text = b""
    while b"/docs" not in text:
        text += os.read(terminal, 1000)
    os.close(terminal)
    deadline = time.monotonic() + START_S
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.05)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
