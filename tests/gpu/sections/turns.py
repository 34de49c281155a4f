"""Inputs of several shapes in turns, as single pictures and batches of cameras bring them.

ONNX Runtime's convolutions plan again whenever the shape differs from that of a session's last run, so the daemon has a
session for each shape; this shows what that saves, what a new shape costs, and what memory the sessions take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from tests.gpu.report import Options, Report, Value
from tests.gpu.sections.machine import gpu_state
from tests.gpu.sections.networks import entries, noise, raw_session, timed, together
from visaged.models.manifest import AnalyzerEntry, DetectorEntry, Manifest
from visaged.models.search import Scales
from visaged.models.session import Session, SessionConfig

Feed = dict[str, NDArray[Any]]


def turns(report: Report, options: Options) -> None:
    """Run each network on the canvases of one picture in turns, then on batches of several sizes."""
    canvases = [(canvas.height, canvas.width) for canvas in Scales(640, 1280).canvases(4000, 3000)]
    sizes = (1, 4, 8, 16)
    if options.quick:
        canvases, sizes = canvases[-2:], (1, 4)
    for entry in entries():
        inputs = {"batches": [noise(entry, batch, canvases[-2]) for batch in sizes]}
        if isinstance(entry, DetectorEntry):
            inputs = {"canvases": [noise(entry, 1, canvas) for canvas in canvases], **inputs}
        for kind, feeds in inputs.items():
            title = f"{entry.name}, {len(feeds)} {kind}"
            with report.guarded(title):
                report.row(title, **_in_turns(entry, feeds, options))


def _in_turns(entry: DetectorEntry | AnalyzerEntry, feeds: Sequence[Feed], options: Options) -> dict[str, Value]:
    path = Manifest().file(entry)
    seconds = options.seconds(0.5)
    before = _memory(options)
    session = Session(path, SessionConfig(options.provider))
    first = [_spent(lambda one=one: session.run(session.outputs, one)) for one in feeds]  # type: ignore[misc]
    after = _memory(options)
    alone = [timed(lambda one=one: session.run(session.outputs, one), seconds / 4)[0] for one in feeds]  # type: ignore[misc]
    ours, _ = timed(lambda: [session.run(session.outputs, one) for one in feeds], seconds)
    single = raw_session(path, options)
    one, _ = timed(lambda: [single.run(session.outputs, one) for one in feeds], seconds)
    rate = {callers: _rounds(session, feeds, callers, seconds) for callers in (1, 2)}
    return {
        "ms alone": ", ".join(f"{1000 * value:.2f}" for value in alone),
        "ms a round, as the daemon": 1000 * ours,
        "ms a round, one session": 1000 * one,
        "rounds/s, 1 caller": rate[1],
        "rounds/s, 2 callers": rate[2],
        "first run s, the most": max(first),
        "memory before": before,
        "memory with all": after,
    }


def _rounds(session: Session, feeds: Sequence[Feed], callers: int, seconds: float) -> float:
    """Return how many rounds a second callers run who share a session."""
    rate, _ = together([lambda: [session.run(session.outputs, one) for one in feeds]] * callers, seconds)
    return rate


def _spent(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _memory(options: Options) -> Value:
    return gpu_state("memory.used").get("memory.used") if options.provider == "cuda" else None
