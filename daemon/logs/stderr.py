"""Takes over stderr: what libraries write there goes into the log, and writing never blocks.

FFmpeg, OpenCV and others write to file descriptor 2 on their own. If that is a pipe that nobody reads, the writing
thread hangs, with the interpreter's lock if the library holds it. So descriptor 2 becomes a pipe of this process that
drops what does not fit, and a thread puts its lines into the log, at a limited rate and without credentials. The last
words of a library that ends the process are lost with it; `faulthandler` therefore writes to the real stderr.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import logging
import os
import sys
import threading
from typing import TextIO, cast

from visaged.pipelines.runtime.ratelimit import LimitedLog

_LONGEST = 8_000
"""Most characters of a line; a longer one is cut into several."""
_BURST = 200
"""Most lines in ten seconds; more are counted."""


class StderrLines(io.TextIOBase):
    """A text stream that puts what is written to it into the log, line by line.

    Args:
        is_terminal: What `isatty` returns.
    """

    def __init__(self, is_terminal: bool = False) -> None:
        self._is_terminal = is_terminal
        self._lock = threading.RLock()
        self._rest = ""
        self._limited = LimitedLog(logging.getLogger("stderr"), burst=_BURST)

    def isatty(self) -> bool:
        """Return whether the log goes to a terminal."""
        return self._is_terminal

    def writable(self) -> bool:
        """Return that the stream can be written."""
        return True

    def fileno(self) -> int:
        """Return stderr's number; what is written there arrives in the log too."""
        return 2

    def write(self, text: str) -> int:
        """Log the lines that are complete with this text; never blocks."""
        with self._lock:
            *lines, rest = (self._rest + text).split("\n")
            while len(rest) > _LONGEST:
                lines.append(rest[:_LONGEST])
                rest = rest[_LONGEST:]
            self._rest = rest
        for line in lines:
            if line.strip():
                self._limited("%s", line.rstrip("\r")[:_LONGEST])
        return len(text)


class Stderr:
    """Descriptor 2 and `sys.stderr`, which can be taken over.

    Attributes:
        number: A descriptor of the real stderr.
    """

    def __init__(self) -> None:
        self.number = os.dup(2)
        self._before = sys.stderr
        self._was_dumping = faulthandler.is_enabled()

    def take(self) -> None:
        """Take both over, once the log does not write to `sys.stderr`: that leads to the log from now on."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        os.dup2(write, 2)
        os.close(write)
        lines = StderrLines(os.isatty(self.number))
        sys.stderr = cast(TextIO, lines)
        self._dumps = _never_blocking(self.number)
        faulthandler.enable(self._dumps)
        self._relay = threading.Thread(target=_relay, args=(read, lines), name="stderr", daemon=True)
        self._relay.start()

    def give_back(self, timeout_s: float) -> None:
        """Let descriptor 2 and `sys.stderr` be what they were, after logging what has been written there."""
        faulthandler.disable()
        os.dup2(self.number, 2)  # the thread sees the pipe's end, unless a child process still has it
        self._relay.join(timeout_s)
        sys.stderr = self._before
        if self._was_dumping:
            faulthandler.enable()


def real_stderr() -> Stderr | None:
    """Return the stderr of the process; None where it is no file descriptor, or the system is not POSIX."""
    stream = sys.stderr
    try:
        is_real = os.name == "posix" and stream is sys.__stderr__ and stream is not None and stream.fileno() == 2
    except (OSError, ValueError):  # it is closed
        is_real = False
    return Stderr() if is_real else None


def _never_blocking(number: int) -> int:
    """Return a descriptor of the same file that never blocks, where the system can open one; else the given one."""
    # The flag belongs to what `open` makes, so other programs that share stderr keep theirs. Sockets cannot be opened.
    with contextlib.suppress(OSError):
        return os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY)
    return number


def _relay(read: int, lines: StderrLines) -> None:
    """Pass on what libraries write, until the pipe's other end is closed."""
    with open(read, encoding="utf-8", errors="backslashreplace", newline="\n") as pipe:
        while text := pipe.readline(_LONGEST):
            lines.write(text)
