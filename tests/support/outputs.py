"""Outputs for tests."""

from __future__ import annotations

import threading
from typing import Any

import orjson

from visaged.pipelines.outputs.messages import Kind, Message
from visaged.pipelines.outputs.output import OutputState


class Collector:
    """An output that keeps every message.

    Args:
        name: Its name.
        kinds: What it takes.
    """

    def __init__(self, name: str = "collector", kinds: tuple[Kind, ...] = ("faces", "events", "status")) -> None:
        self.name = name
        self.kinds = frozenset(kinds)
        self.messages: list[Message] = []
        self.forgotten: list[str] = []

    def offer(self, message: Message) -> None:
        self.messages.append(message)

    def forget(self, camera: str) -> None:
        self.forgotten.append(camera)

    def run(self, stopping: threading.Event) -> None:
        stopping.wait()

    def drain(self, until_s: float) -> None:
        pass

    def state(self) -> OutputState:
        return OutputState(True, "", "memory")

    def of(self, kind: Kind, camera: str = "") -> list[Any]:
        """The documents of a kind's messages, of one camera or of all."""
        return [orjson.loads(m.body) for m in self.messages if m.kind == kind and camera in ("", m.camera)]
