"""A listening socket that bounds the number of open connections, also before their TLS handshake."""

from __future__ import annotations

import errno
import logging
import os
import socket
import weakref
from collections.abc import Callable
from typing import Any

from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)


class Listening(socket.socket):
    """Another handle of a listening socket, for asyncio's event loop, which calls `accept`.

    asyncio reports a connection only after its TLS handshake, so clients that send nothing could take up all file
    descriptors. Then asyncio tries to accept 2048 times in a row, repeats each of these attempts a second later, and
    logs every failure: 400 silent clients caused 70,000 tracebacks in a few seconds. This class closes connections
    beyond the limit as they come.

    Args:
        listener: The socket, which stays open; its owner closes it.
        most: Most connections that may be open.
        refused: Called for every connection that is closed.
    """

    def __init__(self, listener: socket.socket, most: int, refused: Callable[[], None]) -> None:
        super().__init__(listener.family, listener.type, listener.proto, listener.dup().detach())
        self._most = most
        self._refused = refused
        self._taken: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._spare: int | None = _spare()
        self._complain = LimitedLog(log)

    def accept(self) -> tuple[socket.socket, Any]:
        """Return a connection; raises ConnectionAbortedError, which asyncio ignores, for one beyond the limit."""
        if sum(one.fileno() >= 0 for one in self._taken) >= self._most:
            self._refuse()
        try:
            connection, address = super().accept()
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
        self._taken.add(connection)
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
