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
from functools import partial

from visaged.pipelines.outputs.leases import Begun, EventLedger, Fence, Keepers, Released
from visaged.pipelines.outputs.messages import Composer, Kind, Message
from visaged.pipelines.outputs.output import FrameSink, Output
from visaged.pipelines.outputs.presence import Presences
from visaged.pipelines.records import CameraPresence, CameraStatus, FrameResult, TrackEvent
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
        fence: The leases of a node of a fleet, without which nothing of a camera is published; None on one machine.
        keepers: Are told of cameras that another node takes over.

    Attributes:
        ledger: What was published of each camera in each epoch; None on one machine.
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
        fence: Fence | None = None,
        keepers: Keepers | None = None,
    ) -> None:
        self._composer = composer
        self._outputs = list(outputs)
        self._metrics = metrics
        self._sinks = list(sinks)
        self._clock = clock
        self._most_results = most_results
        self._most_events = most_events
        self._changed = threading.Condition()
        self._fence = fence
        self._keepers = keepers
        self.ledger = None if fence is None else EventLedger()
        # Each with the epoch in which it was given.
        self._results: deque[tuple[int, FrameResult]] = deque()
        self._events: deque[tuple[int, TrackEvent] | Begun | Released] = deque()
        # Only the newest status of a camera counts; None stands for a camera that was removed.
        self._statuses: dict[str, tuple[int, CameraStatus] | None] = {}
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
            self._tell(presence)

    def submit(self, result: FrameResult) -> None:
        """Take a frame's result with its events; never blocks."""
        for sink in self._sinks:
            try:
                sink(result)
            except Exception as error:
                self._metrics.output_lost.labels("sink", "frames", "failed").inc()
                self._complain("a frame sink failed: %s: %s", type(error).__name__, error)
        camera = result.frame.camera
        epoch = self._epoch(camera)
        if epoch is None:
            return
        if not self._may_publish(camera, epoch):
            self._lose("faces", 1, "fenced")
            self._lose("events", len(result.events), "fenced")
            return
        with self._changed:
            self._results.append((epoch, result))
            late = self._results.popleft() if len(self._results) > self._most_results else None
            lost_events = self._add(epoch, result.events)
            self._changed.notify()
        if late is not None:
            self._lose("faces", 1, "busy")
        self._lose("events", lost_events, "busy")

    def submit_event(self, event: TrackEvent) -> None:
        """Take an event that is not in a frame's result; never blocks."""
        epoch = self._epoch(event.camera)
        if epoch is None:
            return
        if not self._may_publish(event.camera, epoch):
            self._lose("events", 1, "fenced")
            return
        with self._changed:
            lost = self._add(epoch, [event])
            self._changed.notify()
        self._lose("events", lost, "busy")

    def submit_status(self, status: CameraStatus) -> None:
        """Take a camera's new status; never blocks."""
        epoch = self._epoch(status.camera)
        if epoch is None:
            return
        with self._changed:
            self._statuses[status.camera] = epoch, status
            self._presences.begin(status.camera)
            self._changed.notify()

    def begin(self, one: Begun) -> None:
        """Publish a camera from now on, beginning with the ends of orphans and no face; never blocks.

        Its lease must be in force, and its status must be submitted next.
        """
        with self._changed:
            self._presences.forget(one.camera)
            self._presences.begin(one.camera)
            self._events.append(one)
            self._changed.notify()

    def release(self, one: Released) -> None:
        """End the tracks that are open in an epoch, after the events that were submitted before; never blocks."""
        with self._changed:
            self._presences.forget(one.camera)
            self._statuses.pop(one.camera, None)
            self._events.append(one)
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

    def _epoch(self, camera: str) -> int | None:
        """Return the epoch in which a camera is published; None if it is not."""
        return self._composer.epoch if self._fence is None else self._fence.epoch(camera)

    def _may_publish(self, camera: str, epoch: int) -> bool:
        return self._fence is None or self._fence.holds(camera, epoch)

    def _add(self, epoch: int, events: Sequence[TrackEvent]) -> int:
        for event in events:
            self._events.append((epoch, event))
            self._presences.note(event)
        lost = max(0, len(self._events) - self._most_events)
        for _ in range(lost):
            del self._events[next(i for i, one in enumerate(self._events) if isinstance(one, tuple))]
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
        for told in statuses.values():
            if told is not None:
                epoch, status = told
                self._hand_out("status", status.camera, epoch, partial(self._composer.status, status, epoch))
        for one in events:
            match one:
                case Begun():
                    self._begin(one)
                case Released():
                    self._release(one)
                case epoch, event:
                    self._hand_out("events", event.camera, epoch, partial(self._composer.event, event, epoch))
        for presence in presences:
            self._tell(presence)
        for epoch, result in results:
            self._hand_out("faces", result.frame.camera, epoch, partial(self._composer.faces, result, epoch))
            self._publish_seconds.observe(self._clock() - result.finished_s)
        # A camera's last events are handed out before it is forgotten.
        for camera, told in statuses.items():
            if told is None:
                self._forget(camera)

    def _tell(self, presence: CameraPresence) -> None:
        epoch = self._epoch(presence.camera)
        if epoch is not None:
            compose = partial(self._composer.presence, presence, epoch)
            self._hand_out("presence", presence.camera, epoch, compose)

    def _begin(self, one: Begun) -> None:
        if self.ledger is None or not self._may_publish(one.camera, one.epoch):
            return
        self._composer.begin(one.camera, one.epoch)
        for orphan in one.orphans:
            compose = partial(self._composer.orphan, one.camera, one.epoch, orphan)
            self._hand_out("events", one.camera, one.epoch, compose)
        self.ledger.begin(one.camera, one.epoch)

    def _release(self, one: Released) -> None:
        published = None if self.ledger is None else self.ledger.of(one.camera, one.epoch)
        open_ = () if published is None else published.open
        for newest in open_:
            if newest.track not in one.ended:
                compose = partial(self._composer.moved, newest)
                self._hand_out("events", one.camera, None if one.is_over else one.epoch, compose)
        # Last, as nobody receives their numbers.
        for newest in open_:
            if newest.track in one.ended and self._keepers is not None and self.ledger is not None:
                message = self._composer.moved(newest)
                self.ledger.note(message)
                self._keepers.ended_elsewhere(message)
        if one.is_over and self._keepers is not None:
            self._keepers.released(one.camera, one.epoch)

    def _hand_out(self, kind: Kind, camera: str, epoch: int | None, compose: Callable[[], Message]) -> None:
        """Compose a message and hand it to the outputs for its kind, if the lease of its epoch lasts.

        Args:
            kind: Kind of the message.
            camera: Name of its camera.
            epoch: Its epoch; None for the end of a track whose lease has ended, which is all that is still told then.
            compose: Makes the message.
        """
        takers = [output for output in self._outputs if kind in output.kinds]
        if not takers:
            return
        if epoch is not None and not self._may_publish(camera, epoch):
            self._lose(kind, 1, "fenced")
            return
        try:
            message = compose()
        except Exception as error:  # one result that cannot be encoded must not end the others
            self._lose(kind, 1, "failed")
            self._complain("%s message lost: it cannot be composed (%s: %s)", kind, type(error).__name__, error)
            log.debug("a message cannot be composed", exc_info=error)
            return
        if kind == "events" and self.ledger is not None:
            self.ledger.note(message)
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
        if cause == "fenced":
            self._complain("%s not published: the lease of their camera has ended", kind)
        if cause == "busy":
            self._complain("%s messages lost: more results than can be encoded", kind)
