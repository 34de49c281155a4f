"""What came in at a broker, in order: written to a file before it is acknowledged, kept in short to be judged."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """A message of a track, as often as it came.

    Attributes:
        at_s: Monotonic seconds when it came.
        connection: Number of the publisher's connection; 0 where that is not known.
        opened_s: Monotonic seconds when that connection was accepted.
        epoch: The daemon's run that numbered it.
        camera: Name of the camera.
        seq: Its number among the camera's events of the run.
        kind: `begin`, `update` or `end`.
        track: Number of the track.
        reason: Why it ended; None for other kinds.
        replayed: What it says of itself.
        age_s: Seconds from capture to hand-over, as it says.
        newest: The newest run that was known of when it came.
    """

    at_s: float
    connection: int
    opened_s: float
    epoch: int
    camera: str
    seq: int
    kind: str
    track: int
    reason: str | None
    replayed: bool
    age_s: float
    newest: int


class Record:
    """Takes messages from any thread.

    Args:
        path: The file; one JSON object a line.

    Attributes:
        events: All events, in the order in which they came.
        runs: Epochs of the daemon, in the order in which it told them by its own status or frames.
        seen: For each epoch, camera and track, when `faces` first and last showed it, monotonic seconds.
        damaged: Messages that are no JSON of ours.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._changed = threading.Condition()
        self._last: dict[str, float] = defaultdict(float)  # when a camera's newest frame came; "" for all
        self._last_s = 0.0
        self.events: list[Event] = []
        self.runs: list[int] = []
        self.seen: dict[tuple[int, str, int], tuple[float, float]] = {}
        self.damaged: list[bytes] = []
        self.faces = 0

    def write(self, topic: str, payload: bytes, connection: int = 0, opened_s: float = 0.0) -> None:
        """Write a message down; once this returns, it may be acknowledged."""
        now_s = time.monotonic()
        try:
            document = json.loads(payload) if payload else {}
        except ValueError:
            document = {}
            self.damaged.append(payload)
        line = {"at_s": now_s, "connection": connection, "topic": topic, "message": document}
        with self._changed:
            os.write(self._file, json.dumps(line).encode() + b"\n")
            self._sort(document, now_s, connection, opened_s)
            self._changed.notify_all()

    def wait_for(self, camera: str | None, after_s: float, timeout_s: float) -> float | None:
        """Return when a frame of a camera (None: a frame or an event) came after a time; None if none did.

        Only the newest time is kept, so it has to be asked for before a second one can have come.
        """
        key = camera or ""
        with self._changed:
            if not self._changed.wait_for(lambda: self._last[key] > after_s, timeout_s):
                return None
            return self._last[key]

    def quiet_s(self) -> float:
        """Return the seconds since anything came."""
        with self._changed:
            return time.monotonic() - self._last_s

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _sort(self, document: dict[str, Any], now_s: float, connection: int, opened_s: float) -> None:
        self._last_s = now_s
        schema, epoch = document.get("schema"), document.get("epoch", 0)
        if schema in ("visaged.events/1", "visaged.faces/1"):
            self._last[""] = now_s
        if schema == "visaged.events/1":
            self.events.append(
                Event(
                    now_s,
                    connection,
                    opened_s,
                    epoch,
                    document["camera"],
                    document["seq"],
                    document["event"],
                    document["track_id"],
                    document["reason"],
                    document["replayed"],
                    document["age_ms"] / 1000,
                    max(self.runs, default=epoch),
                )
            )
        elif schema == "visaged.faces/1":
            self.faces += 1
            self._note_run(epoch)
            self._last[document["camera"]] = now_s
            for face in document["faces"]:
                if face["track_id"] is not None:
                    key = (epoch, document["camera"], face["track_id"])
                    self.seen[key] = (self.seen.get(key, (now_s,))[0], now_s)
        elif schema == "visaged.node-status/1" and document["state"] == "online":
            self._note_run(epoch)

    def _note_run(self, epoch: int) -> None:
        if epoch not in self.runs:
            self.runs.append(epoch)
