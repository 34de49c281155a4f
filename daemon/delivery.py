"""The way of messages out of the daemon: composed, kept on disk, handed to every output, and the embedded broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from visaged.daemon.broker.embedded import EmbeddedBroker
from visaged.daemon.errors import StartError
from visaged.daemon.membership import Membership
from visaged.daemon.settings import Settings
from visaged.pipelines.history.history import History, HistoryPlan
from visaged.pipelines.outputs.fan_out import FanOut
from visaged.pipelines.outputs.leases import Begun, Released
from visaged.pipelines.outputs.messages import Composer, Message
from visaged.pipelines.outputs.mqtt.losses import Losses
from visaged.pipelines.outputs.mqtt.output import MqttOutput
from visaged.pipelines.outputs.outbox import MemoryOutbox, NoTopicMemory
from visaged.pipelines.outputs.output import FrameSink, Output, OutputState
from visaged.pipelines.outputs.spool.spool import Spool
from visaged.pipelines.runtime.database import ForeignFile
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.progress import Progress
from visaged.pipelines.runtime.worker import OnDeath, Worker, not_joined

# How the time to stop is shared out: how many seconds before its end the wait for each part ends.
_FAN_OUT_RESERVE_S = 1.0
_DRAIN_RESERVE_S = 0.7
_OUTPUTS_RESERVE_S = 0.2
_BROKER_LEAST_S = 0.2

_BROKER_START_S = 10.0
_LOOK_S = 0.5

Ended = frozenset[tuple[str, int, int]]
"""Camera, epoch and track of tracks that other nodes end."""
Stage = Literal["composing", "sending"]
"""How far an epoch that was released is: its last messages are being composed, or are on their way to the broker."""


class Delivery:
    """The parts that messages pass, from the fan-out to the MQTT broker.

    Args:
        settings: The configuration, checked.
        composer: Makes the messages of this run.
        version: Version of the program.
        state_folder: Folder in which events wait for the broker; None keeps them in memory.
        outputs: Where messages go besides the MQTT broker.
        metrics: Counts messages.
        on_death: Called when a thread of these parts dies.
        sinks: Called with every result and its picture, in the thread of an inference worker; must return at once.
        member: The part in a fleet; None on one machine.

    Raises:
        StartError: A file cannot be used; the text names it.

    Attributes:
        fan_out: Takes results, events and states.
        history: Keeps events, and hands them to listeners.
    """

    def __init__(
        self,
        settings: Settings,
        composer: Composer,
        version: str,
        state_folder: Path | None,
        outputs: Sequence[Output],
        metrics: Metrics,
        on_death: OnDeath,
        sinks: Sequence[FrameSink] = (),
        member: Membership | None = None,
    ) -> None:
        self._cameras = [camera.name for camera in settings.cameras]
        self._member = member
        self._lock = threading.Lock()
        self._departing: dict[tuple[str, int], Stage] = {}
        ended: Ended
        fence, ended = (None, frozenset()) if member is None else (member.fence, member.ended)
        mqtt = settings.mqtt
        self._spool = None if state_folder is None else _spool(settings, state_folder, composer.epoch, metrics, ended)
        self._broker = None
        if mqtt.embedded:
            devices = mqtt.home_assistant.devices_start
            self._broker = EmbeddedBroker(mqtt.host, mqtt.port, mqtt.prefix, devices=devices)
        try:
            self._mqtt = MqttOutput(
                mqtt,
                composer,
                metrics,
                version,
                MemoryOutbox(*mqtt.memory) if self._spool is None else self._spool,
                mqtt.login() if self._broker is None else self._broker.login,
                NoTopicMemory() if self._spool is None else self._spool,
                fence=fence,
                fleet="" if member is None else member.fleet,
                on_departed=self._departed,
            )
        except (OSError, ValueError) as error:
            raise StartError(f"the MQTT connection cannot be set up: {error}") from error
        self.history = _history(settings, state_folder, composer.epoch, self._mqtt, metrics, ended)
        self._outputs: list[Output] = [self._mqtt, self.history.output, *outputs]
        sinks = [self.history.output.sink, *sinks]
        self.fan_out = FanOut(composer, self._outputs, metrics, sinks, fence=fence, keepers=self)
        self._fan_out_worker = Worker("fan-out", self.fan_out.run, on_death)
        self._output_workers = [Worker(output.name, output.run, on_death) for output in self._outputs]
        self._disk_workers = [] if self._spool is None else [Worker("spool", self._spool.run, on_death)]
        if self.history.store is not None:
            self._disk_workers.append(Worker("history-disk", self.history.store.run, on_death))
        self._broker_workers = []
        if self._broker is not None:
            probe = self._broker.probe
            self._broker_workers = [
                Worker("broker", self._broker.run, on_death),
                Worker("broker-probe", probe.run, on_death),
            ]

    def start(self, stop_wanted: Callable[[], bool]) -> None:
        """Start the threads, the embedded broker's first; return once that listens, or when a stop is wanted.

        Raises:
            StartError: The embedded broker cannot start.
        """
        if self._broker is not None:
            self._broker_workers[0].start()
            deadline_s = time.monotonic() + _BROKER_START_S
            while not self._broker.ready.wait(_LOOK_S) and not stop_wanted() and time.monotonic() < deadline_s:
                pass
            if not self._broker.ready.is_set() and not stop_wanted():
                raise StartError(
                    f"the embedded MQTT broker did not start within {_BROKER_START_S:g} s; start visaged again, or set "
                    "mqtt.embedded to false and run a broker of your own"
                )
            if self._broker.failure is not None:
                raise StartError(f"the embedded MQTT broker cannot start: {self._broker.failure}")
            self._broker_workers[1].start()
        if self._member is None:  # in a fleet, another node may have what this one had
            self._mqtt.clear_all_but(self._cameras)
            self.fan_out.expect(self._cameras)
        for worker in [*self._disk_workers, *self._output_workers, self._fan_out_worker]:
            worker.start()

    def finish(self, deadline_s: float) -> list[Worker]:
        """Send what there is, as far as that is possible until a monotonic time; return the threads that still run."""
        self._fan_out_worker.stop()
        left = not_joined([self._fan_out_worker], deadline_s - _FAN_OUT_RESERVE_S)
        for output, worker in zip(self._outputs, self._output_workers, strict=True):
            output.drain(deadline_s - _DRAIN_RESERVE_S)
            worker.stop()
        left += not_joined(self._output_workers, deadline_s - _OUTPUTS_RESERVE_S)
        for worker in self._disk_workers:
            worker.stop()
        return left + not_joined(self._disk_workers, deadline_s)

    def stop_broker(self, deadline_s: float) -> list[Worker]:
        """End the embedded broker, if there is one; return the threads that still run."""
        for worker in self._broker_workers:
            worker.stop()
        return not_joined(self._broker_workers, max(deadline_s, time.monotonic() + _BROKER_LEAST_S))

    # For a node of a fleet.

    def begin(self, one: Begun) -> None:
        """Publish a camera from now on, see `FanOut.begin`."""
        self.fan_out.begin(one)

    def release(self, one: Released) -> None:
        """End an epoch of a camera, see `FanOut.release`; `departing` says how far that is."""
        if one.is_over:
            with self._lock:
                self._departing[one.camera, one.epoch] = "composing"
        self.fan_out.release(one)

    def clear(self, camera: str) -> None:
        """Clear what is retained of a camera that has left the fleet."""
        self.fan_out.forget(camera)

    def departing(self, camera: str, epoch: int) -> Stage | None:
        """Return what is yet to be done with an epoch that was released; None if the broker has all of it."""
        with self._lock:
            return self._departing.get((camera, epoch))

    def released(self, camera: str, epoch: int) -> None:
        """Have the outputs let a camera go, after its last event was handed to them."""
        self.history.output.forget(camera)
        with self._lock:
            self._departing[camera, epoch] = "sending"
        self._mqtt.release(camera, epoch)

    def ended_elsewhere(self, message: Message) -> None:
        """Have the history and the next run know that a track has ended, which another node publishes."""
        self.history.output.offer(message)
        if message.track is not None:
            self._mqtt.close_track(message.camera, message.epoch, message.track)

    def _departed(self, camera: str, epoch: int) -> None:
        with self._lock:
            self._departing.pop((camera, epoch), None)

    def progress(self) -> list[Progress]:
        """Return the progress of the parts that have to go on, whatever brokers, disks and terminals do."""
        own = self._output_workers[:2]  # the other outputs may wait for a reader that is gone, as a terminal's
        return [worker.progress for worker in (self._fan_out_worker, *own, *self._broker_workers)]

    def mqtt_state(self) -> OutputState:
        """Return the state of the connection to the broker."""
        return self._mqtt.state()

    @property
    def disk_trouble(self) -> str:
        """Why events are in memory alone although they should be on disk; empty while they are."""
        return "" if self._spool is None else self._spool.state

    def is_ready(self) -> bool:
        """Return whether the broker has been reached or cannot be reached, and an embedded one works."""
        mqtt = self._mqtt.state()
        return (mqtt.connected or bool(mqtt.trouble)) and (
            self._broker is None or bool(self._broker.probe.health.works)
        )

    def document(self) -> dict[str, Any]:
        """Return the state of broker, spool and history, for `/readyz`."""
        mqtt = self._mqtt.state()
        probe = None if self._broker is None else self._broker.probe.health
        return {
            "mqtt": {
                "broker": mqtt.address,
                "connected": mqtt.connected,
                "error": mqtt.trouble or None,
                "embedded": None if probe is None else {"works": probe.works, "error": probe.error or None},
            },
            "spool": None if self._spool is None else {"events": len(self._spool), "error": self._spool.state or None},
            "history": self.history.document(),
        }


def _spool(settings: Settings, folder: Path, epoch: int, metrics: Metrics, ended: Ended) -> Spool:
    lose = partial(Losses(MqttOutput.name, metrics).count, "events")
    try:
        return Spool(folder, settings.spool, settings.mqtt.memory, epoch, lose, metrics, ended=ended)
    except ForeignFile as error:
        raise StartError(str(error)) from error


def _history(
    settings: Settings, folder: Path | None, epoch: int, mqtt: MqttOutput, metrics: Metrics, ended: Ended
) -> History:
    history = settings.history
    plan = HistoryPlan(
        history.keep_hours * 3600,
        history.max_mb * 1_000_000,
        history.pictures,
        settings.mqtt.snapshots,
        settings.privacy.blur_faces,
    )
    try:
        return History(plan, folder, epoch, mqtt.offer, metrics, ended=ended)
    except ForeignFile as error:
        raise StartError(str(error)) from error
