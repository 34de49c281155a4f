"""What a person at a terminal sees: where everything listens, and one line for every face that comes or goes."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.console import Console
from rich.text import Text

from visaged.pipelines.records import AttributeValue, TrackEvent

_STYLES = {"begin": "bold green", "update": "cyan", "end": "dim"}


class EventLines:
    """Prints events, one readable line each.

    They are printed by a thread of its own: a terminal that is paused, or a pipe that nobody reads, must not hold up
    the analysis. What does not fit into the waiting room is not printed.

    Args:
        console: Where to; a reader that goes away (a closed pipe) ends the printing, not the daemon.
        most_waiting: Events that may wait for a slow reader; the oldest are left out.
    """

    def __init__(self, console: Console, most_waiting: int = 1000) -> None:
        self._console = console
        self._changed = threading.Condition()
        self._waiting: deque[TrackEvent] = deque(maxlen=most_waiting)
        self._closed = False
        self._thread = threading.Thread(target=self._print, name="console", daemon=True)
        self._thread.start()

    def __call__(self, event: TrackEvent) -> None:
        """Print an event, soon; never blocks."""
        with self._changed:
            self._waiting.append(event)
            self._changed.notify()

    def close(self, timeout_s: float) -> bool:
        """Print what waits; return whether that could be done in time, and stdout is nobody's any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _print(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                event = self._waiting.popleft()
            if not show(self._console, line(event)):
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


def line(event: TrackEvent) -> Text:
    """Return an event as a person would tell it."""
    at = datetime.fromtimestamp(event.face.shot.captured_at).astimezone()
    text = Text(f"{at:%H:%M:%S} ")
    text.append(f"{event.camera}  ", "bold")
    text.append(f"face {event.face.track} {event.kind:<6} ", _STYLES[event.kind])
    width = event.best.box[2] - event.best.box[0]
    parts = [*describe(event.face.attributes), f"{width:.0f} px", f"sure {event.best.confidence:.0%}"]
    if event.kind != "begin":
        parts.append(f"seen {event.duration_s:.1f} s")
    text.append(", ".join(parts))
    return text


def describe(attributes: Mapping[str, AttributeValue]) -> Sequence[str]:
    """Return the attributes that are worth a word."""
    words, closed = [], 0
    for name, attribute in attributes.items():
        value = attribute.value
        if name == "age" and isinstance(value, float):
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
