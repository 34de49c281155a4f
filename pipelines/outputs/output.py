"""What an output is: a place that messages go to, with a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from visaged.pipelines.outputs.messages import Kind, Message
from visaged.pipelines.records import FrameResult

FrameSink = Callable[[FrameResult], None]
"""Takes frames with their pixels, in the inference thread: it must return at once."""


@dataclass(frozen=True, slots=True)
class OutputState:
    """How an output is, for people and for `/readyz`.

    Attributes:
        connected: Whether its receiver can be reached now.
        trouble: Why not, in words; empty when it can, or when nothing is known yet.
        address: Where the receiver is.
    """

    connected: bool
    trouble: str
    address: str


class Output(Protocol):
    """A place that messages go to.

    Attributes:
        name: Unique among the outputs; a label of their metrics.
        kinds: The kinds of messages that it takes.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def kinds(self) -> frozenset[Kind]: ...  # noqa: D102

    def offer(self, message: Message) -> None:
        """Take a message of one of its kinds; never blocks. What it cannot keep it counts as lost."""
        ...

    def forget(self, camera: str) -> None:
        """Take note that a camera was removed; never blocks."""
        ...

    def run(self, stopping: threading.Event) -> None:
        """Send messages until `stopping` is set and all are sent, or the time given to `drain` is over."""
        ...

    def drain(self, until_s: float) -> None:
        """Set the monotonic time at which `run` must end once it is asked to stop, whatever is not sent by then."""
        ...

    def state(self) -> OutputState:
        """Return how it is; may be called from any thread."""
        ...
