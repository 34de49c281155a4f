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
from visaged.models.detector import Detector
from visaged.models.manifest import Manifest
from visaged.models.preprocess import canvas_for, place
from visaged.models.session import SessionConfig
from visaged.pipelines.attributes import NoReader
from visaged.pipelines.batcher import Batcher, WhenFull
from visaged.pipelines.inference import Inference
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker
from visaged.pipelines.source.camera import Camera
from visaged.pipelines.source.video import SourceConfig
from visaged.pipelines.tracking.job import FrameStage
from visaged.pipelines.tracking.tracker import TrackerConfig
from visaged.pipelines.tracking.tracks import CameraTracks, TrackingSpec

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


class Rig:
    """Cameras, batcher, detector and tracker as the daemon composes them, without a broker."""

    def __init__(self, sources: list[SourceConfig]) -> None:
        cv2.setNumThreads(1)  # as the daemon does
        self.metrics = Metrics()
        self.detector = Detector.load(Manifest(), NAME, SessionConfig(provider="cpu"), TrackerConfig().low_confidence)
        self.batcher = Batcher(max_batch=1, max_wait_s=0, max_pictures=1)
        self.results: deque[float] = deque()  # when each was there; counting series would cost what is measured
        inference = Inference(self.batcher, self.detector, NoReader(), self.metrics)
        self.cameras = [self._camera(f"camera{index}", source) for index, source in enumerate(sources)]
        self.readers = [Worker(camera.name, camera.run, self._died) for camera in self.cameras]
        self.workers = [Worker(f"inference-{index}", inference.run, self._died) for index in range(CORES)]

    def count(self, what: str) -> float:
        """Return a counter `visaged_frames_<what>_total`, summed over cameras."""
        family = next(f for f in self.metrics.registry.collect() if f.name == f"visaged_frames_{what}")
        return sum(sample.value for sample in family.samples if sample.name.endswith("_total"))

    def start(self) -> None:
        """Start every thread."""
        for worker in self.workers + self.readers:
            worker.start()

    def stop(self) -> None:
        """Stop every thread."""
        for worker in self.readers:
            worker.stop()
        self.batcher.close()
        for worker in self.workers:
            worker.stop()
        for worker in self.readers + self.workers:
            assert worker.join(10)

    def _camera(self, name: str, source: SourceConfig) -> Camera:
        counters = self.metrics.camera(name)
        tracks = CameraTracks(name, TrackingSpec(), NoReader())
        stage = FrameStage(
            tracks, counters, self.metrics, on_result=lambda result: self.results.append(result.finished_s)
        )
        lane = self.batcher.open_lane(WhenFull.DROP_OLDEST if source.live else WhenFull.WAIT, 1 if source.live else 2)
        return Camera(name, source, 640, 32, lane, stage.job, counters, on_status=lambda status: None)

    def _died(self, name: str, error: BaseException) -> None:
        print(f"{name} died: {error}", flush=True)
        os._exit(1)


def pipeline(clip: Path, frames: int, cameras: int = CORES) -> float:
    """Return frames a second of the pipeline: every frame of a file for each core, as fast as possible."""
    source = SourceConfig(url=str(clip), fps=None, pace="fast", loop=True)
    rig = Rig([source] * cameras)
    began = time.perf_counter()
    rig.start()
    while len(rig.results) < frames:
        time.sleep(0.01)
    rate = len(rig.results) / (time.perf_counter() - began)
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
