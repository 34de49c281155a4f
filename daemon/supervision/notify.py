"""Tells systemd, or who else speaks its protocol, how the daemon is: sd_notify(3), over a datagram socket.

The protocol is a few lines of text to the socket in `NOTIFY_SOCKET`. Without that variable nothing is told to anybody.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, MutableMapping

from visaged.pipelines.runtime.redact import redact

log = logging.getLogger(__name__)

_MOST_WAITING = 16
_LONGEST_STATUS = 300
_SHORTEST_S = 0.1
_MOST_DIGITS = 20  # of a number of 64 bits, which systemd's is
_BUSY = (errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED, errno.ENOENT)
"""Errors that pass: the receiver is slow, or is being replaced by a newer version of itself."""


class Notifier:
    """Sends notifications; never blocks and never raises. May be used from any thread, but from no signal handler.

    Args:
        address: Path of the receiver's socket, or `@` and the name of an abstract one; None for no receiver.
        watchdog_s: Seconds within which the receiver wants to be told that all is well; None if it does not.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address is not None and address.startswith("@") else address or ""
        self.watchdog_s = watchdog_s if address else None
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque(maxlen=_MOST_WAITING)
        self._status = ""
        self._socket: socket.socket | None = None
        self._complained = False
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Notifier:
        """Return a notifier for who started this process, and remove its variables, so that no child uses them.

        Args:
            environment: Has `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` if a service manager wants to be told.
                Values that cannot be right are named in the log, and count as absent.
        """
        given = {name: environment.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")}
        address = given["NOTIFY_SOCKET"]
        if not address or not hasattr(socket, "AF_UNIX"):
            return cls()
        if len(address) < 2 or address[0] not in "/@":
            log.warning("NOTIFY_SOCKET is %r, not a path or an abstract socket (@name); it is not used", address)
            return cls()
        return cls(address, _watchdog_s(given["WATCHDOG_USEC"], given["WATCHDOG_PID"]))

    def ready(self) -> None:
        """Tell that everything is started."""
        self._tell("READY=1")

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Tell that the configuration is being read again while a `with` block runs, and then that it is in force."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self._tell("READY=1")

    def stopping(self) -> None:
        """Tell that the daemon ends."""
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """Show a line to people, without credentials and control characters; the same line again is not sent."""
        text = "".join(c if c.isprintable() else " " for c in redact(text))[:_LONGEST_STATUS]
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={text}")

    def feed(self) -> None:
        """Tell the receiver's watchdog that all is well; lost if the receiver takes nothing now."""
        self.flush()
        with self._lock:
            if self.watchdog_s is not None:
                self._send(b"WATCHDOG=1")

    def flush(self) -> None:
        """Try again to send what could not be sent; must be called now and then."""
        with self._lock:
            while self._waiting and self._send(self._waiting[0]):
                self._waiting.popleft()

    def close(self) -> None:
        """Tell nothing more."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket, self._waiting = None, deque()

    def _tell(self, text: str) -> None:
        with self._lock:
            if self._socket is not None:
                self._waiting.append(text.encode(errors="replace"))
        self.flush()

    def _send(self, message: bytes) -> bool:
        """Return whether a message was sent, or never can be; the lock must be held."""
        if self._socket is None:
            return True
        try:
            self._socket.sendto(message, self._address)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            if not self._complained:
                self._complained = True
                log.warning("the service manager at NOTIFY_SOCKET cannot be told anything: %s", error)
        return True


def _watchdog_s(interval: str, process: str) -> float | None:
    if not interval or (process and process != str(os.getpid())):  # it is meant for the process that started this one
        return None
    seconds = int(interval) / 1e6 if interval.isdecimal() and len(interval) <= _MOST_DIGITS else 0.0
    if seconds < _SHORTEST_S:
        log.warning(
            "WATCHDOG_USEC is %r, not a number of microseconds from %d on; the watchdog is not fed",
            interval[:_LONGEST_STATUS],
            _SHORTEST_S * 1e6,
        )
        return None
    return seconds
