"""Composes every message of a measurement as the daemon does, and hands it to nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from visaged.pipelines.outputs.fan_out import FanOut
from visaged.pipelines.outputs.messages import Composer, Kind, Message
from visaged.pipelines.outputs.output import OutputState
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import OnDeath, Worker


class Nowhere:
    """An output that counts the bytes that it is given."""

    name = "nowhere"
    kinds: frozenset[Kind] = frozenset(("faces", "events"))

    def __init__(self) -> None:
        self.bytes = 0

    def offer(self, message: Message) -> None:
        """Count a message."""
        self.bytes += len(message.body)

    def forget(self, camera: str) -> None:
        """Do nothing."""

    def run(self, stopping: threading.Event) -> None:
        """Do nothing."""

    def drain(self, until_s: float) -> None:
        """Do nothing."""

    def state(self) -> OutputState:
        """Return that all is well."""
        return OutputState(True, "", "nowhere")


@contextmanager
def composing(on_death: OnDeath) -> Iterator[FanOut]:
    """Run the thread that composes messages within the context; yields what takes the results."""
    fan_out = FanOut(Composer("bench", 1), [Nowhere()], Metrics())
    worker = Worker("compose", fan_out.run, on_death)
    worker.start()
    try:
        yield fan_out
    finally:
        worker.stop()
