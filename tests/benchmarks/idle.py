"""What idle cameras cost, and which faces they are late for: `python -m tests.benchmarks idle [--videos FOLDER]`.

Each video (by default the bundled clip, with empty stretches around it) is encoded as cameras do it: 1080p25 H.264, no
B-frames, a key frame every 2 and every 4 seconds; at constant quality, and with a sensor's noise at a constant 4 Mb/s.
Two cameras play it at the same time, one that decodes everything and one with `idle: keyframes`, each with networks'
workers, tracker and composing of its own, so that the processor time of each is that of its threads. Times are those at
which the events were handed to the outputs. The same is done with a picture in which nobody is.

An event of the first camera that lasts over one key-frame interval counts as found if the second's event that begins
most like it, by time and place, goes on for over half of its time. How much later it was told is counted from when the
first one told it.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from tests.benchmarks.clip import CACHE
from tests.benchmarks.throughput import bench
from visaged.daemon.bench.composing import composing
from visaged.daemon.bench.rig import Bench
from visaged.models.search import Scales
from visaged.pipelines.cameras import CameraSet, Sinks
from visaged.pipelines.inference import Inference
from visaged.pipelines.records import FrameResult, TrackEvent
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker

SIZE, FPS = (1920, 1080), 25
AFTER_S = 5.0
EMPTY_S = 40.0
SETTLE_S = 12.0  # of an empty camera, until it is idle
DEMO = Path(__file__).resolve().parents[2] / "daemon" / "demo" / "demo.mp4"
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a camera encodes."""

    gop_s: int
    noisy: bool

    @property
    def name(self) -> str:
        """What it is called in the table and in the names of files."""
        return f"{'noise-4Mb' if self.noisy else 'quality'}-{self.gop_s}s"

    def options(self) -> dict[str, str]:
        """Return the encoder's options."""
        rate = {"b": "4M", "maxrate": "4M", "bufsize": "4M"} if self.noisy else {"crf": "26"}
        fixed = {"preset": "superfast", "tune": "zerolatency", "bf": "0", "refs": "1", "sc_threshold": "0"}
        return fixed | rate | {"g": str(self.gop_s * FPS)}


ENCODINGS = [Encoding(gop_s, noisy) for noisy in (False, True) for gop_s in (2, 4)]


@dataclass(slots=True)
class Seen:
    """A face that a camera saw, in seconds of the video, and when that was told."""

    begin_s: float
    told_s: float
    end_s: float
    box: NDArray[np.float32]

    def distance(self, other: Seen) -> float:
        """Return how unlike the begins of two events are, in seconds and in heights of a face."""
        apart = np.linalg.norm((self.box[:2] + self.box[2:] - other.box[:2] - other.box[2:]) / 2)
        return abs(self.begin_s - other.begin_s) + float(apart / (self.box[3] - self.box[1]))


@dataclass(slots=True)
class Watched:
    """What one camera told of, and what it cost."""

    faces: dict[int, Seen] = field(default_factory=dict)
    seconds: float = 0.0
    cpu: float = 0.0
    wakes: str = ""


class _Camera:
    """One camera with workers of its own."""

    def __init__(self, networks: Bench, name: str, path: Path, idle: str, after_s: float) -> None:
        self.told = Watched()
        self._networks, self._name = networks, name
        self._zero_at: float | None = None  # when the video's beginning was captured
        self._lock = threading.Lock()
        self._batcher = networks.batcher()
        self._metrics = Metrics()
        work = Inference(self._batcher, networks.detector, networks.reader, networks.metrics)
        self._workers = [Worker(f"inference-{name}-{n}", work.run, networks.died) for n in range(networks.workers)]
        camera: dict[str, object] = {"name": name, "url": str(path), "fps": 5, "loop": True}
        self._specs = networks.specs([camera | {"idle": idle, "idle_after_s": after_s}])
        self._composing = composing(networks.died)
        out = self._composing.__enter__()
        scales = Scales.of(networks.detector, networks.settings.inference.long_side)

        def on_result(result: FrameResult) -> None:
            self._note(result)
            out.submit(result)

        def on_event(event: TrackEvent) -> None:
            self._event(event)
            out.submit_event(event)

        sinks = Sinks(on_result, on_event, lambda status: None, lambda name: None)
        self.cameras = CameraSet(self._batcher, networks.reader, scales, self._metrics, sinks, networks.died)

    def start(self) -> None:
        for worker in self._workers:
            worker.start()
        self.cameras.apply(self._specs)

    def seconds(self) -> float:
        """Return the processor time of the camera's threads so far."""
        spent = 0.0
        for thread in threading.enumerate():
            if thread.ident is not None and self._name in thread.name:
                spent += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        return spent

    def stop(self) -> Watched:
        self.cameras.stop()
        for job in self._batcher.close():
            job.drop("shutdown")
        for worker in self._workers:
            worker.stop()
        deadline_s = time.monotonic() + 20
        self.cameras.join(deadline_s)
        for worker in self._workers:
            worker.join(deadline_s - time.monotonic())
        self._composing.__exit__(None, None, None)
        wakes = {}
        for family in self._metrics.registry.collect():
            if family.name == "visaged_camera_wakes":
                wakes = {one.labels["cause"]: int(one.value) for one in family.samples if one.name.endswith("_total")}
        self.told.wakes = ", ".join(f"{count} {cause}" for cause, count in sorted(wakes.items())) or "none"
        return self.told

    def _note(self, result: FrameResult) -> None:
        frame = result.frame
        if self._zero_at is None and frame.position_s is not None:
            self._zero_at = frame.captured_at - frame.position_s
        for event in result.events:
            self._event(event)

    def _event(self, event: TrackEvent) -> None:
        if self._zero_at is None:
            return
        with self._lock:
            face, now_s = event.face, time.time() - self._zero_at
            assert face.track is not None
            begin_s = event.started_at - self._zero_at
            seen = self.told.faces.setdefault(face.track, Seen(begin_s, now_s, begin_s, face.shot.box))
            seen.end_s = begin_s + event.duration_s


def watch(
    networks: Bench, path: Path, seconds: float, settle_s: float = 0.0, after_s: float = AFTER_S
) -> tuple[Watched, Watched]:
    """Let two cameras play a video at the same time: one decodes everything, one may be idle.

    Args:
        networks: The networks.
        path: The video.
        seconds: How long it is counted what they cost.
        settle_s: How long they run before that.
        after_s: Seconds without a face after which the second is idle.
    """
    pair = [_Camera(networks, "full", path, "off", after_s), _Camera(networks, "lazy", path, "keyframes", after_s)]
    for camera in pair:
        camera.start()
    began, counted_s, before = time.monotonic(), 0.0, [0.0, 0.0]
    while (passed_s := time.monotonic() - began) < settle_s + seconds:
        if passed_s >= settle_s and not counted_s:
            counted_s, before = time.monotonic(), [camera.seconds() for camera in pair]
        time.sleep(0.2)
        networks.check()
        for camera in pair:
            camera.cameras.watch()
    for camera, spent in zip(pair, before, strict=True):
        camera.told.cpu = camera.seconds() - spent
        camera.told.seconds = time.monotonic() - counted_s
        camera.cameras.end_tracks()
    full, lazy = (camera.stop() for camera in pair)
    return full, lazy


def compare(full: Watched, lazy: Watched, gop_s: float, seconds: float) -> tuple[int, int, list[float]]:
    """Return how many events over a key-frame interval there were, how many were found, and how much later."""
    lasting = [one for one in full.faces.values() if one.end_s - one.begin_s > gop_s and one.end_s < seconds - gop_s]
    later = []
    for one in lasting:
        two = min(lazy.faces.values(), key=one.distance, default=None)
        if two and min(one.end_s, two.end_s) - max(one.begin_s, two.begin_s) > (one.end_s - one.begin_s) / 2:
            later.append(two.told_s - one.told_s)
        else:
            others = ", ".join(f"{two.begin_s:.1f} to {two.end_s:.1f}" for two in lazy.faces.values())
            print(f"    not found: {one.begin_s:.1f} to {one.end_s:.1f} s; idle has {others}")
    return len(lasting), len(later), later


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="idle")
    parser.add_argument("--videos", type=Path, help="folder with videos of a fixed camera; default: the bundled clip")
    parser.add_argument("--only", default="", help="name of one encoding, such as quality-2s")
    chosen = parser.parse_args(sys.argv[1:])
    if chosen.videos is not None and not chosen.videos.is_dir():
        sys.exit(f"--videos: {chosen.videos} is not a folder")
    videos = [DEMO] if chosen.videos is None else sorted(p for p in chosen.videos.iterdir() if p.suffix in _SUFFIXES)
    CACHE.mkdir(exist_ok=True)
    networks = bench()
    for encoding in ENCODINGS:
        if chosen.only not in ("", encoding.name):
            continue
        empty, seconds = encoded(videos[0], encoding, empty=True)
        full, lazy = watch(networks, empty, EMPTY_S, SETTLE_S)
        print(f"{encoding.name}, nobody there ({8 * empty.stat().st_size / seconds / 1e6:.1f} Mb/s): {_cost(full)} "
              f"full, {_cost(lazy)} idle, {lazy.cpu / full.cpu:.1%}; woken: {lazy.wakes}", flush=True)  # fmt: skip
        for video in videos:
            path, seconds = encoded(video, encoding, empty=False)
            full, lazy = watch(networks, path, seconds)
            lasting, found, later = compare(full, lazy, encoding.gop_s, seconds)
            late = "later by p50 {:.2f}, p95 {:.2f}, max {:.2f} s".format(
                *np.percentile(later, (50, 95, 100))
            ) if later else "none to compare"  # fmt: skip
            print(f"{encoding.name}, {video.stem} ({seconds:.0f} s): {found} of {lasting} events found, {late}; "
                  f"{_cost(full)} full, {_cost(lazy)} idle, {lazy.cpu / full.cpu:.1%}; woken: {lazy.wakes}; in all "
                  f"{len(full.faces)} events by decoding all, {len(lazy.faces)} idle", flush=True)  # fmt: skip


_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov")


def _cost(watched: Watched) -> str:
    return f"{1000 * watched.cpu / watched.seconds:.1f} ms a second"


def encoded(video: Path, encoding: Encoding, *, empty: bool) -> tuple[Path, float]:
    """Return a video as a camera would send it, made on the first call, and its seconds.

    Args:
        video: The video.
        encoding: How it is encoded.
        empty: Whether to show its background alone, the median of its pictures.
    """
    path = CACHE / f"idle-{video.stem}-{'empty' if empty else 'all'}-{encoding.name}.mp4"
    if not path.exists():
        part = path.with_name(f"part-{path.name}")
        print(f"  encoding {path.name}", flush=True)
        rng = np.random.default_rng(0)
        noise = [rng.normal(0, 4, (SIZE[1], SIZE[0])).astype(np.int16) for _ in range(6)]
        with av.open(str(part), "w") as written:
            stream = written.add_stream("libx264", rate=FPS)
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            stream.options = encoding.options()
            for number, planes in enumerate(_empty(video) if empty else _all(video)):
                if encoding.noisy:
                    luma = planes[: SIZE[1]]
                    grain = np.roll(noise[number % len(noise)], 37 * number, axis=1)
                    planes = np.concatenate([np.clip(luma + grain, 0, 255).astype(np.uint8), planes[SIZE[1] :]])
                frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
                frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, FPS), PictureType.NONE
                written.mux(stream.encode(frame))
            written.mux(stream.encode(None))
        part.rename(path)
    with av.open(str(path)) as made:
        return path, made.streams.video[0].frames / FPS


def _decoded(video: Path) -> Iterator[tuple[float, Pixels]]:
    with av.open(str(video)) as container:
        for frame in container.decode(container.streams.video[0]):
            yield frame.time or 0.0, frame.reformat(*SIZE, "yuv420p").to_ndarray()


def _background(video: Path) -> Pixels:
    with av.open(str(video)) as container:
        step_s = float(container.duration or 0) / av.time_base / 25
    chosen: list[Pixels] = []
    for at_s, planes in _decoded(video):
        if at_s >= len(chosen) * step_s:
            chosen.append(planes)
    return np.median(np.stack(chosen), axis=0).astype(np.uint8)


def _empty(video: Path) -> Iterator[Pixels]:
    background = _background(video)
    for _ in range(20 * FPS):
        yield background


def _all(video: Path) -> Iterator[Pixels]:
    """Yield the pictures of a video at the camera's rate; the bundled clip after and before empty stretches."""
    stretch = [_background(video)] * (12 * FPS) if video == DEMO else []
    yield from stretch
    number, shown = 0, None
    for at_s, planes in _decoded(video):
        while shown is not None and number / FPS < at_s:
            yield shown
            number += 1
        shown = planes
    if shown is not None:
        yield shown
    yield from stretch
