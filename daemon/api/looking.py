"""Somebody who looks at live pictures, in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from types import TracebackType
from typing import Self

from visaged.pipelines.live.picture import Picture, View
from visaged.pipelines.live.pictures import LivePictures, Watch


class Looking:
    """Takes pictures from their thread to a task of the event loop, which goes through them as it can.

    It holds the newest picture of each camera alone, so a slow task misses pictures, costs no more memory, and holds
    nobody up. Iterating ends when all cameras that were named have been removed.

    Args:
        pictures: Makes the pictures.
        cameras: Names of the cameras; None for all, also those that are added later.
        view: What is wanted.
        interval_s: Least seconds from picture to picture of a camera.
        once: Whether one picture is all that is wanted.
    """

    def __init__(
        self, pictures: LivePictures, cameras: frozenset[str] | None, view: View, interval_s: float, once: bool = False
    ) -> None:
        self._pictures = pictures
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, Picture] = {}  # the camera that waits for longest comes first
        self._left = None if cameras is None else set(cameras)
        self._news = asyncio.Event()
        self._watch = Watch(cameras, view, interval_s, self._offer, self._removed, once)

    def __enter__(self) -> Self:
        self._pictures.add(self._watch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pictures.remove(self._watch)

    def keep(self, cameras: Collection[str]) -> None:
        """Do not wait for cameras that are not among these."""
        for name in set(self._left or ()) - set(cameras):
            self._gone(name)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Picture:
        """Return the newest picture of the camera that has waited for longest; wait for one if there is none."""
        while not self._waiting:
            if self._left is not None and not self._left:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._waiting.pop(next(iter(self._waiting)))

    def _offer(self, picture: Picture) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended with the daemon
            self._loop.call_soon_threadsafe(self._put, picture)

    def _removed(self, camera: str) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._gone, camera)

    def _put(self, picture: Picture) -> None:
        self._waiting[picture.camera] = picture
        self._news.set()

    def _gone(self, camera: str) -> None:
        self._waiting.pop(camera, None)
        if self._left is not None:
            self._left.discard(camera)
        self._news.set()
