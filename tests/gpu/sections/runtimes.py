"""What TensorRT and CUDA graphs save, whether they tell the same, and how long they take to be ready."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.gpu.report import Options, Report, Value
from tests.gpu.sections.machine import gpu_state
from tests.gpu.sections.networks import entries, noise, timed, together
from visaged.models import engines
from visaged.models.agreement import face_difference
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.manifest import AnalyzerEntry, Manifest
from visaged.models.nvidia.driver import devices as gpus
from visaged.models.nvidia.tensorrt import Profile
from visaged.models.search import Scales
from visaged.models.session import GPU_BATCHES, Session, SessionConfig

_PERSON = Path(__file__).resolve().parents[3] / "daemon" / "demo" / "person.jpg"
_SHAPE = (384, 640)
_CROPS = (1, 8, 32)


def graphs(report: Report, options: Options) -> None:
    """Run each network on prepared batches with and without CUDA graphs, by one caller and by two."""
    for entry in entries():
        sizes = _CROPS if isinstance(entry, AnalyzerEntry) else GPU_BATCHES
        sizes = sizes[:2] if options.quick else sizes
        sessions = {}
        for name, recorded in (("off", False), ("on", True)):
            with report.guarded(f"{entry.name}, graphs {name}"):
                config = SessionConfig(options.provider, cuda_graphs=recorded)
                session, began = Session(Manifest().file(entry), config, sizes), time.perf_counter()
                before = _memory(options)
                ((key, item),) = noise(entry, 1, _SHAPE).items()
                session.prepare(key, item, max(sizes))
                report.row(
                    f"{entry.name}, graphs {name}",
                    **{"ready s": time.perf_counter() - began, "memory before": before, "then": _memory(options)},
                )
                sessions[name] = session
        for size in sizes:
            feed = noise(entry, size, _SHAPE)
            for name, session in sessions.items():
                title = f"{entry.name} batch {size}, graphs {name}"
                report.attempt(title, lambda s=session, f=feed: _speed(s, f, options))
            if len(sessions) == 2:
                title = f"{entry.name} batch {size}, outputs differ at most"
                report.attempt(title, lambda f=feed, s=sessions: _apart(s["off"], s["on"], f))


def tensorrt(report: Report, options: Options) -> None:
    """Build engines, load them from the cache, compare what they tell with CUDA, and time batches on both."""
    manifest, cache = Manifest(), options.scratch / "engines"
    provider = "tensorrt" if options.provider == "cuda" else options.provider
    config = SessionConfig(provider, cache=cache)  # type: ignore[arg-type]
    picture = np.asarray(cv2.imread(str(_PERSON)), np.uint8)
    fast: Detector | None = None
    with report.guarded("detector"):
        name = manifest.default_detector(on_gpu=True).name
        detector = Detector.load(manifest, name, config)
        first, *_, any_canvas = engines.detector_profiles(detector, Scales.of(detector, 640, 1280), False, 16)
        fast = _built(report, f"{name}, {first}", detector, first)
        if fast is not None:
            report.attempt(f"{name}, loaded from the cache", lambda: _again(manifest, name, config, first))
            report.attempt(f"{name}, faces", lambda: _same(detector, fast, picture))
            for batch in (1, 4, 8, 16):
                canvases = np.repeat(noise(entries()[0], 1, _SHAPE)["image"], batch, 0)
                report.attempt(
                    f"{name} batch {batch}", lambda c=canvases: _both(detector.detect, fast.detect, c, options)
                )
    with report.guarded("analyzer"):
        analyzer = Analyzer.load(manifest, "analyzer-v1", config)
        reader = _built(report, f"{analyzer.name}, {analyzer.profile()}", analyzer, analyzer.profile())
        for batch in _CROPS if reader is not None else ():
            side = analyzer.aligner.size
            crops = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
            title = f"{analyzer.name} batch {batch}"
            report.attempt(title, lambda c=crops: _both(analyzer.analyze, reader.analyze, c, options))
    with report.guarded("pictures"):
        if fast is not None:
            _built(report, f"{name}, {any_canvas}", detector, any_canvas)


def devices(report: Report, options: Options) -> None:
    """Run the detector on one GPU and on two at once, and decode on each."""
    found = gpus()
    report.row("GPUs", count=len(found), names=", ".join(one.name for one in found) or "-")
    if len(found) < 2 or options.provider != "cuda":
        return
    entry = entries()[0]
    feed = noise(entry, 8, _SHAPE)
    sessions = [Session(Manifest().file(entry), SessionConfig("cuda", device=one.number)) for one in found[:2]]
    for session in sessions:
        session.run(session.outputs, feed)
    for count in (1, 2):
        rate = _rate([session for session in sessions[:count] for _ in range(2)], feed, options.seconds(2.0))
        report.row(f"{entry.name} batch 8 on {count} GPUs, 2 callers each", **{"pictures/s": rate})
    from tests.gpu.sections.decoding import decoded_on

    for one in found[:2]:
        report.attempt(f"decoder on GPU {one.number}", lambda number=one.number: decoded_on(number, options))


def _built(report: Report, title: str, network: Any, profile: Profile) -> Any:
    """Return a network on an engine; None where it cannot be built, which is reported."""
    began = time.perf_counter()
    with report.guarded(title):
        fast = network.on_engine(profile)
        report.row(title, **{"built s": time.perf_counter() - began})
        return fast
    return None


def _again(manifest: Manifest, name: str, config: SessionConfig, profile: Profile) -> dict[str, Value]:
    detector, began = Detector.load(manifest, name, config), time.perf_counter()
    detector.on_engine(profile)
    return {"s": time.perf_counter() - began}


def _same(detector: Detector, fast: Detector, picture: NDArray[np.uint8]) -> dict[str, Value]:
    canvas = np.zeros((1, *_SHAPE, 3), np.uint8)
    canvas[0, :, : _SHAPE[0]] = cv2.resize(picture, (_SHAPE[0], _SHAPE[0]))
    (faces,), (others,) = detector.detect(canvas), fast.detect(canvas)
    said = face_difference(faces, others, detector.face_threshold)
    return {"faces on CUDA": len(faces), "on TensorRT": len(others), "difference": said or "none"}


def _both(
    plain: Callable[[Any], object], fast: Callable[[Any], object], value: NDArray[Any], options: Options
) -> dict[str, Value]:
    budget = options.seconds(0.3)
    return {
        "ms on CUDA": 1000 * timed(lambda: plain(value), budget)[0],
        "ms on TensorRT": 1000 * timed(lambda: fast(value), budget)[0],
    }


def _speed(session: Session, feed: dict[str, NDArray[Any]], options: Options) -> dict[str, Value]:
    median, cpu = timed(lambda: session.run(session.outputs, feed), options.seconds(0.3))
    two = _rate([session, session], feed, options.seconds(0.3))
    return {"ms": 1000 * median, "cpu ms": 1000 * cpu, "pictures/s, 2 callers": two}


def _apart(one: Session, other: Session, feed: dict[str, NDArray[Any]]) -> dict[str, Value]:
    pairs = zip(one.run(one.outputs, feed), other.run(other.outputs, feed), strict=True)
    return {"by": max(float(np.abs(a - b).max()) for a, b in pairs)}


def _rate(callers: list[Session], feed: dict[str, NDArray[Any]], seconds: float) -> float:
    """Return pictures a second of a thread for each session named."""
    rate, _ = together([partial(one.run, one.outputs, feed) for one in callers], seconds)
    return rate * len(next(iter(feed.values())))


def _memory(options: Options) -> Value:
    return gpu_state("memory.used").get("memory.used") if options.provider == "cuda" else None
