"""What a run of each network takes on ONNX Runtime, and on OpenVINO in float32 and bfloat16, as ratios of one run.

One caller: its thread's processor time, the runtimes in turns, so that all meet the same machine. Two callers: time until
both have done their runs, on two cores. Pictures are noise, on which the networks take as long as on any other.

Where the CPU has no bfloat16, OpenVINO imitates it: its column then says nothing of a CPU that has it.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from visaged.daemon.bench import machine
from visaged.models import openvino
from visaged.models.manifest import Manifest
from visaged.models.session import Session, SessionConfig

ROUNDS, IMITATED_ROUNDS = 40, 4
WAYS = {
    "onnxruntime": SessionConfig("cpu"),
    "openvino float32": SessionConfig("openvino", precision="float32"),
    "openvino bfloat16": SessionConfig("openvino", precision="bfloat16"),
}
CANVASES = ((640, 384), (640, 640), (256, 160), (256, 256), (1280, 768))
CROPS = (1, 4)
_SHOWN = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_tile")

Runs = Mapping[str, Callable[[], object]]


def main() -> None:
    """Measure and print."""
    print(f"{machine.processor()}, {machine.cores_allowed():g} cores; flags {' '.join(flags()) or 'unknown'}")
    print(f"bfloat16: {'of the CPU' if openvino.has_bfloat16() else 'imitated, slow'}; openvino {openvino.version()}")
    manifest = Manifest()
    detector = manifest.default_detector(on_gpu=False)
    analyzer = next(entry for entry in manifest.entries if entry.task == "analyzer")
    shapes = [(detector, f"{width}x{height}", (1, height, width, 3)) for width, height in CANVASES]
    shapes += [(analyzer, f"batch {count}", (count, 112, 112, 3)) for count in CROPS]
    print("network, input: milliseconds a picture, and times ONNX Runtime's, with one caller | with two")
    for entry, name, shape in shapes:
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        sessions = {way: Session(Path(manifest.file(entry)), config) for way, config in WAYS.items()}
        runs = {way: _run(session, images) for way, session in sessions.items()}
        alone, together = _one_caller(runs), _two_callers(runs)
        cells = [
            f"{way} {1000 * alone[way] / shape[0]:.2f} ({alone[way] / alone['onnxruntime']:.2f} x) | "
            f"{1000 * together[way] / shape[0]:.2f} ({together[way] / together['onnxruntime']:.2f} x)"
            for way in runs
        ]
        print(f"{entry.name}, {name}: " + "; ".join(cells), flush=True)


def flags() -> list[str]:
    """Return what matters here of what the CPU can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    has = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return [flag for flag in _SHOWN if flag in has]


def _run(session: Session, images: np.ndarray) -> Callable[[], object]:
    (name,) = session.inputs
    return lambda: session.run(session.outputs, {name: images})


def _rounds(way: str) -> int:
    return IMITATED_ROUNDS if "bfloat16" in way and not openvino.has_bfloat16() else ROUNDS


def _one_caller(runs: Runs) -> dict[str, float]:
    """Return the median of the thread's seconds a run."""
    taken: dict[str, list[float]] = {way: [] for way in runs}
    for way, run in runs.items():
        for _ in range(25 if _rounds(way) == ROUNDS else 2):  # until OpenVINO has compiled for the shape
            run()
    for turn in range(ROUNDS):
        for way, run in runs.items():
            if turn < _rounds(way):
                began = time.thread_time()
                run()
                taken[way].append(time.thread_time() - began)
    return {way: statistics.median(values) for way, values in taken.items()}


def _two_callers(runs: Runs) -> dict[str, float]:
    """Return the median of the seconds from one run to the next when two threads call."""
    taken: dict[str, list[float]] = {way: [] for way in runs}
    for turn in range(8):
        for way, run in runs.items():
            count = max(1, _rounds(way) // 8)
            began = time.perf_counter()
            threads = [threading.Thread(target=lambda: [run() for _ in range(count)]) for _ in range(2)]  # noqa: B023
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if turn:  # in the first the second caller's network is compiled
                taken[way].append((time.perf_counter() - began) / (2 * count))
    return {way: statistics.median(values) for way, values in taken.items()}


if __name__ == "__main__":
    main()
