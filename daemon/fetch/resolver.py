"""Looks names up with a bounded number of threads, so that a silent name server does not block the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence

from visaged.daemon.fetch.addresses import Address, parse
from visaged.daemon.fetch.errors import FetchError

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Returns all addresses of a name, for a TCP port; raises `FetchError`."""


class SystemResolver:
    """Looks names up by `getaddrinfo`, in daemon threads that are not joined.

    `getaddrinfo` cannot be stopped: with a silent name server it holds its thread for as long as the system's
    configuration says. Event loops and executors join their threads when they end, so they are not used here.

    Args:
        most: Most look-ups at a time, including abandoned ones that still run.
    """

    def __init__(self, most: int) -> None:
        self._room = threading.BoundedSemaphore(most)

    async def __call__(self, host: str, port: int) -> list[Address]:
        """Return the addresses of a name; raises `FetchError` if it cannot be looked up, or too many look-ups run."""
        if not self._room.acquire(blocking=False):
            raise FetchError("busy", "too many names are being looked up; try again")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Address] | OSError] = loop.create_future()

        def tell(result: list[Address] | OSError) -> None:
            if not answer.done():  # the caller may have been cancelled
                answer.set_result(result)

        def look_up() -> None:
            try:
                result: list[Address] | OSError = _addresses(host, port)
            except (OSError, UnicodeError) as error:
                result = error if isinstance(error, OSError) else OSError(str(error))
            finally:
                self._room.release()
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(tell, result)

        threading.Thread(target=look_up, name="fetch look-up", daemon=True).start()
        found = await answer
        if isinstance(found, OSError):
            raise FetchError("unreachable", f"the name {host} cannot be looked up: {found.strerror or found}")
        return found


def _addresses(host: str, port: int) -> list[Address]:
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [parse(str(sockaddr[0])) for *_, sockaddr in answers]
