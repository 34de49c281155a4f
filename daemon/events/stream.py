"""Events and the cameras' states as they come, by Server-Sent Events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson

from visaged.daemon.api.viewers import Endless, Viewers
from visaged.daemon.events.asking import Asking
from visaged.daemon.events.feed import CameraFeed, Follower
from visaged.daemon.http.problems import Problem
from visaged.pipelines.history.history import History
from visaged.pipelines.history.hub import Item, Listener
from visaged.pipelines.history.kept import id_of
from visaged.pipelines.history.query import Filter

MEDIA_TYPE = "text/event-stream"

_RETRY = b"retry: 2000\n\n"
_GAP = b"event: gap\ndata: {}\n\n"
_ALIVE = b": alive\n\n"
_ALIVE_S = 15.0


class EventStreams:
    """Makes the answers of listeners. Only for the thread of the event loop.

    Args:
        history: The events.
        feed: The cameras' states.
        viewers: The seats of those who look.
        ask: Asks the history.
    """

    def __init__(self, history: History, feed: CameraFeed, viewers: Viewers, ask: Asking) -> None:
        self._history = history
        self._feed = feed
        self._viewers = viewers
        self._ask = ask

    def answer(self, wanted: Filter, after: int | None) -> Endless:
        """Return the answer to the request that the current task handles.

        Args:
            wanted: Cameras and kinds; empty for all.
            after: Number of the last event that the client has; None for no events of the past.
        """
        task = asyncio.current_task()
        assert task is not None
        return Endless(self._viewers, "events", lambda: self._parts(wanted, after, task), MEDIA_TYPE)

    async def _parts(self, wanted: Filter, after: int | None, task: asyncio.Task[Any]) -> AsyncGenerator[bytes]:
        news = asyncio.Event()
        follower = self._feed.join(wanted.cameras, news.set)
        listener: Listener | None = None
        loop = asyncio.get_running_loop()

        def look() -> None:
            news.set()
            if listener is not None and listener.too_slow:
                task.cancel()  # the last part may never be taken; the connection is closed at once

        def wake() -> None:
            loop.call_soon_threadsafe(look)

        def is_wanted(item: Item) -> bool:
            return (not wanted.cameras or item.camera in wanted.cameras) and (
                not wanted.kinds or item.kind in wanted.kinds
            )

        try:
            yield _RETRY + _cameras(follower)
            if after is not None and self._history.is_missing(after):
                yield _GAP
                after = self._history.known(after)
            while True:
                listener, floor = self._history.hub.listen(after, is_wanted, wake)
                if listener is not None:
                    break
                assert after is not None
                try:
                    items, after = await self._ask(self._history.after, after, floor)
                except Problem:  # what is in the history cannot be had now, but what comes can
                    items, after = [], floor
                    yield _GAP
                part = b"".join(map(_face, filter(is_wanted, items)))
                if part:
                    yield part
            while not listener.over:
                news.clear()
                part = _cameras(follower) + b"".join(map(_face, listener.take()))
                if part:
                    yield part
                    continue
                try:
                    async with asyncio.timeout(_ALIVE_S):
                        await news.wait()
                except TimeoutError:
                    yield _ALIVE
        finally:
            self._feed.leave(follower)
            if listener is not None:
                self._history.hub.leave(listener)


def _face(item: Item) -> bytes:
    return b"id: %s\nevent: face\ndata: %s\n\n" % (id_of(item.number).encode(), item.document)


def _cameras(follower: Follower) -> bytes:
    parts = []
    for name, document in follower.take().items():
        kind, data = ("removed", {"camera": name}) if document is None else ("camera", document)
        parts.append(b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps(data)))
    return b"".join(parts)
