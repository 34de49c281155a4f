"""The composition of the daemon: which parts there are, in which order they start and stop.

Everything is built before anything is started, so that what cannot work is reported at once. Parts run in threads of
their own; if one of them dies, the process ends, because a daemon that has lost a part would still look alive.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from visaged.daemon.api.pictures import Pictures
from visaged.daemon.config.document import SettingsError
from visaged.daemon.delivery import Delivery
from visaged.daemon.errors import StartError
from visaged.daemon.management.configuration import Configuration
from visaged.daemon.management.manager import Manager
from visaged.daemon.membership import Membership
from visaged.daemon.networks import Networks, load_networks
from visaged.daemon.settings import Settings
from visaged.daemon.specs import camera_specs, face_threshold
from visaged.daemon.supervision.notify import Notifier
from visaged.daemon.supervision.watchdog import Watchdog
from visaged.daemon.web import Web
from visaged.models.search import Scales
from visaged.models.session import GPU_BATCHES
from visaged.pipelines.batcher import Batcher
from visaged.pipelines.cameras import CameraSet, Changes, Sinks
from visaged.pipelines.images.analyze import PictureAnalyzer
from visaged.pipelines.inference import Inference
from visaged.pipelines.live.pictures import LivePictures
from visaged.pipelines.live.pulse import Pulse
from visaged.pipelines.outputs.documents import status_document, timestamp
from visaged.pipelines.outputs.messages import Composer
from visaged.pipelines.outputs.output import FrameSink, Output
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.progress import Progress, beat
from visaged.pipelines.runtime.worker import Worker, not_joined
from visaged.pipelines.shedding.shedding import Shedding
from visaged.pipelines.source.errors import SourceError

log = logging.getLogger(__name__)

STOP_S = 5.0
"""Longest time from the request to stop to the end of the process, in seconds, even if a thread hangs."""

# How the time to stop is shared out: how many seconds before its end the wait for each part ends.
_EXIT_RESERVE_S = 0.5
_INFERENCE_RESERVE_S = 2.5
_CAMERAS_RESERVE_S = 2.0

# While the GPU computes one's batch, the other prepares and reads its own: on an H200 4,200 frames a second, not 2,800.
_GPU_WORKERS = 2
_WATCH_S = 0.5


class Daemon:
    """The whole of visaged in one process.

    Args:
        settings: The configuration, checked.
        version: Version of the program.
        once: End when every camera is a file and all have ended; a file that cannot be read makes the exit code 1.
        metrics: The metrics, on a registry of their own; None for new ones.
        outputs: Where messages go besides the MQTT broker. They may wait for their receivers as long as they like.
        epoch: Number of this run, larger than any earlier one's; milliseconds since 1970 unless given.
        configuration: Source of the settings, for reloads; without it, a reload finds nothing changed.
        state_folder: Folder in which events wait for the broker and sessions of the page are kept, held by this
            process; None keeps them in memory.
        notifier: Is told when the daemon is ready, reloads and stops, and that all goes well; None for nobody.
        member: The part in a fleet; None on one machine.

    Raises:
        StartError: A model cannot be loaded, a port is taken, or a file cannot be used.

    Attributes:
        settings: The configuration in force.
        manager: Changes the configuration while the daemon runs.
        metrics: The metrics.
        detector: The detector in use.
        web: The HTTP side.
        camera_set: The cameras that run.
        delivery: The way of messages out.
    """

    def __init__(
        self,
        settings: Settings,
        version: str,
        once: bool = False,
        metrics: Metrics | None = None,
        outputs: Sequence[Output] = (),
        epoch: int | None = None,
        configuration: Configuration | None = None,
        state_folder: Path | None = None,
        notifier: Notifier | None = None,
        member: Membership | None = None,
    ) -> None:
        self.settings = settings
        self._version, self._started_at = version, time.time()
        self._once = once
        self._member = member
        self._notifier = notifier or Notifier()
        self._stop_wanted_at_s: float | None = None
        # A signal handler must not use an Event or Lock that the interrupted code may hold; this queue is safe.
        self._wake: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._failure: tuple[str, BaseException] | None = None
        self.metrics = metrics or Metrics()
        self.metrics.build.labels(version, settings.node).set(1)
        cv2.setNumThreads(1)  # cameras and workers have threads already; more from OpenCV would compete with them
        # A picture that OpenCV cannot decode is reported to its sender; OpenCV would let senders fill stderr too.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        networks = load_networks(
            settings.models,
            settings.inference,
            settings.tracker.low_confidence,
            self.metrics,
            state_folder,
            settings.http.long_side,
        )
        self.detector, self._reader, self._graphs = networks.detector, networks.reader, networks.graphs
        self._batcher = self._make_batcher()
        self._epoch = int(time.time() * 1000) if epoch is None else epoch
        composer = Composer(settings.node, self._epoch)
        self._live = LivePictures(self.metrics, settings.privacy.blur_faces)
        self._pulse = Pulse()
        sinks: list[FrameSink] = [self._pulse, self._live]
        self.delivery = Delivery(
            settings, composer, version, state_folder, outputs, self.metrics, self._died, sinks, member
        )
        self.camera_set = self._make_cameras()
        try:
            self._specs = camera_specs(settings, self.detector, self._reader.heads)
        except SettingsError as error:
            raise StartError(str(error)) from error
        self._pictures = self._make_pictures()
        self.manager = Manager(
            configuration or Configuration.of_settings(settings),
            self.apply,
            self.call,
            self.metrics,
            reloading=self._notifier.reloading,
            fleet="" if member is None else member.fleet,
        )
        self.web = Web(
            settings,
            self,
            self.manager,
            self._pictures,
            self._live,
            self.metrics,
            version,
            networks.versions,
            self.delivery.history,
            self._reader.heads,
            state_folder,
        )
        self._inference_workers = self._make_inference_workers(networks)
        self._engines = networks.engines
        self._engine_worker = self._worker("engines", self._engines.run)
        workers = len(self._inference_workers) if self.detector.on_gpu else None
        self._shedding = (
            Shedding(self.camera_set, self._batcher, workers, self.metrics) if settings.overload.shed else None
        )
        self._live_worker = self._worker("live", self._live.run)
        self._http_worker = self._worker("http", self.web.run)
        self._main = Progress("main")
        self._watchdog = Watchdog(self._progress(), self._notifier, self._status)
        for name in self._watchdog.names:
            self.metrics.part_stalled.labels(name).set_function(partial(self._is_stalled, name))
        self._watchdog_worker = self._worker("watchdog", self._watchdog.run)

    def run(self) -> int:
        """Run until `stop` is called or a part dies, and return the exit code of the process: 0 or 1."""
        try:
            self._start()
        except StartError:
            self.web.close()
            self.delivery.stop_broker(time.monotonic() + 1.0)
            raise
        self._watchdog_worker.start()
        self._notifier.ready()
        try:
            self._watch()
        finally:
            asked_s = self._stop_wanted_at_s or time.monotonic()
            self._shut_down(asked_s + STOP_S - _EXIT_RESERVE_S)
        if self._failure is not None:
            name, error = self._failure
            log.critical("ended because %s failed: %s: %s", name, type(error).__name__, error)
            self._notifier.status(f"ended because {name} failed: {type(error).__name__}: {error}")
            return 1
        return 0

    @property
    def _stop_wanted(self) -> bool:
        return self._stop_wanted_at_s is not None

    def stop(self) -> None:
        """Ask the daemon to end; may be called more than once, and from a signal handler."""
        self._stop_wanted_at_s = self._stop_wanted_at_s or time.monotonic()
        self._wake.put(None)

    def call(self, function: Callable[[], None]) -> None:
        """Have a function called soon in the thread of `run`; may be called from a signal handler.

        The function must not raise. It is not called if the daemon stops first.
        """
        self._wake.put(function)

    def apply(self, settings: Settings) -> Changes:
        """Run with another configuration as far as that can change at run time; only in the thread of `run`.

        Cameras that are the same in both go on undisturbed.

        Args:
            settings: The configuration, checked. What cannot change at run time must be as it was.

        Raises:
            SettingsError: The password of a camera cannot be read; nothing has changed.
        """
        specs = camera_specs(settings, self.detector, self._reader.heads)
        self.settings, self._specs = settings, specs
        changes = self.run_cameras()
        heads = self._reader.heads
        self._pictures.configure(
            settings.enabled(set(heads)), face_threshold(settings, self.detector), settings.least(heads)
        )
        return changes

    def run_cameras(self) -> Changes:
        """Run the cameras of the configuration in force; of a fleet's, those that this node holds.

        Only in the thread of `run`.
        """
        if self._member is None:
            changes = self.camera_set.apply(self._specs)
        else:
            held = {name: spec for name, spec in self._specs.items() if self._member.has(name)}
            changes = self.camera_set.apply(held, self._member.reasons())
        for name in changes.removed:
            self._live.forget(name)
            self._pulse.forget(name)
        return changes

    def _start(self) -> None:
        self.delivery.start(lambda: self._stop_wanted)
        for worker in [*self._inference_workers, self._live_worker, self._http_worker, self._engine_worker]:
            worker.start()
        self.run_cameras()

    def _watch(self) -> None:
        self._main.adopt()
        while not self._stop_wanted:
            beat()
            self.camera_set.watch()
            if self._shedding is not None:
                self._shedding.tick()
            if self._once:
                over, unreadable = self.camera_set.over()
                if over:
                    if unreadable is not None:
                        self._failure = (f"camera {unreadable.camera}", SourceError("invalid", unreadable.error))
                    log.info("every camera has ended")
                    return
            try:
                function = self._wake.get(timeout=_WATCH_S)
            except queue.Empty:
                continue
            if function is not None and not self._stop_wanted:
                function()

    def _shut_down(self, deadline_s: float) -> None:
        """Stop the parts in the order in which frames pass them, so that results that exist are still published."""
        log.info("stopping")
        self._watchdog_worker.stop()
        self._notifier.stopping()
        self._notifier.status("stopping")
        self.camera_set.stop()
        self._live_worker.stop()
        self._http_worker.stop()
        self._engine_worker.stop()  # and not waited for: an engine that is being built cannot be broken off
        self.web.stop()
        for job in self._batcher.close():
            job.drop("shutdown")
        for worker in self._inference_workers:
            worker.stop()
        left = not_joined(self._inference_workers, deadline_s - _INFERENCE_RESERVE_S)
        self.camera_set.end_tracks()
        left += self.camera_set.join(deadline_s - _CAMERAS_RESERVE_S)
        left += self.delivery.finish(deadline_s)
        left += not_joined([self._live_worker, self._http_worker], deadline_s)
        left += self.delivery.stop_broker(deadline_s)
        if left:
            log.warning("did not end in time and were left behind: %s", ", ".join(worker.name for worker in left))

    def _worker(self, name: str, run: Callable[[threading.Event], None]) -> Worker:
        return Worker(name, run, self._died)

    def _died(self, name: str, error: BaseException) -> None:
        self._failure = self._failure or (name, error)
        self.stop()

    def _progress(self) -> list[Progress]:
        """Return the progress of the parts that have to go on, whatever cameras, brokers and terminals do."""
        workers = [*self._inference_workers, self._live_worker, self._http_worker]
        return [self._main, *(worker.progress for worker in workers), *self.delivery.progress()]

    def _is_stalled(self, part: str) -> bool:
        return part in self._watchdog.stalled

    def _status(self) -> str:
        """Return the state of cameras and broker in a line; takes no lock that a part may hold for long."""
        states = self.camera_set.states()
        mqtt = self.delivery.mqtt_state()
        broker = "MQTT connected" if mqtt.connected else mqtt.trouble or "connecting to the MQTT broker"
        reloaded = "" if self.manager.reloaded else "; the last reload failed, see the log"
        disk = self.delivery.disk_trouble
        kept = f"; events are in memory alone ({disk})" if disk else ""
        built = self._engines.status()
        return f"{states.count('streaming')} of {len(states)} cameras stream; {broker}{kept}{reloaded}{built}"

    def _make_batcher(self) -> Batcher:
        inference = self.settings.inference
        batcher = Batcher(
            max_batch=inference.max_batch or (max(GPU_BATCHES) if self.detector.on_gpu else 1),
            max_wait_s=inference.max_wait_ms / 1000,
            max_pictures=self.settings.http.max_waiting,
        )
        self.metrics.waiting.labels("cameras").set_function(lambda: batcher.waiting()[0])
        self.metrics.waiting.labels("pictures").set_function(lambda: batcher.waiting()[1])
        return batcher

    def _make_inference_workers(self, networks: Networks) -> list[Worker]:
        """Return the workers of each GPU, or of the CPU, which take from one queue: a batch goes to who is free."""
        count = self.settings.inference.workers or (_GPU_WORKERS if self.detector.on_gpu else os.cpu_count() or 1)
        works = [Inference(self._batcher, *one, self.metrics) for one in networks.by_device()]
        runs = [work.run for _ in range(count) for work in works]
        return [self._worker(f"inference-{index}", run) for index, run in enumerate(runs)]

    def _make_cameras(self) -> CameraSet:
        out = self.delivery.fan_out
        on_removed = out.forget if self._member is None else self._member.on_removed
        sinks = Sinks(out.submit, out.submit_event, out.submit_status, on_removed)
        scales = Scales.of(self.detector, self.settings.inference.long_side)
        return CameraSet(self._batcher, self._reader, scales, self.metrics, sinks, self._died, graphs=self._graphs)

    def _make_pictures(self) -> Pictures:
        settings, heads = self.settings, self._reader.heads
        analyzer = PictureAnalyzer(
            self._batcher,
            self._reader,
            Scales.of(self.detector, settings.inference.long_side, settings.http.long_side),
            settings.http.max_pixels,
            settings.http.deadline_s,
            decode_in_workers=not self.detector.on_gpu,
        )
        pictures = Pictures(settings.http, analyzer, heads, self.metrics, self.detector.floor)
        pictures.configure(settings.enabled(set(heads)), face_threshold(settings, self.detector), settings.least(heads))
        return pictures

    def cameras(self) -> list[dict[str, Any]]:
        """Return the state of every camera, and how it does."""
        return [
            {
                **status_document(one.status),
                "tracks": one.tracks,
                "fps": one.fps,
                "reduced": one.reduced or None,
                "next_try_at": None if one.next_try_at is None else timestamp(one.next_try_at),
                "trouble_since": None if one.trouble_since is None else timestamp(one.trouble_since),
                **self._pulse.of(one.status.camera).document(),
            }
            for one in self.camera_set.overview()
        ]

    def node(self) -> dict[str, Any]:
        """Return what this daemon is, and what it is set to."""
        mqtt, settings = self.delivery.mqtt_state(), self.settings
        return {
            "node": settings.node,
            "version": self._version,
            "epoch": self._epoch,
            "started_at": timestamp(self._started_at),
            "mqtt": {
                "broker": mqtt.address,
                "prefix": settings.mqtt.prefix,
                "connected": mqtt.connected,
                "error": mqtt.trouble or None,
            },
            "networks": {
                "detector": self.detector.name,
                "analyzer": settings.models.analyzer,
                "provider": self.detector.provider,
            },
            "history": {"keep_hours": settings.history.keep_hours, "pictures": settings.history.pictures},
            "privacy": {"blur_faces": settings.privacy.blur_faces},
        }

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Return whether every part is alive and goes on, and a document that names those that do not."""
        dead = None if self._failure is None else self._failure[0]
        stalled = self._watchdog.stalled
        status = "dying" if dead is not None else "stalled" if stalled else "ok"
        return status == "ok", {"status": status, "dead": dead, "stalled": list(stalled)}

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the daemon is ready, and a document with the states of models, broker and cameras.

        It is ready once the broker has been reached or could not be reached, until it stops or a part dies. An embedded
        broker is a part of the daemon, which is not ready while that does not pass messages on.
        """
        ready = self.delivery.is_ready() and self._failure is None and not self._stop_wanted
        models: dict[str, Any] = {
            "detector": self.detector.name,
            "provider": self.detector.provider,
            "threshold": face_threshold(self.settings, self.detector),
        }
        engines = self._engines.document()
        if engines is not None:
            models["engines"] = engines
        return ready, {
            "status": "ready" if ready else "not ready",
            "models": models,
            **self.delivery.document(),
            "cameras": {one.status.camera: one.status.state for one in self.camera_set.overview()},
        }
