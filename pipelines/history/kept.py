"""An event as the history keeps it, and the ids under which events are asked for."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

_BITS = 20
_MASK = (1 << _BITS) - 1
_ID = re.compile(r"([0-9]{1,13})-([0-9]{1,7})")


def id_of(number: int) -> str:
    """Return the id of an event, `EPOCH-NUMBER`, from its number."""
    return f"{number >> _BITS}-{number & _MASK}"


def number_of(id: str) -> int | None:
    """Return the number of an event from its id; None if the text is no id."""
    found = _ID.fullmatch(id)
    if found is None:
        return None
    epoch, number = int(found[1]), int(found[2])
    return epoch << _BITS | number if epoch < 1 << 43 and number <= _MASK else None


def first_number(epoch: int) -> int:
    """Return the first number of a run. A run leaves so many numbers a millisecond that the next run's are larger."""
    return (epoch << _BITS) + 1


class Numbers:
    """The numbers of events: each is larger than all before, over restarts too. Thread-safe.

    Args:
        first: The first one.
    """

    def __init__(self, first: int) -> None:
        self._lock = threading.Lock()
        self._next = first

    def take(self) -> int:
        """Return the next number."""
        with self._lock:
            self._next += 1
            return self._next - 1

    def pass_over(self, number: int) -> None:
        """Give out no number that is not larger than this one."""
        with self._lock:
            self._next = max(self._next, number + 1)

    @property
    def last(self) -> int:
        """The number that was given out last, or the one before the first."""
        with self._lock:
            return self._next - 1


@dataclass(frozen=True, slots=True)
class Kept:
    """An event.

    Attributes:
        number: Its number; `id_of` makes its id.
        at_ms: Capture of the newest look, milliseconds since 1970.
        started_ms: When its track began, milliseconds since 1970.
        epoch: The run that composed it.
        camera: Name of its camera.
        track: Number of its track.
        seq: Its number among the camera's events of that run.
        kind: `begin`, `update` or `end`.
        attributes: Values of attributes by name: labels and numbers.
        body: The message as a JSON object.
        picture: Number of its picture, which is that of the first event with it; None for none.
        jpeg: That picture.
        put_s: Monotonic seconds when it came.
        moved_in: Whether it ends a track of another node, in whose history that counts.
    """

    number: int
    at_ms: int
    started_ms: int
    epoch: int
    camera: str
    track: int
    seq: int
    kind: str
    attributes: dict[str, str | float] = field(default_factory=dict)
    body: bytes = b"{}"
    picture: int | None = None
    jpeg: bytes | None = None
    put_s: float = 0.0
    moved_in: bool = False

    @property
    def document(self) -> bytes:
        """The JSON object that answers and listeners get."""
        return document_of(self.number, self.picture is not None, self.body)


def kept_from(number: int, message: dict[str, Any], body: bytes, put_s: float) -> Kept:
    """Return an event without a picture from its message.

    Args:
        number: Its number.
        message: The message.
        body: The same as JSON.
        put_s: Monotonic seconds when it came.
    """
    attributes = {name: one["value"] for name, one in message["face"]["attributes"].items()}
    return Kept(
        number,
        milliseconds(message["captured_at"]),
        milliseconds(message["started_at"]),
        message["epoch"],
        message["camera"],
        message["track_id"],
        message["seq"],
        message["event"],
        {name: value for name, value in attributes.items() if isinstance(value, str | int | float)},
        body,
        put_s=put_s,
        moved_in="moved_from" in message,
    )


def document_of(number: int, has_picture: bool, body: bytes) -> bytes:
    """Return the JSON object that answers and listeners get: the message with `id` and `picture` before the rest."""
    head = {"id": id_of(number), "picture": has_picture}
    return orjson.dumps(head)[:-1] + b"," + body[1:]


def milliseconds(text: str) -> int:
    """Return an RFC 3339 time with a zone in milliseconds since 1970."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)
