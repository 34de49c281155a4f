"""A daemon of our own with an embedded broker, and what its metrics say."""

from __future__ import annotations

import re
import socket
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.process import ManagedProcess

_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")


@dataclass
class Daemon:
    """A running daemon.

    Attributes:
        process: The process.
        port: Of its HTTP server.
        config: Its configuration file.
        document: What stands in it.
    """

    process: ManagedProcess
    port: int
    config: Path
    document: dict[str, Any]

    def reload(self, **changes: Any) -> None:
        """Change top-level keys of the configuration and have it read again."""
        self.document |= changes
        self.config.write_text(yaml.safe_dump(self.document))
        address, kind = f"http://127.0.0.1:{self.port}/v1/reload", {"Content-Type": "application/json"}
        request = urllib.request.Request(address, data=b"", headers=kind, method="POST")
        try:
            urllib.request.urlopen(request, timeout=30).read()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"the reload failed: {error.code} {error.read().decode()[:500]}") from None

    def sums(self) -> dict[str, float]:
        """Return the metrics, summed over cameras; what other labels a series has stays in its name."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        sums: dict[str, float] = defaultdict(float)
        for line in text.splitlines():
            if found := _SAMPLE.fullmatch(line):
                labels = [label for label in (found[2] or "").split(",") if label and not label.startswith("camera=")]
                sums[found[1] + (f"{{{','.join(labels)}}}" if labels else "")] += float(found[3])
        return sums


@contextmanager
def running(scratch: Path, provider: str, **settings: Any) -> Iterator[Daemon]:
    """Start a daemon and wait until it answers; its last lines are printed at the end."""
    port, broker = free_port(), free_port()
    document: dict[str, Any] = {
        "node": "kit",
        "mqtt": {"embedded": True, "port": broker},
        "http": {"port": port, "access_log": False},
        "inference": {"provider": provider},
        "state_dir": str(scratch / f"state{port}"),
        **settings,
    }
    config = scratch / f"visaged{port}.yaml"
    config.write_text(yaml.safe_dump(document))
    with ManagedProcess([sys.executable, "-m", "visaged.daemon", "run", "--config", str(config)]) as process:
        daemon = Daemon(process, port, config, document)
        try:
            _wait(daemon)
            yield daemon
        finally:
            print("\n".join(process.lines[:40] + ["..."] * (len(process.lines) > 80) + process.lines[40:][-40:]))


def _wait(daemon: Daemon) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{daemon.port}/metrics", timeout=5):
                return
        except OSError:
            if not daemon.process.is_running or time.monotonic() > end:
                raise RuntimeError("the daemon did not start: " + " | ".join(daemon.process.lines[-8:])) from None
            time.sleep(0.1)


def free_port() -> int:
    """Return a free TCP port of loopback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def mean(before: dict[str, float], after: dict[str, float], name: str, labels: str = "") -> float:
    """Return the mean of what a histogram counted between two readings, in its unit; 0 if it counted nothing."""

    def gained(what: str) -> float:
        return after.get(f"{name}_{what}{labels}", 0.0) - before.get(f"{name}_{what}{labels}", 0.0)

    return gained("sum") / max(1.0, gained("count"))


def network_means(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return for each network the mean length of its batches and the milliseconds that one took."""
    values = {}
    for key in [key for key in after if key.startswith("visaged_batch_size_count{")]:
        labels = key.removeprefix("visaged_batch_size_count")
        model = labels.split('"')[1]
        values[f"{model} batch"] = mean(before, after, "visaged_batch_size", labels)
        values[f"{model} ms"] = 1000 * mean(before, after, "visaged_inference_seconds", labels)
    return values


def quantile(before: dict[str, float], after: dict[str, float], histogram: str, share: float) -> float:
    """Return a quantile of what a histogram counted between two readings, in its unit; NaN if it counted nothing."""
    edges = []
    for name, value in after.items():
        if found := re.fullmatch(rf'{histogram}_bucket{{le="([^"]+)"}}', name):
            edges.append((float(found[1].replace("+Inf", "inf")), value - before.get(name, 0.0)))
    edges.sort()
    if not edges or not edges[-1][1]:
        return float("nan")
    wanted, low, below = share * edges[-1][1], 0.0, 0.0
    for edge, count in edges:
        if count >= wanted:
            return low if edge == float("inf") else low + (edge - low) * (wanted - below) / (count - below)
        low, below = edge, count
    return low
