"""The daemon's way from camera to message without its servers: cameras, batcher, networks, trackers, composing.

What it leaves out depends on other machines: the network's share of a camera (the clips are files), and the connections
of the broker and of clients.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2

from visaged.daemon.bench import machine
from visaged.daemon.bench.timing import TimedDetector, TimedReader, camera_seconds
from visaged.daemon.networks import load_networks
from visaged.daemon.settings import Settings
from visaged.daemon.specs import camera_specs
from visaged.models.search import Scales
from visaged.models.session import GPU_BATCHES
from visaged.pipelines.batcher import Batcher
from visaged.pipelines.cameras import CameraSet, CameraSpec, Sinks
from visaged.pipelines.inference import Inference
from visaged.pipelines.records import FrameResult
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker
from visaged.pipelines.shedding.shedding import Shedding
from visaged.pipelines.source.demand import Demand

GPU_WORKERS = 2
TICK_S = 0.2
_STEP_S = (0.020, 0.033, 0.046)
"""Seconds between the starts of cameras in turn: cameras do not send their frames in step."""


class BenchError(Exception):
    """Something that is measured failed; the text says what."""


class Bench:
    """The loaded networks, and what every measurement needs.

    Args:
        settings: The configuration, of which `models`, `inference`, `tracker`, `attributes`, `min_confidence` and
            `http` are used.

    Raises:
        StartError: A network cannot be loaded.
    """

    def __init__(self, settings: Settings) -> None:
        cv2.setNumThreads(1)  # as the daemon does
        self.settings = settings
        self.metrics = Metrics()
        self.networks = load_networks(
            settings.models, settings.inference, settings.tracker.low_confidence, self.metrics
        )
        self.networks.engines.run(threading.Event())  # what is measured must not change while it is
        self.detector = TimedDetector(self.networks.detector)
        self.reader = TimedReader(self.networks.reader)
        self.cores = machine.cores()
        self.workers = settings.inference.workers or (GPU_WORKERS if self.detector.on_gpu else self.cores)
        self._failure: str | None = None

    def specs(self, cameras: list[dict[str, object]]) -> dict[str, CameraSpec]:
        """Return the specifications of cameras, which are given as in a configuration."""
        document = {"cameras": cameras}
        listed = Settings.model_validate(document).cameras
        settings = self.settings.model_copy(update={"cameras": listed})
        return camera_specs(settings, self.detector, self.reader.heads)

    def batcher(self) -> Batcher:
        """Return a batcher as the daemon makes it."""
        inference = self.settings.inference
        most = inference.max_batch or (max(GPU_BATCHES) if self.detector.on_gpu else 1)
        return Batcher(most, inference.max_wait_ms / 1000, self.settings.http.max_waiting)

    def inference(self, batcher: Batcher) -> list[Worker]:
        """Return the inference workers for a batcher, not started."""
        work = Inference(batcher, self.detector, self.reader, self.metrics)
        return [Worker(f"inference-{index}", work.run, self.died) for index in range(self.workers)]

    def died(self, name: str, error: BaseException) -> None:
        """Note that a thread died, which ends what is being measured."""
        self._failure = f"{name} failed: {type(error).__name__}: {error}"

    def check(self) -> None:
        """Raise `BenchError` if a thread has died."""
        if self._failure is not None:
            raise BenchError(self._failure)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was counted while cameras ran.

    Attributes:
        seconds: How long it was measured.
        received: Frames decoded, summed over cameras, like the next two.
        analysed: Frames analysed.
        dropped: Frames that were to be analysed, and were overtaken by a newer one.
        cpu: CPU seconds of this process.
        reading: CPU seconds of the cameras' threads; None on systems that do not say.
        detector: CPU seconds of the detector.
        analyzer: CPU seconds of reading attributes.
        memory_mb: Most memory of the process in megabytes; None where that cannot be read.
        disturbance: What others took of the machine; None where that cannot be found out.
    """

    seconds: float
    received: float
    analysed: float
    dropped: float
    cpu: float
    reading: float | None
    detector: float
    analyzer: float
    memory_mb: float | None
    disturbance: machine.Disturbance | None


class Rig:
    """Cameras that run, with the workers that analyse their frames.

    Args:
        bench: The networks.
        cameras: The cameras, by name.
        submit: Takes each result; as in the daemon, it must not block.
        shed: Whether cameras are reduced when there is too much to do. Not while it is measured how many are carried.
    """

    def __init__(
        self,
        bench: Bench,
        cameras: Mapping[str, CameraSpec],
        submit: Callable[[FrameResult], None],
        shed: bool = False,
    ) -> None:
        self._bench = bench
        self._specs = cameras
        self._batcher = bench.batcher()
        self._metrics = Metrics()  # of this run alone
        self._workers = bench.inference(self._batcher)
        scales = Scales.of(bench.detector, bench.settings.inference.long_side)
        sinks = Sinks(submit, lambda event: None, lambda status: None, lambda name: None)
        self._cameras = CameraSet(self._batcher, bench.reader, scales, self._metrics, sinks, bench.died)
        workers = bench.workers if bench.detector.on_gpu else None
        self._shedding = Shedding(self._cameras, self._batcher, workers, self._metrics) if shed else None

    def start(self, wait: Callable[[float], None] = time.sleep) -> None:
        """Start the workers, and the cameras one after another."""
        for worker in self._workers:
            worker.start()
        running: dict[str, CameraSpec] = {}
        for index, (name, spec) in enumerate(self._specs.items()):
            running[name] = spec
            self._cameras.apply(running)
            wait(_STEP_S[index % len(_STEP_S)])

    def measure(self, seconds: float, wait: Callable[[float], None] = time.sleep) -> Measured:
        """Count for some seconds.

        Args:
            seconds: How long.
            wait: Waits for a number of seconds.

        Raises:
            BenchError: A camera or a thread failed.
        """
        watch, memory = machine.Watch(), [machine.resident_mb()]
        before, began = self._counts(), time.monotonic()
        while (left := began + seconds - time.monotonic()) > 0:
            wait(min(TICK_S, left))
            memory.append(machine.resident_mb())
            self.attend()
        passed = time.monotonic() - began
        after = self._counts()
        spent = {what: after[what] - old for what, old in before.items()}
        broken = next((one.status for one in self._cameras.overview() if one.status.state != "streaming"), None)
        if broken is not None:
            raise BenchError(
                f"{broken.camera} is {broken.state} and does not stream: {broken.error or 'no picture yet'}"
            )
        known = [value for value in memory if value is not None]
        return Measured(
            passed,
            spent["received"],
            spent["analysed"],
            spent["dropped"],
            spent["cpu"],
            spent.get("reading"),
            spent["detector"],
            spent["analyzer"],
            max(known, default=None),
            watch.disturbance(),
        )

    def attend(self) -> None:
        """Do what the daemon does twice a second beside its cameras."""
        self._bench.check()
        self._cameras.watch()
        if self._shedding is not None:
            self._shedding.tick()

    @property
    def demands(self) -> dict[str, Demand]:
        """What is asked of each camera, by name; empty where no load is shed."""
        return {} if self._shedding is None else self._shedding.demands

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop all threads and wait for them."""
        self._cameras.stop()
        for job in self._batcher.close():
            job.drop("shutdown")
        for worker in self._workers:
            worker.stop()
        deadline_s = time.monotonic() + timeout_s
        left = self._cameras.join(deadline_s)
        left += [worker for worker in self._workers if not worker.join(deadline_s - time.monotonic())]
        if left:
            raise BenchError(f"{left[0].name} does not end")

    def _counts(self) -> dict[str, float]:
        counts = dict.fromkeys(("received", "analysed", "dropped"), 0.0)
        for family in self._metrics.registry.collect():
            what = family.name.removeprefix("visaged_frames_")
            if what in counts:
                counts[what] = sum(one.value for one in family.samples if one.name.endswith("_total"))
        bench = self._bench
        counts |= {"cpu": time.process_time()}
        counts |= {"detector": bench.detector.meter.seconds, "analyzer": bench.reader.meter.seconds}
        reading = camera_seconds()
        return counts if reading is None else counts | {"reading": reading}
