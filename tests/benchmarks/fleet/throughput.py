"""Analysed frames a second: a fleet of two nodes with one core each, beside one process with two cores.

Both look at the same cameras, which are more than two cores can analyse, without shedding. Broker, listener and Ray's
own processes run on the same two cores.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.fleet.rig import CLIP, running
from tests.support.broker import MosquittoBroker, free_port
from tests.support.process import ManagedProcess
from tests.support.subscriber import Subscriber

CAMERAS = 10
SETTINGS: dict[str, Any] = {"overload": {"shed": False}}
WARM_S = 10.0


def main(seconds: float = 30.0) -> None:
    """Measure both for so long, and print the ratio."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    one = _one_process(cores, seconds)
    two = _two_nodes(cores, seconds)
    print(f"{CAMERAS} cameras of 720p25, cores {cores}: one process {one:.1f} frames/s, two nodes with one core each "
          f"{two:.1f} frames/s, ratio {two / one:.2f}")  # fmt: skip


def _one_process(cores: list[int], seconds: float) -> float:
    with tempfile.TemporaryDirectory() as folder, MosquittoBroker(Path(folder) / "broker") as broker:
        cameras = [{"name": f"cam{i}", "url": str(CLIP), "loop": True, "fps": None} for i in range(CAMERAS)]
        document = {
            "node": "one", "cameras": cameras, "mqtt": {"host": broker.host, "port": broker.port},
            "http": {"port": free_port()}, "state_dir": str(Path(folder) / "state"), "models": {"analyzer": None},
            "inference": {"provider": "cpu", "workers": 2}, **SETTINGS,
        }  # fmt: skip
        config = Path(folder) / "visaged.yaml"
        config.write_text(yaml.safe_dump(document))
        argv = [sys.executable, "-m", "visaged.daemon", "run", "--config", str(config)]
        with _pinned(cores), ManagedProcess(argv), Subscriber(broker, "visaged/+/faces", qos=0) as subscriber:
            subscriber.wait_for_all(lambda all_: len({one.topic for one in all_}) == CAMERAS, 60)
            return _rate(subscriber, seconds)


def _two_nodes(cores: list[int], seconds: float) -> float:
    with running(("a", "b"), CAMERAS, None, 6.0, SETTINGS, cores) as rig:
        return _rate(rig.subscriber, seconds)


def _rate(subscriber: Subscriber, seconds: float) -> float:
    time.sleep(WARM_S)
    subscriber.clear()
    time.sleep(seconds)
    return sum(one.topic.endswith("/faces") for one in subscriber.messages) / seconds


@contextmanager
def _pinned(cores: list[int]) -> Iterator[None]:
    """Let processes that are started meanwhile run on some cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
