"""The interface of outputs, which send messages to a receiver in a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from visaged.pipelines.outputs.messages import Kind, Message
from visaged.pipelines.records import FrameResult

FrameSink = Callable[[FrameResult], None]
"""Takes results with the pixels of the frame, in the thread of an inference worker; it must return at once."""


@dataclass(frozen=True, slots=True)
class OutputState:
    """The state of an output, for people and for `/readyz`.

    Attributes:
        connected: Whether the receiver can be reached now.
        trouble: Why the receiver cannot be reached; empty if it can, or if that is not known yet.
        address: Address of the receiver.
    """

    connected: bool
    trouble: str
    address: str


class Output(Protocol):
    """Sends messages to a receiver.

    Attributes:
        name: Name, unique among the outputs, which labels their metrics.
        kinds: The kinds of messages that the output takes.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def kinds(self) -> frozenset[Kind]: ...  # noqa: D102

    def offer(self, message: Message) -> None:
        """Take a message of one of the output's kinds; never blocks. Messages that cannot be kept are counted."""
        ...

    def forget(self, camera: str) -> None:
        """Clear retained state of a camera that was removed; never blocks."""
        ...

    def run(self, stopping: threading.Event) -> None:
        """Send messages until `stopping` is set and all are sent, or the time given to `drain` is over."""
        ...

    def drain(self, until_s: float) -> None:
        """Set the monotonic time at which `run` must end after a request to stop, even if messages are not sent."""
        ...

    def state(self) -> OutputState:
        """Return the state of the output; may be called from any thread."""
        ...
