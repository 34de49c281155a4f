"""Frames a second of decode and detect, against the loop that one would write first, and against the machine's bound.

Prints, from interleaved rounds on the same clip with the same network:

1. the pipeline's frames a second over a plain `cv2.VideoCapture` + `cv2.resize` + ONNX Runtime loop with its defaults;
2. the pipeline's frames a second over the bound: all cores doing nothing but decode and detect, each step measured
   alone with every core busy.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import av
import cv2

from tests.benchmarks.clip import bench_clip
from tests.benchmarks.plain import PlainNetworks
from visaged.daemon.bench.rig import Bench, Rig
from visaged.daemon.settings import Settings
from visaged.models.detector import Detector
from visaged.models.manifest import Manifest
from visaged.models.preprocess import canvas_for, place
from visaged.models.session import SessionConfig
from visaged.pipelines.tracking.tracker import TrackerConfig

CORES = os.cpu_count() or 1
FRAMES = 250
ROUNDS = 5
NAME = Manifest().default_detector(on_gpu=False).name


def plain_loop(clip: Path, frames: int) -> float:
    """Return frames a second of the loop that one would write first."""
    networks = PlainNetworks()
    capture = cv2.VideoCapture(str(clip))
    cv2.setNumThreads(-1)  # its default, which the pipeline's rig changes
    began = time.perf_counter()
    for _ in range(frames):
        good, image = capture.read()
        assert good
        networks.detect(image)  # type: ignore[arg-type]
    return frames / (time.perf_counter() - began)


def bench() -> Bench:
    """Return what is measured: the detector alone on a CPU, as the plain loop has no attributes either."""
    return Bench(Settings.model_validate({"models": {"analyzer": None}, "inference": {"provider": "cpu"}}))


def pipeline(clip: Path, frames: int, cameras: int = CORES) -> float:
    """Return frames a second of the pipeline: every frame of a file for each core, as fast as possible."""
    source = {"url": str(clip), "fps": None, "pace": "fast", "loop": True}
    networks = bench()
    results: deque[float] = deque()  # when each was there; counting series would cost what is measured
    specs = networks.specs([{"name": f"camera{index}"} | source for index in range(cameras)])
    rig = Rig(networks, specs, lambda result: results.append(result.finished_s))
    began = time.perf_counter()
    rig.start(wait=lambda seconds: None)
    while len(results) < frames:
        networks.check()
        time.sleep(0.01)
    rate = len(results) / (time.perf_counter() - began)
    rig.stop()
    return rate


def busy_seconds(work: Callable[[], int]) -> float:
    """Return seconds of one core for one unit of work, with every core at the same work; `work` returns its units."""
    results: list[float] = []

    def measure() -> None:
        began = time.perf_counter()
        units = work()
        results.append((time.perf_counter() - began) / units)

    threads = [threading.Thread(target=measure) for _ in range(CORES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statistics.mean(results)


def decode_seconds(clip: Path, frames: int) -> float:
    """Return seconds of one core to decode a frame."""

    def decode() -> int:
        with av.open(str(clip)) as container:
            stream = container.streams.video[0]
            stream.thread_type, stream.thread_count = "NONE", 1
            for number, _ in enumerate(container.decode(stream), 1):
                if number == frames:
                    break
        return frames

    return busy_seconds(decode)


def detect_seconds(clip: Path, runs: int) -> float:
    """Return seconds of one core to run the detector once, as `Detector.detect` does."""
    detector = Detector.load(Manifest(), NAME, SessionConfig(provider="cpu"), TrackerConfig().low_confidence)
    good, image = cv2.VideoCapture(str(clip)).read()
    assert good
    canvas = place(image, canvas_for(image.shape[1], image.shape[0], 640))[None]

    def detect() -> int:
        for _ in range(runs):
            detector.detect(canvas)
        return runs

    return busy_seconds(detect)


def main() -> None:
    """Measure and print."""
    clip = bench_clip()
    plain_loop(clip, 30), pipeline(clip, 30)
    rows = []
    for _ in range(ROUNDS):
        plain = plain_loop(clip, FRAMES)
        ours = pipeline(clip, FRAMES)
        bound = CORES / (decode_seconds(clip, FRAMES // 2) + detect_seconds(clip, FRAMES // 4))
        rows.append((plain, ours, bound, ours / plain, ours / bound))
        print("  plain {:6.1f} fps   pipeline {:6.1f} fps   bound {:6.1f} fps   {:.2f} x plain   {:.2f} of the bound"
              .format(*rows[-1]), flush=True)  # fmt: skip
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    print(f"throughput, decode + detect every frame, {CORES} cores, medians of {ROUNDS} rounds: "
          f"pipeline {medians[1]:.1f} fps, {medians[3]:.2f} x the plain loop ({medians[0]:.1f} fps), "
          f"{medians[4]:.2f} of the bound ({medians[2]:.1f} fps)")  # fmt: skip


if __name__ == "__main__":
    main()
