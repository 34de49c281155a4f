"""What is known of cameras and nodes at the moment, from the news so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from visaged.daemon.watch.news import News

MOST_CAMERAS = 1_000
"""Most cameras, and most nodes, that are kept: whoever publishes may make up names without end."""
_MOST_TRACKS = 1_000


@dataclass
class CameraRow:
    """A camera.

    Attributes:
        state: Its state, as it says; empty while that is not known.
        shape: Codec and size of its pictures, if known.
        error: Why it does not stream; empty if it does.
        fps: Frames a second that are analysed; None where that is not told (MQTT).
        told: Number of faces, as the daemon last told it; None where it does not.
        tracks: Numbers of the faces that are in view, by the events so far.
    """

    state: str = ""
    shape: str = ""
    error: str = ""
    fps: float | None = None
    told: int | None = None
    tracks: set[int] = field(default_factory=set)

    @property
    def faces(self) -> int:
        """How many faces are in view."""
        return len(self.tracks) if self.told is None else self.told


class Board:
    """Cameras, nodes and the connection.

    Attributes:
        cameras: The cameras by name.
        nodes: The state of each node by its name, and why.
        connected: Whether there is a connection; None before the first try has ended.
        link: The state of the connection, in words.
    """

    def __init__(self) -> None:
        self.cameras: dict[str, CameraRow] = {}
        self.nodes: dict[str, str] = {}
        self.connected: bool | None = None
        self.link = "connecting"

    def take(self, news: News) -> str | None:
        """Take something new; return a line about what changed, if that is worth one."""
        document = news.document
        if news.kind == "link":
            return self._link(document)
        if news.kind == "note":
            return str(document["text"])
        if news.kind == "node":
            return self._node(news.name, document)
        if news.kind == "removed":
            self.nodes.pop(news.name, None)
            return "removed" if self.cameras.pop(news.name, None) is not None else None
        row = self._row(news.name)
        if row is None:
            return None
        if news.kind == "camera":
            return _camera(row, document)
        if news.kind == "presence":
            row.told = _number(document.get("faces"))
        elif document["event"] == "end":
            row.tracks.discard(document["track_id"])
        elif len(row.tracks) < _MOST_TRACKS:
            row.tracks.add(document["track_id"])
        return None

    def _row(self, name: str) -> CameraRow | None:
        if name not in self.cameras and len(self.cameras) >= MOST_CAMERAS:
            return None
        return self.cameras.setdefault(name, CameraRow())

    def _link(self, document: Mapping[str, Any]) -> str | None:
        connected, text = bool(document["connected"]), str(document["text"])
        changed = (connected, text) != (self.connected, self.link)
        self.connected, self.link = connected, text
        if connected:  # what ended meanwhile was not heard
            for row in self.cameras.values():
                row.tracks.clear()
        return text if changed else None

    def _node(self, name: str, document: Mapping[str, Any]) -> str | None:
        if name not in self.nodes and len(self.nodes) >= MOST_CAMERAS:
            return None
        reason = document.get("reason")
        state = f"{document['state']}{f' ({reason})' if isinstance(reason, str) else ''}"
        before = self.nodes.get(name)
        self.nodes[name] = state
        if document["state"] != "online":
            for row in self.cameras.values():
                row.tracks.clear()
        return f"node is {state}" if before != state and (before is not None or state != "online") else None


def _camera(row: CameraRow, document: Mapping[str, Any]) -> str | None:
    state, error = str(document["state"]), document.get("error")
    before = row.error or row.state
    row.state, row.error = state, error if isinstance(error, str) else ""
    width, height = _number(document.get("width")), _number(document.get("height"))
    codec = document.get("codec")
    row.shape = f"{codec} {width}x{height}" if isinstance(codec, str) and width and height else ""
    fps = document.get("analysed_fps")
    row.fps = float(fps) if isinstance(fps, int | float) and 0 <= fps < 1000 else None
    if "tracks" in document:
        row.told = _number(document["tracks"])
    if before == (row.error or row.state):  # a lost camera is tried again and again, for the same reason
        return None
    return f"{state}: {row.error}" if row.error else f"{state} {row.shape if state == 'streaming' else ''}".rstrip()


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1_000_000 else None
