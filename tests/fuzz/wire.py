"""Raw bytes to a port, and what comes back."""

from __future__ import annotations

import contextlib
import socket

# After so long without an answer the server waits for more; nothing more comes.
_QUIET_S = 0.15
_MOST_ANSWER = 4 << 20
_CONNECT_S = 5.0


def exchange(port: int, data: bytes, quiet_s: float = _QUIET_S) -> bytes:
    """Send bytes to a port of this machine, half-close when it is quiet, and return all that was answered.

    Raises:
        OSError: There is no connection.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", port), _CONNECT_S) as connection:
        # A server may answer and close before it has read everything.
        with contextlib.suppress(OSError):
            connection.sendall(data)
        for is_over in (False, True):
            connection.settimeout(quiet_s)
            with contextlib.suppress(OSError):
                while len(answer) < _MOST_ANSWER and (part := connection.recv(65536)):
                    answer += part
            if not is_over:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
    return answer
