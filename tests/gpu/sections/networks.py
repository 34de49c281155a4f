"""The shipped networks in our own sessions: whether they run on the GPU, and how fast in which batches."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tests.gpu.report import Options, Report, Value
from visaged.models.detector import Detector
from visaged.models.manifest import AnalyzerEntry, DetectorEntry, Manifest
from visaged.models.preprocess import tensor
from visaged.models.session import GPU_BATCHES, Session, SessionConfig

_SHAPES = ((384, 640), (640, 640))
_BATCHES = (1, 2, 4, 8, 16, 32)


def entries() -> list[DetectorEntry | AnalyzerEntry]:
    """Return the entries of all shipped networks: the GPU's detector first."""
    manifest = Manifest()
    chosen = [manifest.default_detector(on_gpu=True), manifest.default_detector(on_gpu=False)]
    return [*chosen, manifest.analyzer("analyzer-v1")]


def sessions(report: Report, options: Options) -> None:
    """Load every network and say what it really runs on; then what users see who lack something."""
    manifest = Manifest()
    for entry in entries():
        report.attempt(entry.name, lambda entry=entry: _session(manifest, entry, options))
    for entry in entries():
        report.attempt(f"{entry.name}, nodes", lambda entry=entry: _nodes(manifest, entry, options))
    first = manifest.file(entries()[0])
    report.attempt("provider auto", lambda: {"runs on": Session(first, SessionConfig()).provider})
    for provider in ("tensorrt", "openvino"):
        report.attempt(
            f"provider {provider}", lambda p=provider: {"runs on": Session(first, SessionConfig(p)).provider}
        )
    report.attempt("without CUDA's libraries, provider cuda", lambda: _without_libraries(options, "cuda"))
    report.attempt("without CUDA's libraries, provider auto", lambda: _without_libraries(options, "auto"))


def _session(manifest: Manifest, entry: DetectorEntry | AnalyzerEntry, options: Options) -> dict[str, Value]:
    began = time.perf_counter()
    session = Session(manifest.file(entry), SessionConfig(options.provider))
    loaded = time.perf_counter()
    feed = noise(entry, 1, _SHAPES[0])
    session.run(session.outputs, feed)
    first = time.perf_counter()
    session.run(session.outputs, feed)
    second = time.perf_counter()
    return {
        "runs on": session.provider,
        "load s": loaded - began,
        "first run s": first - loaded,
        "second run ms": 1000 * (second - first),
    }


def _nodes(manifest: Manifest, entry: DetectorEntry | AnalyzerEntry, options: Options) -> dict[str, Value]:
    """Return which kinds of nodes each provider computes, by ONNX Runtime's profile of a run."""
    settings = onnxruntime.SessionOptions()
    settings.enable_profiling = True
    settings.profile_file_prefix = str(options.scratch / entry.name)
    session = raw_session(manifest.file(entry), options, settings)
    session.run(None, noise(entry, 1, _SHAPES[0]))
    events = json.loads(Path(session.end_profiling()).read_text())
    kinds: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for event in events:
        values = event.get("args", {})
        if event["name"].endswith("_kernel_time"):
            kinds[values["provider"].removesuffix("ExecutionProvider")][values["op_name"]] += 1
    return {
        provider: f"{sum(counts.values())} ({', '.join(f'{name} {n}' for name, n in counts.most_common())})"
        for provider, counts in sorted(kinds.items())
    }


def _without_libraries(options: Options, provider: str) -> dict[str, Value]:
    """Load a network with an ONNX Runtime that has no folder of CUDA libraries beside it; return what was said."""
    folder = options.scratch / f"bare-{provider}"
    folder.mkdir()
    (folder / "onnxruntime").symlink_to(Path(onnxruntime.__file__).parent)
    program = (
        "from visaged.models.session import Session, SessionConfig\n"
        "from visaged.models.manifest import Manifest\n"
        "m = Manifest()\n"
        f"s = Session(m.file(m.default_detector(on_gpu=True)), SessionConfig({provider!r}))\n"
        "print('runs on', s.provider)"
    )
    search = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=30, env=os.environ | {"PYTHONPATH": search}
    )
    print(done.stdout, done.stderr)
    return {"status": done.returncode, "stdout": done.stdout[-1500:].strip(), "stderr": done.stderr[-1500:].strip()}


def raw_session(
    path: Path, options: Options, settings: onnxruntime.SessionOptions | None = None, **cuda: str
) -> onnxruntime.InferenceSession:
    """Return ONNX Runtime's own session with options of the CUDA provider that ours does not set."""
    settings = settings or onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    if options.provider == "cuda":
        onnxruntime.preload_dlls()
        given = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"} | cuda
        providers = [("CUDAExecutionProvider", given), *providers]
    session = onnxruntime.InferenceSession(str(path), settings, providers=providers)
    if options.provider == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError(f"it runs on {session.get_providers()}")
    return session


def noise(entry: DetectorEntry | AnalyzerEntry, batch: int, shape: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """Return a network's input: a batch of noise, for a detector of a shape."""
    if isinstance(entry, AnalyzerEntry):
        shape = entry.input.size, entry.input.size
    pictures = np.random.default_rng(0).integers(0, 256, (batch, *shape, 3), np.uint8)
    return {entry.input.name: tensor(pictures, entry.input)}


def batches(report: Report, options: Options) -> None:
    """Time each network on batches: our session, ONNX Runtime's with everything bound to the GPU, the whole detector.

    Ours fills batches up, 2 to 4; the other one does not.
    """
    manifest = Manifest()
    sizes = (1, 2) if options.quick else _BATCHES
    for entry in entries():
        path = manifest.file(entry)
        session = Session(path, SessionConfig(options.provider), (*GPU_BATCHES, 32))
        detector = Detector(session, entry) if isinstance(entry, DetectorEntry) else None
        for shape in _SHAPES if detector else ((0, 0),):
            for batch in sizes:
                name = f"{entry.name} {f'{shape[1]}x{shape[0]} ' if detector else ''}batch {batch}"
                with report.guarded(name):
                    report.row(name, **_timed_batch(path, session, detector, noise(entry, batch, shape), options))
    for callers in (1, 2, 4):
        with report.guarded(f"callers {callers}"):
            report.row(f"{entries()[0].name} 640x384 batch 8, callers {callers}", **_callers(callers, options))


def _timed_batch(
    path: Path, session: Session, detector: Detector | None, feed: dict[str, NDArray[Any]], options: Options
) -> dict[str, Value]:
    (value,) = feed.values()
    budget = options.seconds(0.15)
    plain, cpu = timed(lambda: session.run(session.outputs, feed), budget)
    values: dict[str, Value] = {
        "ms": 1000 * plain,
        "pictures/s": len(value) / plain,
        "cpu ms/picture": 1000 * cpu / len(value),
    }
    results = session.run(session.outputs, feed)
    bound, bound_cpu = timed(_bound(raw_session(path, options), feed, results, options), budget)
    values |= {
        "ms bound to the device": 1000 * bound,
        "share of copies": 1 - bound / plain,
        "cpu ms/picture bound": 1000 * bound_cpu / len(value),
    }
    if detector is not None and value.dtype == np.uint8 and value.shape[-1] == 3:
        whole, whole_cpu = timed(lambda: detector.detect(value), budget)
        values |= {"ms with decoding": 1000 * whole, "cpu ms/picture with decoding": 1000 * whole_cpu / len(value)}
    return values


def _bound(
    session: onnxruntime.InferenceSession, feed: dict[str, NDArray[Any]], results: list[NDArray[Any]], options: Options
) -> Callable[[], object]:
    """Return a run whose input lies on the device already, and whose outputs stay there, each in a place of its own."""
    device = "cuda" if options.provider == "cuda" else "cpu"
    binding = session.io_binding()
    for name, value in feed.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, device, 0))
    for output, value in zip(session.get_outputs(), results, strict=True):
        place = onnxruntime.OrtValue.ortvalue_from_shape_and_type(value.shape, value.dtype, device, 0)
        binding.bind_ortvalue_output(output.name, place)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def timed(work: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Return the median seconds of a call, and its mean seconds of CPU, over some time after three calls."""
    for _ in range(3):
        work()
    spent: list[float] = []
    cpu, end = time.process_time(), time.perf_counter() + seconds
    while (began := time.perf_counter()) < end or len(spent) < 3:
        work()
        spent.append(time.perf_counter() - began)
    return float(np.median(spent)), (time.process_time() - cpu) / len(spent)


def together(callers: Sequence[Callable[[], object]], seconds: float) -> tuple[float, float]:
    """Return how many calls a second threads make, one for each caller, and how many cores that takes."""
    counts, end = [0] * len(callers), time.perf_counter() + seconds

    def work(index: int) -> None:
        while time.perf_counter() < end:
            callers[index]()
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(callers))]
    began, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - began
    return sum(counts) / spent, (time.process_time() - cpu) / spent


def _callers(callers: int, options: Options) -> dict[str, Value]:
    """Return pictures a second of threads that share one session, as inference workers do."""
    entry = entries()[0]
    session = Session(Manifest().file(entry), SessionConfig(options.provider))
    feed = noise(entry, 8, _SHAPES[0])
    session.run(session.outputs, feed)
    rate, cores = together([lambda: session.run(session.outputs, feed)] * callers, options.seconds(1.0))
    return {"pictures/s": 8 * rate, "cores": cores}


def variants(report: Report, options: Options) -> None:
    """Time options of the CUDA provider that later designs may take, bound to the device, batch 8."""
    batch = 1 if options.quick else 8
    for entry in entries():
        path, feed = Manifest().file(entry), noise(entry, batch, _SHAPES[0])
        results = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feed)
        for name, cuda in _variants():
            title = f"{entry.name}, {name}"
            with report.guarded(title):
                run = _bound(raw_session(path, options, **cuda), feed, results, options)
                began = time.perf_counter()
                run()
                first = time.perf_counter() - began
                median, cpu = timed(run, options.seconds(0.25))
                report.row(title, **{"ms": 1000 * median, "cpu ms": 1000 * cpu, "first run s": first})


def _variants() -> Iterator[tuple[str, dict[str, str]]]:
    yield "as the daemon", {}
    yield "use_tf32 0", {"use_tf32": "0"}
    yield "prefer_nhwc", {"prefer_nhwc": "1"}
    yield "EXHAUSTIVE", {"cudnn_conv_algo_search": "EXHAUSTIVE"}
    yield "EXHAUSTIVE, prefer_nhwc", {"cudnn_conv_algo_search": "EXHAUSTIVE", "prefer_nhwc": "1"}
    yield "CUDA graph", {"enable_cuda_graph": "1"}
    yield "CUDA graph, prefer_nhwc", {"enable_cuda_graph": "1", "prefer_nhwc": "1"}
