"""What is left of each camera when there are one, two and four times as many as the machine can analyse.

Cameras are 1080p25 files at 4 Mb/s with a key frame every two seconds that loop at their own speed, which the daemon
takes for live cameras: half of them show faces, half of them a still picture without any, with a sensor's noise. They
go through the daemon's own path (`visaged.daemon.bench.rig`): source, batcher, detector, tracker, messages; no
attributes. Each number of cameras runs with and without shedding. It prints, for cameras with and without faces, the
analysed frames a second (the mean and the least of a camera) and key frames a second, then the age of results, from
capture to when they are there, and after how many seconds what is asked of the cameras changes no more.

    python -m tests.benchmarks.overload [SECONDS [CAPACITY]]

`CAPACITY` is the number of cameras that this machine carries (`python -m tests.benchmarks capacity`); left out, it is
found by `find_carried`, as `visaged bench` does it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from tests.benchmarks.clip import CACHE, bench_clip, encode_as_a_camera
from tests.benchmarks.daemon import percentile
from tests.benchmarks.throughput import bench
from visaged.daemon.bench.cameras import find_carried
from visaged.daemon.bench.clips import Clip, Size
from visaged.daemon.bench.composing import composing
from visaged.daemon.bench.rig import Bench, Rig
from visaged.pipelines.records import FrameResult
from visaged.pipelines.source.demand import FULL

FPS = 5.0
SETTLE_S, MEASURE_S = 30.0, 30.0
FIND_S = 90.0
TIMES = (1, 2, 4)
GROUP_S = 2.0
STEP_S = 0.13
"""Seconds between the starts of cameras: their key frames do not come at the same time."""


def empty_clip() -> Path:
    """Return a clip of as many bits in which nobody is, made on the first call (needs the extra `demo`)."""
    path = CACHE / "empty.mp4"
    if not path.exists():
        part = path.with_name("empty-part.mp4")
        encode_as_a_camera(_empty_frames(), part)
        part.rename(path)
    return path


def _empty_frames(count: int = 500) -> Iterator[av.VideoFrame]:
    from skimage import data

    scene = cv2.resize(cv2.cvtColor(data.rocket(), cv2.COLOR_RGB2BGR), (1920, 1080))
    planes = cv2.cvtColor(scene, cv2.COLOR_BGR2YUV_I420)  # (1620, 1920): luma, then chroma
    luma = planes[:1080].copy()
    noise = np.random.default_rng(0).normal(0, 3, (1080, 1920)).astype(np.int8)
    for number in range(count):
        planes[:1080] = cv2.add(luma, np.roll(noise, number * 37, axis=1), dtype=cv2.CV_8U)
        yield av.VideoFrame.from_ndarray(planes, format="yuv420p")


@dataclass
class Seen:
    """What came of one camera while it was measured."""

    frames: int = 0
    key_frames: int = 0
    faces: int = 0


class Results:
    """Takes results, and counts those since `begin`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.cameras: dict[str, Seen] = defaultdict(Seen)
        self.ages: list[float] = []
        self._counts = False

    def begin(self) -> None:
        """Count from now on."""
        with self._lock:
            self._counts = True

    def __call__(self, result: FrameResult) -> None:
        """Count a result."""
        with self._lock:
            if self._counts:
                seen = self.cameras[result.frame.camera]
                seen.frames += 1
                position_s = (result.frame.position_s or 0.0) % GROUP_S
                seen.key_frames += min(position_s, GROUP_S - position_s) < 0.02
                seen.faces += len(result.faces)
                self.ages.append(result.finished_s - result.frame.captured_s)


@dataclass(frozen=True)
class Row:
    """The figures of one run: of cameras with faces and of those without."""

    faces: list[Seen]
    empty: list[Seen]
    ages: list[float]
    settled_s: float
    seconds: float

    def fps(self, of: list[Seen]) -> tuple[float, float]:
        """Return analysed frames a second of cameras: the mean, and the least of a camera."""
        return sum(one.frames for one in of) / len(of) / self.seconds, min(one.frames for one in of) / self.seconds


def run(networks: Bench, cameras: int, shed: bool, seconds: float) -> Row:
    """Run a number of cameras, every second one without a face."""
    clips = bench_clip(), empty_clip()
    specs = networks.specs(
        [
            {"name": f"{'empty' if n % 2 else 'face'}{n}", "url": str(clips[n % 2]), "fps": FPS, "loop": True}
            for n in range(cameras)
        ]
    )
    results = Results()
    with composing(networks.died) as out:

        def submit(result: FrameResult) -> None:
            results(result)
            out.submit(result)

        rig = Rig(networks, specs, submit, shed)
        rig.start(lambda seconds: time.sleep(STEP_S))
        began, changed = time.monotonic(), 0.0
        demands = rig.demands
        while (now := time.monotonic()) < began + SETTLE_S:
            time.sleep(0.2)
            rig.attend()
            if (new := rig.demands) != demands:
                demands, changed = new, now - began
        results.begin()
        measured = rig.measure(seconds)
        reduced = sum(demand != FULL for demand in rig.demands.values())
        rig.stop()
    names = list(specs)
    print(
        f"    {reduced} of {cameras} cameras are reduced, {measured.cpu / measured.seconds:.2f} cores in use",
        flush=True,
    )
    return Row(
        [results.cameras[name] for name in names if name.startswith("face")],
        [results.cameras[name] for name in names if name.startswith("empty")],
        results.ages or [float("inf")],
        changed,
        measured.seconds,
    )


def main() -> None:
    """Measure and print."""
    numbers = [float(word) for word in sys.argv[1:]]
    seconds = numbers[0] if numbers else MEASURE_S
    networks = bench()
    clip = Clip(bench_clip(), Size("1080p", 1920, 1080, 4_000_000), "h264", 4e6)
    empty_clip()
    capacity = int(numbers[1]) if len(numbers) > 1 else find_carried(networks, clip, FIND_S).cameras
    print(f"capacity at {FPS:g} analysed fps: {capacity} cameras, {os.cpu_count()} cores")
    for times in TIMES:
        rates = {}
        for shed in (True, False):
            row = run(networks, times * capacity, shed, seconds)
            rates[shed] = row.fps(row.faces)[0]
            print(f"  {times} x, {'shedding' if shed else 'without '}: ", end="")
            for what, of in (("faces", row.faces), ("empty", row.empty)):
                mean, least = row.fps(of)
                keys = [one.key_frames / row.seconds * GROUP_S for one in of]
                print(f"{what} {mean:.2f} fps (least {least:.2f}, key frames {100 * min(keys):.0f} %), ", end="")
            print(f"age p50 {1000 * percentile(row.ages, 50):.0f} p95 {1000 * percentile(row.ages, 95):.0f} ms, "
                  f"settled after {row.settled_s:.0f} s", flush=True)  # fmt: skip
        print(f"  {times} x: cameras with a face keep {100 * rates[True] / FPS:.0f} % of their frames with shedding, "
              f"{100 * rates[False] / FPS:.0f} % without")  # fmt: skip


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main()
