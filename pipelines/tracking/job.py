"""The job of a camera's frame: it is searched, tracked, read, and its result handed on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from visaged.models.search import Look, Scales
from visaged.models.types import Detections
from visaged.pipelines.attention import Attention
from visaged.pipelines.attributes import Reading, Request
from visaged.pipelines.jobs import DropCause
from visaged.pipelines.records import EndReason, Frame, FrameResult, TrackEvent
from visaged.pipelines.runtime.metrics import CameraMetrics, Metrics
from visaged.pipelines.runtime.ratelimit import LimitedLog
from visaged.pipelines.tracking.tracks import CameraTracks, Observation

log = logging.getLogger(__name__)
_complain = LimitedLog(log, logging.ERROR)


@dataclass(frozen=True)
class FrameStage:
    """What all frames of one camera share.

    Attributes:
        tracks: The camera's tracks. A camera has at most one frame in flight, so its frames come one after another.
        counters: The camera's metrics.
        metrics: The metrics of all cameras, for the time that frames spend in each stage.
        on_result: Takes every frame's result; must not block.
        close_up: Smaller scales at which frames are searched too; None for none.
        clock: Returns monotonic seconds.
        attention: Is told what is found.
    """

    tracks: CameraTracks
    counters: CameraMetrics
    metrics: Metrics
    on_result: Callable[[FrameResult], None]
    close_up: Scales | None = None
    clock: Callable[[], float] = time.monotonic
    attention: Attention = field(default_factory=Attention)
    # Held from when a result is made until it is handed on, so that no `end` event overtakes it.
    _order: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def job(self, frame: Frame) -> FrameJob:
        """Return the job of a frame of this camera."""
        return FrameJob(frame, self)

    def pass_unsearched(self, frame: Frame) -> None:
        """Hand on the result of a frame that needs no search, because nothing moved since one in which nothing was."""
        frame.release()
        nothing = Observation(frame, [], [], [], np.empty((0, 4), np.float32))
        self.conclude(nothing, (), self.clock())

    def close(self, now_s: float, reason: EndReason) -> list[TrackEvent]:
        """End every track, and return the events. After this, no result is handed on any more.

        Args:
            now_s: Monotonic seconds.
            reason: Why the tracks end.
        """
        with self._order:
            return self.tracks.close(now_s, reason)

    def begin_anew(self, now_s: float, reason: EndReason, least: int, then: Callable[[list[TrackEvent]], None]) -> None:
        """End every track; faces that are present begin new ones.

        Args:
            now_s: Monotonic seconds.
            reason: Why the tracks end.
            least: Least number of the new tracks.
            then: Called with the events, before the result of another frame is handed on.
        """
        with self._order:
            then(self.tracks.begin_anew(now_s, reason, least))

    def conclude(self, observation: Observation, readings: Sequence[Reading], started_s: float) -> bool:
        """Count a frame and hand its result on; return False, and do neither, once the stage is closed.

        Args:
            observation: The frame, tracked.
            readings: One reading for each request of the observation; empty if they could not be read.
            started_s: Monotonic seconds when computing began.
        """
        with self._order:
            if self.tracks.closed:
                return False
            faces, events = self.tracks.conclude(observation, readings)
            if observation.frame.lookout is None:
                self.attention.note(observation.found, self.tracks.present())
            result = FrameResult(observation.frame, faces, events, started_s, self.clock(), observation.found)
            self._count(result)
            self._hand_on(result)
        return True

    def _count(self, result: FrameResult) -> None:
        counters, frame = self.counters, result.frame
        counters.analysed.inc()
        counters.faces.inc(len(result.faces))
        counters.tracks.inc(sum(event.kind == "begin" for event in result.events))
        stages = self.metrics.frame_stages
        stages["decode"].observe(frame.ready_s - frame.arrived_s)
        stages["queue"].observe(result.started_s - frame.ready_s)
        stages["inference"].observe(result.finished_s - result.started_s)

    def _hand_on(self, result: FrameResult) -> None:
        try:
            self.on_result(result)
        except Exception as error:  # the frame was analysed; an output's failure is the output's own
            self.counters.output_errors.inc()
            camera = result.frame.camera
            _complain("an output failed on a frame of camera %s: %s: %s", camera, type(error).__name__, error)
            log.debug("the failed output", exc_info=error)


class FrameJob:
    """The job of one frame.

    Args:
        frame: The frame.
        stage: What all frames of the camera share.
    """

    is_large = False

    def __init__(self, frame: Frame, stage: FrameStage) -> None:
        self.frame = frame
        self._stage = stage
        self._observation: Observation | None = None
        self._held = True

    def __str__(self) -> str:
        return f"frame of camera {self.frame.camera}"

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the canvas in pixels."""
        return self.frame.canvas.height, self.frame.canvas.width

    def start(self, now_s: float) -> bool:
        """Return True: the result of a frame is always needed."""
        return True

    def looks(self) -> Sequence[Look]:
        """Return the frame's canvas, and those of a close-up search."""
        frame, close_up = self.frame, self._stage.close_up
        look = Look(frame.image, frame.canvas)
        return [look] if close_up is None else close_up.close_up(look, frame.surface.width, frame.surface.height)

    def release(self) -> None:
        """Give the canvas back to its pool."""
        if self._held:
            self._held = False
            self.frame.release()

    def observe(self, found: Detections) -> Sequence[Request]:
        """Track the faces; return those that are due to be read."""
        lookout = self.frame.lookout
        if lookout is not None:
            # Nothing is tracked in frames that come out of turn. An idle camera has no track that could miss them.
            self._observation = Observation(self.frame, [], [], [], found.boxes)
            lookout.answer = self._stage.attention.judge(found)
            return ()
        self._observation = self._stage.tracks.observe(self.frame, found)
        return self._observation.requests

    def conclude(self, readings: Sequence[Reading] | None, started_s: float) -> None:
        """Hand the frame's result on. Faces that could not be read are reported with the attributes known before.

        If the camera was removed in the meantime, the frame is dropped.
        """
        assert self._observation is not None
        lookout = self.frame.lookout
        if lookout is not None and lookout.answer != "nothing":
            return  # the frame comes again, after those before it
        if not self._stage.conclude(self._observation, readings or (), started_s):
            self.drop("removed")

    def fail(self) -> None:
        """Count the frame as failed."""
        self._lose()
        self._stage.counters.dropped("failed")

    def drop(self, cause: DropCause) -> None:
        """Count the frame as dropped."""
        self._lose()
        self._stage.counters.dropped(cause)

    def _lose(self) -> None:
        self.release()
        if self.frame.lookout is not None:
            self.frame.lookout.answer = "lost"
