"""All Prometheus metrics.

Labels are bounded: cameras, models, lanes and API keys by the configuration, causes and states by the code.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.gc_collector import GCCollector

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_AGES = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """The daemon's metrics on a registry of their own.

    Args:
        registry: Registry for the metrics; None for a new one.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        self._gone: set[str] = set()  # cameras that were removed
        self._gone_lock = threading.Lock()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"visaged_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"visaged_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"visaged_{name}", text, labels, registry=registry, buckets=buckets)

        self.build = gauge("build_info", "Always 1; the version and the node's name are labels", "version", "node")
        # Compared with the clock of who scrapes it: all times in messages come from this one.
        gauge("time_seconds", "What the daemon takes for the time, seconds since 1970").set_function(time.time)
        self.reload_successful = gauge(
            "config_last_reload_successful", "1 if the last load or reload of the configuration worked"
        )
        self.reload_success_time = gauge(
            "config_last_reload_success_timestamp_seconds",
            "When the configuration was last loaded or reloaded with success, seconds since 1970",
        )
        self.part_stalled = gauge("part_stalled", "1 while a part of the daemon makes no progress", "part")
        self.provider = gauge("provider_info", "Always 1; what a model runs on is a label", "model", "provider")

        self._received = counter("frames_received", "Frames decoded", "camera")
        self._sampled = counter("frames_sampled", "Frames that the sampler kept", "camera")
        self._dropped = counter("frames_dropped", "Sampled frames that were not analysed", "camera", "cause")
        self._damaged = counter("frames_damaged", "Packets or frames that the decoder found damaged", "camera")
        self._analysed = counter("frames_analysed", "Frames that went through the detector", "camera")
        self._output_errors = counter("output_errors", "Analysed frames whose result an output failed on", "camera")
        self._faces = counter("faces_detected", "Faces found, summed over frames", "camera")
        self._tracks = counter("tracks_begun", "Faces that appeared and were confirmed", "camera")
        self._state = gauge("camera_state", "1 for the state that the camera is in", "camera", "state")
        self._hardware = gauge(
            "camera_hardware", "1 while a hardware decoder decodes the camera, 0 while software does", "camera"
        )
        self._reconnects = counter("camera_reconnects", "Times that a camera was opened again", "camera")
        self._failures = counter("camera_failures", "Times that a camera's source broke", "camera", "cause")
        self._idle = gauge("camera_idle", "1 while key frames alone are decoded, because nobody is there", "camera")
        self._reduced = gauge(
            "camera_reduced", "1 while less is analysed than configured, because there is too much to do", "camera"
        )
        self._wakes = counter("camera_wakes", "Times that an idle camera was woken", "camera", "cause")
        self._pictures = counter("live_pictures", "Live pictures drawn and encoded, whoever looks at them", "camera")
        self._age = histogram("result_age_seconds", "From capture to hand-over to MQTT", "camera", buckets=_AGES)
        self._by_camera = (
            self._received, self._sampled, self._dropped, self._damaged, self._analysed, self._output_errors,
            self._faces, self._tracks, self._state, self._hardware, self._reconnects, self._failures, self._idle,
            self._reduced, self._wakes, self._pictures, self._age,
        )  # fmt: skip

        self.inference = histogram(
            "inference_seconds",
            "A search by the detector or a run of the analyzer",
            "model",
            buckets=_FAST,
        )
        self.batch_size = histogram(
            "batch_size",
            "Pictures or faces at once",
            "model",
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )
        self.failed_batches = counter("failed_batches", "Batches that could not be computed")
        self.stage = histogram(
            "stage_seconds", "Time that a frame spends in a stage: decode, queue, inference, publish", "stage",
            buckets=_AGES[:-2],
        )  # fmt: skip
        # Looked up once, and not for every frame.
        self.frame_stages = {name: self.stage.labels(name) for name in ("decode", "queue", "inference")}
        self.cameras_reduced = gauge(
            "cameras_reduced",
            "Cameras of which less is analysed because there is too much to do, by what is left: key_frames, fps",
            "to",
        )
        for left in ("key_frames", "fps"):
            self.cameras_reduced.labels(left)
        self.waiting = gauge("waiting", "Items that wait for inference", "lane")

        self.mqtt_connected = gauge("mqtt_connected", "1 while the broker is connected")
        self.mqtt_reconnects = counter("mqtt_reconnects", "Times that the broker was lost and found again")
        self.output_published = counter("output_published", "Messages handed to an output's receiver", "output", "kind")
        self.output_acknowledged = counter(
            "output_acknowledged", "Messages that an output's receiver acknowledged", "output", "kind"
        )
        self.output_lost = counter(
            "output_lost", "Messages that never reached an output's receiver", "output", "kind", "cause"
        )
        self.output_waiting = gauge(
            "output_waiting", "Messages that wait for an output's receiver or its acknowledgement", "output", "kind"
        )

        self.spool_events = gauge("spool_events", "Events that wait for the broker's acknowledgement, on disk or not")
        self.spool_bytes = gauge("spool_bytes", "Bytes of the events on disk")
        self.spool_oldest = gauge("spool_oldest_seconds", "How long the oldest event has waited; 0 if none waits")
        self.spool_max_bytes = gauge("spool_max_bytes", "Most bytes of events on disk; 0 if none are kept there")
        self.spool_max_age = gauge("spool_max_age_seconds", "How long an event may wait; 0 if none are kept on disk")
        self.spool_writable = gauge("spool_writable", "1 while events are kept on disk, 0 while in memory alone")
        self.spool_write = histogram(
            "spool_write_seconds", "A transaction of events to the disk, synced", buckets=_FAST
        )
        self.spool_failures = counter("spool_failures", "Transactions that the disk did not take")

        self.history_events = gauge("history_events", "Events in the history")
        self.history_bytes = gauge("history_bytes", "Bytes of the history, pictures included")
        self.history_max_bytes = gauge("history_max_bytes", "Most bytes of the history; 0 if none is kept")
        self.history_writable = gauge("history_writable", "1 while the history is written, 0 while it cannot be")
        self.history_lost = counter("history_lost", "Events or pictures that are missing in the history", "cause")
        self.live_viewers = gauge("live_viewers", "Open answers of live pictures, and of events as they come", "kind")
        self.live_encode = histogram("live_encode_seconds", "A live picture, scaled, drawn and encoded", buckets=_FAST)

        self.pictures = counter("pictures", "Pictures of the HTTP API", "outcome")
        self.picture_seconds = histogram(
            "picture_seconds", "A picture of the HTTP API, from its last byte to the answer", buckets=_AGES[:-2]
        )
        # `key` is the name of an API key, or - for a request without one.
        self.http_requests = counter("http_requests", "HTTP requests answered", "key", "status")
        self.http_seconds = histogram("http_request_seconds", "An HTTP request, headers to answer", buckets=_AGES)
        self.http_active = gauge("http_requests_active", "HTTP requests in work", "key")
        self.http_refused = counter("http_refused", "Requests refused: for their key, Host, ...", "key", "cause")
        self.http_connections = gauge("http_connections", "Open connections", "listener")
        self.http_cut = counter("http_connections_cut", "Connections that were cut off", "listener", "cause")
        self.oss_requests = counter(
            "oss_requests", "Requests of the OSS endpoint: what was asked for, and OK or the error's code", "operation",
            "code",
        )  # fmt: skip
        self.fetches = counter("fetches", "Pictures fetched by URL: ok, or why not", "result")
        self.fetch_seconds = histogram("fetch_seconds", "A fetch by URL", buckets=_AGES)
        self.fetched_bytes = counter("fetched_bytes", "Bytes of pictures fetched by URL")
        self.log_errors = counter("log_write_errors", "Log lines that could not be written")
        self.log_dropped = counter(
            "log_lines_dropped", "Log lines dropped because stderr or the file took no more", "destination"
        )

    def camera(self, name: str) -> CameraMetrics:
        """Return the series of one camera; they exist, at 0, from now on."""
        with self._gone_lock:
            self._gone.discard(name)
        return CameraMetrics(self, name)

    def count_live_picture(self, camera: str) -> None:
        """Count a live picture; late ones of a camera that is gone count nowhere."""
        with self._gone_lock:
            if camera not in self._gone:
                self._pictures.labels(camera).inc()

    def observe_age(self, camera: str, seconds: float) -> None:
        """Note how old a message was when it was handed over; late ones of a camera that is gone count nowhere."""
        with self._gone_lock:
            if camera not in self._gone:
                self._age.labels(camera).observe(seconds)


class CameraMetrics:
    """The metrics of one camera. All methods are thread-safe."""

    def __init__(self, metrics: Metrics, camera: str) -> None:
        self._all = metrics
        self._camera = camera
        self._lock = threading.Lock()
        self._forgotten = False
        self.received = metrics._received.labels(camera)
        self.sampled = metrics._sampled.labels(camera)
        self.damaged = metrics._damaged.labels(camera)
        self.analysed = metrics._analysed.labels(camera)
        self.output_errors = metrics._output_errors.labels(camera)
        self.faces = metrics._faces.labels(camera)
        self.tracks = metrics._tracks.labels(camera)
        self.reconnects = metrics._reconnects.labels(camera)
        metrics._pictures.labels(camera)
        metrics._hardware.labels(camera)
        metrics._idle.labels(camera)
        metrics._reduced.labels(camera)
        self.dropped("overtaken", 0)

    def dropped(self, cause: str, frames: int = 1) -> None:
        """Count sampled frames that were not analysed, by cause: overtaken, failed, removed or shutdown."""
        with self._lock:
            if not self._forgotten:
                self._all._dropped.labels(self._camera, cause).inc(frames)

    def failure(self, cause: str) -> None:
        """Count a failure of the source."""
        with self._lock:
            if not self._forgotten:
                self._all._failures.labels(self._camera, cause).inc()

    def idle(self, cause: str | None) -> None:
        """Note that the camera is idle (None), or what woke it; `ended` is no wake."""
        with self._lock:
            if not self._forgotten:
                self._all._idle.labels(self._camera).set(cause is None)
                if cause not in (None, "ended"):
                    self._all._wakes.labels(self._camera, cause).inc()

    def reduced(self, is_reduced: bool) -> None:
        """Note whether less is analysed than configured, because there is too much to do."""
        with self._lock:
            if not self._forgotten:
                self._all._reduced.labels(self._camera).set(is_reduced)

    def state(self, now: str, states: Sequence[str]) -> None:
        """Set the camera's state: 1 for `now`, and 0 for the other states."""
        with self._lock:
            if not self._forgotten:
                for state in states:
                    self._all._state.labels(self._camera, state).set(state == now)

    def hardware(self, decodes: bool) -> None:
        """Note whether hardware decodes the camera."""
        with self._lock:
            if not self._forgotten:
                self._all._hardware.labels(self._camera).set(decodes)

    def forget(self) -> None:
        """Remove the metrics of a removed camera; later counts are ignored."""
        with self._lock:
            self._forgotten = True
        with self._all._gone_lock:
            self._all._gone.add(self._camera)
            for series in self._all._by_camera:
                series.remove_by_labels({"camera": self._camera})
