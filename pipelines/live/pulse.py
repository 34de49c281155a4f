"""How each camera does: how many of its frames are analysed, how old the newest was, and when it last saw a face."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from visaged.pipelines.outputs.documents import milliseconds, timestamp
from visaged.pipelines.records import FrameResult

SPAN_S = 10.0
"""Seconds over which frames are counted."""

# More frames within the span are not kept, and the rate is that of the newest ones.
_MOST = 1024
# Of a camera that has only begun, frames count as those of this many seconds at least.
_LEAST_S = 1.0


@dataclass(frozen=True, slots=True)
class Beat:
    """How a camera does.

    Attributes:
        analysed_fps: Analysed frames a second, of the last `SPAN_S` seconds, or since the first frame.
        age_s: Seconds from the capture of the newest frame to its result; None before the first.
        face_at: When the newest frame with a face was captured, seconds since 1970; None if there was none.
    """

    analysed_fps: float = 0.0
    age_s: float | None = None
    face_at: float | None = None

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "analysed_fps": round(self.analysed_fps, 1),
            "age_ms": None if self.age_s is None else milliseconds(self.age_s),
            "last_face_at": None if self.face_at is None else timestamp(self.face_at),
        }


@dataclass(slots=True)
class _Camera:
    first_s: float
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST))
    age_s: float = 0.0
    face_at: float | None = None


class Pulse:
    """A frame sink that notes a few numbers of every result. Any thread may call any method.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._cameras: dict[str, _Camera] = {}

    def __call__(self, result: FrameResult) -> None:
        """Note a result."""
        frame = result.frame
        with self._lock:
            camera = self._cameras.get(frame.camera)
            if camera is None:
                camera = self._cameras[frame.camera] = _Camera(result.finished_s)
            camera.times.append(result.finished_s)
            camera.age_s = result.finished_s - frame.captured_s
            if result.faces:
                camera.face_at = frame.captured_at

    def of(self, name: str) -> Beat:
        """Return how a camera does."""
        now_s = self._clock()
        with self._lock:
            camera = self._cameras.get(name)
            if camera is None:
                return Beat()
            times = camera.times
            full = len(times) == _MOST
            since_s = max(now_s - SPAN_S, times[0] if full else camera.first_s)
            while times and times[0] < now_s - SPAN_S:
                times.popleft()
            rate = len(times) / max(_LEAST_S, now_s - since_s)
            return Beat(rate, max(0.0, camera.age_s), camera.face_at)

    def forget(self, name: str) -> None:
        """Forget a camera that was removed."""
        with self._lock:
            self._cameras.pop(name, None)
