"""The MQTT output at work in a test, behind the fan-out that feeds it."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from tests.support.subscriber import Message, Subscriber
from tests.support.waiting import until
from visaged.pipelines.outputs.fan_out import FanOut
from visaged.pipelines.outputs.messages import Composer
from visaged.pipelines.outputs.mqtt.config import PublisherConfig
from visaged.pipelines.outputs.mqtt.losses import Losses
from visaged.pipelines.outputs.mqtt.output import MqttOutput
from visaged.pipelines.outputs.mqtt.times import Times
from visaged.pipelines.outputs.outbox import MemoryOutbox, NoTopicMemory, Outbox, TopicMemory
from visaged.pipelines.outputs.spool.config import SpoolConfig
from visaged.pipelines.outputs.spool.spool import Spool
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker

# For a busy machine; what a test waits for comes far earlier.
PATIENCE_S = 40.0
EPOCH = 1_700_000_000_000
IMPATIENT = Times(reconnect_s=0.2, probe_s=0.5, proven_s=0.3)
"""So that a test of many hang-ups takes seconds."""


class Running:
    """The MQTT output at work, behind the fan-out that feeds it; with a folder, events wait there on disk."""

    def __init__(
        self,
        port: int,
        login: tuple[str | None, str | None] = (None, None),
        times: Times = Times(),  # noqa: B008 - it cannot be changed
        folder: Path | None = None,
        cameras: Sequence[str] = (),
        **config: Any,
    ) -> None:
        self.metrics = Metrics(CollectorRegistry())
        settings = PublisherConfig(**{"port": port, "prefix": "v", "reconnect_most_s": 1} | config)
        composer = Composer("node", EPOCH)
        outbox: Outbox = MemoryOutbox(*settings.memory)
        memory: TopicMemory = NoTopicMemory()
        spools: list[tuple[str, Spool]] = []
        if folder is not None:
            lose = Losses(MqttOutput.name, self.metrics)
            count = partial(lose.count, "events")
            outbox = memory = spool = Spool(folder, SpoolConfig(), settings.memory, EPOCH, count, self.metrics)
            spools.append(("spool", spool))
        self.output = MqttOutput(settings, composer, self.metrics, "1.2.3", outbox, login, memory, times=times)
        self.publisher = FanOut(composer, [self.output], self.metrics)
        self.link = self.output._link
        self.deaths: list[BaseException] = []
        self.turns = 0
        self._turn = self.output._turn
        self.output._turn = self._count_turn  # type: ignore[method-assign]
        self.workers = [
            Worker(name, part.run, lambda name, error: self.deaths.append(error))
            for name, part in (("fan-out", self.publisher), ("mqtt", self.output), *spools)
        ]
        self.output.clear_all_but(cameras)
        self.publisher.expect(cameras)
        for worker in self.workers:
            worker.start()

    def count(self, name: str, **labels: str) -> float:
        if labels:
            labels["output"] = "mqtt"
        whole = f"visaged_output_{name}" if labels else f"visaged_mqtt_{name}"
        return self.metrics.registry.get_sample_value(whole, labels) or 0.0

    def lost(self) -> dict[tuple[str, str], float]:
        return {
            (sample.labels["kind"], sample.labels["cause"]): sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "visaged_output_lost_total"
        }

    def _count_turn(self) -> None:
        self.turns += 1
        self._turn()

    def connected(self) -> None:
        until(lambda: self.link.connected, PATIENCE_S)

    def disconnected(self) -> None:
        until(lambda: not self.link.connected, PATIENCE_S)

    def settled(self, events: int) -> None:
        """Waits until the broker has that many events, and looks that none is counted twice or left."""
        until(lambda: self.count("acknowledged_total", kind="events") >= events, PATIENCE_S)
        until(lambda: self.count("waiting", kind="events") == 0, PATIENCE_S)
        assert self.count("acknowledged_total", kind="events") == events
        assert self.count("published_total", kind="events") == events

    def stop(self, drain_s: float = PATIENCE_S) -> float:
        """Stops it; returns how long that took."""
        began_s = time.monotonic()
        self.output.drain(began_s + drain_s)
        for worker in self.workers:
            worker.stop()
            assert worker.join(drain_s + 10)
        return time.monotonic() - began_s


Start = Callable[..., Running]


@contextlib.contextmanager
def starting() -> Iterator[Start]:
    """Gives a function that starts outputs; they end with the context."""
    running: list[Running] = []

    def make(port: int, **options: Any) -> Running:
        running.append(Running(port, **options))
        return running[-1]

    yield make
    for one in running:
        one.stop(drain_s=0)
        assert not one.deaths


def cut(running: Running) -> None:
    """Breaks the connection while the publisher believes in it."""
    sock: Any = running.link._client.socket()
    sock.shutdown(socket.SHUT_RDWR)


def wait_for_node(subscriber: Subscriber, state: str) -> Message:
    return subscriber.wait_for(lambda m: m.topic == "v/node/status" and m.json()["state"] == state, PATIENCE_S)
