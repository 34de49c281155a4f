"""The sending side of a connection: as fast as the client takes it, but not as slowly as it likes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from visaged.daemon.http.wire.limits import Limits


class Writing:
    """Sends bytes, and notices a client that does not take them.

    Args:
        transport: Sends the bytes; it must report to `pause` and `resume` whether there are any that the kernel has not
            taken.
        limits: The least rate, and the time in which it is measured.
        unread: Called once if the client takes less.
    """

    def __init__(self, transport: asyncio.Transport, limits: Limits, unread: Callable[[], None]) -> None:
        self._transport = transport
        self._window_s = limits.silence_s
        self._least = limits.least_bytes_s * limits.silence_s
        self._unread = unread
        self._loop = asyncio.get_running_loop()
        self._written = 0
        self._taken_before = 0
        self._timer: asyncio.TimerHandle | None = None
        self._drained = asyncio.Event()
        self._drained.set()

    def write(self, data: bytes) -> None:
        """Send bytes, unless the connection is closed: asyncio logs a line for every attempt."""
        if not self._transport.is_closing():
            self._written += len(data)
            self._transport.write(data)

    async def drained(self) -> None:
        """Wait until the kernel has taken all, or the connection is lost."""
        await self._drained.wait()

    def pause(self) -> None:
        """Note that the kernel has not taken all."""
        self._drained.clear()
        self._watch()

    def resume(self) -> None:
        """Note that the kernel has taken all, or never will."""
        self._drained.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def _taken(self) -> int:
        return self._written - self._transport.get_write_buffer_size()

    def _watch(self) -> None:
        self._taken_before = self._taken
        self._timer = self._loop.call_later(self._window_s, self._check)

    def _check(self) -> None:
        self._timer = None
        if self._taken - self._taken_before < self._least:
            self._unread()
        else:
            self._watch()
