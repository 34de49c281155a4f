"""What a person at a terminal sees: where everything listens, and one line for every face that comes or goes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from visaged.pipelines.tracks import TrackEvent

_STYLES = {"begin": "bold green", "update": "cyan", "end": "dim"}


class EventLines:
    """Prints events, one readable line each.

    Args:
        console: Where to; a reader that goes away (a closed pipe) ends the printing, not the daemon.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._broken = False

    def __call__(self, event: TrackEvent) -> None:
        """Print an event."""
        if self._broken:
            return
        with self._lock:
            try:
                self._console.print(line(event), soft_wrap=True)
            except (OSError, ValueError):
                self._broken = True


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


def describe(attributes: Any) -> Sequence[str]:
    """Return the attributes that are worth a word."""
    words = []
    for name, attribute in attributes.items():
        value = attribute["value"]
        if name == "age":
            words.append(f"about {value:.0f}")
        elif name in ("gender", "emotion"):
            words.append(str(value))
        elif isinstance(value, str) and value != "none":
            words.append(value)
    return words
