"""The memory that bodies of requests take, bounded in sum."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus

from visaged.daemon.http.problems import Problem

OVERDUE_S = 10.0
"""Seconds after which a body that is still incomplete gives way to others."""


class Upload:
    """What a request holds in memory.

    Args:
        memory: Whose bytes these are.
        began_s: Monotonic seconds when the request began.

    Attributes:
        began_s: Monotonic seconds when the request began.
        size: Bytes held.
        scope: The wait for the next part of the body; None while there is none.
    """

    def __init__(self, memory: BodyMemory, began_s: float) -> None:
        self._memory = memory
        self.began_s = began_s
        self.size = 0
        self.scope: asyncio.Timeout | None = None
        self.has_given_way = False

    def add(self, size: int) -> None:
        """Hold more bytes; raises `Problem` if there is no room for them, or others got it."""
        self.check()
        self._memory.take(self, size)

    def check(self) -> None:
        """Raise `Problem` if the request gave way to others."""
        if self.has_given_way:
            raise _full()

    @contextlib.contextmanager
    def waiting(self, scope: asyncio.Timeout) -> Iterator[None]:
        """Within the context, more of the body is waited for, and the wait can be ended in favour of others."""
        self.scope = scope
        try:
            yield
        finally:
            self.scope = None


class BodyMemory:
    """Bounds the bytes of bodies that are in memory, in sum, for one event loop.

    Where there is no room, the body that has been incomplete for longest gives way, if that is a while: its client may
    be slow on purpose. If there is none, the request that needs the room is refused.

    Args:
        most_bytes: Most bytes in memory.
        clock: Returns monotonic seconds.
    """

    def __init__(self, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        self._taken = 0
        self._uploads: set[Upload] = set()

    @contextlib.contextmanager
    def upload(self) -> Iterator[Upload]:
        """Within the context, hold the bytes of a request."""
        upload = Upload(self, self._clock())
        self._uploads.add(upload)
        try:
            yield upload
        finally:
            self._uploads.discard(upload)
            self._taken -= upload.size

    def take(self, upload: Upload, size: int) -> None:
        """Hold more bytes for a request; raises `Problem` if there is no room."""
        while self._taken + size > self._most_bytes:
            slow = [other for other in self._uploads if other is not upload and other.scope is not None]
            slowest = min(slow, key=lambda other: other.began_s, default=None)
            if slowest is None or self._clock() - slowest.began_s < OVERDUE_S:
                raise _full()
            self._give_way(slowest)
        self._taken += size
        upload.size += size

    def _give_way(self, upload: Upload) -> None:
        assert upload.scope is not None
        upload.has_given_way = True
        upload.scope.reschedule(asyncio.get_running_loop().time())
        upload.scope = None
        self._uploads.discard(upload)
        self._taken -= upload.size
        upload.size = 0


def _full() -> Problem:
    detail = "too many bytes of requests are in memory (http.max_bodies_mb); try again"
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", detail, {"Retry-After": "1"})
