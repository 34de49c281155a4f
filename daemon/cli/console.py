"""Output on the terminal: an output that prints one line for every event, and functions that print safely."""

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
    """The output that prints events, one readable line each, and what the program says of itself.

    A thread of its own prints: a terminal that is paused, or a pipe that is not read, must not hold up the analysis.
    Events that do not fit into the queue are counted and not printed.

    Args:
        console: Console to print on; if it is closed (a pipe without a reader), printing ends and the daemon goes on.
        metrics: Counts the events that are not printed.
        most_waiting: Most events that wait for a slow reader; the oldest are dropped.
        clock: Returns monotonic seconds.
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
        self._waiting: deque[Message | Text] = deque()
        self._drain_until_s = float("inf")
        self._gone = False

    def offer(self, message: Message) -> None:
        """Queue an event for printing; never blocks."""
        with self._changed:
            if not self._gone:
                self._waiting.append(message)
            late = len(self._waiting) > self._most_waiting
            if late:
                self._waiting.popleft()
            self._changed.notify()
        if late:
            self._lost.labels(self.name, "events", "overflow").inc()

    def say(self, text: Text) -> None:
        """Queue a text for printing; never blocks."""
        with self._changed:
            self._waiting.append(text)
            self._changed.notify()

    def forget(self, camera: str) -> None:
        """Do nothing: a terminal keeps no state of a camera."""

    def drain(self, until_s: float) -> None:
        """After a request to stop, go on printing until the queue is empty or until monotonic time `until_s`."""
        with self._changed:
            self._drain_until_s = until_s
            self._changed.notify()

    def state(self) -> OutputState:
        """Return the state of the output: connected until stdout is closed."""
        return OutputState(not self._gone, "stdout was closed" if self._gone else "", "stdout")

    def run(self, stopping: threading.Event) -> None:
        """Print until `stopping` is set and the queue is empty, or until stdout is closed."""
        while True:
            with self._changed:
                if not self._waiting:
                    self._changed.wait(0.2)
                over = stopping.is_set() and (not self._waiting or self._clock() >= self._drain_until_s)
                message = self._waiting.popleft() if self._waiting and not over else None
            if over:
                return
            text = line(message.body) if isinstance(message, Message) else message
            if text is not None and not show(self._console, text):
                with self._changed:
                    self._gone = True
                    self._waiting.clear()
                return


def show(console: Console, text: Text | str) -> bool:
    """Print a line; return False if the console is closed."""
    try:
        console.print(text, markup=False, soft_wrap=True)
    except (OSError, ValueError, SystemExit):  # rich raises SystemExit for a closed pipe; the daemon goes on
        give_up(console)
        return False
    return True


def give_up(console: Console) -> None:
    """Redirect a closed console to the null device: Python would flush it at exit, fail, and exit with status 120."""
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
        body: The JSON of an event. For events of other kinds than a face's, only `event` and `track_id` are printed.
    """
    try:
        return line_of(orjson.loads(body))
    except (LookupError, TypeError, ValueError):
        return Text(f"an event without a form for the terminal: {body[:200].decode(errors='replace')}")


def line_of(event: dict[str, Any]) -> Text:
    """Return an event as a line for people; raises an exception of any kind if it has not an event's form."""
    text = _start(event)
    if event["event"] in _STYLES:
        _add_face(text, event)
    else:
        text.append(" ".join(f"{name} {event[name]}" for name in ("event", "track_id") if name in event))
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
    """Return words for the attributes of a face that are worth printing."""
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
