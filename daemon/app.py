"""The composition of the daemon: which parts there are, in which order they start and stop.

Everything is built before anything is started, so that what cannot work is said at once. Parts live in threads of their
own; one that dies ends the process, because a daemon that is half dead looks alive.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import cv2

from visaged.daemon.broker import EmbeddedBroker
from visaged.daemon.errors import StartError
from visaged.daemon.kit_answer import model_version
from visaged.daemon.pictures import Pictures
from visaged.daemon.settings import CameraSettings, Settings
from visaged.daemon.web import Web
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.errors import ModelError
from visaged.models.manifest import PACKAGED, Manifest
from visaged.models.search import Scales
from visaged.models.session import SessionConfig
from visaged.models.trial import try_out
from visaged.pipelines.attributes import AnalyzerReader, FaceReader, NoReader
from visaged.pipelines.batcher import Batcher, Overloaded, Picture
from visaged.pipelines.camera import Camera, CameraStatus
from visaged.pipelines.inference import FrameResult, Inference
from visaged.pipelines.messages import Composer, status_document
from visaged.pipelines.metrics import Metrics
from visaged.pipelines.publisher import Publisher
from visaged.pipelines.source_error import SourceError
from visaged.pipelines.tracks import CameraTracks, ReadingPolicy, TrackEvent
from visaged.pipelines.worker import Worker

log = logging.getLogger(__name__)

STOP_S = 5.0
"""Seconds from the wish to stop to the end of the process, whatever hangs."""


class Daemon:
    """The whole of visaged in one process.

    Args:
        settings: The configuration, checked.
        version: Of the program.
        on_event: Called with every event of a track.
        once: End when every camera is a file and all have ended; one that cannot be read makes the exit code 1.
        metrics: On a registry of its own.

    Raises:
        StartError: A model cannot be loaded, a port is taken, or a file cannot be used.

    Attributes:
        metrics: Its series.
        detector: The detector in use.
        web: The HTTP side.
        left_behind: After `run`: whether a thread hangs and was not waited for any longer.
    """

    def __init__(
        self,
        settings: Settings,
        version: str,
        on_event: Callable[[TrackEvent], None] = lambda event: None,
        once: bool = False,
        metrics: Metrics | None = None,
    ) -> None:
        self._settings = settings
        self._on_event = on_event
        self._once = once
        self._stop_wanted = False
        # An Event or a Lock may be held by the very code that a signal interrupts; this queue may be put to from there.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._failure: tuple[str, BaseException] | None = None
        self.left_behind = False
        self.metrics = metrics or Metrics()
        self.metrics.build.labels(version).set(1)
        cv2.setNumThreads(1)  # cameras and callers have threads of their own; OpenCV's would only compete with them
        self.detector, self._reader = self._load_models()
        inference = settings.inference
        on_gpu = self.detector.on_gpu
        self._batcher = Batcher(
            max_batch=inference.max_batch or (16 if on_gpu else 1),
            max_wait_s=inference.max_wait_ms / 1000,
            max_pictures=settings.http.max_waiting,
        )
        self.metrics.waiting.labels("cameras").set_function(lambda: self._batcher.waiting()[0])
        self.metrics.waiting.labels("pictures").set_function(lambda: self._batcher.waiting()[1])
        try:
            self._publisher = Publisher(
                settings.mqtt,
                Composer(settings.node, int(time.time() * 1000), settings.mqtt.prefix),
                self.metrics,
                version,
                settings.mqtt.login(),
            )
        except (OSError, ValueError) as error:
            raise StartError(f"the MQTT connection cannot be set up: {error}") from error
        self._tracks = {camera.name: self._camera_tracks(camera) for camera in settings.cameras}
        self._cameras = [self._camera(camera) for camera in settings.cameras]
        work = Inference(
            self._batcher,
            self.detector,
            self._reader,
            self._tracks,
            self.metrics,
            self._publish,
            close_up=Scales.of(self.detector, inference.long_side) if inference.close_up else None,
        )
        self.web = self._web(version)
        self._broker = EmbeddedBroker(settings.mqtt.host, settings.mqtt.port) if settings.mqtt.embedded else None
        callers = inference.callers or (1 if on_gpu else os.cpu_count() or 1)
        self._camera_workers = [self._worker(f"camera-{camera.name}", camera.run) for camera in self._cameras]
        self._inference_workers = [self._worker(f"inference-{index}", work.run) for index in range(callers)]
        self._publisher_worker = self._worker("publisher", self._publisher.run)
        self._http_worker = self._worker("http", self.web.run)
        self._broker_worker = None if self._broker is None else self._worker("broker", self._broker.run)

    def run(self) -> int:
        """Work until `stop` is called or a part dies; return the process's exit code: 0 or 1."""
        try:
            self._start()
        except StartError:
            self.web.close()
            if self._broker_worker is not None:
                self._broker_worker.join(1.0)
            raise
        try:
            self._watch()
        finally:
            self._shut_down(time.monotonic() + STOP_S - 0.5)
        if self._failure is not None:
            name, error = self._failure
            log.critical("ended because %s failed: %s: %s", name, type(error).__name__, error)
            return 1
        return 0

    def stop(self) -> None:
        """Ask the daemon to end; may be called from a signal handler, more than once."""
        self._stop_wanted = True
        self._wake.put(None)

    def _start(self) -> None:
        if self._broker is not None and self._broker_worker is not None:
            self._broker_worker.start()
            self._broker.ready.wait(10)
            if self._broker.failure is not None:
                raise StartError(f"the embedded MQTT broker cannot start: {self._broker.failure}")
        self._publisher_worker.start()
        for worker in self._inference_workers:
            worker.start()
        self._http_worker.start()
        for worker in self._camera_workers:
            worker.start()

    def _watch(self) -> None:
        while not self._stop_wanted:
            now_s = time.monotonic()
            over = 0
            unreadable: list[CameraStatus] = []
            for camera in self._cameras:
                tracks, status = self._tracks[camera.name], camera.status
                if status.state == "ended" and self._batcher.idle(camera.name):
                    over += 1
                    self._tell_all(tracks.end_all(now_s, "stream_ended"))
                elif camera.live:
                    self._tell_all(tracks.expire(now_s, now_s))
                elif status.state == "waiting":
                    unreadable.append(status)
            if self._once and over + len(unreadable) == len(self._cameras):
                if unreadable:
                    self._failure = (f"camera {unreadable[0].camera}", SourceError("invalid", unreadable[0].error))
                log.info("every camera has ended")
                return
            try:
                self._wake.get(timeout=0.5)
            except queue.Empty:
                pass

    def _shut_down(self, deadline_s: float) -> None:
        """Stop in the order of the frames' way, so that what is known still gets out."""
        log.info("stopping")
        for worker in self._camera_workers:
            worker.stop()
        self._http_worker.stop()
        self.web.stop()
        for item in self._batcher.close():
            if isinstance(item, Picture):
                if item.future.set_running_or_notify_cancel():
                    item.future.set_exception(Overloaded())
            else:
                self.metrics.camera(item.camera).dropped("shutdown")
        for worker in self._inference_workers:
            worker.stop()
        left = [w for w in self._inference_workers if not w.join(deadline_s - 2.5 - time.monotonic())]
        now_s = time.monotonic()
        for tracks in self._tracks.values():
            self._tell_all(tracks.end_all(now_s, "shutdown"))
        left += [w for w in self._camera_workers if not w.join(deadline_s - 2.0 - time.monotonic())]
        self._publisher.drain(deadline_s - 0.7)
        self._publisher_worker.stop()
        left += [w for w in [self._publisher_worker, self._http_worker] if not w.join(deadline_s - time.monotonic())]
        if self._broker_worker is not None:
            self._broker_worker.stop()
            left += [] if self._broker_worker.join(max(0.2, deadline_s - time.monotonic())) else [self._broker_worker]
        self.left_behind = bool(left)
        if left:
            log.warning("did not end in time and were left behind: %s", ", ".join(worker.name for worker in left))

    def _worker(self, name: str, run: Callable[[threading.Event], None]) -> Worker:
        return Worker(name, run, self._died)

    def _died(self, name: str, error: BaseException) -> None:
        self._failure = self._failure or (name, error)
        self.stop()

    def _publish(self, result: FrameResult) -> None:
        self._publisher.submit(result)
        for event in result.events:
            self._on_event(event)

    def _tell_all(self, events: list[TrackEvent]) -> None:
        for event in events:
            self._publisher.submit_event(event)
            self._on_event(event)

    def _load_models(self) -> tuple[Detector, FaceReader]:
        wanted, inference = self._settings.models, self._settings.inference
        config = SessionConfig(
            inference.provider,
            inference.require_gpu,
            inference.gpu_memory_mb,
            inference.cache,
        )
        # Below the threshold of a face, the tracker still makes use of what may be one.
        floor = self._settings.tracker.low_confidence
        try:
            manifest = Manifest(wanted.manifest)
            detector = Detector.load(manifest, wanted.detector, config, floor)
            loaded: list[Detector | Analyzer] = [detector]
            reader: FaceReader = NoReader()
            if wanted.analyzer is not None:
                analyzer = Analyzer.load(manifest, wanted.analyzer, config)
                loaded.append(analyzer)
                reader = AnalyzerReader(analyzer, self.metrics)
            # The package's own are tried by its tests; TensorRT would build an engine for every shape.
            if wanted.manifest != PACKAGED and inference.provider != "tensorrt":
                for model in loaded:
                    try_out(model)
        except ModelError as error:
            raise StartError(str(error)) from error
        for model in loaded:
            log.info("%s runs on %s", model.name, model.provider)
            self.metrics.provider.labels(model.name, model.provider).set(1)
        return detector, reader

    def _camera_tracks(self, camera: CameraSettings) -> CameraTracks:
        inference, heads = self._settings.inference, self._reader.heads
        enabled = self._settings.enabled(set(heads), camera)
        points = {name for name, head in heads.items() if head.kind == "points"}
        return CameraTracks(
            camera.name,
            self._settings.tracker,
            ReadingPolicy(refresh_s=inference.refresh_s, min_face_px=inference.min_face_px),
            self._reader,
            enabled - points,
            self._threshold,
            inference.update_s,
            camera.landmarks_106 and bool(enabled & points),
            self._settings.least(heads, camera),
        )

    def _camera(self, camera: CameraSettings) -> Camera:
        try:
            login = camera.login()
        except ValueError as error:
            raise StartError(f"camera {camera.name}: {error}") from error
        return Camera(
            camera.name,
            camera,
            self._settings.inference.long_side,
            self.detector.multiple_of,
            self._batcher,
            self.metrics,
            self._publisher.submit_status,
            login,
        )

    @property
    def _threshold(self) -> float:
        return self._settings.inference.min_confidence or self.detector.face_threshold

    def _web(self, version: str) -> Web:
        settings, heads = self._settings, self._reader.heads
        pictures = Pictures(
            settings.http,
            self._batcher,
            heads,
            settings.enabled(set(heads)),
            Scales.of(self.detector, settings.inference.long_side, settings.http.long_side),
            self._threshold,
            self.metrics,
            settings.least(heads),
            decode_in_callers=not self.detector.on_gpu,
        )
        names = settings.models
        manifest = Manifest(names.manifest)
        analyzer = None if names.analyzer is None else manifest.analyzer(names.analyzer).version
        model = model_version(manifest.detector(names.detector).version, analyzer)
        return Web(settings, self, pictures, self.metrics, version, model)

    def cameras(self) -> list[dict[str, Any]]:
        """Return every camera's state and how many faces it sees."""
        return [
            status_document(camera.status) | {"tracks": self._tracks[camera.name].present()} for camera in self._cameras
        ]

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Return whether every part is alive, and which died."""
        dead = None if self._failure is None else self._failure[0]
        return dead is None, {"status": "ok" if dead is None else "dying", "dead": dead}

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Return whether pictures can be analysed and something is known of the broker, with the cameras' states."""
        link = self._publisher.link
        known = link.connected or bool(link.trouble)
        ready = known and self._failure is None and not self._stop_wanted
        models = {"detector": self.detector.name, "provider": self.detector.provider}
        return ready, {
            "status": "ready" if ready else "not ready",
            "models": models,
            "mqtt": {"broker": link.address, "connected": link.connected, "error": link.trouble or None},
            "cameras": {camera.name: camera.status.state for camera in self._cameras},
        }
