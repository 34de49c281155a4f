"""The supervisor of one camera: opens its source, and opens it again for as long as the daemon runs."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from visaged.models.graphs.frames import FrameGraphs
from visaged.pipelines.attention import Attention
from visaged.pipelines.batcher import Lane, WhenFull
from visaged.pipelines.jobs import Job
from visaged.pipelines.records import CAMERA_STATES, CameraStatus, Frame, WakeCause
from visaged.pipelines.runtime.metrics import CameraMetrics
from visaged.pipelines.source.demand import FULL, Demand
from visaged.pipelines.source.tls import TLS_PORTS
from visaged.pipelines.source.video import SourceConfig, SourceError, VideoSource

log = logging.getLogger(__name__)

# Frames of a recording that may wait; more would only hold memory, and have left the processor's cache by their turn.
_RECORDING_DEPTH = 2


def lane_policy(live: bool) -> tuple[WhenFull, int]:
    """Return the policy of a camera's lane when it is full, and how many frames may wait in it.

    Args:
        live: Whether the source goes on without waiting for its reader.
    """
    return (WhenFull.DROP_OLDEST, 1) if live else (WhenFull.WAIT, _RECORDING_DEPTH)


class Backoff:
    """Waiting times that double from try to try, with jitter so that many cameras do not reconnect at once.

    Args:
        first_s: Seconds to wait after the first failure.
        most_s: Longest wait in seconds.
        jitter: Random part of a wait, 0..1.
        draw: Returns a uniform random number in 0..1.
    """

    def __init__(
        self, first_s: float = 0.5, most_s: float = 30.0, jitter: float = 0.3, draw: Callable[[], float] = random.random
    ) -> None:
        self._first_s, self._most_s, self._jitter, self._draw = first_s, most_s, jitter, draw
        self._failures = 0

    def reset(self) -> None:
        """Begin again with the first waiting time, because the source worked."""
        self._failures = 0

    def next_s(self) -> float:
        """Return how many seconds to wait before the next try."""
        whole = min(self._most_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return whole * (1.0 - self._jitter * self._draw())


class Camera:
    """One camera: its source, its lane in the batcher, its status.

    Args:
        name: Name of the camera, unique among the cameras.
        config: The source.
        long_side: Long side of the detector's canvas in pixels.
        multiple_of: Number that the sides of the canvas are multiples of.
        lane: Takes the jobs of the camera's frames.
        job: Makes a job of a frame.
        counters: The camera's metrics.
        on_status: Called with every new status.
        credentials: User and password, if they are not in the URL.
        backoff: Waiting times between two tries.
        clock: Returns monotonic seconds.
        wall: Returns seconds since 1970.
        attention: What is found in its frames.
        unsearched: Takes frames whose result is known without a search.
        graphs: Work on the frames that a decoder leaves on their device; None where all frames go to host memory.
    """

    # Seconds of pictures after which the waiting times begin again with the shortest.
    _GOOD_S = 5.0
    # Seconds for each report of a new size, and how many may come ahead of that. A camera may change its size with each
    # frame, and a status is kept by the broker and written to its disk.
    _SHAPE_S = 10.0
    _SHAPES_AHEAD = 2

    def __init__(
        self,
        name: str,
        config: SourceConfig,
        long_side: int,
        multiple_of: int,
        lane: Lane,
        job: Callable[[Frame], Job],
        counters: CameraMetrics,
        on_status: Callable[[CameraStatus], None],
        credentials: tuple[str | None, str | None] = (None, None),
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        attention: Attention | None = None,
        unsearched: Callable[[Frame], None] = lambda frame: frame.release(),
        graphs: FrameGraphs | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self._lane = lane
        self._job = job
        self._counters = counters
        self._unsearched = unsearched
        self._on_status = on_status
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        # Held while a status is reported, so that no report is in progress once `silence` has returned.
        self._reporting = threading.Lock()
        self._silent = False
        self._status = CameraStatus(name, "connecting", wall(), config.shown_url)
        self._next_try_at: float | None = None
        self._trouble_since: float | None = None
        self._streaming_since = self._last_received = 0.0
        self._shape: tuple[str, int, int] = ("", 0, 0)
        self._shape_due_s = float("inf")
        self._shape_waits = False
        self._demand = FULL
        self._idle = self._late = False
        self._source = VideoSource(
            name,
            config,
            long_side,
            self._deliver,
            on_open=self._opened,
            on_received=self._received,
            on_damaged=self._counters.damaged.inc,
            on_waiting=self._waiting,
            credentials=credentials,
            multiple_of=multiple_of,
            on_decoder=self._counters.hardware,
            clock=clock,
            wall=wall,
            demand=lambda: self._demand,
            attention=attention,
            on_idle=self._idles,
            on_late=self._is_late,
            graphs=graphs,
        )

    @property
    def demand(self) -> Demand:
        """What is wanted of the camera's stream; may be set in any thread, and holds from the next packet on."""
        return self._demand

    @demand.setter
    def demand(self, demand: Demand) -> None:
        self._demand = demand

    @property
    def status(self) -> CameraStatus:
        """The newest status."""
        with self._lock:
            return self._status

    @property
    def next_try_at(self) -> float | None:
        """When the camera is tried again, seconds since 1970; None unless it waits for that."""
        return self._next_try_at

    @property
    def trouble_since(self) -> float | None:
        """Since when it has given no pictures, over all tries, in seconds since 1970; None while it does."""
        with self._lock:
            return self._trouble_since

    @property
    def idle(self) -> bool:
        """Whether key frames alone are decoded, because nobody is there."""
        return self._idle

    @property
    def live(self) -> bool:
        """Whether the source goes on without waiting for its reader; see `VideoSource.live`."""
        return self._source.live

    @property
    def lag_s(self) -> float:
        """Seconds by which the newest packet came later than by its stamp."""
        return self._source.lag_s

    @property
    def worked_s(self) -> float:
        """Seconds so far in which its thread did not wait for packets, or until they were due."""
        return self._source.worked_s

    def silence(self) -> None:
        """Report no more status: the camera was removed, and another may have its name."""
        with self._reporting:
            self._silent = True

    def run(self, stopping: threading.Event) -> None:
        """Keep the camera open until `stopping` is set or its file has ended."""
        if not self.config.tls.verify and self.config.address.scheme in TLS_PORTS:
            log.warning(
                "camera %s: its certificate is not verified (tls.verify is false), so whoever poses as the camera gets "
                "its login; name its certificate in tls.ca_file instead", self.name,
            )  # fmt: skip
        try:
            self._supervise(stopping)
        finally:
            self._lane.set_live(False)
        if stopping.is_set():
            self._set(state="stopped", error="", cause="")

    def _supervise(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            self._set(state="connecting")
            self._streaming_since = 0.0
            try:
                self._source.run(stopping)
            except SourceError as error:
                # The exception is not kept: its traceback would hold the decoder and its pictures until the next try.
                cause, problem = error.cause, str(error)
            else:
                if not stopping.is_set():
                    log.info("camera %s: its recording has ended", self.name)
                    self._set(state="ended", error="", cause="")
                return
            self._lane.set_live(False)
            if stopping.is_set():
                return
            if self._streaming_since and self._last_received - self._streaming_since > self._GOOD_S:
                self._backoff.reset()
            wait_s = self._backoff.next_s()
            self._report(problem, wait_s)
            self._next_try_at = self._wall() + wait_s
            self._set(state="waiting", error=problem, cause=cause)
            self._counters.failure(cause)
            stopped = stopping.wait(wait_s)
            self._next_try_at = None
            if stopped:
                return
            self._set(reconnects=self.status.reconnects + 1)
            self._counters.reconnects.inc()

    def _report(self, problem: str, wait_s: float) -> None:
        # The same problem is logged once, not at every try.
        level = logging.DEBUG if problem == self.status.error else logging.WARNING
        log.log(level, "camera %s: %s; next try in %.1f s", self.name, problem, wait_s)

    def _opened(self, codec: str, width: int, height: int) -> None:
        self._streaming_since = self._streaming_since or self._clock()
        self._set_policy()
        self._lane.set_live(self._source.live)
        self._shape = codec, width, height
        self._report_shape()
        if self.status.error:
            self._set(error="", cause="")

    def _report_shape(self) -> None:
        """Report the stream's codec and size: at once when it begins, and then at a limited rate."""
        codec, width, height = self._shape
        status, now_s = self.status, self._clock()
        is_new = status.state != "streaming"
        is_same = self._shape == (status.codec, status.width, status.height)
        self._shape_waits = not is_new and not is_same and not self._may_report_shape(now_s)
        if not is_new and (is_same or self._shape_waits):
            return
        self._shape_due_s = (now_s if is_new else max(self._shape_due_s, now_s)) + self._SHAPE_S
        log.info("camera %s: streaming %s %dx%d", self.name, codec, width, height)
        self._set(state="streaming", codec=codec, width=width, height=height, error="", cause="")

    def _may_report_shape(self, now_s: float) -> bool:
        return now_s >= self._shape_due_s - self._SHAPES_AHEAD * self._SHAPE_S

    def _waiting(self, reason: str) -> None:
        log.warning("camera %s: %s", self.name, reason)
        self._set(error=reason)

    def _idles(self, cause: WakeCause | None) -> None:
        self._idle = cause is None
        self._counters.idle(cause)

    def _is_late(self, late: bool) -> None:
        self._late = late
        self._set_policy()

    def _set_policy(self) -> None:
        # Frames that were kept while the camera was idle come all at once, and none may overtake another.
        self._lane.set_policy(*lane_policy(self._source.live and not self._late))

    def _received(self, kept: bool) -> None:
        self._last_received = self._clock()
        if self._shape_waits and self._may_report_shape(self._last_received):
            self._report_shape()
        self._counters.received.inc()
        if kept:
            self._counters.sampled.inc()

    def _deliver(self, frame: Frame, stopping: threading.Event) -> bool:
        if frame.lookout is not None and frame.lookout.answer is not None:
            self._unsearched(frame)
            return not stopping.is_set()
        job = self._job(frame)
        if self._lane.offer(job, stopping):
            return True
        job.drop("removed" if self._silent else "shutdown")
        return False

    def _set(self, **changes: object) -> None:
        with self._reporting:
            with self._lock:
                status = replace(self._status, **changes)  # type: ignore[arg-type]
                if status == self._status:
                    return
                if status.state != self._status.state:
                    status = replace(status, since_at=self._wall())
                if not status.error:
                    self._trouble_since = None
                elif self._trouble_since is None:
                    self._trouble_since = self._wall()
                self._status = status
            if not self._silent:
                self._counters.state(status.state, CAMERA_STATES)
                self._on_status(status)
