"""Composes messages of results, events, states and presence, and hands them to the outputs.

Each message is composed once, in a thread of its own, so that neither inference nor an output waits for the encoding.
A failure of one output does not affect the others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from visaged.pipelines.outputs.messages import Composer, Kind, Message
from visaged.pipelines.outputs.output import FrameSink, Output
from visaged.pipelines.outputs.presence import Presences
from visaged.pipelines.records import CameraStatus, FrameResult, TrackEvent
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.progress import beat
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)


class FanOut:
    """Takes results, events and states from any thread, and hands them as messages to the outputs for their kinds.

    Args:
        composer: Makes the messages; used only in the thread of `run`.
        outputs: The outputs.
        metrics: Counts lost messages, once for each output that takes their kind.
        sinks: Called with every result, in the thread that submits it.
        clock: Returns monotonic seconds.
        most_results: Results that may wait for the thread; the oldest lose their `faces`, but not their events.
        most_events: Events that may wait for the thread; the oldest are lost.
    """

    def __init__(
        self,
        composer: Composer,
        outputs: Sequence[Output],
        metrics: Metrics,
        sinks: Sequence[FrameSink] = (),
        clock: Callable[[], float] = time.monotonic,
        most_results: int = 500,
        most_events: int = 10_000,
    ) -> None:
        self._composer = composer
        self._outputs = list(outputs)
        self._metrics = metrics
        self._sinks = list(sinks)
        self._clock = clock
        self._most_results = most_results
        self._most_events = most_events
        self._changed = threading.Condition()
        self._results: deque[FrameResult] = deque()
        self._events: deque[TrackEvent] = deque()
        # Only the newest status of a camera counts; None stands for a camera that was removed.
        self._statuses: dict[str, CameraStatus | None] = {}
        # Counted when events are taken, so that a lost event leaves no face behind; told in the thread of `run`.
        self._presences = Presences()
        self._complain = LimitedLog(log)
        self._publish_seconds = metrics.stage.labels("publish")

    def expect(self, cameras: Iterable[str]) -> None:
        """Tell at once that no face is in front of cameras that are about to begin; must be called before `run`.

        An earlier run that was killed may have left retained that there are some.
        """
        with self._changed:
            for camera in cameras:
                self._presences.begin(camera)
            presences = self._presences.take()
        for presence in presences:
            self._hand_out("presence", self._composer.presence, presence)

    def submit(self, result: FrameResult) -> None:
        """Take a frame's result with its events; never blocks."""
        for sink in self._sinks:
            try:
                sink(result)
            except Exception as error:
                self._metrics.output_lost.labels("sink", "frames", "failed").inc()
                self._complain("a frame sink failed: %s: %s", type(error).__name__, error)
        with self._changed:
            self._results.append(result)
            late = self._results.popleft() if len(self._results) > self._most_results else None
            lost_events = self._add(result.events)
            self._changed.notify()
        if late is not None:
            self._lose("faces", 1, "busy")
        self._lose("events", lost_events, "busy")

    def submit_event(self, event: TrackEvent) -> None:
        """Take an event that is not in a frame's result; never blocks."""
        with self._changed:
            lost = self._add([event])
            self._changed.notify()
        self._lose("events", lost, "busy")

    def submit_status(self, status: CameraStatus) -> None:
        """Take a camera's new status; never blocks."""
        with self._changed:
            self._statuses[status.camera] = status
            self._presences.begin(status.camera)
            self._changed.notify()

    def forget(self, camera: str) -> None:
        """Have outputs forget a removed camera; never blocks. Must be called after the camera's last status."""
        with self._changed:
            self._statuses[camera] = None
            self._presences.forget(camera)
            self._changed.notify()

    def run(self, stopping: threading.Event) -> None:
        """Compose messages and hand them over until `stopping` is set and nothing waits."""
        while not (stopping.is_set() and self._idle()):
            beat()
            self._turn()

    def _add(self, events: Sequence[TrackEvent]) -> int:
        self._events.extend(events)
        for event in events:
            self._presences.note(event)
        lost = max(0, len(self._events) - self._most_events)
        for _ in range(lost):
            self._events.popleft()
        return lost

    def _idle(self) -> bool:
        with self._changed:
            return not self._anything()

    def _anything(self) -> bool:
        return bool(self._results or self._events or self._statuses or self._presences)

    def _turn(self) -> None:
        with self._changed:
            if not self._anything():
                self._changed.wait(0.2)
            results, self._results = self._results, deque()
            events, self._events = self._events, deque()
            statuses, self._statuses = self._statuses, {}
            presences = self._presences.take()
        for status in statuses.values():
            if status is not None:
                self._hand_out("status", self._composer.status, status)
        for event in events:
            self._hand_out("events", self._composer.event, event)
        for presence in presences:
            self._hand_out("presence", self._composer.presence, presence)
        for result in results:
            self._hand_out("faces", self._composer.faces, result)
            self._publish_seconds.observe(self._clock() - result.finished_s)
        # A camera's last events are handed out before it is forgotten.
        for camera, status in statuses.items():
            if status is None:
                self._forget(camera)

    def _hand_out(self, kind: Kind, compose: Callable[[Any], Message], what: Any) -> None:
        takers = [output for output in self._outputs if kind in output.kinds]
        if not takers:
            return
        try:
            message = compose(what)
        except Exception as error:  # one result that cannot be encoded must not end the others
            self._lose(kind, 1, "failed")
            self._complain("%s message lost: it cannot be composed (%s: %s)", kind, type(error).__name__, error)
            log.debug("a message cannot be composed", exc_info=error)
            return
        for output in takers:
            try:
                output.offer(message)
            except Exception as error:
                self._metrics.output_lost.labels(output.name, kind, "failed").inc()
                self._complain("output %s failed: %s: %s", output.name, type(error).__name__, error)
                log.debug("output %s failed", output.name, exc_info=error)

    def _forget(self, camera: str) -> None:
        for output in self._outputs:
            try:
                output.forget(camera)
            except Exception as error:
                self._complain("output %s failed: %s: %s", output.name, type(error).__name__, error)

    def _lose(self, kind: Kind, count: int, cause: str) -> None:
        if not count:
            return
        for output in self._outputs:
            if kind in output.kinds:
                self._metrics.output_lost.labels(output.name, kind, cause).inc(count)
        if cause == "busy":
            self._complain("%s messages lost: more results than can be encoded", kind)
