"""A child process whose output is read line by line, so that a test waits for what it says and never sleeps."""

from __future__ import annotations

import collections
import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Self


class ProcessError(AssertionError):
    """The process ended, or did not say what was waited for; the text holds its last lines."""


class ManagedProcess:
    """Runs `argv`; collects the lines of its stdout and stderr; is killed when its `with` block ends."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> None:
        self._name = argv[0]
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._unread: collections.deque[str] = collections.deque()
        self._open_streams = 2
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            bufsize=1,
            env=env,
            cwd=cwd,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream, is_stdout), daemon=True, name=f"output of {self._name}")
            for stream, is_stdout in ((self._process.stdout, True), (self._process.stderr, False))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def lines(self) -> list[str]:
        """All lines so far, of both streams, without line ends."""
        with self._changed:
            return list(self._lines)

    def write_line(self, text: str) -> None:
        """Writes to its stdin."""
        if self._process.stdin is None or not self.is_running:
            raise ProcessError(self._report("has ended"))
        try:
            self._process.stdin.write(text + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ProcessError(self._report("has closed its input")) from None

    def read_line(self, timeout_s: float) -> str:
        """The next line of stdout that was not read yet."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._unread or self._open_streams == 0, timeout_s):
                raise ProcessError(self._report(f"said nothing for {timeout_s} s"))
            if not self._unread:
                raise ProcessError(self._report("has ended"))
            return self._unread.popleft()

    def wait_for_line(self, wanted: str | Callable[[str], bool], timeout_s: float = 30.0, *, start: int = 0) -> str:
        """The first line of either stream, from line `start` on, that contains (or satisfies) `wanted`."""
        matches = wanted if callable(wanted) else lambda line: wanted in line
        deadline = time.monotonic() + timeout_s
        seen = start
        with self._changed:
            while True:
                for line in self._lines[seen:]:
                    if matches(line):
                        return line
                seen = max(seen, len(self._lines))
                left = deadline - time.monotonic()
                if self._open_streams == 0 or left <= 0:
                    reason = "ended" if self._open_streams == 0 else f"went on for {timeout_s} s"
                    raise ProcessError(self._report(f"{reason} without a line that matches {wanted!r}"))
                self._changed.wait(left)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if it has not ended."""
        self._process.send_signal(number)

    def freeze(self) -> None:
        """Stops it where it is: connections stay open and nothing answers (SIGSTOP)."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on (SIGCONT)."""
        self.send(signal.SIGCONT)

    def wait(self, timeout_s: float) -> int:
        """Its exit status; fails when it does not end in time."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ProcessError(self._report(f"did not end within {timeout_s} s")) from None
        self._clean_up()
        return status

    def stop(self, timeout_s: float = 10.0) -> int:
        """Asks it to end (stdin closed, SIGTERM), kills it when it does not; returns its exit status."""
        if self.is_running:
            self._close_stdin()
            self.thaw()
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self.wait(timeout_s)

    def kill(self) -> None:
        """Ends it without warning (SIGKILL) and waits until it is gone."""
        self._process.kill()
        self.wait(30.0)

    def close_stdin(self, timeout_s: float) -> int:
        """Closes its stdin and waits for its end; returns its exit status."""
        self._close_stdin()
        return self.wait(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def _close_stdin(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _clean_up(self) -> None:
        self._close_stdin()
        for reader in self._readers:
            reader.join(10.0)

    def _read(self, stream: IO[str], is_stdout: bool) -> None:
        with stream:
            for raw in stream:
                line = raw.rstrip("\n")
                with self._changed:
                    self._lines.append(line)
                    if is_stdout:
                        self._unread.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._open_streams -= 1
            self._changed.notify_all()

    def _report(self, what: str) -> str:
        with self._changed:
            tail = "\n".join(self._lines[-30:])
        return f"{self._name} {what}; status {self._process.poll()}; its last lines:\n{tail}"
