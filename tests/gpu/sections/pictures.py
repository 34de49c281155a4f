"""Single pictures over HTTP from eight clients, on the GPU and on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.benchmarks.load import closed
from tests.gpu.report import Options, Report, Value
from tests.gpu.sections.daemon import Daemon, network_means, running

_PICTURE = Path(__file__).resolve().parents[3] / "daemon" / "demo" / "picture.jpg"
_CLIENTS = 8


def pictures(report: Report, options: Options) -> None:
    """Post the demo picture for some seconds."""
    body = _PICTURE.read_bytes()
    for provider in dict.fromkeys((options.provider, "cpu")):
        with report.guarded(provider), running(options.scratch, provider) as daemon:
            closed(daemon.port, "/v1/faces", body, _CLIENTS, options.seconds(1.5))
            for path in ("/v1/faces", "/v1/faces?landmarks=106"):
                report.row(f"{provider}, {path}", **_rate(daemon, path, body, options))
            if provider == "cuda":
                for clients in (1, 16):
                    report.row(f"{provider}, {clients} clients", **_rate(daemon, "/v1/faces", body, options, clients))


def _rate(daemon: Daemon, path: str, body: bytes, options: Options, clients: int = _CLIENTS) -> dict[str, Value]:
    seconds = options.seconds(2.5)
    before = daemon.sums()
    load = closed(daemon.port, path, body, clients, seconds)
    after = daemon.sums()
    values: dict[str, Value] = {
        "answers/s": len(load.seconds) / seconds,
        "refused": load.refused,
        "failed": len(load.failed),
        "cores": (after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]) / seconds,
    }
    if load.failed:
        values["error"] = load.failed[0]
    if load.seconds:
        p50, p99 = np.percentile(load.seconds, [50, 99])
        values |= {"p50 ms": 1000 * float(p50), "p99 ms": 1000 * float(p99)}
    return values | network_means(before, after)
