"""What the spool costs: events through the MQTT output to a real mosquitto, from memory and from disk, in one run.

    python -m tests.benchmarks spool

The first rows offer events as fast as they are taken, in turns: their ratio counts. The second part offers 5,000 events
a second for some seconds and prints how long an event waits from its arrival at the spool until it may be sent, and how
many transactions that took. An event has the size that one with all attributes has, about 2 kB. The folder is the
system's for temporary files (`TMPDIR` names another): a slower disk has another result.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from tests.support.broker import MosquittoBroker
from visaged.pipelines.outputs.messages import Composer, Message
from visaged.pipelines.outputs.mqtt.config import PublisherConfig
from visaged.pipelines.outputs.mqtt.output import MqttOutput
from visaged.pipelines.outputs.outbox import MemoryOutbox, Outbox
from visaged.pipelines.outputs.spool.config import SpoolConfig
from visaged.pipelines.outputs.spool.spool import Spool
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker

_EVENTS = 20_000
_ROUNDS = 3
_RATE = 5000
_SECONDS = 5
_MEMORY = (100_000, 1_000_000_000)
_BODY = b'{"schema":"visaged.events/1",' + b" " * 2000 + b'"reason":null}'


def main() -> None:
    """Run both parts."""
    with tempfile.TemporaryDirectory() as folder, MosquittoBroker(Path(folder)) as broker:
        rates: dict[str, list[float]] = {"memory": [], "disk": []}
        for number in range(_ROUNDS):
            rates["memory"].append(_through(broker.port, MemoryOutbox(*_MEMORY), Metrics(CollectorRegistry())))
            with _spool(Path(folder) / str(number)) as (spool, metrics):
                rates["disk"].append(_through(broker.port, spool, metrics))
        medians = {name: statistics.median(found) for name, found in rates.items()}
        for name, rate in medians.items():
            print(f"{name:8} {rate:8.0f} events/s acknowledged by mosquitto (median of {_ROUNDS})")
        print(f"disk / memory {medians['disk'] / medians['memory']:.2f}")
        with _spool(Path(folder) / "steady") as (spool, metrics):
            _steady(spool, metrics)


def _message(number: int) -> Message:
    # Twenty cameras with a track each, whose state is stored along with the event.
    camera = number % 20
    now_s = time.monotonic()
    return Message("events", f"camera-{camera}", number, 1, _BODY, now_s, time.time(), track=camera, is_end=False)


@contextmanager
def _spool(folder: Path) -> Iterator[tuple[Spool, Metrics]]:
    folder.mkdir()
    metrics = Metrics(CollectorRegistry())
    epoch = int(time.time() * 1000)
    spool = Spool(folder, SpoolConfig(max_mb=1000), _MEMORY, epoch, lambda cause, count: None, metrics)
    worker = Worker("spool", spool.run, _fail)
    worker.start()
    try:
        yield spool, metrics
    finally:
        worker.stop()
        worker.join(60)


def _through(port: int, outbox: Outbox, metrics: Metrics) -> float:
    """Return events per second, from the first offered to the last acknowledged."""
    config = PublisherConfig(port=port, max_waiting_events=_MEMORY[0])
    output = MqttOutput(config, Composer("bench", 1), metrics, "0", outbox)
    worker = Worker("mqtt", output.run, _fail)
    worker.start()
    while not output.state().connected:
        time.sleep(0.01)
    began = time.perf_counter()
    for number in range(_EVENTS):
        output.offer(_message(number))
    acknowledged = metrics.output_acknowledged.labels("mqtt", "events")
    while acknowledged._value.get() < _EVENTS:
        time.sleep(0.005)
    seconds = time.perf_counter() - began
    output.drain(time.monotonic())
    worker.stop()
    worker.join(10)
    return _EVENTS / seconds


def _steady(spool: Spool, metrics: Metrics) -> None:
    """Print how long events wait at a steady rate; they are acknowledged as soon as they may be sent."""
    due = threading.Event()
    spool.listen(due.set)
    put_s: dict[int, float] = {}
    waited: list[float] = []
    total, began = _RATE * _SECONDS, time.perf_counter()
    number = 0
    while len(waited) < total:
        while number < min(total, (time.perf_counter() - began) * _RATE):
            put_s[number] = time.perf_counter()
            spool.put(_message(number))
            number += 1
        due.wait(0.001)
        due.clear()
        for envelope in spool.pending(1000):
            waited.append(time.perf_counter() - put_s.pop(envelope.message.seq))
            spool.ack(envelope.id)
    seconds = time.perf_counter() - began
    waited.sort()
    batches = sum(s.value for f in metrics.spool_write.collect() for s in f.samples if s.name.endswith("_count"))
    print(
        f"at {_RATE} events/s offered: {total / seconds:.0f} events/s, wait p50 {waited[total // 2] * 1000:.1f} ms, "
        f"p95 {waited[int(total * 0.95)] * 1000:.1f} ms, longest {waited[-1] * 1000:.1f} ms, "
        f"{total / max(1, batches):.0f} events a transaction"
    )


def _fail(name: str, error: BaseException) -> None:
    raise SystemExit(f"{name} died: {error}")


if __name__ == "__main__":
    main()
