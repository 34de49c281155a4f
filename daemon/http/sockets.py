"""A listening socket that seats connections as they come, also before their TLS handshake."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)

# Most connections that are accepted in a turn of the event loop. asyncio would accept thousands, and answer nobody
# meanwhile.
_AT_ONCE = 16

Seating = Callable[[socket.socket, str], bool]
"""Returns whether a new connection, from an address, may stay."""


class Listening(socket.socket):
    """Another handle of a listening socket, for asyncio's event loop, which calls `accept`.

    asyncio reports a connection only after its TLS handshake, so clients that send nothing could take up all file
    descriptors. Then asyncio tries to accept 2048 times in a row, repeats each of these attempts a second later, and
    logs every failure: 400 silent clients caused 70,000 tracebacks in a few seconds. This class closes connections
    for which there is no seat as they come.

    Args:
        listener: The socket, which stays open; its owner closes it.
        seat: Says of each connection whether it may stay.
        refused: Called for every connection that is closed because there are too many open files.
    """

    def __init__(self, listener: socket.socket, seat: Seating, refused: Callable[[], None]) -> None:
        super().__init__(listener.family, listener.type, listener.proto, listener.dup().detach())
        self._seat = seat
        self._refused = refused
        self._accepted = 0
        self._spare: int | None = _spare()
        self._complain = LimitedLog(log)

    def accept(self) -> tuple[socket.socket, Any]:
        """Return a connection.

        Raises:
            ConnectionAbortedError: The connection was closed for want of a seat; asyncio ignores this.
            BlockingIOError: There is none, or it is another's turn; asyncio calls again once it can.
        """
        if self._accepted >= _AT_ONCE:
            self._accepted = 0
            raise BlockingIOError
        try:
            connection, address = super().accept()
            self._accepted += 1
        except BlockingIOError:
            self._accepted = 0
            raise
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._complain("there are too many open files, so connections are closed as they come")
            if self._spare is not None:
                os.close(self._spare)
                self._spare = None
            try:
                self._refuse()
            finally:
                self._spare = _spare()
        if not self._seat(connection, address[0] if isinstance(address, tuple) else ""):
            connection.close()
            raise ConnectionAbortedError
        return connection, address

    def close(self) -> None:
        """Close this handle."""
        spare, self._spare = self._spare, None
        if spare is not None:
            os.close(spare)
        super().close()

    def _refuse(self) -> None:
        try:
            super().accept()[0].close()
        except OSError:
            raise BlockingIOError from None  # the connection is gone, or another thread took the last descriptor
        self._refused()
        raise ConnectionAbortedError


def _spare() -> int | None:
    """Return a file descriptor that can be closed to make room for a connection; None if there is none left."""
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return None
