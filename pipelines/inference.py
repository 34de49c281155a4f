"""The inference callers: they take batches, and turn frames and pictures into faces.

One caller a GPU; on a CPU one a core, all sharing a session with a single thread, because that beats one caller whose
session has many. Everything that belongs to a camera happens in the caller that has its frame in flight, so there is
nothing to lock between stages.

What fails costs no more than it must. A detector that fails costs its batch; an analyzer that fails costs attributes,
and tracks go on with their events. Both count towards the end of the process, because a network that keeps failing is
broken. Whatever else fails for one frame or picture, or in an output, costs that one alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

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


@dataclass(slots=True, eq=False)
class _Work:
    """An item on its way through a batch."""

    item: Item
    found: Detections = field(default_factory=Detections.empty)
    observation: Observation | None = None
    requests: Sequence[Request] = ()
    readings: Sequence[Reading] = ()
    faces: Sequence[Face] = ()
    events: Sequence[TrackEvent] = ()


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
        self._complain_of_output = LimitedLog(log, logging.ERROR)

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
            work = [_Work(item) for item in batch if self._wanted(item, started_s) and self._prepared(item)]
            failure = self._compute(work, started_s) if work else None
        finally:
            self._batcher.done(batch)
        if work:
            self._count(failure)

    def _count(self, failure: Exception | None) -> None:
        """Count batches that failed one after another, over all callers."""
        with self._failures_lock:
            if failure is None:
                self._failures = 0
                return
            self._failures += 1
            if self._failures >= self._MOST_FAILURES:
                raise InferenceFailed(f"the networks failed {self._failures} times in a row: {failure}") from failure

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

    def _compute(self, work: list[_Work], started_s: float) -> Exception | None:
        """Answer a batch; return why a network failed on it, or None."""
        lost, failure = self._attempt("detector", self._detect, work)
        for one in work:
            if isinstance(one.item, Frame):
                one.item.release()
        for one in lost:
            self._give_up(one.item)
        work = [one for one in work if one not in lost and self._contained(self._track, one)]
        asking = [one for one in work if one.requests]
        unread, analyzer_failure = self._attempt("analyzer", self._read, asking)
        for one in unread:
            if isinstance(one.item, Picture):
                self._give_up(one.item)
        for one in work:
            if isinstance(one.item, Frame):
                if self._contained(self._conclude, one):
                    self._report(FrameResult(one.item, one.faces, one.events, started_s, self._clock()))
            elif one not in unread:
                self._contained(self._answer, one)
        return failure or analyzer_failure

    def _attempt(
        self, network: str, run: Callable[[Sequence[_Work]], None], work: list[_Work]
    ) -> tuple[list[_Work], Exception | None]:
        """Run a network over some work; return what it failed on, and why if it failed on all of it.

        A picture comes from outside and may be one that the network cannot take. Where the whole fails it is run again
        with every picture apart, so that such a picture costs neither frames nor other pictures their results.
        """
        if not work:
            return [], None
        try:
            run(work)
        except Exception as error:
            self._failed.inc()
            self._complain("the %s failed on a batch of %d: %s: %s", network, len(work), type(error).__name__, error)
            log.debug("the failed batch", exc_info=error)
            lost = self._apart(run, work)
            return lost, error if len(lost) == len(work) else None
        return [], None

    @staticmethod
    def _apart(run: Callable[[Sequence[_Work]], None], work: list[_Work]) -> list[_Work]:
        """Run the frames together and each picture alone; return what fails again."""
        frames = [one for one in work if isinstance(one.item, Frame)]
        groups = [group for group in (frames, *([one] for one in work if one not in frames)) if group]
        if len(groups) == 1:
            return work
        lost: list[_Work] = []
        for group in groups:
            try:
                run(group)
            except Exception as error:
                log.debug("failed again apart from the rest of its batch", exc_info=error)
                lost += group
        return lost

    def _contained(self, step: Callable[[_Work], None], one: _Work) -> bool:
        """Take a step with one item; return whether it went well. If not, the item is given up, and no other."""
        try:
            step(one)
        except Exception as error:
            of = f"frame of camera {one.item.camera}" if isinstance(one.item, Frame) else "picture"
            self._complain("a %s could not be worked on: %s: %s", of, type(error).__name__, error)
            log.debug("the failed %s", of, exc_info=error)
            self._give_up(one.item)
            return False
        return True

    def _detect(self, work: Sequence[_Work]) -> None:
        looks = [self._looks(one.item) for one in work]
        began = self._clock()
        found = search.find(self._detector, looks)
        self._seconds.observe(self._clock() - began)
        self._sizes.observe(len(work))
        for one, detections in zip(work, found, strict=True):
            one.found = detections

    def _track(self, one: _Work) -> None:
        """Say what is to be read of an item's faces."""
        item = one.item
        if isinstance(item, Frame):
            one.observation = self._cameras[item.camera].observe(item, one.found)
            one.requests = one.observation.requests
            return
        one.found = one.found[one.found.confidences >= item.min_confidence]
        if item.attributes:
            one.requests = [request(shot, item.pixels) for shot in faces_of(one.found)]

    def _read(self, work: Sequence[_Work]) -> None:
        readings = self._reader.read([asked for one in work for asked in one.requests])
        if len(readings) != sum(len(one.requests) for one in work):
            raise ValueError(f"the analyzer returned {len(readings)} readings, not one for every face")
        begin = 0
        for one in work:
            end = begin + len(one.requests)
            one.readings = readings[begin:end]
            begin = end

    def _answer(self, one: _Work) -> None:
        assert isinstance(one.item, Picture)
        one.item.future.set_result(self._picture(one.item, one.found, one.readings))

    def _conclude(self, one: _Work) -> None:
        assert isinstance(one.item, Frame)
        assert one.observation is not None
        one.faces, one.events = self._cameras[one.item.camera].conclude(one.observation, one.readings)

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

    def _report(self, result: FrameResult) -> None:
        """Count a result and hand it on; an output's failure is the output's own."""
        frame, started_s = result.frame, result.started_s
        counters = self._counters[frame.camera]
        counters.analysed.inc()
        counters.faces.inc(len(result.faces))
        counters.tracks.inc(sum(event.kind == "begin" for event in result.events))
        self._stages["decode"].observe(frame.ready_s - frame.arrived_s)
        self._stages["queue"].observe(started_s - frame.ready_s)
        self._stages["inference"].observe(result.finished_s - started_s)
        try:
            self._on_result(result)
        except Exception as error:
            counters.output_errors.inc()
            self._complain_of_output(
                "an output failed on a frame of camera %s: %s: %s", frame.camera, type(error).__name__, error
            )
            log.debug("the failed output", exc_info=error)

    def _give_up(self, item: Item) -> None:
        if isinstance(item, Frame):
            self._counters[item.camera].dropped("failed")
        elif not item.future.done():
            item.future.set_exception(InferenceFailed("the picture could not be analysed"))
