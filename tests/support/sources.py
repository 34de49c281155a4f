"""Runs a `VideoSource` beside a test, and collects what it hands over."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from visaged.pipelines.records import Frame
from visaged.pipelines.source.video import SourceConfig, SourceError, VideoSource

# For a busy machine; what a test waits for comes far earlier.
PATIENCE_S = 40.0


class SourceRun:
    """A source in a thread of its own; it ends with the `with` block.

    Args:
        url: Of the source.
        name: Of the camera, in what it logs.
        limit: Stop after so many frames.
        options: Fields of `SourceConfig`; timeouts are short and every frame is kept where nothing else is said.
        arguments: Of `VideoSource`.
        on_frame: Called with each frame before it is collected.
    """

    def __init__(
        self,
        url: object,
        *,
        name: str = "door",
        limit: int | None = None,
        on_frame: Callable[[Frame], None] = lambda frame: None,
        arguments: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        settings: dict[str, Any] = {"open_timeout_s": 10.0, "read_timeout_s": 5.0, "fps": None} | options
        self.config = SourceConfig(url=str(url), **settings)
        self.frames: list[Frame] = []
        self.opened: list[tuple[str, int, int]] = []
        self.received = 0
        self.damaged = 0
        self.error: BaseException | None = None
        self.seconds = 0.0
        self.stopping = threading.Event()
        self._limit = limit
        self._on_frame = on_frame
        self._changed = threading.Condition()
        self.source = VideoSource(
            name, self.config, 320, self._deliver, self._opened, self._received, self._damaged, **(arguments or {})
        )
        self._thread = threading.Thread(target=self._run, name=f"camera {name}", daemon=True)

    def start(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def wait_for(self, condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
        """Wait until something is so that frames or events can bring about."""
        with self._changed:
            met = self._changed.wait_for(lambda: condition() or not self._thread.is_alive(), timeout_s)
        assert met, f"not within {timeout_s} s: {len(self.frames)} frames, {self.error!r}"
        assert condition(), f"the source ended before: {len(self.frames)} frames, {self.error!r}"

    def wait_for_frames(self, count: int, timeout_s: float = PATIENCE_S) -> list[Frame]:
        """Wait for so many frames in all and return the first of them."""
        self.wait_for(lambda: len(self.frames) >= count, timeout_s)
        return self.frames[:count]

    def finish(self, timeout_s: float = PATIENCE_S) -> Self:
        """Wait for the source's own end."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"still runs after {timeout_s} s, with {len(self.frames)} frames"
        return self

    def failure(self, timeout_s: float = PATIENCE_S) -> SourceError:
        """Wait for the source's own end, which must be a failure."""
        self.finish(timeout_s)
        assert isinstance(self.error, SourceError), f"{self.error!r} after {len(self.frames)} frames"
        return self.error

    def checked(self, timeout_s: float = PATIENCE_S) -> Self:
        """Start, wait for the source's own end, which must not be a failure."""
        self.start().finish(timeout_s)
        if self.error is not None:
            raise self.error
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the source did not stop"

    def _run(self) -> None:
        began = time.monotonic()
        try:
            self.source.run(self.stopping)
        except BaseException as error:
            self.error = error
        self.seconds = time.monotonic() - began
        with self._changed:
            self._changed.notify_all()

    def _deliver(self, frame: Frame, stopping: threading.Event) -> bool:
        assert stopping is self.stopping
        self._on_frame(frame)
        with self._changed:
            self.frames.append(frame)
            self._changed.notify_all()
        return self._limit is None or len(self.frames) < self._limit

    def _opened(self, codec: str, width: int, height: int) -> None:
        with self._changed:
            self.opened.append((codec, width, height))
            self._changed.notify_all()

    def _received(self, kept: bool) -> None:
        self.received += 1

    def _damaged(self) -> None:
        with self._changed:
            self.damaged += 1
            self._changed.notify_all()


def failure_of(url: object, timeout_s: float = PATIENCE_S, **options: Any) -> SourceError:
    """Return how a source fails."""
    return SourceRun(url, **options).start().failure(timeout_s)


def resident_bytes() -> int:
    """Return this process's memory."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
