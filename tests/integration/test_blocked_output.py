"""The daemon as a process whose stdout and stderr are pipes that nobody reads, and whose end hangs."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.support.broker import free_port
from tests.support.process import ManagedProcess
from tests.support.waiting import until
from visaged.daemon.cli.ending import EXIT_HUNG

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sizes of pipes are set as on Linux")

START_S = 60.0
STOP_S = 5.0
# The unit's TimeoutStopSec. A thread waits for nearly STOP_S, and a busy machine lets it wait longer.
CUT_SHORT_S = 10.0
SECRET = "hunter2"
MAIN = "\nfrom visaged.daemon.cli.main import main\nmain()"
# Libraries write to descriptor 2 on their own; this one does once the daemon has taken it over.
CHATTER = f"""
import os, threading, time
before = os.fstat(2).st_ino
def chatter():
    while os.fstat(2).st_ino == before:
        time.sleep(0.01)
    while True:
        os.write(2, b"a library opens rtsp://admin:{SECRET}@camera/1\\n")
        time.sleep(0.05)
threading.Thread(target=chatter, daemon=True).start()
"""


@pytest.fixture
def unread() -> Iterator[int]:
    """The end for writing of a pipe that is full and never read."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.write(write, bytes(4096))
    yield write
    os.close(read)
    os.close(write)


def command(folder: Path, code: str, document: dict[str, object]) -> list[str]:
    config = folder / "visaged.yaml"
    config.write_text(yaml.safe_dump({"mqtt": {"port": free_port()}, "state_dir": str(folder / "state")} | document))
    return [sys.executable, "-c", code + MAIN, "run", "--config", str(config)]


def test_pipes_that_nobody_reads_hold_up_nothing(tmp_path: Path, unread: int) -> None:
    port, log = free_port(), tmp_path / "log"
    program = command(tmp_path, CHATTER, {"http": {"port": port}, "log": {"file": str(log)}})
    process = subprocess.Popen(program, stdout=unread, stderr=unread, env=os.environ | {"NO_COLOR": "1"})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5, trust_env=False) as client:

            def is_up() -> bool:
                try:
                    return client.get("/healthz").status_code == 200
                except httpx.TransportError:
                    return False

            until(is_up, START_S)
            for _ in range(100):  # each has a line in the log
                assert client.get("/v1/cameras").status_code == 200
        until(lambda: log.read_text().count("GET /v1/cameras 200") == 100, START_S)
        until(lambda: "WARNING stderr: a library opens rtsp://***@camera/1" in log.read_text(), START_S)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert time.monotonic() - began < STOP_S
    finally:
        process.kill()
        process.wait()
    assert SECRET not in log.read_text()


def test_what_is_wrong_need_not_be_read(tmp_path: Path, unread: int) -> None:
    done = subprocess.run(
        command(tmp_path, "", {"cameras": 5}), stdout=unread, stderr=unread, timeout=START_S, check=False
    )
    assert done.returncode == 2


def test_an_end_that_hangs_is_cut_short(tmp_path: Path) -> None:
    hang = "import time\nfrom visaged.daemon.app import Daemon\nDaemon._shut_down = lambda *_: time.sleep(100)"
    with ManagedProcess(command(tmp_path, hang, {"http": {"port": 0}})) as process:
        process.wait_for_line("/docs", START_S)
        began = time.monotonic()
        process.send(signal.SIGTERM)
        assert process.wait(30.0) == EXIT_HUNG
        assert time.monotonic() - began < CUT_SHORT_S


def test_a_start_that_takes_long_ends_at_once(tmp_path: Path) -> None:
    hang = """
import time
import visaged.daemon.app as app
def load_networks(*_, **__):
    print("loading", flush=True)
    time.sleep(100)
app.load_networks = load_networks
"""
    with ManagedProcess(command(tmp_path, hang, {"http": {"port": 0}})) as process:
        process.wait_for_line("loading", START_S)
        began = time.monotonic()
        process.send(signal.SIGTERM)
        assert process.wait(30.0) == 0
        assert time.monotonic() - began < STOP_S
        assert "Traceback" not in "\n".join(process.lines)
