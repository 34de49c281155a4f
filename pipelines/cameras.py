"""The set of running cameras: adds, replaces and removes them, ends the tracks of silent ones, and stops all."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from visaged.models.graphs.frames import FrameGraphs
from visaged.models.search import Scales
from visaged.pipelines.attention import Attention
from visaged.pipelines.attributes import AttributeReader
from visaged.pipelines.batcher import Batcher, Lane
from visaged.pipelines.records import CAMERA_STATES, CameraStatus, EndReason, FrameResult, TrackEvent
from visaged.pipelines.runtime.metrics import CameraMetrics, Metrics
from visaged.pipelines.runtime.progress import beat
from visaged.pipelines.runtime.worker import OnDeath, Worker
from visaged.pipelines.shedding.load import CameraLoad
from visaged.pipelines.source.camera import Camera, lane_policy
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.demand import EVERY_FPS, FULL, Demand
from visaged.pipelines.tracking.job import FrameStage
from visaged.pipelines.tracking.tracks import CameraTracks, TrackingSpec

log = logging.getLogger(__name__)

_STALL_S = 3.0
"""Seconds by which a connected camera may be silent for longer than `tracker.lost_s` before its tracks end. A network
that was held up delivers the frames afterwards, and the faces may be in all of them. A broken connection delivers
nothing more, so its tracks end after `tracker.lost_s`."""

_HAND_OVER_S = 1.0
"""Seconds that a replaced camera gets to close its source before the new one opens it. A USB camera, or one that allows
a single connection, refuses the new connection until then; it is tried again."""

_NONE: Mapping[str, EndReason] = MappingProxyType({})

_NICE = 5
"""How far the cameras' threads step back for the inference workers. What is decoded is then analysed before more is
decoded: where the cores are too few, cameras fall behind, and their newest frames wait in the network's buffers, but no
decoding is spent on frames that another one overtakes. With as many threads as cameras and two workers, equal turns
would leave the workers next to nothing."""


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """The complete specification of a camera; a camera whose specification stays equal is not restarted.

    Attributes:
        source: Source of the pictures.
        tracking: How faces are tracked and read.
        credentials: User and password, if they are not in the URL.
        close_up: Whether frames are searched on a small canvas too.
        priority: -3..3: who keeps more frames when there are more than can be analysed.
    """

    source: SourceConfig
    tracking: TrackingSpec
    credentials: tuple[str | None, str | None] = field(default=(None, None), repr=False)
    close_up: bool = False
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of the cameras that `CameraSet.apply` added, replaced, removed and kept."""

    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CameraOverview:
    """What is to be told of a camera.

    Attributes:
        status: Its status.
        tracks: Number of faces that are tracked now.
        fps: Frames a second that are analysed at most; None for every frame.
        reduced: Why less is decoded than usual: `idle`, `overload`, or empty.
        next_try_at: When it is tried again, seconds since 1970; None unless it waits for that.
        trouble_since: Since when it has given no pictures, over all tries, seconds since 1970; None while it does.
        next_track: Number that its next track gets.
    """

    status: CameraStatus
    tracks: int
    fps: float | None
    reduced: Literal["", "idle", "overload"]
    next_try_at: float | None
    trouble_since: float | None
    next_track: int


@dataclass(frozen=True)
class Sinks:
    """Callbacks for results, events and states; they must not block.

    Attributes:
        on_result: Takes the result of every frame.
        on_event: Takes every event that is not in a frame's result.
        on_status: Takes every new status of a camera.
        on_removed: Takes the name of a camera that was removed.
    """

    on_result: Callable[[FrameResult], None]
    on_event: Callable[[TrackEvent], None]
    on_status: Callable[[CameraStatus], None]
    on_removed: Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    """A running camera with its lane, the stage of its frames, and its thread."""

    spec: CameraSpec
    camera: Camera
    lane: Lane
    stage: FrameStage
    worker: Worker


class CameraSet:
    """The cameras of a daemon. `apply` and `watch` must be called from one thread, other methods from any.

    Args:
        batcher: Takes the cameras' frames.
        reader: Reads the attributes of faces.
        scales: The sizes at which frames are searched: `usual` for all, smaller ones for close-ups.
        metrics: Metrics of the cameras.
        sinks: Callbacks for results, events and states.
        on_death: Called with name and exception when the thread of a camera dies.
        clock: Returns monotonic seconds.
        graphs: Work on frames that a decoder leaves on the networks' device; None where all go to host memory.
    """

    def __init__(
        self,
        batcher: Batcher,
        reader: AttributeReader,
        scales: Scales,
        metrics: Metrics,
        sinks: Sinks,
        on_death: OnDeath,
        clock: Callable[[], float] = time.monotonic,
        graphs: FrameGraphs | None = None,
    ) -> None:
        self._batcher = batcher
        self._reader = reader
        self._scales = scales
        self._metrics = metrics
        self._sinks = sinks
        self._on_death = on_death
        self._clock = clock
        self._graphs = graphs
        self._lock = threading.Lock()
        self._running: dict[str, _Running] = {}
        self._leaving: list[Worker] = []  # threads of removed cameras that may not have ended yet
        # Numbers of tracks are never used again, so that no consumer takes one face for another.
        self._next_tracks: dict[str, int] = {}

    def apply(self, wanted: Mapping[str, CameraSpec], reasons: Mapping[str, EndReason] = _NONE) -> Changes:
        """Add, replace and remove cameras, so that the wanted ones run; those with an equal spec are not touched.

        The tracks of a removed or replaced camera end; a replaced camera continues the numbers of its tracks.

        Args:
            wanted: Specifications of all cameras that are to run, by name.
            reasons: Why the tracks of cameras end that are not wanted, by name; `removed` for those that are not here.
        """
        running = self._snapshot()
        removed = tuple(name for name in running if name not in wanted)
        replaced = tuple(name for name in running if name in wanted and running[name].spec != wanted[name])
        added = tuple(name for name in wanted if name not in running)
        gone = [(name, running[name]) for name in (*removed, *replaced)]
        for name, one in gone:
            self._retire(name, one, reasons.get(name, "removed") if name in removed else "stream_ended")
        deadline_s = self._clock() + _HAND_OVER_S
        for _, one in gone:
            one.worker.join(deadline_s - self._clock())
        for name in removed:
            running[name].stage.counters.forget()
            self._sinks.on_removed(name)
        # A replaced camera keeps its counters, which its old thread also uses until it ends.
        started = {name: self._make(name, wanted[name], running[name].stage.counters) for name in replaced}
        started |= {name: self._make(name, wanted[name], self._metrics.camera(name)) for name in added}
        with self._lock:
            everything = self._running | started
            self._running = {name: everything[name] for name in wanted}
            self._leaving = [worker for worker in self._leaving if not worker.join(0)]
        for one in started.values():
            status = one.camera.status
            one.stage.counters.state(status.state, CAMERA_STATES)
            one.stage.counters.reduced(False)  # it has the counters of the one that it replaces
            self._sinks.on_status(status)
            one.worker.start()
        return Changes(added, replaced, removed, tuple(name for name in wanted if name not in started))

    def number_from(self, name: str, least: int) -> None:
        """Give the tracks of a camera that is yet to run numbers that are not smaller than this one."""
        self._next_tracks[name] = max(self._next_tracks.get(name, 1), least)

    def next_track(self, name: str) -> int:
        """Return the number of the next track of a camera that does not run."""
        return self._next_tracks.get(name, 1)

    def begin_anew(self, name: str, reason: EndReason, least: int, then: Callable[[], None]) -> None:
        """End the tracks of a running camera, and have it begin new ones; its status is told again.

        Args:
            name: The camera; if it does not run, only `then` is called.
            reason: Why its tracks end.
            least: Least number of the new tracks.
            then: Called after the ends were published, and before anything else of the camera is.
        """
        one = self._snapshot().get(name)
        if one is None:
            then()
            return

        def publish(events: Sequence[TrackEvent]) -> None:
            self._publish(events)
            then()

        one.stage.begin_anew(self._clock(), reason, least, publish)
        while True:  # the camera tells a newer one itself, which this one must not follow
            status = one.camera.status
            self._sinks.on_status(status)
            if one.camera.status is status:
                return

    def watch(self) -> None:
        """End the tracks of cameras that are silent or have ended; must be called about twice a second."""
        now_s = self._clock()
        for one in self._snapshot().values():
            beat()  # many cameras on a busy machine: each wait for a lock may take its time
            # While a frame waits or is computed, its faces are not known yet, so the camera does not count as silent.
            if not one.lane.idle():
                continue
            state = one.camera.status.state
            if state == "ended":
                self._publish(one.stage.tracks.end_all(now_s, "stream_ended"))
            elif one.camera.live:
                self._publish(one.stage.tracks.expire(now_s, stall_s=_STALL_S if state == "streaming" else 0.0))

    def over(self) -> tuple[bool, CameraStatus | None]:
        """Return whether every camera is a file that has ended or cannot be read, and the first that cannot be read."""
        unreadable = None
        for one in self._snapshot().values():
            status = one.camera.status
            if status.state == "waiting" and not one.camera.live:
                unreadable = unreadable or status
            elif status.state != "ended" or not one.lane.idle():
                return False, None
        return True, unreadable

    def overview(self) -> list[CameraOverview]:
        """Return what is to be told of every camera."""
        return [
            CameraOverview(
                one.camera.status,
                one.stage.tracks.present(),
                one.camera.demand.capped(one.spec.source.fps),
                "idle" if one.camera.idle else "" if one.camera.demand == FULL else "overload",
                one.camera.next_try_at,
                one.camera.trouble_since,
                one.stage.tracks.next_number,
            )
            for one in self._snapshot().values()
        ]

    def loads(self) -> list[CameraLoad]:
        """Return what the live cameras that stream do, for what sheds load.

        Recordings are never reduced, and cameras that are idle are already.
        """
        now_s = self._clock()
        return [
            CameraLoad(
                name,
                one.spec.priority,
                one.spec.source.fps or EVERY_FPS,
                0.0 if one.stage.tracks.present() else now_s - one.stage.tracks.face_at_s(),
                one.camera.lag_s,
                one.camera.worked_s,
                one.lane.offered,
                one.lane.overtaken,
            )
            for name, one in self._snapshot().items()
            if one.camera.live and not one.camera.idle and one.camera.status.state == "streaming"
        ]

    def demand(self, demands: Mapping[str, Demand]) -> None:
        """Ask this of the cameras, by name, and everything of those that are not named."""
        for name, one in self._snapshot().items():
            demand = demands.get(name, FULL)
            if demand != one.camera.demand:
                one.camera.demand = demand
                one.stage.counters.reduced(demand != FULL)

    def states(self) -> list[str]:
        """Return the state of every camera; takes no lock that is held while a frame is computed."""
        return [one.camera.status.state for one in self._snapshot().values()]

    def stop(self) -> None:
        """Ask every camera to end; returns at once."""
        for one in self._snapshot().values():
            one.worker.stop()

    def end_tracks(self) -> None:
        """End every track, because the daemon stops."""
        now_s = self._clock()
        for one in self._snapshot().values():
            self._publish(one.stage.tracks.end_all(now_s, "shutdown"))

    def join(self, deadline_s: float) -> list[Worker]:
        """Wait for the cameras' threads until monotonic `deadline_s`; return those that have not ended."""
        with self._lock:
            workers = [*self._leaving, *(one.worker for one in self._running.values())]
        return [worker for worker in workers if not worker.join(deadline_s - self._clock())]

    def _snapshot(self) -> dict[str, _Running]:
        with self._lock:
            return self._running

    def _make(self, name: str, spec: CameraSpec, counters: CameraMetrics) -> _Running:
        tracks = CameraTracks(name, spec.tracking, self._reader, self._next_tracks.get(name, 1))
        close_up = self._scales if spec.close_up else None
        tracker = spec.tracking.tracker
        attention = Attention(max(tracker.new_confidence, tracker.confirm_confidence), self._clock)
        stage = FrameStage(tracks, counters, self._metrics, self._sinks.on_result, close_up, self._clock, attention)
        lane = self._batcher.open_lane(*lane_policy(spec.source.live))
        camera = Camera(
            name,
            spec.source,
            self._scales.usual,
            self._scales.multiple_of,
            lane,
            stage.job,
            counters,
            self._sinks.on_status,
            spec.credentials,
            clock=self._clock,
            attention=attention,
            unsearched=stage.pass_unsearched,
            graphs=self._graphs,
        )
        return _Running(spec, camera, lane, stage, Worker(f"camera-{name}", camera.run, self._on_death, nice=_NICE))

    def _retire(self, name: str, one: _Running, reason: EndReason) -> None:
        """Stop a camera and end its tracks, without waiting for its thread, which may hang in a library."""
        one.camera.silence()
        one.worker.stop()
        for job in one.lane.close():
            job.drop("removed")
        self._publish(one.stage.close(self._clock(), reason))
        self._next_tracks[name] = one.stage.tracks.next_number
        with self._lock:
            self._leaving.append(one.worker)

    def _publish(self, events: Sequence[TrackEvent]) -> None:
        for event in events:
            self._sinks.on_event(event)
