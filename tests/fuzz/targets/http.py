"""Connections to the HTTP port: heads and bodies, byte by byte."""

from __future__ import annotations

from tests.fuzz.findings import Complaint, Kind
from tests.fuzz.kept import words
from tests.fuzz.oracle import judge_answer
from tests.fuzz.subject import SECRETS
from tests.fuzz.targets.base import DaemonTarget
from tests.fuzz.wire import exchange


class HttpTarget(DaemonTarget):
    """Sends raw bytes to the HTTP port."""

    name = "http"
    words = words(name)

    def send(self, data: bytes) -> list[Complaint]:
        """Send an input on a connection of its own."""
        return send_raw(self._daemon.port, data)


def send_raw(port: int, data: bytes) -> list[Complaint]:
    """Send bytes to an HTTP port and return what is wrong with the answers."""
    try:
        answer = exchange(port, data)
    except OSError as error:
        return [Complaint(Kind.UNWELL, f"no connection to port {port}: {error}")]
    return judge_answer(answer, SECRETS)
