"""The networks with meters of the CPU time that they take, so that a measurement can say what holds it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from visaged.models.detector import Detector
from visaged.models.device import Array
from visaged.models.types import Detections, FloatArray
from visaged.pipelines.attributes import AttributeReader, Reading, Request

_Result = TypeVar("_Result")


class Meter:
    """Adds up the CPU seconds of calls, whatever threads make them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """CPU seconds so far."""
        with self._lock:
            return self._seconds

    def timed(self, call: Callable[[], _Result]) -> _Result:
        """Make a call, and add the CPU time that its thread took for it."""
        began = time.thread_time()
        try:
            return call()
        finally:
            spent = time.thread_time() - began
            with self._lock:
                self._seconds += spent


class TimedDetector(Detector):
    """A loaded detector whose work is metered.

    Args:
        inner: The detector; both are the same network in the same session.
    """

    def __init__(self, inner: Detector) -> None:
        self.__dict__.update(inner.__dict__)
        self._inner = inner
        self.meter = Meter()

    def detect(self, canvases: Array) -> list[Detections]:
        """Return the faces on each canvas of a batch."""
        return self.meter.timed(lambda: self._inner.detect(canvases))


class TimedReader:
    """A reader of attributes whose work is metered: aligning faces, the network, reading its outputs.

    Args:
        inner: The reader.
    """

    def __init__(self, inner: AttributeReader) -> None:
        self._inner = inner
        self.heads = inner.heads
        self.meter = Meter()

    def read(self, requests: Sequence[Request]) -> list[Reading]:
        """Return a reading for every request, in order."""
        return self.meter.timed(lambda: self._inner.read(requests))

    def points(self, reading: Reading, landmarks: FloatArray) -> FloatArray | None:
        """Return the landmarks of a reading, moved to where the face's five points are now."""
        return self._inner.points(reading, landmarks)


def camera_seconds() -> float | None:
    """Return the CPU seconds of the cameras' threads that run; None on systems that do not say."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return None
    seconds = 0.0
    for thread in threading.enumerate():
        if thread.name.startswith("camera-") and thread.ident is not None:
            try:
                seconds += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            except OSError:  # it has just ended
                continue
    return seconds
