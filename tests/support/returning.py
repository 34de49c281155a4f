"""Sockets of servers that end and come back."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import struct
import time

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST and drops what is not sent
_BELOW_EPHEMERAL = (20_000, 32_000)


def lone_port() -> int:
    """Return a free TCP port that the system gives to no client: a server can leave it and come back.

    To a port that the system gives to clients, a client that tries for long enough connects itself.
    """
    for port in itertools.islice(iter(lambda: random.SystemRandom().randrange(*_BELOW_EPHEMERAL), None), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("found no free port")


def listen(port: int, timeout_s: float = 10.0) -> socket.socket:
    """Listen on a port of loopback, as soon as connections of an earlier server let it."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return socket.create_server(("127.0.0.1", port), backlog=50)
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)


def hang_up(connection: socket.socket, *, reset: bool) -> None:
    """End a connection that another thread may be using, with FIN or with RST."""
    with contextlib.suppress(OSError):
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)  # wakes the thread that reads
    connection.close()
