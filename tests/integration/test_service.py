"""The daemon as a service: what it tells its manager, and when the watchdog is no longer fed."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import yaml

from tests.support import tiny_networks
from tests.support.broker import MosquittoBroker, free_port
from tests.support.process import ManagedProcess
from tests.support.requirements import MOSQUITTO, needs
from tests.support.service_manager import ServiceManager
from tests.support.waiting import until
from visaged.daemon.supervision.notify import Notifier
from visaged.daemon.supervision.watchdog import Watchdog
from visaged.pipelines.runtime.progress import beat
from visaged.pipelines.runtime.worker import Worker

pytestmark = [
    pytest.mark.timed,
    pytest.mark.skipif(sys.platform != "linux", reason="sockets and variables as on Linux"),
]

VISAGED = str(Path(sys.executable).with_name("visaged"))
START_S = 60.0


@contextlib.contextmanager
def service(folder: Path, manager: ServiceManager, document: dict[str, Any]) -> Iterator[ManagedProcess]:
    """Run a daemon for a manager."""
    config = folder / "visaged.yaml"
    defaults = {"http": {"port": 0}, "mqtt": {"port": free_port()}, "state_dir": str(folder / "state")}
    config.write_text(yaml.safe_dump(defaults | document))
    with ManagedProcess([VISAGED, "run", "--config", str(config)], env=manager.environment()) as process:
        yield process


def address_of(process: ManagedProcess) -> str:
    found = re.search(r"http://\S+(?=/docs)", process.wait_for_line("/docs", START_S))
    assert found is not None
    return found[0]


def dead_camera() -> dict[str, Any]:
    return {"name": "dead", "url": f"rtsp://127.0.0.1:{free_port()}/1"}


@needs(MOSQUITTO)
def test_a_manager_is_told_how_it_is(tmp_path: Path, demo_clip: Path, broker: MosquittoBroker) -> None:
    cameras = [{"name": "door", "url": str(demo_clip), "loop": True, "fps": 5}, dead_camera()]
    document = {"cameras": cameras, "mqtt": {"port": broker.port}}
    with (
        ServiceManager(tmp_path, watchdog_s=4.0) as manager,
        service(tmp_path, manager, document) as process,
    ):
        ready = manager.wait_for("READY=1", START_S)
        assert httpx.get(f"{address_of(process)}/healthz", trust_env=False).status_code == 200
        manager.wait_for("STATUS=1 of 2 cameras stream; MQTT connected", START_S)

        for number in (1, 2):
            if number == 1:
                process.send(signal.SIGHUP)
            else:
                assert httpx.post(f"{address_of(process)}/v1/reload", trust_env=False).status_code == 200
            begin = manager.wait_for("RELOADING=1\nMONOTONIC_USEC=", START_S, start=ready + 1)
            at_s, text = manager.messages[begin]
            assert abs(int(text.rpartition("=")[2]) / 1e6 - at_s) < 2
            ready = manager.wait_for("READY=1", START_S, start=begin)

        broker.kill()
        manager.wait_for(lambda text: "1 of 2 cameras stream; the " in text and "MQTT broker" in text, START_S)
        # A camera and the broker are dead, and the daemon is not.
        manager.collect(5.0)
        fed_s = manager.times_of("WATCHDOG=1")
        assert len(fed_s) >= 4
        assert max(b - a for a, b in pairwise(fed_s)) < 4.0
        assert "no progress" not in "\n".join(process.lines)

        process.send(signal.SIGTERM)
        stopping = manager.wait_for("STOPPING=1", START_S)
        assert process.wait(30.0) == 0
        manager.collect(0.2)
        assert "WATCHDOG=1" not in [text for _, text in manager.messages[stopping:]]


def test_a_reload_that_fails_is_over_too(tmp_path: Path) -> None:
    abstract = ServiceManager(None)
    with abstract as manager, service(tmp_path, manager, {}) as process:
        ready = manager.wait_for("READY=1", START_S)
        (tmp_path / "visaged.yaml").write_text("nonsense: 1")
        process.send(signal.SIGHUP)
        begin = manager.wait_for("RELOADING=1", START_S, start=ready)
        manager.wait_for("READY=1", START_S, start=begin)
        manager.wait_for(lambda text: text.endswith("; the last reload failed, see the log"), START_S, start=begin)
        assert "WATCHDOG=1" not in manager.collect(1.5)  # nobody asked for it


def test_a_manager_is_told_why_it_does_not_start(tmp_path: Path) -> None:
    with ServiceManager(tmp_path) as manager, service(tmp_path, manager, {"nonsense": 1}) as process:
        manager.wait_for("STATUS=the configuration cannot be used: nonsense: is not a known key", START_S)
        assert process.wait(START_S) == 2
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with service(tmp_path, manager, {"http": {"port": port}}) as process:
                manager.wait_for(f"STATUS=cannot start: http cannot listen on 127.0.0.1:{port}: ", START_S)
                assert process.wait(START_S) == 3
        assert "READY=1" not in [text for _, text in manager.messages]


def test_a_part_that_stands_still_is_named_and_the_watchdog_starves(tmp_path: Path) -> None:
    tiny_networks.detector(tmp_path / "red.onnx", "yunet")
    tiny_networks.make_endless(tmp_path / "red.onnx")
    scale = {key: tiny_networks.SCALES["yunet"][key] for key in ("colour", "mean", "scale")}
    form = {"name": "in", "layout": "NCHW", "dtype": "float32"} | scale
    entry = {"name": "red", "task": "detector", "file": "red.onnx", "input": form, "decoder": "yunet"}
    manifest = tiny_networks.manifest(tmp_path, entry | {"strides": list(tiny_networks.STRIDES)})
    document = {
        "models": {"manifest": str(manifest), "detector": "red", "analyzer": None},
        "inference": {"workers": 1},
        "cameras": [dead_camera()],
    }
    red = cv2.imencode(".png", np.full((320, 320, 3), (0, 0, 255), np.uint8))[1].tobytes()
    grey = cv2.imencode(".png", np.full((320, 320, 3), 90, np.uint8))[1].tobytes()
    with ServiceManager(tmp_path, watchdog_s=2.0) as manager, service(tmp_path, manager, document) as process:
        http = address_of(process)
        manager.wait_for("WATCHDOG=1", START_S)
        assert httpx.post(f"{http}/v1/faces", content=grey, timeout=30, trust_env=False).status_code == 200
        with contextlib.suppress(httpx.ReadTimeout):
            httpx.post(f"{http}/v1/faces", content=red, timeout=0.5, trust_env=False)

        process.wait_for_line("inference-0 has made no progress for 2 s; systemd is going to restart visaged", START_S)
        until(lambda: httpx.get(f"{http}/healthz", trust_env=False).status_code == 503, START_S)
        document = httpx.get(f"{http}/healthz", trust_env=False).json()
        assert document == {"status": "stalled", "dead": None, "stalled": ["inference-0"]}
        metrics = httpx.get(f"{http}/metrics", trust_env=False).text
        assert 'visaged_part_stalled{part="inference-0"} 1.0' in metrics
        parts = ("main", "fan-out", "mqtt", "http", "watchdog")
        assert [name for name in parts if f'visaged_part_stalled{{part="{name}"}} ' not in metrics] == []
        manager.wait_for(lambda text: text.endswith("; inference-0 made no progress"), START_S)
        assert "WATCHDOG=1" not in manager.collect(2.0)

        process.send(signal.SIGABRT)  # as systemd does
        assert process.wait(START_S) == -signal.SIGABRT
        stacks = "\n".join(process.lines)
        assert "Fatal Python error: Aborted" in stacks
        assert re.search(r'inference\.py", line \d+ in _detect', stacks)


def test_a_process_that_was_frozen_blames_no_part(tmp_path: Path) -> None:
    with ServiceManager(tmp_path, watchdog_s=1.0) as manager, service(tmp_path, manager, {}) as process:
        http = address_of(process)
        manager.wait_for("WATCHDOG=1", START_S)
        process.freeze()
        manager.collect(3.0)
        process.thaw()
        manager.wait_for("WATCHDOG=1", START_S, start=len(manager.messages))
        assert httpx.get(f"{http}/healthz", trust_env=False).status_code == 200
        assert "no progress" not in "\n".join(process.lines)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "notify"))
        yield one


def test_a_watchdog_with_real_threads_and_a_real_socket(receiver: socket.socket) -> None:
    release = threading.Event()

    def lively(stopping: threading.Event) -> None:
        while not stopping.wait(0.01):
            beat()

    def stuck(stopping: threading.Event) -> None:
        beat()
        release.wait(60)
        lively(stopping)

    workers = [Worker(name, run, pytest.fail) for name, run in (("lively", lively), ("stuck", stuck))]
    notifier = Notifier(receiver.getsockname(), watchdog_s=0.8)
    watchdog = Watchdog([worker.progress for worker in workers], notifier, lambda: "all is well")
    workers.append(Worker("watchdog", watchdog.run, pytest.fail))
    for worker in workers:
        worker.start()
    receiver.settimeout(20)
    assert [receiver.recv(100) for _ in range(2)] == [b"STATUS=all is well", b"WATCHDOG=1"]
    until(lambda: watchdog.stalled == ("stuck",), 20)
    while receiver.recv(100) != b"STATUS=all is well; stuck made no progress":
        pass
    release.set()
    until(lambda: watchdog.stalled == (), 20)
    assert [receiver.recv(100) for _ in range(2)] == [b"STATUS=all is well", b"WATCHDOG=1"]
    for worker in workers:
        worker.stop()
        assert worker.join(20)
    notifier.close()
