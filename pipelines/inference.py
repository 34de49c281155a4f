"""The inference callers: they take batches, and turn frames and pictures into faces.

One caller a GPU; on a CPU one a core, all sharing a session with a single thread, because that beats one caller whose
session has many. Everything that belongs to a camera happens in the caller that has its frame in flight, so there is
nothing to lock between stages.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from visaged.models import search
from visaged.models.detector import Detector
from visaged.models.search import Look, Scales
from visaged.models.types import Detections
from visaged.pipelines.attributes import FaceReader, Reading, Request, request, single
from visaged.pipelines.batcher import Batcher, Item, Overloaded, Picture
from visaged.pipelines.records import Face, Frame, FrameResult, TrackEvent
from visaged.pipelines.runtime.metrics import CameraMetrics, Metrics
from visaged.pipelines.runtime.ratelimit import LimitedLog
from visaged.pipelines.tracking.tracks import CameraTracks, Observation, faces_of

log = logging.getLogger(__name__)


class InferenceFailed(Exception):
    """The networks failed on a picture, or again and again."""


class Inference:
    """The work of the callers.

    Args:
        batcher: Where work comes from.
        detector: Finds faces.
        reader: Reads them.
        cameras: The tracks of every camera.
        metrics: Counts and times.
        on_result: Takes every frame's result; must not block.
        clock: Monotonic seconds.
        close_up: The scales at which frames of cameras are searched below their own; None for none.
    """

    # A model that fails this often in a row is broken, not unlucky with a frame.
    _MOST_FAILURES = 8

    def __init__(
        self,
        batcher: Batcher,
        detector: Detector,
        reader: FaceReader,
        cameras: Mapping[str, CameraTracks],
        metrics: Metrics,
        on_result: Callable[[FrameResult], None],
        clock: Callable[[], float] = time.monotonic,
        close_up: Scales | None = None,
    ) -> None:
        self._batcher = batcher
        self._close_up = close_up
        self._detector = detector
        self._reader = reader
        self._cameras = cameras
        self._counters: dict[str, CameraMetrics] = {name: metrics.camera(name) for name in cameras}
        self._on_result = on_result
        self._clock = clock
        self._failed = metrics.failed_batches
        self._seconds = metrics.inference.labels(detector.name)
        self._sizes = metrics.batch_size.labels(detector.name)
        self._stages = {name: metrics.stage.labels(name) for name in ("decode", "queue", "inference")}
        self._failures = 0
        self._failures_lock = threading.Lock()
        self._complain = LimitedLog(log, logging.ERROR)

    def run(self, stopping: threading.Event) -> None:
        """Serve batches until `stopping` is set and nothing is left.

        Raises:
            InferenceFailed: The networks fail again and again.
        """
        while True:
            batch = self._batcher.take(0.25)
            if batch:
                self._serve(batch)
            elif stopping.is_set():
                return

    def _serve(self, batch: list[Item]) -> None:
        started_s = self._clock()
        try:
            self._compute([item for item in batch if self._wanted(item, started_s) and self._prepared(item)], started_s)
        except Exception as error:  # anything that one batch does wrong must not end the others
            self._give_up(batch, error)
            with self._failures_lock:
                self._failures += 1
                if self._failures >= self._MOST_FAILURES:
                    raise InferenceFailed(f"the networks failed {self._failures} times in a row: {error}") from error
        else:
            with self._failures_lock:
                self._failures = 0
        finally:
            self._batcher.done(batch)

    @staticmethod
    def _wanted(item: Item, now_s: float) -> bool:
        """Return whether somebody still waits for an item; from then on its future cannot be cancelled."""
        if isinstance(item, Frame):
            return True
        if not item.future.set_running_or_notify_cancel():
            return False
        if now_s > item.deadline_s:
            item.future.set_exception(Overloaded())
            return False
        return True

    @staticmethod
    def _prepared(item: Item) -> bool:
        """Return whether an item can be looked at; what is wrong with a picture is its answer."""
        if isinstance(item, Picture) and item.view is None and item.prepare is not None:
            try:
                item.view = item.prepare()
            except Exception as error:
                item.future.set_exception(error)
                return False
        return True

    def _compute(self, batch: list[Item], started_s: float) -> None:
        if not batch:
            return
        detections = self._detect(batch)
        for item in batch:
            if isinstance(item, Frame):
                item.release()
        observations: dict[int, Observation] = {}
        requests: list[Request] = []
        spans: list[slice] = []
        for index, (item, found) in enumerate(zip(batch, detections, strict=True)):
            begin = len(requests)
            if isinstance(item, Frame):
                observations[index] = self._cameras[item.camera].observe(item, found)
                requests += observations[index].requests
            elif item.attributes:
                requests += [request(shot, item.pixels) for shot in faces_of(found)]
            spans.append(slice(begin, len(requests)))
        readings = self._reader.read(requests) if requests else []
        for index, item in enumerate(batch):
            mine = readings[spans[index]]
            if isinstance(item, Picture):
                item.future.set_result(self._picture(item, detections[index], mine))
                continue
            faces, events = self._cameras[item.camera].conclude(observations[index], mine)
            self._tell(item, faces, events, started_s)

    def _detect(self, batch: list[Item]) -> list[Detections]:
        looks = [self._looks(item) for item in batch]
        began = self._clock()
        found = search.find(self._detector, looks)
        self._seconds.observe(self._clock() - began)
        self._sizes.observe(len(batch))
        return [
            d if isinstance(item, Frame) else d[d.confidences >= item.min_confidence]
            for item, d in zip(batch, found, strict=True)
        ]

    def _looks(self, item: Item) -> Sequence[Look]:
        if isinstance(item, Picture):
            return item.looks
        look = Look(item.image, item.canvas)
        if self._close_up is None:
            return [look]
        return self._close_up.close_up(look, item.pixels.width, item.pixels.height)

    def _picture(self, picture: Picture, found: Detections, readings: Sequence[Reading]) -> list[Face]:
        heads = self._reader.heads
        faces = []
        for index, shot in enumerate(faces_of(found)):
            if not readings:
                faces.append(Face(shot))
                continue
            reading = readings[index]
            attributes = single(heads, reading, picture.attributes)
            wants_points = any(heads[name].kind == "points" for name in picture.attributes if name in heads)
            points = self._reader.points(reading, shot.landmarks) if wants_points else None
            faces.append(Face(shot, None, attributes, points))
        return faces

    def _tell(self, frame: Frame, faces: list[Face], events: list[TrackEvent], started_s: float) -> None:
        finished_s = self._clock()
        counters = self._counters[frame.camera]
        counters.analysed.inc()
        counters.faces.inc(len(faces))
        counters.tracks.inc(sum(event.kind == "begin" for event in events))
        self._stages["decode"].observe(frame.ready_s - frame.arrived_s)
        self._stages["queue"].observe(started_s - frame.ready_s)
        self._stages["inference"].observe(finished_s - started_s)
        self._on_result(FrameResult(frame, faces, events, started_s, finished_s))

    def _give_up(self, batch: list[Item], error: Exception) -> None:
        self._failed.inc()
        self._complain("a batch of %d could not be computed: %s: %s", len(batch), type(error).__name__, error)
        log.debug("the failed batch", exc_info=error)
        for item in batch:
            if isinstance(item, Frame):
                self._counters[item.camera].dropped("failed")
            elif not item.future.done():
                item.future.set_exception(InferenceFailed("the picture could not be analysed"))
