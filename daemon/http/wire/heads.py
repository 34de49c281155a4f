"""Heads of requests: found in the bytes received, bounded in bytes and lines, and parsed by h11."""

from __future__ import annotations

import re

import h11

from visaged.daemon.http.wire.framing import Malformed

HEAD_BYTES = 16_384
"""Longest head in bytes."""
HEAD_LINES = 100
"""Most lines of a head. h11 takes 10 us for each."""
PARAMETERS = 100
"""Most parameters of a query. The applications take 10 us for each."""

_END = re.compile(rb"\n\r?\n")


class HeadReader:
    """Takes heads from the front of what a connection receives.

    h11 gets complete heads alone: it does not bound those that come in one read, which may hold 20,000 headers.
    """

    def __init__(self) -> None:
        self._searched = 0

    def take(self, received: bytearray) -> tuple[h11.Connection, h11.Request] | None:
        """Remove a head, and return it with the connection that answers it; None if it is not complete.

        Raises:
            Malformed: This is not HTTP/1.1, or the head is too long.
        """
        if received and received[0] <= 0x20:  # a TLS handshake, for example, has no line ends to wait for
            raise Malformed("this is not HTTP/1.1")
        found = _END.search(received, self._searched, HEAD_BYTES)
        if found is None:
            if len(received) >= HEAD_BYTES:
                raise Malformed(f"the headers are longer than {HEAD_BYTES} bytes")
            self._searched = max(0, len(received) - 2)
            return None
        self._searched = 0
        head = bytes(received[: found.end()])
        del received[: found.end()]
        if head.count(b"\n") > HEAD_LINES:
            raise Malformed(f"there are more than {HEAD_LINES} lines of headers")
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(head)
        try:
            request = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise Malformed(f"this is not HTTP/1.1 ({_reason(error)})") from None
        assert isinstance(request, h11.Request)
        if request.target.count(b"&") >= PARAMETERS:
            raise Malformed(f"the query has more than {PARAMETERS} parameters")
        return connection, request


def _reason(error: h11.RemoteProtocolError) -> str:
    """Return what h11 says, without the bytes that it quotes."""
    return str(error).partition(":")[0][:80]
