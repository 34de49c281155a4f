"""The MQTT output: one thread that publishes messages to a broker.

The `faces` of frames, and snapshots, are of no use when old: while the broker is away they are dropped and counted.
Events are kept, within bounds, until the broker has acknowledged them; those that had to wait are marked `replayed`. Of
status, presence and discovery, the newest of each topic is kept; the broker retains them, and all are sent again after
every connect.

A message that the broker does not take (too large, refused, or answered with a hang-up) is dropped and counted, so that
it does not hold up the others.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from visaged.pipelines.outputs.home_assistant.births import Births
from visaged.pipelines.outputs.home_assistant.devices import Site
from visaged.pipelines.outputs.home_assistant.discovery import BIRTH, Discovery
from visaged.pipelines.outputs.leases import Fence
from visaged.pipelines.outputs.messages import Composer, Kind, Message
from visaged.pipelines.outputs.mqtt.config import PublisherConfig
from visaged.pipelines.outputs.mqtt.hangups import HangUps
from visaged.pipelines.outputs.mqtt.inbox import Inbox
from visaged.pipelines.outputs.mqtt.ledger import Ledger, Sent
from visaged.pipelines.outputs.mqtt.link import BrokerLink
from visaged.pipelines.outputs.mqtt.losses import Losses
from visaged.pipelines.outputs.mqtt.reports import Heard, Limits, Lost, Opened, Settled, Subscribed
from visaged.pipelines.outputs.mqtt.times import Times
from visaged.pipelines.outputs.outbox import NoTopicMemory, Outbox, TopicMemory
from visaged.pipelines.outputs.output import OutputState
from visaged.pipelines.outputs.topics import RETAINED, SENDINGS, topic
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.progress import beat

log = logging.getLogger(__name__)


# Measured: with 20 messages in flight, a broker acknowledged 18,500 a second; with 1,000 in flight, fewer.
_MOST_IN_FLIGHT = 20
# Most `faces` that are not written yet (QoS 0) or not acknowledged; more of them would only be older.
_MOST_FACES = 200
# Kinds of messages that are of no use when late; they share a queue.
_FLEETING: tuple[Kind, ...] = ("faces", "snapshot")
_TIMES = Times()

_SET_ASIDE = {
    "too_large": "are larger than the MQTT broker's Maximum Packet Size of {limit} bytes",
    "hung_up": "make the MQTT broker hang up; look at its policy and at its limit for the size of a message",
}


class MqttOutput:
    """Publishes faces, events, status and presence, and what Home Assistant needs to make devices of the cameras.

    Args:
        config: The broker, and what is published.
        composer: Makes the node's status.
        metrics: Counts messages.
        version: Version of the daemon, for the node's status.
        outbox: Keeps events until they are acknowledged.
        credentials: User and password for the broker.
        topics: Remembers over a restart which topics have a retained message.
        clock: Returns monotonic seconds.
        wall: Returns seconds since 1970.
        times: Seconds after which conclusions are drawn from connections that end.
        fence: The leases of a node of a fleet: what is of no use when late, or retained, is not sent without one. None
            on one machine.
        fleet: Name of the fleet; empty on one machine.
        on_departed: Called with a camera and an epoch, after `release`, once nothing of it is on its way to the broker.

    Raises:
        OSError: A TLS file cannot be used.
    """

    name = "mqtt"
    kinds: frozenset[Kind] = frozenset(("faces", "events", "status", "presence", "snapshot"))

    def __init__(
        self,
        config: PublisherConfig,
        composer: Composer,
        metrics: Metrics,
        version: str,
        outbox: Outbox,
        credentials: tuple[str | None, str | None] = (None, None),
        topics: TopicMemory = NoTopicMemory(),  # noqa: B008 - it holds nothing
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        times: Times = _TIMES,
        fence: Fence | None = None,
        fleet: str = "",
        on_departed: Callable[[str, int], None] = lambda camera, epoch: None,
    ) -> None:
        self._config = config
        self._composer = composer
        self._metrics = metrics
        self._version = version
        self._outbox = outbox
        self._clock = clock
        self._wall = wall
        self._node_topic = topic(config.prefix, composer.node, "status")
        self._topics = topics
        self._inbox = Inbox(_MOST_FACES, config.max_waiting_events)
        outbox.listen(self._inbox.wake)
        self._drain_until_s = float("inf")
        home_assistant = config.home_assistant
        site = Site(config.prefix, composer.node, version, config.snapshots, fleet)
        self._discovery = Discovery(home_assistant.prefix if home_assistant.enabled else None, site)
        self._births = Births(self._discovery.birth_topic, clock)
        self._put_state(self._discovery.node())
        # Retained payloads by topic: all of them, and those that are not sent yet.
        self._state: dict[str, bytes] = {}
        self._unsent: dict[str, bytes] = {}
        self._fence = fence
        self._on_departed = on_departed
        # The camera and epoch of what is retained, by topic; empty without a fence.
        self._leases: dict[str, tuple[str, int]] = {}
        # Camera, epoch, and the track that another node ends; None for all that is retained of the camera.
        self._released: queue.SimpleQueue[tuple[str, int, int | None]] = queue.SimpleQueue()
        self._departing: list[tuple[str, int]] = []
        self._faces: deque[Message] = deque()
        self._faces_turn = False
        self._ledger = Ledger()
        self._times = times
        self._hangups = HangUps(clock, times)
        self._connection = 0
        self._limits = Limits()
        self._opened_s = 0.0
        self._last_event = 0
        self._losses = Losses(self.name, metrics)
        will = composer.node_status("offline", wall(), version, "connection lost")
        self._client_id = config.client_id or f"visaged-{composer.node}"
        last_will = (self._node_topic, will)
        self._link = BrokerLink(config, self._client_id, *credentials, last_will, self._inbox.wake, clock, times)
        for kind in ("faces", "events"):
            metrics.output_published.labels(self.name, kind)
            metrics.output_acknowledged.labels(self.name, kind)
            metrics.output_waiting.labels(self.name, kind)

    def offer(self, message: Message) -> None:
        """Take a message; never blocks, and may be called from any thread."""
        if message.kind in RETAINED:
            payloads = {self._topic(message.camera, message.kind): message.body}
            payloads |= self._discovery.announce(message.camera)
            if self._fence is not None:
                self._leases.update(dict.fromkeys(payloads, (message.camera, message.epoch)))
            self._put_state(payloads)
            return
        late = self._inbox.put(message)
        if late is not None:
            self._losses.count(late.kind, "overflow" if late.kind == "events" else "broker_slow")

    def forget(self, camera: str) -> None:
        """Clear what is retained of a camera that was removed; never blocks, and may be called from any thread."""
        cleared = self._discovery.retract(camera) | {self._topic(camera, kind): b"" for kind in RETAINED}
        for to in cleared:
            self._leases.pop(to, None)
        self._put_state(cleared)

    def release(self, camera: str, epoch: int) -> None:
        """Leave what is retained of a camera to its next owner; never blocks, and may be called from any thread."""
        self._discovery.leave(camera)
        self._released.put((camera, epoch, None))
        self._inbox.wake()

    def close_track(self, camera: str, epoch: int, track: int) -> None:
        """Note that another node ends a track; never blocks, and may be called from any thread."""
        self._released.put((camera, epoch, track))

    def clear_all_but(self, cameras: Iterable[str]) -> None:
        """Clear what earlier runs left retained: status of cameras that are gone, of the node under another name, ...

        Args:
            cameras: Names of the cameras that there are now.
        """
        names = list(cameras)
        current = {self._node_topic, *(self._topic(name, kind) for name in names for kind in RETAINED)}
        gone = self._topics.remembered() - current - self._discovery.topics(names)
        self._put_state(dict.fromkeys(sorted(gone), b""))

    def state(self) -> OutputState:
        """Return the state of the connection; may be called from any thread."""
        return OutputState(self._link.connected, self._link.trouble, self._link.address)

    def drain(self, until_s: float) -> None:
        """After a request to stop, go on until everything is acknowledged or until monotonic time `until_s`."""
        self._drain_until_s = until_s
        self._inbox.wake()

    def run(self, stopping: threading.Event) -> None:
        """Publish until `stopping` is set and everything is acknowledged, or the time given to `drain` is over."""
        self._link.start()
        try:
            while not (stopping.is_set() and self._finished()):
                beat()
                self._turn()
        finally:
            self._sign_off()

    @property
    def _online(self) -> bool:
        """Whether messages can be sent: there is a connection, and `_on_connect` was called for it."""
        return self._link.connected and self._link.connections == self._connection

    def _unsettled(self) -> int:
        """Number of messages of no use when late that are not written, or not acknowledged."""
        return sum(map(self._ledger.unsettled, _FLEETING))

    def _topic(self, camera: str, kind: Kind) -> str:
        return topic(self._config.prefix, camera, kind)

    def _put_state(self, payloads: dict[str, bytes]) -> None:
        for to, payload in payloads.items():
            self._inbox.put_state(to, payload)

    def _finished(self) -> bool:
        if self._clock() >= self._drain_until_s:
            return True
        if any(map(self._inbox.count, self.kinds)):
            return False
        # Without a connection, waiting would not help.
        return not self._link.connected or not (len(self._outbox) or self._faces or self._unsent or self._unsettled())

    def _turn(self) -> None:
        released = [self._released.get() for _ in range(self._released.qsize())]
        faces, events, state = self._inbox.take(0.2)
        self._state |= state
        self._unsent |= state
        self._handle_link_events()
        for event in events:
            for lost in self._outbox.put(event):
                self._losses.count(lost.kind, "overflow")
        for message in faces:
            self._keep_faces(message)
        for camera, epoch, track in released:  # after the events that came before
            if track is None:
                self._let_go(camera, epoch)
            else:
                self._outbox.close_track(camera, epoch, track)
        if self._births.due():
            self._unsent |= {to: payload for to, payload in self._state.items() if self._discovery.has(to)}
        self._send_pending()
        if self._departing:
            self._see_off()
        self._metrics.mqtt_connected.set(self._link.connected)
        self._metrics.output_waiting.labels(self.name, "events").set(len(self._outbox))
        waiting = len(self._faces) + self._unsettled()
        self._metrics.output_waiting.labels(self.name, "faces").set(waiting)

    def _let_go(self, camera: str, epoch: int) -> None:
        for to in self._camera_topics(camera):
            if self._leases.get(to) == (camera, epoch):
                self._drop_state(to)
        self._departing.append((camera, epoch))

    def _drop_state(self, to: str) -> None:
        for known in (self._leases, self._state, self._unsent):
            known.pop(to, None)

    def _see_off(self) -> None:
        """Tell which of the cameras that were released have nothing on its way to the broker any more."""
        for camera, epoch in self._departing.copy():
            if not self._outbox.waits(camera, epoch) and not self._ledger.has(self._camera_topics(camera)):
                self._departing.remove((camera, epoch))
                self._on_departed(camera, epoch)

    def _camera_topics(self, camera: str) -> set[str]:
        kinds: tuple[Kind, ...] = ("faces", "events", "status", "presence", "snapshot")
        return {self._topic(camera, kind) for kind in kinds} | self._discovery.topics_of(camera)

    def _is_fenced(self, camera: str, epoch: int) -> bool:
        return self._fence is not None and not self._fence.holds(camera, epoch)

    def _handle_link_events(self) -> None:
        for event in self._link.events():
            match event:
                case Settled():
                    self._reap_ack(event)
                case Opened():
                    self._on_connect(event)
                case Lost():
                    self._on_loss(event)
                case Subscribed():
                    self._births.answered(event.refused)
                case Heard():
                    self._births.heard()
        for sent in self._ledger.expire(self._clock()):
            self._hangups.passed(sent)

    def _reap_ack(self, settled: Settled) -> None:
        sent, passed = self._ledger.settle(settled.number)
        for one in passed:
            self._hangups.passed(one)
        if sent is None:
            return
        if sent.kind == "events":
            self._outbox.ack(sent.id)
        elif sent.clears and self._state.get(sent.topic) == b"":
            del self._state[sent.topic]
            self._topics.forget(sent.topic)
        if settled.refused:
            self._losses.count(sent.kind, settled.refused.lower().replace(" ", "_"), quietly=True)
            self._report(sent.topic, sent.kind, settled.refused, f"are refused by the MQTT broker: {settled.refused}")
        elif sent.qos:
            self._metrics.output_acknowledged.labels(self.name, sent.kind).inc()

    def _on_connect(self, opened: Opened) -> None:
        """Prepare to send all state, which the broker may have lost, and to resend unacknowledged events."""
        if self._connection:
            self._metrics.mqtt_reconnects.inc()
        self._connection = opened.connection
        if self._limits.qos and not opened.limits.qos:
            log.warning("the MQTT broker takes QoS 0 only and acknowledges nothing: events may be lost unnoticed")
        self._limits = opened.limits
        self._opened_s = self._clock()
        self._hangups.opened()
        self._outbox.retry()
        online = self._composer.node_status("online", self._wall(), self._version, None)
        # Of what a killed run left retained, nothing may be taken for true because the node is online again.
        presence = {to: payload for to, payload in self._state.items() if _kind(to) == "presence"}
        self._unsent = presence | {self._node_topic: online} | self._state
        birth_topic = self._births.opened()
        if birth_topic is not None:
            self._link.listen(birth_topic, BIRTH)

    def _on_loss(self, lost: Lost) -> None:
        suspects = self._ledger.suspects(lost.at_s) if lost.unexplained else []
        for sent in self._ledger.clear():
            if sent.kind in _FLEETING:
                self._losses.count(sent.kind, "connection_lost")
        for message in self._faces:
            self._losses.count(message.kind, "connection_lost")
        self._faces.clear()
        if not suspects and self._births.lost(lost.unexplained):
            self._link.relent()
            return
        if self._hangups.lost(lost, suspects) is not None:
            self._link.relent()
        if self._hangups.without_reason:
            self._link.explain(
                f"the MQTT broker {self._link.address} closes connections soon after it has accepted them, with no "
                f'message on its way: another client may use the client id "{self._client_id}" (set mqtt.client_id '
                "to one of its own), or the broker does not want this client"
            )

    def _keep_faces(self, message: Message) -> None:
        if not self._online:
            self._losses.count(message.kind, "offline")
            return
        most = _MOST_IN_FLIGHT if self._hangups.careful else _MOST_FACES
        self._faces.append(message)
        if len(self._faces) + self._unsettled() > most:
            self._handle_link_events()
        if len(self._faces) + self._unsettled() > most and self._faces:
            self._losses.count(self._faces.popleft().kind, "broker_slow")
        elif not self._faces_qos():
            self._send_pending()

    def _faces_qos(self) -> int:
        # An acknowledgement is needed to find out which message makes a broker hang up.
        return min(self._limits.qos, 1 if self._hangups.careful else self._config.faces_qos)

    def _send_pending(self) -> None:
        while self._online:
            careful = self._hangups.careful
            if careful and (self._ledger.in_doubt or self._clock() < self._opened_s + self._times.probe_s):
                return
            room = self._ledger.in_flight < min(_MOST_IN_FLIGHT, self._limits.in_flight)
            if self._unsent and room:
                self._send_state()
            elif self._faces and (room or not self._faces_qos()) and (self._faces_turn or not len(self._outbox)):
                self._faces_turn = False
                self._send_faces(self._faces.popleft())
            elif room and self._send_event():
                self._faces_turn = True
            elif self._faces and (room or not self._faces_qos()):
                self._send_faces(self._faces.popleft())
            else:
                return

    def _send_state(self) -> None:
        to = next(iter(self._unsent))
        payload = self._unsent.pop(to)
        lease = self._leases.get(to)
        if lease is not None and self._is_fenced(*lease):
            self._drop_state(to)
            self._discovery.leave(lease[0])
            self._losses.count(_kind(to), "fenced", quietly=True)
            return
        if payload:
            self._topics.remember(to)
        self._send(to, _kind(to), payload, SENDINGS["status"].qos, retain=True)

    def _send_faces(self, message: Message) -> None:
        if self._is_fenced(message.camera, message.epoch):
            self._losses.count(message.kind, "fenced", quietly=True)
            return
        now_s = self._clock()
        payload = message.encode(now_s, replayed=False)
        kind = message.kind
        qos = self._faces_qos() if kind == "faces" or self._hangups.careful else 0
        if self._send(self._topic(message.camera, kind), kind, payload, qos):
            self._metrics.output_published.labels(self.name, kind).inc()
            if kind == "faces":
                self._metrics.observe_age(message.camera, max(0.0, now_s - message.captured_s))

    def _send_event(self) -> bool:
        """Send the next event, if there is one; return whether there was."""
        for id, message, replayed in self._outbox.pending(1):
            payload = message.encode(self._clock(), replayed)
            if not self._send(self._topic(message.camera, "events"), "events", payload, 1, id=id):
                self._outbox.ack(id)
            elif id > self._last_event:
                self._last_event = id
                self._metrics.output_published.labels(self.name, "events").inc()
            return True
        return False

    def _send(self, topic: str, kind: Kind, payload: bytes, qos: int, retain: bool = False, id: int = 0) -> bool:
        """Send a message; return False if it is dropped because the broker would not take it."""
        qos = min(qos, self._limits.qos)
        size = self._link.packet_bytes(topic, payload, qos)
        if self._limits.packet_bytes is not None and size > self._limits.packet_bytes:
            return self._set_aside(topic, kind, size, "too_large")
        if self._hangups.refuses(kind, topic, size):
            return self._set_aside(topic, kind, size, "hung_up")
        number = self._link.send(topic, payload, qos, retain and self._limits.retain)
        self._ledger.add(number, Sent(kind, topic, size, qos, self._clock(), id, clears=retain and not payload))
        return True

    def _set_aside(self, topic: str, kind: Kind, size: int, cause: str) -> bool:
        self._losses.count(kind, cause, quietly=True)
        why = _SET_ASIDE[cause].format(limit=self._limits.packet_bytes)
        self._report(topic, kind, cause, f"{why} (this one has {size} bytes)")
        return False

    def _report(self, topic: str, kind: Kind, cause: str, text: str) -> None:
        # Of discovery, once for all cameras: they are refused alike.
        start = self._config.home_assistant.devices_start if kind == "discovery" else None
        self._losses.report(topic if start is None else f"{start}...", cause, text)

    def _sign_off(self) -> None:
        published = self._publish_offline() if self._online else True
        self._handle_link_events()
        if self._outbox.durable:
            for event in self._inbox.take(0).events:
                self._outbox.put(event)
        events = self._inbox.count("events") + (0 if self._outbox.durable else len(self._outbox))
        faces = self._inbox.count("faces") + self._inbox.count("snapshot") + len(self._faces) + self._unsettled()
        if faces:
            self._losses.count("faces", "shutdown", faces, quietly=True)
        if events:
            self._losses.count("events", "shutdown", events, quietly=True)
            log.warning("%d events were not acknowledged by the broker before the end and are lost", events)
        self._outbox.close()
        # Without an acknowledged offline status, no DISCONNECT is sent, so that the broker publishes the last will.
        self._link.close(0.5, orderly=published)
        self._metrics.mqtt_connected.set(False)

    def _publish_offline(self) -> bool:
        status = self._composer.node_status("offline", self._wall(), self._version, "shutdown")
        if self._hangups.refuses("status", self._node_topic, self._link.packet_bytes(self._node_topic, status, 1)):
            return True
        qos = min(1, self._limits.qos)
        number = self._link.send(self._node_topic, status, qos, self._limits.retain)
        self._ledger.add(number, Sent("status", self._node_topic, 0, qos, self._clock()))
        now_s = self._clock()
        deadline_s = min(max(self._drain_until_s, now_s + 0.2), now_s + 1.0)
        while number in self._ledger:
            if not self._link.connected or self._clock() >= deadline_s:
                return False
            self._inbox.wait(0.05)
            self._handle_link_events()
        return True


def _kind(topic: str) -> Kind:
    """Return the kind of a retained message, from its topic."""
    match topic.rpartition("/")[2]:
        case "presence":
            return "presence"
        case "config":
            return "discovery"
    return "status"
