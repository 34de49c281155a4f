"""The cameras' states for listeners: looked at when something may have changed, once for all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from visaged.pipelines.history.hub import Hub

_PACE_S = 0.1
# What changes with every frame is told along with the rest, and does not count as a change.
_VOLATILE = frozenset({"analysed_fps", "age_ms", "last_face_at"})

Document = dict[str, Any]


class View(Protocol):
    """Source of the cameras' states."""

    def cameras(self) -> list[Document]:
        """Return every camera's state."""
        ...


class Follower:
    """What one listener has not been told yet: of each camera the newest document, None for one that was removed.

    Attributes:
        news: Documents by camera.
        wake: Called when there are some.
    """

    def __init__(self, cameras: tuple[str, ...], wake: Callable[[], None]) -> None:
        self.news: dict[str, Document | None] = {}
        self.wake = wake
        self._cameras = cameras

    def put(self, camera: str, document: Document | None) -> None:
        """Add the state of a camera."""
        if not self._cameras or camera in self._cameras:
            self.news[camera] = document
            self.wake()

    def take(self) -> dict[str, Document | None]:
        """Return what is new since the last call."""
        news, self.news = self.news, {}
        return news


class CameraFeed:
    """Tells followers of changes of state and of the number of tracks. Only for the thread of the event loop.

    Args:
        view: The cameras' states.
        hub: Says when to look.
    """

    def __init__(self, view: View, hub: Hub) -> None:
        self._view = view
        self._hub = hub
        self._followers: set[Follower] = set()
        self._known: dict[str, Document] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._unwatch: Callable[[], None] = lambda: None

    def join(self, cameras: tuple[str, ...], wake: Callable[[], None]) -> Follower:
        """Return a follower that has the states of all its cameras as news.

        Args:
            cameras: Their names; empty for all.
            wake: Called when there is more.
        """
        if not self._followers:
            loop = asyncio.get_running_loop()
            self._unwatch = self._hub.watch(lambda: _soon(loop, self._changed))
            self._known = {}
        self._look()
        follower = Follower(cameras, wake)
        for name, document in self._known.items():
            follower.put(name, document)
        self._followers.add(follower)
        return follower

    def leave(self, follower: Follower) -> None:
        """Tell a follower no more."""
        self._followers.discard(follower)
        if not self._followers:
            self._unwatch()

    def _changed(self) -> None:
        if self._timer is None and self._followers:
            self._timer = asyncio.get_running_loop().call_later(_PACE_S, self._look)

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = {document["camera"]: document for document in self._view.cameras()}
        for name, document in now.items():
            before = self._known.get(name)
            if before is None or _lasting(before) != _lasting(document):
                self._tell(name, document)
        for name in self._known.keys() - now.keys():
            self._tell(name, None)
        self._known = now

    def _tell(self, name: str, document: Document | None) -> None:
        for follower in self._followers:
            follower.put(name, document)


def _lasting(document: Document) -> Document:
    return {key: value for key, value in document.items() if key not in _VOLATILE}


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(call)
