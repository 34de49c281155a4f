"""Who starts a daemon as systemd does: with a socket for notifications."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.process import ProcessError


class ServiceManager:
    """A datagram socket like systemd's, and what came there.

    Args:
        folder: For the socket; None for an abstract one.
        watchdog_s: Time of the watchdog, seconds.
    """

    def __init__(self, folder: Path | None, watchdog_s: float | None = None) -> None:
        self.address = f"@visaged-{secrets.token_hex(8)}" if folder is None else str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address.replace("@", "\0", 1) if folder is None else self.address)
        self._watchdog_s = watchdog_s
        self.messages: list[tuple[float, str]] = []
        """Monotonic seconds of its arrival, and text."""

    def environment(self) -> dict[str, str]:
        """The variables that a service is started with."""
        result = os.environ | {"NOTIFY_SOCKET": self.address, "NO_COLOR": "1", "PYTHONWARNINGS": "error"}
        if self._watchdog_s is not None:
            result["WATCHDOG_USEC"] = str(round(self._watchdog_s * 1e6))
        return result

    def wait_for(self, wanted: str | Callable[[str], bool], timeout_s: float = 60.0, *, start: int = 0) -> int:
        """The index of the first message from `start` on that begins with (or satisfies) `wanted`."""
        matches = wanted if callable(wanted) else lambda text: text.startswith(wanted)
        deadline_s = time.monotonic() + timeout_s
        while True:
            while start < len(self.messages):
                if matches(self.messages[start][1]):
                    return start
                start += 1
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not self._receive(left_s):
                raise ProcessError(
                    f"no message {wanted!r} within {timeout_s} s; those that came: {self.messages[-20:]}"
                )

    def collect(self, seconds: float) -> list[str]:
        """What comes within some seconds."""
        begin, deadline_s = len(self.messages), time.monotonic() + seconds
        while (left_s := deadline_s - time.monotonic()) > 0:
            self._receive(left_s)
        return [text for _, text in self.messages[begin:]]

    def times_of(self, text: str) -> list[float]:
        """When a message came, each time."""
        return [at_s for at_s, one in self.messages if one == text]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.socket.close()

    def _receive(self, timeout_s: float) -> bool:
        self.socket.settimeout(timeout_s)
        try:
            text = self.socket.recv(4096).decode()
        except TimeoutError:
            return False
        self.messages.append((time.monotonic(), text))
        return True
