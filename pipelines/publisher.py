"""The publisher: one thread that turns results into messages and sees them off.

Frames' `faces` are news and worthless when old: while the broker is away they are dropped and counted. Events tell of
something that happened once: they wait, bounded, until the broker has acknowledged them, and say so (`replayed`).
Status messages are state: only the newest of each is kept, and all are sent anew after every connect.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from visaged.pipelines.camera import CameraStatus
from visaged.pipelines.inference import FrameResult
from visaged.pipelines.messages import Composer, Kind, Message
from visaged.pipelines.metrics import Metrics
from visaged.pipelines.mqtt import BrokerLink, LinkConfig
from visaged.pipelines.outbox import Letter, MemoryOutbox, Outbox
from visaged.pipelines.ratelimit import LimitedLog
from visaged.pipelines.tracks import TrackEvent

log = logging.getLogger(__name__)


class PublisherConfig(LinkConfig):
    """What is published, and where to."""

    prefix: Annotated[str, Field(pattern=r"^[^#+/\s][^#+\s]*[^#+/\s]$|^[^#+/\s]$")] = "visaged"
    """Of all topics; may have levels (`site/visaged`)."""
    faces_qos: Literal[0, 1] = 0
    """QoS of the per-frame `faces`; events have 1."""
    max_waiting_events: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Events that may wait for the broker in memory (about 2 kB each); the oldest are lost first, and counted."""


# With 20 messages in flight a broker acknowledged 18,500 a second, with 1,000 fewer.
_MOST_IN_FLIGHT = 20
# Messages with QoS 0 that the socket has not taken yet; more of them would only be older.
_MOST_UNWRITTEN = 200
# Results that may wait for this thread.
_MOST_RESULTS = 500


class Publisher:
    """Publishes results, events and status.

    Args:
        config: What, and where to.
        composer: Makes the messages.
        metrics: Counts them.
        version: Of the daemon, for the node's status.
        credentials: User and password for the broker.
        clock: Monotonic seconds.
        wall: Seconds since 1970.

    Raises:
        OSError: A TLS file cannot be used.
    """

    def __init__(
        self,
        config: PublisherConfig,
        composer: Composer,
        metrics: Metrics,
        version: str,
        credentials: tuple[str | None, str | None] = (None, None),
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._composer = composer
        self._metrics = metrics
        self._version = version
        self._clock = clock
        self._wall = wall
        self._changed = threading.Condition()
        self._results: deque[FrameResult] = deque()
        self._news: deque[TrackEvent] = deque()
        self._statuses: dict[str, CameraStatus] = {}
        self._fresh: set[str] = set()
        self._outbox: Outbox = MemoryOutbox(config.max_waiting_events, self._overflowed)
        self._in_flight: dict[int, tuple[Kind, Letter | None]] = {}
        self._unwritten: set[int] = set()
        self._seen_connections = 0
        self._drain_until_s = float("inf")
        self._complain = LimitedLog(log)
        will = composer.node_status("offline", wall(), version, "connection lost")
        self.link = BrokerLink(
            config,
            config.client_id or f"visaged-{composer.node}",
            *credentials,
            will=(composer.node_topic, will),
            on_change=self._wake,
        )
        self._publish_seconds = metrics.stage.labels("publish")
        for kind in ("faces", "events"):
            metrics.mqtt_published.labels(kind)
            metrics.mqtt_acknowledged.labels(kind)
            metrics.mqtt_waiting.labels(kind)

    def submit(self, result: FrameResult) -> None:
        """Take a frame's result; never blocks, from any thread."""
        with self._changed:
            self._results.append(result)
            overdue = self._results.popleft() if len(self._results) > _MOST_RESULTS else None
            if overdue is not None:
                self._news.extend(overdue.events)
            self._changed.notify()
        if overdue is not None:
            self._lose("faces", "publisher_busy")

    def submit_event(self, event: TrackEvent) -> None:
        """Take an event that no frame led to; never blocks, from any thread."""
        with self._changed:
            self._news.append(event)
            self._changed.notify()

    def submit_status(self, status: CameraStatus) -> None:
        """Take a camera's new status; never blocks, from any thread."""
        with self._changed:
            self._statuses[status.camera] = status
            self._fresh.add(status.camera)
            self._changed.notify()

    def drain(self, until_s: float) -> None:
        """Once asked to stop, go on until everything is acknowledged or monotonic time `until_s`."""
        with self._changed:
            self._drain_until_s = until_s
            self._changed.notify()

    def run(self, stopping: threading.Event) -> None:
        """Publish until `stopping` is set and everything is seen off, or the time given to `drain` is over."""
        self.link.start()
        try:
            while not (stopping.is_set() and self._finished()):
                self._turn()
        finally:
            self._sign_off()

    def _finished(self) -> bool:
        if self._clock() >= self._drain_until_s:
            return True
        with self._changed:
            empty = not (self._results or self._news or self._fresh)
        # Without a broker there is nobody to wait for.
        return empty and (not self.link.connected or not (len(self._outbox) or self._in_flight))

    def _turn(self) -> None:
        with self._changed:
            if not (self._results or self._news or self._fresh):
                self._changed.wait(0.2)
            results, news, fresh = list(self._results), list(self._news), list(self._fresh)
            self._results.clear()
            self._news.clear()
            if self.link.connected:
                self._fresh.clear()
            else:
                fresh = []
        self._settle()
        self._greet()
        for camera in fresh:
            self._send_status(camera)
        for result in results:
            for event in result.events:
                self._keep(self._composer.event(event))
            self._send_faces(result)
        for event in news:
            self._keep(self._composer.event(event))
        self._pump()
        self._metrics.mqtt_connected.set(self.link.connected)
        self._metrics.mqtt_waiting.labels("events").set(len(self._outbox))
        self._metrics.mqtt_waiting.labels("faces").set(
            len(self._unwritten) + sum(letter is None for _, letter in self._in_flight.values())
        )

    def _settle(self) -> None:
        for number in self.link.settled():
            self._unwritten.discard(number)
            kind, letter = self._in_flight.pop(number, (None, None))
            if kind is None:
                continue
            self._metrics.mqtt_acknowledged.labels(kind).inc()
            if letter is not None:
                self._outbox.done(letter)

    def _greet(self) -> None:
        """Send all state anew on a new connection: the broker may have forgotten it, or has the last will."""
        connections = self.link.connections
        if connections == self._seen_connections or not self.link.connected:
            return
        if self._seen_connections:
            self._metrics.mqtt_reconnects.inc()
        self._seen_connections = connections
        for _ in self._unwritten:
            self._lose("faces", "connection_lost")
        self._unwritten.clear()
        status = self._composer.node_status("online", self._wall(), self._version, None)
        self.link.send(self._composer.node_topic, status, qos=1, retain=True)
        with self._changed:
            cameras = list(self._statuses)
            self._fresh.clear()
        for camera in cameras:
            self._send_status(camera)

    def _send_status(self, camera: str) -> None:
        topic = self._composer.camera_topic(camera, "status")
        self.link.send(topic, self._composer.camera_status(self._statuses[camera]), qos=1, retain=True)

    def _send_faces(self, result: FrameResult) -> None:
        now_s = self._clock()
        self._publish_seconds.observe(now_s - result.finished_s)
        if not self.link.connected:
            self._lose("faces", "offline")
            return
        busy = self._unwritten if self._config.faces_qos == 0 else self._in_flight
        if len(busy) >= _MOST_UNWRITTEN:
            self._lose("faces", "broker_slow")
            return
        message = self._composer.faces(result)
        now_s = self._clock()
        number = self.link.send(message.topic, message.seal(now_s, replayed=False), qos=self._config.faces_qos)
        if self._config.faces_qos == 0:
            self._unwritten.add(number)
        else:
            self._in_flight[number] = ("faces", None)
        self._metrics.mqtt_published.labels("faces").inc()
        self._metrics.age.labels(result.frame.camera).observe(max(0.0, now_s - message.captured_s))

    def _keep(self, message: Message) -> None:
        self._outbox.put(Letter(message, held=not self.link.connected))

    def _pump(self) -> None:
        while self.link.connected and len(self._in_flight) < _MOST_IN_FLIGHT:
            letter = self._outbox.take()
            if letter is None:
                return
            now_s = self._clock()
            number = self.link.send(letter.message.topic, letter.message.seal(now_s, letter.held), qos=1)
            self._in_flight[number] = (letter.message.kind, letter)
            self._metrics.mqtt_published.labels(letter.message.kind).inc()

    def _sign_off(self) -> None:
        if self.link.connected:
            status = self._composer.node_status("offline", self._wall(), self._version, "shutdown")
            number = self.link.send(self._composer.node_topic, status, qos=1, retain=True)
            deadline = min(self._drain_until_s, self._clock() + 1.0)
            self._unwritten.add(number)
            while number in self._unwritten and self.link.connected and self._clock() < deadline:
                with self._changed:
                    self._changed.wait(0.05)
                self._settle()
        self._settle()
        left = len(self._outbox)
        if left:
            self._metrics.mqtt_lost.labels("events", "shutdown").inc(left)
            log.warning("%d events were not acknowledged by the broker before the end and are lost", left)
        self.link.close(0.5)

    def _overflowed(self, letter: Letter) -> None:
        self._lose(letter.message.kind, "overflow")

    def _lose(self, kind: Kind, cause: str) -> None:
        self._metrics.mqtt_lost.labels(kind, cause).inc()
        if cause != "offline":  # that the broker is away was said once already
            self._complain("%s message lost: %s", kind, cause.replace("_", " "))

    def _wake(self) -> None:
        # From paho's thread, which may hold paho's locks; this thread never holds `_changed` while it calls paho.
        with self._changed:
            self._changed.notify()
