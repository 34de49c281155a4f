"""The daemon as a process: what it prints and publishes, how it ends, and what does not end it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.support import media, tiny_networks
from tests.support.broker import MosquittoBroker, free_port
from tests.support.outputs import Collector
from tests.support.process import ManagedProcess
from tests.support.requirements import MOSQUITTO, RTSP_SERVER, needs
from tests.support.rtsp import RtspServer
from tests.support.subscriber import Message, Subscriber
from tests.support.waiting import until
from visaged.daemon.app import Daemon
from visaged.daemon.errors import StartError
from visaged.daemon.settings import parse

VISAGED = Path(sys.executable).with_name("visaged")
START_S = 60.0
STOP_S = 5.0
SECRET = "s3cr3t-hunter2"
ENVIRONMENT = os.environ | {"PYTHONWARNINGS": "error", "NO_COLOR": "1"}


@dataclass
class Address:
    """What a subscriber needs to know of a broker that is not mosquitto."""

    host: str
    port: int
    certificates: None = None


class Program:
    """`visaged run` with a configuration, as a process."""

    def __init__(self, folder: Path, document: dict[str, Any], *options: str, code: str = "") -> None:
        """Starts it.

        Args:
            folder: For the configuration.
            document: The configuration; HTTP is on a free port unless it says which.
            options: More of the command line.
            code: Python to run before, to break something.
        """
        config = folder / "visaged.yaml"
        config.write_text(yaml.safe_dump({"http": {"port": 0}, "state_dir": str(folder / "state")} | document))
        command = [str(VISAGED)]
        if code:
            command = [sys.executable, "-c", f"{code}\nfrom visaged.daemon.cli.main import main\nmain()"]
        self.process = ManagedProcess([*command, "run", "--config", str(config), *options], env=ENVIRONMENT)

    def wait_for_http(self) -> str:
        found = re.search(r"http://\S+(?=/docs)", self.process.wait_for_line("/docs", START_S))
        assert found is not None
        return found[0]

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Sends a signal; returns the exit code and how long it took, seconds."""
        began = time.monotonic()
        self.process.send(number)
        code = self.process.wait(30.0)
        return code, time.monotonic() - began

    @property
    def text(self) -> str:
        return "\n".join(self.process.lines)


Run = Callable[..., Program]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts programs, and kills those that are left."""
    programs: list[Program] = []

    def start(document: dict[str, Any], *options: str, code: str = "") -> Program:
        folder = tmp_path / f"program{len(programs)}"
        folder.mkdir()
        programs.append(Program(folder, document, *options, code=code))
        return programs[-1]

    yield start
    for program in programs:
        if program.process.is_running:
            program.process.kill()


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of something that accepts connections and says nothing, ever."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield listener.getsockname()[1]


def metric(text: str, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=30, trust_env=False)


def clip_camera(clip: Path, **changes: Any) -> dict[str, Any]:
    return {"name": "door", "url": str(clip), "loop": True, "fps": 5} | changes


def test_without_a_configuration(tmp_path: Path) -> None:
    process = ManagedProcess([str(VISAGED), "run"], env=ENVIRONMENT, cwd=str(tmp_path))
    try:
        broker = re.search(r"127\.0\.0\.1:(\d+) \(embedded broker\)", process.wait_for_line("embedded broker", START_S))
        assert broker is not None
        assert process.wait_for_line("HTTP ", START_S).strip().startswith("HTTP")
        assert process.wait_for_line("Camera demo", START_S).endswith("demo.mp4")
        address: Any = Address("127.0.0.1", int(broker[1]))
        process.wait_for_line("connected to the MQTT broker", START_S)
        with Subscriber(address, "visaged/#") as subscriber:
            assert re.match(r"\d\d:\d\d:\d\d demo  face \d+ begin ", process.wait_for_line(" begin ", 20.0))
            faces = subscriber.wait_for(lambda message: message.topic == "visaged/demo/faces").json()
            assert faces["schema"] == "visaged.faces/1"
            event = subscriber.wait_for(lambda message: message.topic == "visaged/demo/events").json()
            assert event["event"] == "begin"
            subscriber.wait_for(lambda m: m.topic == "visaged/demo/status" and m.json()["state"] == "streaming")
            began = time.monotonic()
            process.send(signal.SIGTERM)
            assert process.wait(30.0) == 0
            assert time.monotonic() - began < STOP_S
            node = [message.json() for message in subscriber.messages if message.topic.endswith("/status")]
            ends = [m.json() for m in subscriber.messages if m.topic.endswith("/events") and m.json()["event"] == "end"]
            assert [d["reason"] for d in node if d["schema"] == "visaged.node-status/1"][-1] == "shutdown"
            assert ends[-1]["reason"] == "shutdown"
        assert "Traceback" not in "\n".join(process.lines)
    finally:
        if process.is_running:
            process.kill()


@pytest.mark.parametrize(
    ("camera", "broker", "number"),
    [
        ("none", "absent", signal.SIGTERM),
        ("clip", "absent", signal.SIGINT),
        ("clip", "hung", signal.SIGTERM),
        ("hung", "absent", signal.SIGTERM),
        ("hung", "hung", signal.SIGINT),
    ],
)
def test_it_ends_in_time(
    run: Run, silent: int, demo_clip: Path, camera: str, broker: str, number: signal.Signals
) -> None:
    url = {"clip": str(demo_clip), "hung": f"rtsp://127.0.0.1:{silent}/1"}.get(camera)
    program = run(
        {
            "mqtt": {"port": silent if broker == "hung" else free_port()},
            "cameras": [] if url is None else [{"name": "door", "url": url, "loop": camera == "clip"}],
        }
    )
    http = program.wait_for_http()
    state = "streaming" if camera == "clip" else "connecting"
    if url is not None:
        until(lambda: get(f"{http}/v1/cameras").json()["cameras"][0]["state"] == state, START_S)
    else:
        until(lambda: get(f"{http}/healthz").status_code == 200, START_S)
    code, took_s = program.end(number)
    assert code == 0, program.text
    assert took_s < STOP_S
    assert "Traceback" not in program.text
    assert ("left behind: camera-door" in program.text) == (camera == "hung")


def test_it_ends_in_time_while_pictures_are_sent(run: Run) -> None:
    slow = """
import time
from visaged.models.detector import Detector
detect = Detector.detect
def slowly(self, images):
    time.sleep(0.4)
    return detect(self, images)
Detector.detect = slowly
"""
    program = run({"mqtt": {"port": free_port()}, "inference": {"workers": 1}}, code=slow)
    http = program.wait_for_http()
    address = urlsplit(http)
    until(lambda: get(f"{http}/healthz").status_code == 200, START_S)
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, "PNG")

    def post(_: int) -> int:
        try:
            return httpx.post(f"{http}/v1/faces", content=file.getvalue(), timeout=30, trust_env=False).status_code
        except httpx.TransportError:
            return 0

    with socket.create_connection((address.hostname, address.port), 30) as half, ThreadPoolExecutor(10) as pool:
        half.sendall(b"POST /v1/faces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf of it")
        answers = [pool.submit(post, number) for number in range(10)]
        until(lambda: metric(get(f"{http}/metrics").text, "visaged_waiting", lane="pictures") >= 5, START_S)
        code, took_s = program.end()
        statuses = {answer.result() for answer in answers}
    assert code == 0, program.text
    assert took_s < STOP_S
    assert statuses <= {200, 503, 0}
    assert "Traceback" not in program.text


@needs(RTSP_SERVER)
def test_it_ends_in_time_with_a_stalled_stream(run: Run, rtsp_server: RtspServer) -> None:
    url = rtsp_server.url("/stall")
    program = run({"mqtt": {"port": free_port()}, "cameras": [{"name": "door", "url": url}]})
    http = program.wait_for_http()
    until(lambda: get(f"{http}/v1/cameras").json()["cameras"][0]["state"] == "streaming", START_S)
    rtsp_server.stall()
    received = metric(get(f"{http}/metrics").text, "visaged_frames_received_total")

    def stalled() -> bool:
        nonlocal received
        before, received = received, metric(get(f"{http}/metrics").text, "visaged_frames_received_total")
        time.sleep(0.3)
        return before == received

    until(stalled, START_S)
    code, took_s = program.end()
    assert code == 0, program.text
    assert took_s < STOP_S


def test_two_signals_are_as_good_as_one(run: Run, silent: int) -> None:
    url = f"rtsp://127.0.0.1:{silent}/1"
    program = run({"mqtt": {"port": free_port()}, "cameras": [{"name": "door", "url": url}]})
    http = program.wait_for_http()
    until(lambda: get(f"{http}/healthz").status_code == 200, START_S)
    began = time.monotonic()
    program.process.send(signal.SIGINT)
    program.process.wait_for_line("stopping", 30.0)
    program.process.send(signal.SIGINT)
    program.process.send(signal.SIGTERM)
    assert program.process.wait(30.0) == 0, program.text
    assert time.monotonic() - began < STOP_S
    assert "Traceback" not in program.text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full (Linux)")
def test_a_full_disk_for_the_log_is_counted(run: Run, demo_clip: Path) -> None:
    program = run({"mqtt": {"port": free_port()}, "cameras": [clip_camera(demo_clip)], "log": {"file": "/dev/full"}})
    http = program.wait_for_http()
    until(lambda: metric(get(f"{http}/metrics").text, "visaged_log_write_errors_total") >= 2, START_S)
    until(lambda: metric(get(f"{http}/metrics").text, "visaged_frames_analysed_total") >= 5, START_S)
    code, _ = program.end()
    assert code == 0, program.text
    assert program.text.count("No space left") == 1
    assert "Traceback" not in program.text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full (Linux)")
@pytest.mark.parametrize("what", ["closed", "unread", "full"])
def test_nobody_needs_to_read_stdout(tmp_path: Path, demo_clip: Path, what: str) -> None:
    port = free_port()
    config = tmp_path / "visaged.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "http": {"port": port},
                "mqtt": {"port": free_port()},
                # As fast as can be, and an event for every face in every frame: a pipe is full in a moment.
                "cameras": [clip_camera(demo_clip, fps=10, pace="fast")],
                "inference": {"update_s": 0.01, "refresh_s": 0},
            }
        )
    )
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(open("/dev/full", "w")).fileno() if what == "full" else write
        log = stack.enter_context((tmp_path / "log").open("w+"))
        process = subprocess.Popen(
            [VISAGED, "run", "--config", config], stdout=output, stderr=log, env=ENVIRONMENT, text=True
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        os.close(write)
        if what == "closed":
            assert os.read(read, 10)
            os.close(read)
        else:
            stack.callback(os.close, read)

        def analysed() -> float:
            return metric(get(f"http://127.0.0.1:{port}/metrics").text, "visaged_frames_analysed_total")

        def waiting() -> bool:
            return metric(get(f"http://127.0.0.1:{port}/metrics").text, "visaged_tracks_begun_total") >= 5

        until(waiting, START_S)
        if what == "unread":
            until(lambda: unread(read) > 3800, START_S)
        first = analysed()
        until(lambda: analysed() >= first + 30, START_S)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
        took_s = time.monotonic() - began
        log.seek(0)
        text = log.read()
    assert code == 0, text
    assert took_s < STOP_S
    assert "Traceback" not in text


def unread(pipe: int) -> int:
    """How many bytes wait in a pipe."""
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]  # type: ignore[no-any-return]


def test_a_file_that_is_read_once(run: Run, demo_clip: Path, broker: MosquittoBroker, tmp_path: Path) -> None:
    # It ends while faces are in the picture.
    clip = media.transcode(demo_clip, tmp_path / "clip.mp4", size=(960, 540), seconds=7)
    with Subscriber(broker, "visaged/#") as subscriber:
        camera = clip_camera(clip, loop=False, pace="fast")
        program = run({"node": "tester", "mqtt": {"port": broker.port}, "cameras": [camera]}, "--once")
        assert program.process.wait(START_S) == 0, program.text
        offline = subscriber.wait_for(lambda m: m.topic == "visaged/tester/status" and m.json()["state"] == "offline")
        assert offline.json()["reason"] == "shutdown"
    events = [message.json() for message in subscriber.messages if message.topic == "visaged/door/events"]
    begun = {event["track_id"] for event in events if event["event"] == "begin"}
    ended = {event["track_id"]: event["reason"] for event in events if event["event"] == "end"}
    assert begun
    assert begun == set(ended)
    assert set(ended.values()) <= {"lost", "stream_ended"}
    assert "stream_ended" in ended.values()
    states = [message.json()["state"] for message in subscriber.messages if message.topic == "visaged/door/status"]
    assert "ended" in states
    assert "every camera has ended" in program.text
    frames = [message.json() for message in subscriber.messages if message.topic == "visaged/door/faces"]
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))


def test_a_file_that_is_read_once_without_a_broker(run: Run, demo_clip: Path) -> None:
    camera = clip_camera(demo_clip, loop=False, pace="fast", fps=2)
    program = run({"mqtt": {"port": free_port()}, "cameras": [camera], "state_dir": None}, "--once")
    assert program.process.wait(START_S) == 0, program.text
    assert "are lost" in program.text  # and says how many events


def test_a_file_that_cannot_be_read_once_is_a_failure(run: Run, demo_clip: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(demo_clip.read_bytes()[:2000])
    camera = clip_camera(damaged, loop=False, pace="fast")
    program = run({"mqtt": {"port": free_port()}, "cameras": [camera]}, "--once")
    assert program.process.wait(START_S) == 1, program.text
    assert re.search(r"ended because camera door failed: SourceError: .*damaged\.mp4", program.text)


def test_passwords_of_cameras_are_shown_nowhere(run: Run, broker: MosquittoBroker) -> None:
    where = f"127.0.0.1:{free_port()}"
    cameras = [
        {"name": "door", "url": f"rtsp://admin:{SECRET}@{where}/1"},
        {"name": "hall", "url": f"http://{where}/video?user=admin&password={SECRET}"},
        {"name": "shed", "url": f"http://{where}/video?loginuse=a&loginpas={SECRET}&jwt={SECRET}&p={SECRET}#{SECRET}"},
        {"name": "path", "url": f"rtsp://{where}/channel=1_password={SECRET}/{SECRET};sig={SECRET}"},
        {"name": "slash", "url": f"rtsp://admin:987/{SECRET}@{where}/1"},
        {"name": "token", "url": f"rtsp://{SECRET}@{where}/1?{SECRET}"},
        {"name": "yard", "url": f"rtsp://{where}/1", "username": "admin", "password": SECRET},
    ]
    shown_nowhere(run, broker, {"cameras": cameras}, SECRET)


@needs(MOSQUITTO, RTSP_SERVER)
def test_a_wrong_password_is_told_but_not_shown(run: Run, broker: MosquittoBroker, rtsp_server: RtspServer) -> None:
    camera = {"name": "door", "url": rtsp_server.url("/auth", user="user", password=SECRET)}
    text = shown_nowhere(run, broker, {"cameras": [camera]}, SECRET)
    assert "401" in text


def shown_nowhere(run: Run, broker: MosquittoBroker, document: dict[str, Any], secret: str) -> str:
    """Runs until the camera has failed twice; returns all that could be read of it, in which there is no secret."""
    with Subscriber(broker, "#") as subscriber:
        program = run({"mqtt": {"port": broker.port}, "log": {"level": "debug"}} | document)
        http = program.wait_for_http()
        for camera in document["cameras"]:
            name = camera["name"]

            def failed(name: str = name) -> bool:
                return metric(get(f"{http}/metrics").text, "visaged_camera_failures_total", camera=name) >= 2

            def told(message: Message, name: str = name) -> bool:
                return message.topic == f"visaged/{name}/status" and message.json()["error"] is not None

            until(failed, START_S)
            subscriber.wait_for(told)
        texts = [get(f"{http}{path}").text for path in ("/v1/cameras", "/metrics", "/readyz", "/healthz")]
        program.end()
        texts += [program.text, *(f"{m.topic} {m.payload!r}" for m in subscriber.messages)]
    everything = "\n".join(texts)
    assert secret not in everything
    assert "door" in everything
    return everything


BREAK = """
import threading
go = threading.Event()
def die(self, *args, **kwargs):
    raise RuntimeError("struck by a test")
"""


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("mqtt", "from visaged.pipelines.outputs.mqtt.output import MqttOutput as M; M._turn = die"),
        ("fan-out", "from visaged.pipelines.outputs.fan_out import FanOut as F; F._turn = die"),
        ("terminal", "from visaged.daemon.cli.console import EventLines as E; E.run = die"),
        ("camera-door", "from visaged.pipelines.source.camera import Camera as C; C._supervise = die"),
        ("inference-", "from visaged.pipelines.batcher import Batcher as B; B.take = die"),
        ("http", "import uvicorn; uvicorn.Server.serve = die"),
        ("broker", "from visaged.daemon.broker.embedded import EmbeddedBroker as E\nrun = E.run\n"
         "def dies(self, stopping):\n    self.ready.set()\n    die(self)\nE.run = dies"),
    ],
)  # fmt: skip
def test_a_dead_part_ends_the_process(run: Run, demo_clip: Path, part: str, code: str) -> None:
    document: dict[str, Any] = {"mqtt": {"port": free_port(), "embedded": True}, "cameras": [clip_camera(demo_clip)]}
    program = run(document, code=BREAK + code)
    assert program.process.wait(START_S) == 1, program.text
    assert re.search(rf"ended because {part}\d* failed: RuntimeError: struck by a test", program.text)


@pytest.mark.parametrize("which", [0, 1])
def test_a_server_that_ends_by_itself_ends_the_process(run: Run, tmp_path: Path, which: int) -> None:
    ends = f"""
import uvicorn
serve, begun = uvicorn.Server.serve, []
async def ends(self, sockets):
    begun.append(self)
    if len(begun) - 1 != {which}:
        await serve(self, sockets)
uvicorn.Server.serve = ends
"""
    oss = {"enabled": True, "port": 0, "buckets": [{"name": "shop", "folder": str(tmp_path)}]}
    program = run({"mqtt": {"port": free_port()}, "oss": oss}, code=ends)
    assert program.process.wait(START_S) == 1, program.text
    assert "ended because http failed: RuntimeError: the HTTP server ended by itself" in program.text


def test_a_network_that_keeps_failing_ends_the_process(run: Run, demo_clip: Path) -> None:
    code = BREAK + "from visaged.models.detector import Detector as D; D.detect = die"
    program = run({"mqtt": {"port": free_port()}, "cameras": [clip_camera(demo_clip)]}, code=code)
    assert program.process.wait(START_S) == 1, program.text
    assert re.search(r"ended because inference-\d+ failed: InferenceFailed: .*8 times in a row", program.text)


def test_a_network_that_fails_now_and_then_does_not(demo_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = parse(
        {
            "http": {"port": 0},
            "mqtt": {"port": free_port()},
            "cameras": [clip_camera(demo_clip, loop=False, pace="fast")],
            "inference": {"workers": 1},
        }
    )
    daemon = Daemon(settings, "test", once=True)
    detect, calls = type(daemon.detector).detect, 0

    def unlucky(self: Any, images: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 8:  # seven times in a row
            raise RuntimeError("unlucky")
        return detect(self, images)

    monkeypatch.setattr(type(daemon.detector), "detect", unlucky)
    assert daemon.run() == 0
    assert calls > 50
    registry = daemon.metrics.registry
    assert registry.get_sample_value("visaged_failed_batches_total") == calls - calls // 8
    labels = {"camera": "door", "cause": "failed"}
    assert registry.get_sample_value("visaged_frames_dropped_total", labels) == calls - calls // 8


@pytest.mark.parametrize(
    ("attributes", "told"),
    [({"age": False}, True), ({"landmarks_106": False, "gender": False}, False)],
)
def test_what_is_switched_off_is_absent(demo_clip: Path, attributes: dict[str, bool], told: bool) -> None:
    events = Collector()
    camera = clip_camera(demo_clip, loop=False, pace="fast", fps=2, landmarks_106=True)
    document = {"http": {"port": 0}, "mqtt": {"port": free_port()}, "attributes": attributes, "cameras": [camera]}
    assert Daemon(parse(document), "test", once=True, outputs=[events]).run() == 0
    begins = [event["face"] for event in events.of("events") if event["event"] == "begin"]
    assert begins
    for face in begins:
        assert ("landmarks_106" in face) == told
        assert not attributes.keys() & face["attributes"].keys()
    assert any("emotion" in face["attributes"] for face in begins)


def test_a_network_that_is_not_what_its_entry_says_is_refused_at_the_start(tmp_path: Path) -> None:
    tiny_networks.detector(tmp_path / "red.onnx", "yunet")
    form = {"name": "in", "layout": "NCHW", "dtype": "uint8"}  # float32 in truth
    entry = {"name": "red", "task": "detector", "file": "red.onnx", "input": form, "decoder": "yunet"}
    manifest = tiny_networks.manifest(tmp_path, entry | {"strides": [8, 16, 32]})
    models = {"manifest": str(manifest), "detector": "red", "analyzer": None}
    with pytest.raises(StartError, match="model red fails on 1 x 320x192 pixels"):
        Daemon(parse({"models": models, "http": {"port": 0}, "mqtt": {"port": free_port()}}), "test")


def test_a_port_of_the_broker_that_is_taken_leaves_nothing_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = parse({"http": {"port": 0}, "mqtt": {"port": taken.getsockname()[1], "embedded": True}})
        daemon = Daemon(settings, "test")
        with pytest.raises(StartError, match="embedded MQTT broker cannot start"):
            daemon.run()
    parts = {"broker", "fan-out", "mqtt", "terminal", "http"}
    assert not parts & {thread.name for thread in threading.enumerate()}


def test_health_tells_of_a_dead_part() -> None:
    daemon = Daemon(parse({"http": {"port": 0}, "mqtt": {"port": free_port()}}), "test")
    assert daemon.health() == (True, {"status": "ok", "dead": None, "stalled": []})
    daemon._died("mqtt", OSError(errno.EIO, "x"))
    assert daemon.health() == (False, {"status": "dying", "dead": "mqtt", "stalled": []})
    assert daemon.readiness()[0] is False
    assert json.dumps(daemon.readiness()[1])
    assert daemon.run() == 1
