"""The embedded broker in a thread, or in a process of its own."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from tests.support.broker import free_port
from tests.support.process import ManagedProcess
from tests.support.subscriber import Subscriber
from visaged.daemon.broker.embedded import EmbeddedBroker
from visaged.daemon.broker.limits import Limits
from visaged.pipelines.runtime.worker import Worker

PATIENCE_S = 40.0
HOST = "127.0.0.1"


@dataclass
class Address:
    """What a subscriber has to know of a broker."""

    port: int
    host: str = HOST
    certificates: None = None


def subscriber(port: int, topic: str = "#", **options: Any) -> Subscriber:
    return Subscriber(Address(port), topic, **options)  # type: ignore[arg-type]


class Embedded:
    """A broker in a thread."""

    def __init__(self, limits: Limits = Limits(), devices: str | None = None) -> None:  # noqa: B008
        self.port = free_port()
        self.broker = EmbeddedBroker(HOST, self.port, "v", limits, devices)
        self.deaths: list[BaseException] = []
        self.worker = Worker("broker", self.broker.run, lambda name, error: self.deaths.append(error))
        self.worker.start()
        assert self.broker.ready.wait(PATIENCE_S)
        assert self.broker.failure is None

    def stop(self) -> float:
        """Stops it; returns how long that took."""
        began_s = time.monotonic()
        self.worker.stop()
        assert self.worker.join(PATIENCE_S)
        return time.monotonic() - began_s


PROGRAM = """
import sys, threading
from visaged.daemon.broker.embedded import EmbeddedBroker
broker = EmbeddedBroker("127.0.0.1", int(sys.argv[1]), "visaged")
stopping = threading.Event()
thread = threading.Thread(target=broker.run, args=(stopping,))
thread.start()
broker.ready.wait()
print("failed" if broker.failure else "ready", flush=True)
sys.stdin.read()
stopping.set()
thread.join()
"""


@dataclass
class Apart:
    """A broker in a process of its own, whose memory can be measured."""

    process: ManagedProcess
    port: int

    def resident_mb(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6


@contextlib.contextmanager
def broker_apart() -> Iterator[Apart]:
    port = free_port()
    with ManagedProcess([sys.executable, "-c", PROGRAM, str(port)]) as process:
        assert process.read_line(PATIENCE_S) == "ready"
        yield Apart(process, port)
