"""What a person at a terminal sees: where everything listens, and one line for every face that comes or goes."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

from visaged.pipelines.outputs.messages import Kind, Message
from visaged.pipelines.outputs.output import OutputState
from visaged.pipelines.runtime.metrics import Metrics

_STYLES = {"begin": "bold green", "update": "cyan", "end": "dim"}


class EventLines:
    """The output that prints events, one readable line each.

    They are printed by a thread of its own: a terminal that is paused, or a pipe that nobody reads, must not hold up
    the analysis. What does not fit into the queue is not printed, and counted.

    Args:
        console: Where to; a reader that goes away (a closed pipe) ends the printing, not the daemon.
        metrics: Counts the lines that are not printed.
        most_waiting: Events that may wait for a slow reader; the oldest are left out.
        clock: Monotonic seconds.
    """

    name = "terminal"
    kinds: frozenset[Kind] = frozenset(("events",))

    def __init__(
        self,
        console: Console,
        metrics: Metrics,
        most_waiting: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._lost = metrics.output_lost
        self._most_waiting = most_waiting
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[Message] = deque()
        self._drain_until_s = float("inf")
        self._gone = False

    def offer(self, message: Message) -> None:
        """Print an event, soon; never blocks."""
        with self._changed:
            if not self._gone:
                self._waiting.append(message)
            late = len(self._waiting) > self._most_waiting
            if late:
                self._waiting.popleft()
            self._changed.notify()
        if late:
            self._lost.labels(self.name, "events", "overflow").inc()

    def forget(self, camera: str) -> None:
        """Do nothing: a terminal keeps no state of a camera."""

    def drain(self, until_s: float) -> None:
        """Once asked to stop, go on until everything is printed or monotonic time `until_s`."""
        with self._changed:
            self._drain_until_s = until_s
            self._changed.notify()

    def state(self) -> OutputState:
        """Return whether somebody may be reading."""
        return OutputState(not self._gone, "stdout was closed" if self._gone else "", "stdout")

    def run(self, stopping: threading.Event) -> None:
        """Print until `stopping` is set and nothing waits, or until nobody reads any more."""
        while True:
            with self._changed:
                if not self._waiting:
                    self._changed.wait(0.2)
                over = stopping.is_set() and (not self._waiting or self._clock() >= self._drain_until_s)
                message = self._waiting.popleft() if self._waiting and not over else None
            if over:
                return
            if message is not None and not show(self._console, line(message.body)):
                with self._changed:
                    self._gone = True
                    self._waiting.clear()
                return


def show(console: Console, text: Text | str, style: str | None = None) -> bool:
    """Print a line; return whether somebody may still be reading."""
    try:
        console.print(text, style=style, markup=False, soft_wrap=True)
    except (OSError, ValueError, SystemExit):  # rich ends the program when a pipe is closed; this one has other work
        give_up(console)
        return False
    return True


def flush(console: Console) -> None:
    """Bring out what is buffered, or drop it."""
    try:
        console.file.flush()
    except (OSError, ValueError):
        give_up(console)


def give_up(console: Console) -> None:
    """Let what is still buffered go nowhere: Python would try again at its end, and exit with status 120."""
    try:
        number = console.file.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
    except (OSError, ValueError):
        pass


def line(body: bytes) -> Text:
    """Return an event's message as a line for people.

    Args:
        body: The JSON of an event. Of an event that is not a face's, the plain values are printed.
    """
    try:
        event = orjson.loads(body)
        text = _start(event)
        if event["event"] in _STYLES:
            _add_face(text, event)
        else:
            text.append(" ".join(f"{name} {event[name]}" for name in ("event", "track_id") if name in event))
    except (LookupError, TypeError, ValueError):
        return Text(f"an event without a form for the terminal: {body[:200].decode(errors='replace')}")
    return text


def _start(event: dict[str, Any]) -> Text:
    at = datetime.fromisoformat(event["captured_at"]).astimezone()
    text = Text(f"{at:%H:%M:%S} ")
    text.append(f"{event['camera']}  ", "bold")
    return text


def _add_face(text: Text, event: dict[str, Any]) -> None:
    kind = event["event"]
    text.append(f"face {event['track_id']} {kind:<6} ", _STYLES[kind])
    left, _, right, _ = event["best_shot"]["box"]
    parts = [*describe(event["face"]["attributes"]), f"{right - left:.0f} px"]
    parts.append(f"sure {event['best_shot']['confidence']:.0%}")
    if kind != "begin":
        parts.append(f"seen {event['duration_s']:.1f} s")
    text.append(", ".join(parts))


def describe(attributes: Any) -> Sequence[str]:
    """Return the attributes that are worth a word."""
    words, closed = [], 0
    for name, attribute in attributes.items():
        value = attribute["value"]
        if name == "age":
            words.append(f"about {value:.0f}")
        elif name in ("gender", "emotion"):
            words.append(str(value))
        elif value == "closed":
            closed += 1
        elif isinstance(value, str) and value not in ("none", "open"):
            words.append(value)
    if closed:
        words.append("an eye closed" if closed == 1 else "eyes closed")
    return words
