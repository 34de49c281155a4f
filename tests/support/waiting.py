"""Waiting for what another thread or process does, where it gives no event to wait for."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import httpx


def until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Waits for a condition; a server that does not answer yet counts as its not being so."""
    deadline = time.monotonic() + timeout_s
    never = threading.Event()
    while True:
        with contextlib.suppress(httpx.TransportError):
            if condition():
                return
        assert time.monotonic() < deadline, "it did not come to that in time"
        never.wait(0.02)
