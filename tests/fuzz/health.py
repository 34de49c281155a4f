"""Asks /healthz again and again beside a campaign: only so is seen what holds the daemon's event loop up."""

from __future__ import annotations

import http.client
import threading
import time

_PAUSE_S = 0.02
# For one answer; longer is as bad as none.
_PATIENCE_S = 10.0


def health_s(port: int, most_s: float) -> float | None:
    """Ask /healthz on a new connection; return the seconds to a good answer, None where there is none in `most_s`."""
    began_s = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=most_s)
    try:
        connection.request("GET", "/healthz")
        good = connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        good = False
    finally:
        connection.close()
    return time.monotonic() - began_s if good else None


class HealthProbe:
    """A thread that asks /healthz on a connection that it keeps."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._slowest_s = 0.0
        self._asked_s: float | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health probe", daemon=True)
        self._thread.start()

    def slowest_s(self) -> float:
        """Return the longest time in seconds since the last call; of a question that is still open, its time so far."""
        with self._lock:
            slowest_s, self._slowest_s = self._slowest_s, 0.0
            open_s = 0.0 if self._asked_s is None else time.monotonic() - self._asked_s
        return max(slowest_s, open_s)

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(2 * _PATIENCE_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PATIENCE_S)
            try:
                while not self._stopping.wait(_PAUSE_S):
                    self._ask(connection)
            except (OSError, http.client.HTTPException):
                self._stopping.wait(_PAUSE_S)
            finally:
                connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        began_s = time.monotonic()
        with self._lock:
            self._asked_s = began_s
        try:
            connection.request("GET", "/healthz")
            connection.getresponse().read()
        finally:
            with self._lock:
                self._slowest_s = max(self._slowest_s, time.monotonic() - began_s)
                self._asked_s = None
