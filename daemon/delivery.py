"""The way of messages out of the daemon: composed, kept on disk, handed to every output, and the embedded broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from visaged.daemon.broker.embedded import EmbeddedBroker
from visaged.daemon.errors import StartError
from visaged.daemon.settings import Settings
from visaged.pipelines.history.history import History, HistoryPlan
from visaged.pipelines.outputs.fan_out import FanOut
from visaged.pipelines.outputs.messages import Composer
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
    ) -> None:
        self._cameras = [camera.name for camera in settings.cameras]
        mqtt = settings.mqtt
        self._spool = None if state_folder is None else _spool(settings, state_folder, composer.epoch, metrics)
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
            )
        except (OSError, ValueError) as error:
            raise StartError(f"the MQTT connection cannot be set up: {error}") from error
        self.history = _history(settings, state_folder, composer.epoch, self._mqtt, metrics)
        self._outputs: list[Output] = [self._mqtt, self.history.output, *outputs]
        self.fan_out = FanOut(composer, self._outputs, metrics, [self.history.output.sink, *sinks])
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


def _spool(settings: Settings, folder: Path, epoch: int, metrics: Metrics) -> Spool:
    lose = partial(Losses(MqttOutput.name, metrics).count, "events")
    try:
        return Spool(folder, settings.spool, settings.mqtt.memory, epoch, lose, metrics)
    except ForeignFile as error:
        raise StartError(str(error)) from error


def _history(settings: Settings, folder: Path | None, epoch: int, mqtt: MqttOutput, metrics: Metrics) -> History:
    history = settings.history
    plan = HistoryPlan(
        history.keep_hours * 3600,
        history.max_mb * 1_000_000,
        history.pictures,
        settings.mqtt.snapshots,
        settings.privacy.blur_faces,
    )
    try:
        return History(plan, folder, epoch, mqtt.offer, metrics)
    except ForeignFile as error:
        raise StartError(str(error)) from error
