"""What comes from a daemon, checked: who may publish on a broker, or answers in a server's place, can send anything.

A message is taken if it is JSON of a form that is known here, from a camera with a possible name. Of its texts only
characters that print are kept, so that none can move a terminal's cursor, colour it, or begin a line of its own.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from visaged.daemon.config.base import NAME_PATTERN

MOST_BYTES = 262_144
"""Most bytes of a message; an event has two thousand, and a node's or camera's state a few hundred."""
MOST_TEXT = 200
_MOST_WAITING = 2_000
_DEEPEST = 8
_EVENTS = ("begin", "update", "end")

Kind = Literal["event", "presence", "camera", "node", "removed", "link", "note"]


@dataclass(frozen=True, slots=True)
class News:
    """Something to show.

    Attributes:
        kind: An event of a face; how many faces a camera sees; the state of a camera or node; a camera that was
            removed; the state of the connection; a remark about the connection or about what came.
        document: The message, cleaned; for `link` and `note` it has `text`, for `link` also `connected`.
        name: The camera or node; empty for `link` and `note`.
    """

    kind: Kind
    document: Mapping[str, Any]
    name: str = ""


class Unusable(ValueError):
    """A message that cannot be shown; the text says why, in words that may be shown."""


class Inbox:
    """News on their way from the connection's thread to the one that shows them. All methods are thread-safe.

    Args:
        most: Most news that wait; the oldest go first, and are counted, because a terminal may be paused.
    """

    def __init__(self, most: int = _MOST_WAITING) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._news: deque[News] = deque()
        self._lost = 0
        self._failure: str | None = None

    def put(self, news: News) -> None:
        """Add something; never blocks."""
        with self._changed:
            self._news.append(news)
            if len(self._news) > self._most:
                self._news.popleft()
                self._lost += 1
            self._changed.notify()

    def note(self, text: str) -> None:
        """Add a remark."""
        self.put(News("note", {"text": cleaned(text, 1000)}))

    def link(self, connected: bool, text: str) -> None:
        """Add the state of the connection."""
        self.put(News("link", {"connected": connected, "text": cleaned(text, 1000)}))

    def fail(self, text: str) -> None:
        """Note that it is of no use to go on, and why."""
        with self._changed:
            self._failure = cleaned(text, 1000)
            self._changed.notify()

    def take(self, timeout_s: float) -> tuple[list[News], int, str | None]:
        """Return all news, how many were lost before them, and why it is of no use to go on; waits for some."""
        with self._changed:
            if not self._news and self._failure is None:
                self._changed.wait(timeout_s)
            news, lost = list(self._news), self._lost
            self._news.clear()
            self._lost = 0
            return news, lost, self._failure


def cleaned(text: str, most: int = MOST_TEXT) -> str:
    """Return a text without what could act on a terminal: control and formatting characters, and length."""
    shown = text[:most] + ("..." if len(text) > most else "")
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in shown)


def decoded(body: bytes) -> dict[str, Any]:
    """Return a message as plain data with cleaned texts; raises `Unusable`."""
    if len(body) > MOST_BYTES:
        raise Unusable(f"a message has {len(body) / 1e6:.1f} MB")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Unusable("a message is not JSON") from None
    if not isinstance(document, dict):
        raise Unusable("a message is not a JSON object")
    return {cleaned(key): _clean(value, 1) for key, value in document.items()}


def event_of(document: dict[str, Any], camera: str | None = None) -> News:
    """Return an event of a face as news.

    Args:
        document: The message.
        camera: Name of the camera that the topic has; None where there is no topic.

    Raises:
        Unusable: It is of another form, or says that it is of another camera than its topic.
    """
    _check_form(document, "visaged.events/1")
    name = _name(document.get("camera"))
    if camera is not None and name != camera:
        raise Unusable("an event names another camera than its topic")
    if document.get("event") not in _EVENTS or not isinstance(document.get("track_id"), int):
        raise Unusable("an event is none of begin, update and end")
    return News("event", document, name)


def camera_of(document: dict[str, Any], camera: str | None = None) -> News:
    """Return the state of a camera as news; like `event_of`. Over HTTP such a document has no `schema`."""
    _check_form(document, None if camera is None else "visaged.camera-status/1")
    name = _name(document.get("camera"))
    if camera is not None and name != camera:
        raise Unusable("a status names another camera than its topic")
    if not isinstance(document.get("state"), str):
        raise Unusable("a status has no state")
    return News("camera", document, name)


def node_of(document: dict[str, Any]) -> News:
    """Return the state of a node as news; raises `Unusable`."""
    _check_form(document, "visaged.node-status/1")
    if not isinstance(document.get("state"), str):
        raise Unusable("a status has no state")
    return News("node", document, _name(document.get("node")))


def _check_form(document: dict[str, Any], wanted: str | None) -> None:
    given = document.get("schema")
    if wanted is None or given == wanted:
        return
    kind = wanted.partition("/")[0]
    if isinstance(given, str) and given.startswith(f"{kind}/"):
        raise Unusable(f"messages are of the form {given}, and this visaged knows {wanted}: use the daemon's version")
    raise Unusable(f"a message is not of the form {wanted}")


def _name(value: object) -> str:
    if not isinstance(value, str) or re.fullmatch(NAME_PATTERN, value) is None:
        raise Unusable("a message has a name that no camera or node can have")
    return value


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return cleaned(value)
    if isinstance(value, list | dict) and depth >= _DEEPEST:
        return None
    if isinstance(value, list):
        return [_clean(one, depth + 1) for one in value]
    if isinstance(value, dict):
        return {cleaned(key): _clean(one, depth + 1) for key, one in value.items()}
    return value
