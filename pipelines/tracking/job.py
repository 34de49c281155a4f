"""A camera's frame on its way through the networks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from visaged.models.search import Look, Scales
from visaged.models.types import Detections
from visaged.pipelines.attributes import Reading, Request
from visaged.pipelines.jobs import DropCause
from visaged.pipelines.records import Frame, FrameResult
from visaged.pipelines.runtime.metrics import CameraMetrics, Metrics
from visaged.pipelines.runtime.ratelimit import LimitedLog
from visaged.pipelines.tracking.tracks import CameraTracks, Observation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameStage:
    """What the frames of one camera have in common.

    Attributes:
        tracks: The camera's faces. A camera has at most one frame in flight, so its frames come one after another.
        counters: The camera's series.
        metrics: The series of all cameras, for the times that frames spend in each stage.
        on_result: Takes every frame's result; must not block.
        close_up: The scales at which frames are searched below their own; None for none.
        clock: Monotonic seconds.
    """

    tracks: CameraTracks
    counters: CameraMetrics
    metrics: Metrics
    on_result: Callable[[FrameResult], None]
    close_up: Scales | None = None
    clock: Callable[[], float] = time.monotonic

    def job(self, frame: Frame) -> FrameJob:
        """Return the job of a frame of this camera."""
        return FrameJob(frame, self)


class FrameJob:
    """A frame to be searched, tracked and read.

    Args:
        frame: The frame.
        stage: What it shares with the camera's other frames.
    """

    is_large = False
    _complain = LimitedLog(log, logging.ERROR)

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
        """Return that the result is wanted."""
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
        self._observation = self._stage.tracks.observe(self.frame, found)
        return self._observation.requests

    def conclude(self, readings: Sequence[Reading] | None, started_s: float) -> None:
        """Count the frame and hand its result on. Faces that could not be read are reported with what was known."""
        stage, frame = self._stage, self.frame
        assert self._observation is not None
        faces, events = stage.tracks.conclude(self._observation, readings or ())
        finished_s = stage.clock()
        stage.counters.analysed.inc()
        stage.counters.faces.inc(len(faces))
        stage.counters.tracks.inc(sum(event.kind == "begin" for event in events))
        times = stage.metrics.stage
        times.labels("decode").observe(frame.ready_s - frame.arrived_s)
        times.labels("queue").observe(started_s - frame.ready_s)
        times.labels("inference").observe(finished_s - started_s)
        result = FrameResult(frame, faces, events, started_s, finished_s)
        try:
            stage.on_result(result)
        except Exception as error:  # the frame was analysed; an output's failure is the output's own
            stage.counters.output_errors.inc()
            self._complain("an output failed on a %s: %s: %s", self, type(error).__name__, error)
            log.debug("the failed output", exc_info=error)

    def fail(self) -> None:
        """Count the frame as failed."""
        self.release()
        self._stage.counters.dropped("failed")

    def drop(self, cause: DropCause) -> None:
        """Count the frame as dropped."""
        self.release()
        self._stage.counters.dropped(cause)
