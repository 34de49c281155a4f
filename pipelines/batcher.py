"""Jobs that are ready, handed to whoever is free to compute.

Between camera threads and inference workers stands one small lane for each camera, with a policy of its own for what
happens when frames come faster than they are taken. A camera has at most one frame in flight: that keeps its order
without locks, and shares the machine fairly, because a camera queues up again only when its last frame is done.
Single pictures have a queue too and are served in turn with the cameras.

A batch is filled from what is ready. Waiting for more, where batches pay (on a GPU), has a bound and is for live
cameras only that have no frame in flight; nobody waits for a dead camera.
"""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from visaged.pipelines.jobs import Job, Overloaded


class WhenFull(enum.Enum):
    """What a lane does with a job for which it has no room."""

    DROP_OLDEST = "drop_oldest"
    """Live cameras: the newest frame wins, the depth is one."""
    WAIT = "wait"
    """Files: the reader waits; nothing is lost."""


class Lane:
    """A camera's place in the batcher; `Batcher.open_lane` makes it. All methods are thread-safe."""

    def __init__(self, batcher: Batcher, when_full: WhenFull, depth: int) -> None:
        self.when_full = when_full
        self.depth = depth
        self.jobs: deque[Job] = deque()
        self.in_flight: Job | None = None
        self.live = False
        self._batcher = batcher

    def set_policy(self, when_full: WhenFull, depth: int) -> None:
        """Change what is done with a job for which there is no room, and how many may wait; what waits stays."""
        self._batcher._set_policy(self, when_full, depth)

    def set_live(self, live: bool) -> None:
        """Say whether jobs are to be expected; batches wait for live lanes only."""
        self._batcher._set_live(self, live)

    def offer(self, job: Job, stopping: threading.Event) -> bool:
        """Hand a job over; return whether it was taken.

        A lane that waits blocks until there is room, `stopping` is set, or the lane or the batcher closes.
        """
        return self._batcher._offer(self, job, stopping)

    def idle(self) -> bool:
        """Return whether no job waits or is in flight."""
        return self._batcher._idle(self)

    def close(self) -> list[Job]:
        """Take no more jobs; return those that had not been started. The one in flight goes on to its end."""
        return self._batcher._close(self)


class Batcher:
    """The meeting point of camera threads, API calls and inference workers. All methods are thread-safe.

    Args:
        max_batch: Most jobs of one batch; 1 where batching does not pay (CPU).
        max_wait_s: How long a batch may wait for more.
        max_pictures: Pictures that may wait.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        max_batch: int,
        max_wait_s: float,
        max_pictures: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._max_pictures = max_pictures
        self._clock = clock
        self._changed = threading.Condition()
        self._lanes: list[Lane] = []
        self._ready: deque[Lane] = deque()  # lanes with a job and none in flight, longest waiting first
        self._in_flight: dict[Job, Lane] = {}
        self._pictures: deque[Job] = deque()
        self._picture_next = False
        self._large: Job | None = None  # in flight
        self._closed = False

    def open_lane(self, when_full: WhenFull, depth: int) -> Lane:
        """Return a new lane, for as many waiting jobs as `depth`."""
        lane = Lane(self, when_full, depth)
        with self._changed:
            self._lanes.append(lane)
        return lane

    def submit(self, picture: Job) -> None:
        """Queue a single picture.

        Raises:
            Overloaded: Too many wait already, or the daemon is stopping.
        """
        with self._changed:
            if self._closed or len(self._pictures) >= self._max_pictures:
                raise Overloaded
            self._pictures.append(picture)
            self._changed.notify_all()

    def take(self, timeout_s: float) -> list[Job]:
        """Return the next batch, of one canvas shape; empty if none came in time or the batcher is closed and empty."""
        deadline = self._clock() + timeout_s
        with self._changed:
            while not self._ready and self._next_picture() is None:
                left = deadline - self._clock()
                if left <= 0 or self._closed:
                    return []
                self._changed.wait(left)
            if self._max_batch > 1:
                self._fill()
            return self._collect()

    def done(self, batch: Sequence[Job]) -> None:
        """Say that a batch is finished: its cameras may have their next frame computed."""
        with self._changed:
            for job in batch:
                lane = self._in_flight.pop(job, None)
                if lane is not None:
                    lane.in_flight = None
                    if lane.jobs:
                        self._ready.append(lane)
                elif job is self._large:
                    self._large = None
            self._changed.notify_all()

    def close(self) -> list[Job]:
        """Accept nothing more and return what had not been started."""
        with self._changed:
            self._closed = True
            rest = [*self._pictures, *(job for lane in self._lanes for job in lane.jobs)]
            self._pictures.clear()
            self._ready.clear()
            for lane in self._lanes:
                lane.jobs.clear()
            self._changed.notify_all()
        return rest

    def waiting(self) -> tuple[int, int]:
        """Return how many frames and how many pictures wait."""
        with self._changed:
            return sum(len(lane.jobs) for lane in self._lanes), len(self._pictures)

    def _set_policy(self, lane: Lane, when_full: WhenFull, depth: int) -> None:
        with self._changed:
            lane.when_full, lane.depth = when_full, depth
            self._changed.notify_all()

    def _set_live(self, lane: Lane, live: bool) -> None:
        with self._changed:
            lane.live = live
            self._changed.notify_all()

    def _offer(self, lane: Lane, job: Job, stopping: threading.Event) -> bool:
        with self._changed:
            while lane.when_full is WhenFull.WAIT and len(lane.jobs) >= lane.depth and self._takes(lane):
                if stopping.is_set():
                    return False
                self._changed.wait(0.1)
            if not self._takes(lane):
                return False
            waited = bool(lane.jobs)
            dropped = []
            while len(lane.jobs) >= lane.depth:
                dropped.append(lane.jobs.popleft())
            lane.jobs.append(job)
            if not waited and lane.in_flight is None:
                self._ready.append(lane)
                self._changed.notify_all()
        for old in dropped:
            old.drop("overtaken")
        return True

    def _takes(self, lane: Lane) -> bool:
        return not self._closed and lane in self._lanes

    def _idle(self, lane: Lane) -> bool:
        with self._changed:
            return not lane.jobs and lane.in_flight is None

    def _close(self, lane: Lane) -> list[Job]:
        with self._changed:
            rest = list(lane.jobs)
            lane.jobs.clear()
            if lane in self._lanes:
                self._lanes.remove(lane)
            if lane in self._ready:
                self._ready.remove(lane)
            self._changed.notify_all()
        return rest

    def _fill(self) -> None:
        deadline = self._clock() + self._max_wait_s
        while not self._closed and len(self._ready) + len(self._pictures) < self._max_batch:
            expected = any(lane.live and lane.in_flight is None and not lane.jobs for lane in self._lanes)
            left = deadline - self._clock()
            if not expected or left <= 0:
                return
            self._changed.wait(left)

    def _collect(self) -> list[Job]:
        batch: list[Job] = []
        shape: tuple[int, int] | None = None
        while len(batch) < self._max_batch:
            # Pictures and cameras in turn: neither starves the other.
            picture = self._next_picture()
            if picture is not None and self._ready and not self._picture_next:
                picture = None
            if picture is None and not self._ready:
                break
            job = picture or self._ready[0].jobs[0]
            if job.shape is None:
                if batch:  # what has no shape yet is computed alone
                    break
            elif shape is None:
                shape = job.shape
            elif shape != job.shape:
                break
            # Only now: a lane or picture that is left for another shape keeps its turn.
            self._picture_next = picture is None
            batch.append(job)
            if picture is None:
                self._take_frame(job)
            else:
                self._pictures.remove(picture)
                if picture.is_large:
                    self._large = picture
            if job.shape is None:
                break
        return batch

    def _take_frame(self, job: Job) -> None:
        lane = self._ready.popleft()
        lane.jobs.popleft()
        lane.in_flight = job
        self._in_flight[job] = lane
        if lane.when_full is WhenFull.WAIT:
            self._changed.notify_all()

    def _next_picture(self) -> Job | None:
        """Return the picture that has waited longest, but for large ones while one of these is in flight."""
        return next((picture for picture in self._pictures if self._large is None or not picture.is_large), None)
