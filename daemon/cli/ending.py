"""The signals that end the program, and a last resort that ends it if the orderly end hangs.

Python runs signal handlers in the main thread alone, between two of its instructions. A main thread that hangs in a
library or in a write would never see them, so a thread of its own learns of the signals too, and ends the process when
the time is over.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

EXIT_HUNG = 4
"""Exit code of a process whose orderly end hung, so that it was cut short."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Ending:
    """Handles SIGINT and SIGTERM while its `with` block runs; only in the main thread.

    Before `lead_to`, a signal raises `SystemExit(0)` in the main thread. In either case the process ends with
    `EXIT_HUNG` if the `with` block still runs `limit_s` after the first signal.

    Args:
        limit_s: Longest time in seconds from the signal to the end of the process.
        leave: Ends the process with an exit code at once.
    """

    def __init__(self, limit_s: float, leave: Callable[[int], object] = os._exit) -> None:
        self._limit_s = limit_s
        self._leave = leave
        self._stop: Callable[[], None] | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._ours, self._pythons = socket.socketpair()
        self._pythons.setblocking(False)
        self._over = threading.Event()

    def lead_to(self, stop: Callable[[], None]) -> None:
        """Have a function called for each of the signals from now on, in the main thread."""
        self._stop = stop

    def __enter__(self) -> Self:
        signal.set_wakeup_fd(self._pythons.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._on_signal)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        self._over.set()
        self._pythons.close()  # ends the listening thread

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop is None:
            raise SystemExit(0)
        self._stop()

    def _listen(self) -> None:
        with self._ours:
            while number := self._ours.recv(1):  # the interpreter writes the number of every signal that has a handler
                if number[0] in _SIGNALS:
                    if not self._over.wait(self._limit_s):
                        self._leave(EXIT_HUNG)
                    return


def leave(code: int) -> NoReturn:
    """End the process at once, with what was written: a normal exit would wait for threads that still work or hang."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a pipe without a reader, or a stream that is closed
            stream.flush()
    os._exit(code)
