"""A short run of everything that fails; `python -m tests.chaos` is the long one."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import paho.mqtt.client as mqtt
import psutil
from paho.mqtt.enums import CallbackAPIVersion

from tests.chaos.mosquitto import Mosquitto
from tests.support.process import ManagedProcess
from tests.support.requirements import FAKETIME, MOSQUITTO, RTSP_SERVER, needs
from tests.support.waiting import until


@needs(MOSQUITTO, RTSP_SERVER, FAKETIME)
def test_nothing_is_lost() -> None:
    with ManagedProcess([sys.executable, "-m", "tests.chaos", "--minutes", "0.8", "--seed", "1"]) as run:
        status = run.wait(240.0)
        assert status == 0, "\n".join(run.lines)


@needs(MOSQUITTO)
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--only", "freeze,camera", "--folder", str(tmp_path / "kept")]
    with ManagedProcess(command) as run:
        run.wait_for_line("the faults begin", 120.0)
        children = psutil.Process(run.pid).children(recursive=True)
        assert children
        run.send(signal.SIGINT)
        assert run.wait(90.0) == 130, "\n".join(run.lines)
    assert not psutil.wait_procs(children, timeout=10.0)[1]
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@needs(MOSQUITTO)
def test_the_subscriber_has_all_that_a_killed_mosquitto_acknowledged(tmp_path: Path) -> None:
    record = _SlowRecord()
    broker = Mosquitto(tmp_path, record)  # type: ignore[arg-type]
    publisher = mqtt.Client(CallbackAPIVersion.VERSION2)
    try:
        publisher.connect(broker.host, broker.port)
        publisher.loop_start()
        sent = [publisher.publish("t", str(number), qos=1) for number in range(10)]
        for message in sent:
            message.wait_for_publish(30.0)
        broker.down()
        record.goes_on.set()
        until(lambda: len(record.received) == 10, 30.0)
    finally:
        publisher.loop_stop()
        broker.close()


class _SlowRecord:
    """Takes its time with the first message, so that the others wait in the subscriber's socket."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.received: list[bytes] = []

    def write(self, topic: str, payload: bytes) -> None:
        self.goes_on.wait(60.0)
        self.received.append(payload)
