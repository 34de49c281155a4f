"""Bodies of POST /face_detection: JSON with a picture in base64, or a URL."""

from __future__ import annotations

from tests.fuzz.findings import Complaint
from tests.fuzz.kept import words
from tests.fuzz.targets.base import DaemonTarget
from tests.fuzz.targets.http import send_raw


class KitTarget(DaemonTarget):
    """Sends bodies to POST /face_detection."""

    name = "kit"
    words = words(name)

    def send(self, data: bytes) -> list[Complaint]:
        """Send a body."""
        head = "POST /face_detection HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n"
        return send_raw(self._daemon.port, head.format(len(data)).encode() + data)
