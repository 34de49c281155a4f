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
from visaged.pipelines.metrics import Metrics
from visaged.pipelines.outputs.messages import Composer, Kind
from visaged.pipelines.outputs.mqtt_link import BrokerLink, LinkConfig
from visaged.pipelines.outputs.outbox import Letter, MemoryOutbox, Outbox
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
# Faces that the socket has not taken yet (QoS 0) or the broker not acknowledged; more of them would only be older.
_MOST_UNSETTLED = 200
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
        self._woken = False
        self._results: deque[FrameResult] = deque()
        self._news: deque[TrackEvent] = deque()
        self._statuses: dict[str, CameraStatus] = {}
        self._fresh: set[str] = set()
        self._outbox: Outbox = MemoryOutbox(config.max_waiting_events, self._overflowed)
        # What paho has and has not settled yet, by number.
        self._letters: dict[int, Letter] = {}
        self._faces: set[int] = set()
        self._again: deque[Letter] = deque()
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
            self._news.extend(result.events)
            self._results.append(result)
            overdue = len(self._results) > _MOST_RESULTS
            if overdue:
                self._results.popleft()
            self._changed.notify()
        if overdue:
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

    @property
    def _online(self) -> bool:
        """Whether messages can be sent: there is a connection, and it has been greeted."""
        return self.link.connected and self.link.connections == self._seen_connections

    def _finished(self) -> bool:
        if self._clock() >= self._drain_until_s:
            return True
        with self._changed:
            empty = not (self._results or self._news or self._fresh)
        # Without a broker there is nobody to wait for.
        return empty and (not self.link.connected or not (len(self._outbox) or self._faces))

    def _turn(self) -> None:
        with self._changed:
            if not (self._results or self._news or self._fresh or self._woken):
                self._changed.wait(0.2)
            self._woken = False
            results, news = list(self._results), list(self._news)
            fresh = [self._statuses[camera] for camera in self._fresh]
            self._results.clear()
            self._news.clear()
            self._fresh.clear()
        self._settle()
        self._greet()
        if self._online:  # else the next greeting tells of them
            for status in fresh:
                self._send_status(status)
        for event in news:
            self._keep(event)
        for result in results:
            self._send_faces(result)
        self._pump()
        self._metrics.mqtt_connected.set(self.link.connected)
        self._metrics.mqtt_waiting.labels("events").set(len(self._outbox))
        self._metrics.mqtt_waiting.labels("faces").set(len(self._faces))

    def _settle(self) -> set[int]:
        """Take note of what the broker has, or has refused; return the numbers."""
        settled = self.link.settled()
        for number, accepted in settled:
            letter = self._letters.pop(number, None)
            if letter is not None:
                self._outbox.done(letter)
                self._answered(letter.message.kind, accepted)
            elif number in self._faces:
                self._faces.remove(number)
                if self._config.faces_qos == 1:
                    self._answered("faces", accepted)
        return {number for number, _ in settled}

    def _answered(self, kind: Kind, accepted: bool) -> None:
        if accepted:
            self._metrics.mqtt_acknowledged.labels(kind).inc()
        else:
            self._lose(kind, "refused")

    def _greet(self) -> None:
        """On a new connection send all state, for the broker may have forgotten it, and again what has no answer."""
        connections = self.link.connections
        if connections == self._seen_connections or not self.link.connected:
            return
        self._settle()
        if self._seen_connections:
            self._metrics.mqtt_reconnects.inc()
        self._seen_connections = connections
        for _ in self._faces:
            self._lose("faces", "connection_lost")
        self._faces.clear()
        self._again.extendleft(reversed(self._letters.values()))
        self._letters.clear()
        status = self._composer.node_status("online", self._wall(), self._version, None)
        self.link.send(self._composer.node_topic, status, qos=1, retain=True)
        with self._changed:
            statuses = list(self._statuses.values())
        for camera in statuses:
            self._send_status(camera)

    def _send_status(self, status: CameraStatus) -> None:
        try:
            payload = self._composer.camera_status(status)
        except Exception as error:  # one bad text must not end the publisher
            self._complain("status of camera %s not sent: %s", status.camera, _unfit(error))
            return
        self.link.send(self._composer.camera_topic(status.camera, "status"), payload, qos=1, retain=True)

    def _send_faces(self, result: FrameResult) -> None:
        self._publish_seconds.observe(self._clock() - result.finished_s)
        if not self._online:
            self._lose("faces", "offline")
            return
        if len(self._faces) >= _MOST_UNSETTLED:
            self._settle()
        if len(self._faces) >= _MOST_UNSETTLED:
            self._lose("faces", "broker_slow")
            return
        try:
            message = self._composer.faces(result)
        except Exception as error:  # one bad result must not end the publisher
            self._lose("faces", "failed", _unfit(error))
            return
        now_s = self._clock()
        payload = message.seal(now_s, replayed=False)
        self._faces.add(self.link.send(message.topic, payload, qos=self._config.faces_qos))
        self._metrics.mqtt_published.labels("faces").inc()
        self._metrics.age.labels(result.frame.camera).observe(max(0.0, now_s - message.captured_s))

    def _keep(self, event: TrackEvent) -> None:
        try:
            message = self._composer.event(event)
        except Exception as error:  # one bad event must not end the publisher
            self._lose("events", "failed", _unfit(error))
            return
        self._outbox.put(Letter(message, self._seen_connections if self._online else -1))

    def _pump(self) -> None:
        while self._online and len(self._letters) < _MOST_IN_FLIGHT:
            again = bool(self._again)
            letter = self._again.popleft() if again else self._outbox.take()
            if letter is None:
                return
            replayed = letter.connection != self._seen_connections
            payload = letter.message.seal(self._clock(), replayed)
            self._letters[self.link.send(letter.message.topic, payload, qos=1)] = letter
            if not again:
                self._metrics.mqtt_published.labels(letter.message.kind).inc()

    def _sign_off(self) -> None:
        told = self._say_goodbye() if self._online else True
        self._settle()
        with self._changed:
            events, faces = len(self._outbox) + len(self._news), len(self._faces) + len(self._results)
        if faces:
            self._metrics.mqtt_lost.labels("faces", "shutdown").inc(faces)
        if events:
            self._metrics.mqtt_lost.labels("events", "shutdown").inc(events)
            log.warning("%d events were not acknowledged by the broker before the end and are lost", events)
        # A broker that has not heard that this is the end is left to find out, and to publish the last will.
        self.link.close(0.5, orderly=told)
        self._metrics.mqtt_connected.set(False)

    def _say_goodbye(self) -> bool:
        status = self._composer.node_status("offline", self._wall(), self._version, "shutdown")
        number = self.link.send(self._composer.node_topic, status, qos=1, retain=True)
        now_s = self._clock()
        deadline_s = min(max(self._drain_until_s, now_s + 0.2), now_s + 1.0)
        while number not in self._settle():
            if not self.link.connected or self._clock() >= deadline_s:
                return False
            with self._changed:
                if not self._woken:
                    self._changed.wait(0.05)
                self._woken = False
        return True

    def _overflowed(self, letter: Letter) -> None:
        self._lose(letter.message.kind, "overflow")

    def _lose(self, kind: Kind, cause: str, why: str = "") -> None:
        self._metrics.mqtt_lost.labels(kind, cause).inc()
        if cause != "offline":  # that the broker is away was said once already
            self._complain("%s message lost: %s", kind, why or cause.replace("_", " "))

    def _wake(self) -> None:
        # From paho's thread, which may hold paho's locks; this thread never holds `_changed` while it calls paho.
        with self._changed:
            self._woken = True
            self._changed.notify()


def _unfit(error: Exception) -> str:
    log.debug("a message cannot be composed", exc_info=error)
    return f"it cannot be composed ({type(error).__name__}: {error})"
