"""What the targets that a running daemon answers have in common."""

from __future__ import annotations

import random

from tests.fuzz.findings import Complaint
from tests.fuzz.subject import FuzzedDaemon


class DaemonTarget:
    """Sends inputs as they are to a daemon; what it sends and where is said by its classes.

    Args:
        daemon: Whose.
    """

    def __init__(self, daemon: FuzzedDaemon) -> None:
        self._daemon = daemon

    def finish(self, data: bytes, rng: random.Random) -> bytes:
        """Return the input."""
        return data

    def settle(self) -> list[Complaint]:
        """Return nothing: the oracle looks at HTTP anyway."""
        return []
