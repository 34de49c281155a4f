"""Bodies of POST /face_detection: JSON with a picture in base64, or a URL."""

from __future__ import annotations

import random

from tests.fuzz.findings import Complaint
from tests.fuzz.kept import words
from tests.fuzz.subject import FuzzedDaemon
from tests.fuzz.targets.http import send_raw


class KitTarget:
    """Sends bodies to POST /face_detection.

    Args:
        daemon: Whose.
    """

    name = "kit"
    words = words(name)

    def __init__(self, daemon: FuzzedDaemon) -> None:
        self._daemon = daemon

    def finish(self, data: bytes, rng: random.Random) -> bytes:
        """Return the input."""
        return data

    def send(self, data: bytes) -> list[Complaint]:
        """Send a body."""
        head = "POST /face_detection HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n"
        return send_raw(self._daemon.port, head.format(len(data)).encode() + data)

    def settle(self) -> list[Complaint]:
        """Return nothing: the oracle looks at HTTP anyway."""
        return []
