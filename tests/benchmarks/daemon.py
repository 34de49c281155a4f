"""The whole daemon on four RTSP cameras and a real broker: age of its messages, and its memory.

`age` prints percentiles of the age at hand-over to MQTT (from capture, by the camera's clock over RTCP) and of each
stage. `soak [MINUTES]` prints the daemon's memory after 2 minutes and at the end while one of the cameras drops its
session every 10 s. Needs mosquitto and GStreamer's RTSP server, as the tests do; the test camera runs on the same
cores as the daemon.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.benchmarks.clip import ROOT
from tests.support.broker import MosquittoBroker, free_port
from tests.support.process import ManagedProcess
from tests.support.rtsp import RtspServer
from tests.support.subscriber import Subscriber

CAMERAS = 4
FPS = 5


@dataclass
class Bench:
    """A running daemon with its cameras and broker."""

    server: RtspServer
    broker: MosquittoBroker
    daemon: ManagedProcess

    def resident_mb(self) -> float:
        """Return the daemon's resident memory."""
        for line in Path(f"/proc/{self.daemon.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS: the daemon has ended")


@contextmanager
def running(mounts: list[str]) -> Iterator[Bench]:
    """Start a test camera, a broker and a daemon that looks at `mounts`."""
    with tempfile.TemporaryDirectory() as folder, RtspServer(ROOT / "daemon/demo/demo.mp4") as server:
        broker = MosquittoBroker(Path(folder) / "broker")
        broker.start()
        try:
            config = Path(folder) / "visaged.yaml"
            cameras = [{"name": f"camera{i}", "url": server.url(m), "fps": FPS} for i, m in enumerate(mounts)]
            document = {
                "node": "bench",
                "cameras": cameras,
                "mqtt": {"host": broker.host, "port": broker.port},
                "http": {"port": free_port()},
                "state_dir": str(Path(folder) / "state"),
            }
            config.write_text(yaml.safe_dump(document))
            with ManagedProcess([sys.executable, "-m", "visaged.daemon", "run", "--config", str(config)]) as daemon:
                yield Bench(server, broker, daemon)
        finally:
            broker.stop()


def percentile(values: list[float], percent: float) -> float:
    """Return a percentile of at least two values."""
    return statistics.quantiles(values, n=100, method="inclusive")[round(percent) - 1]


def age(seconds: float = 30.0) -> None:
    """Measure and print ages."""
    with running(["/normal"] * CAMERAS) as bench, Subscriber(bench.broker, "visaged/+/faces") as subscriber:
        subscriber.wait_for_all(lambda messages: len(messages) >= 20 * CAMERAS)
        subscriber.clear()
        time.sleep(seconds)
        messages = [message.json() for message in subscriber.messages]
    values: dict[str, list[float]] = defaultdict(list)
    clocks = {message["clock"] for message in messages}
    for message in messages:
        values["age at hand-over"].append(message["age_ms"])
        rest = message["age_ms"]
        for stage, milliseconds in message["timing_ms"].items():
            values[stage].append(milliseconds)
            rest -= milliseconds
        values["camera, network and publish"].append(rest)
    print(f"age, {CAMERAS} cameras at {FPS} analysed fps, {len(messages)} messages in {seconds:.0f} s, "
          f"capture time by: {', '.join(sorted(clocks))}")  # fmt: skip
    for name, column in values.items():
        print(f"  {name:28} p50 {percentile(column, 50):6.1f} ms   p95 {percentile(column, 95):6.1f} ms")


def soak(minutes: float = 10.0) -> None:
    """Measure and print memory."""
    with running(["/normal"] * (CAMERAS - 1) + ["/drop"]) as bench:
        began = time.monotonic()
        samples: list[tuple[float, float]] = []
        while (elapsed := time.monotonic() - began) < minutes * 60:
            time.sleep(10)
            bench.server.drop(mount="/drop")
            samples.append((elapsed + 10, bench.resident_mb()))
            if len(samples) % 6 == 0:
                print(f"  {samples[-1][0] / 60:5.1f} min  {samples[-1][1]:.1f} MB", flush=True)
        early = next(size for at, size in samples if at >= 120)
        reconnects = sum("next try" in line for line in bench.daemon.lines)
    print(f"memory, {CAMERAS} cameras of which one dropped {len(samples)} times ({reconnects} reconnects logged): "
          f"{early:.1f} MB after 2 minutes, {samples[-1][1]:.1f} MB after {minutes:.0f}: "
          f"{samples[-1][1] - early:+.1f} MB")  # fmt: skip


def main() -> None:
    """Run `age` or `soak`."""
    what, *arguments = sys.argv[1:] or ["age"]
    {"age": age, "soak": soak}[what](*map(float, arguments))


if __name__ == "__main__":
    main()
