"""Queues jobs, and hands them in batches to inference workers that are free.

Between camera threads and inference workers there is one small lane for each camera, with a policy for frames that come
faster than they are taken. A camera has at most one frame in flight: this keeps its frames in order without locks, and
shares the machine fairly, because a camera gets its next turn only when its last frame is done.

Single pictures have a queue of their own. While frames wait as well, the two share the workers' time in halves, and not
in turns: a picture takes as long as ten frames, so in turns four clients left cameras a fifth of their frames. What
frames do not take of their half, pictures get.

A batch is filled from the jobs that are ready. Where batches are larger than 1 (on a GPU), it waits for more within a
bound, and only while a live camera has no frame waiting or in flight.
"""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from visaged.pipelines.jobs import Job, Overloaded

_LEAST_COST_S = 0.001
_COST_WEIGHT = 0.25
"""Weight of the newest job in the averages of what a frame and a picture take."""


class WhenFull(enum.Enum):
    """Policy of a lane that is full when a job is offered."""

    DROP_OLDEST = "drop_oldest"
    """Drop the oldest waiting job; for live cameras, whose newest frame counts."""
    WAIT = "wait"
    """Block until there is room; for files, so that no frame is lost."""


class Lane:
    """A camera's queue in the batcher; `Batcher.open_lane` makes it. All methods are thread-safe."""

    def __init__(self, batcher: Batcher, when_full: WhenFull, depth: int) -> None:
        self.when_full = when_full
        self.depth = depth
        self.jobs: deque[Job] = deque()
        self.in_flight: Job | None = None
        self.live = False
        self.offered = self.overtaken = 0  # jobs so far
        self._batcher = batcher

    def set_policy(self, when_full: WhenFull, depth: int) -> None:
        """Change the policy of a full lane, and how many jobs may wait; jobs that wait stay."""
        self._batcher._set_policy(self, when_full, depth)

    def set_live(self, live: bool) -> None:
        """Set whether jobs are to be expected; batches wait for live lanes only."""
        self._batcher._set_live(self, live)

    def offer(self, job: Job, stopping: threading.Event) -> bool:
        """Queue a job; return whether it was taken.

        With `WhenFull.WAIT`, block until there is room, `stopping` is set, or the lane or the batcher closes.
        """
        return self._batcher._offer(self, job, stopping)

    def idle(self) -> bool:
        """Return whether no job waits or is in flight."""
        return self._batcher._idle(self)

    def close(self) -> list[Job]:
        """Take no more jobs; return those that were not started. The job in flight is still completed."""
        return self._batcher._close(self)


class Batcher:
    """The queue between camera threads and API requests, and inference workers. All methods are thread-safe.

    Args:
        max_batch: Most jobs in one batch; 1 where batching does not pay (CPU).
        max_wait_s: Longest time in seconds that a batch waits for more jobs.
        max_pictures: Most single pictures that wait.
        clock: Returns monotonic seconds.
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
        self._began_s: dict[Job, float] = {}  # when each job in flight was taken
        self._frames_s = self._pictures_s = 0.0  # workers' time so far
        self._frame_cost_s = self._picture_cost_s = _LEAST_COST_S  # of one, on average
        self._owed_s = 0.0  # workers' time that pictures had more than frames, of what both wanted
        self._large: Job | None = None  # in flight
        self._closed = False

    def open_lane(self, when_full: WhenFull, depth: int) -> Lane:
        """Return a new lane, in which at most `depth` jobs wait."""
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
        """Return the next batch, of one canvas shape; empty if no job came in time, or the batcher is closed."""
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
        """Note that a batch is finished, so that the next frames of its cameras can be taken."""
        with self._changed:
            self._account(batch)
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
        """Take no more jobs; return those that were not started."""
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
        """Return the number of frames and the number of pictures that wait."""
        with self._changed:
            return sum(len(lane.jobs) for lane in self._lanes), len(self._pictures)

    def spent(self) -> tuple[float, float]:
        """Return the seconds that workers have spent on frames and on pictures so far."""
        with self._changed:
            return self._frames_s, self._pictures_s

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
            lane.offered += 1
            lane.overtaken += len(dropped)
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
            picture = self._next_picture()
            both = picture is not None and bool(self._ready)
            if both and self._owed_s >= 0:
                picture = None
            if picture is None and not self._ready:
                break
            job = picture or self._ready[0].jobs[0]
            if job.shape is None:
                if batch:  # a job without a shape yet is computed alone
                    break
            elif shape is None:
                shape = job.shape
            elif shape != job.shape:
                break
            # Accounts change only now, so that a lane or picture whose shape does not fit keeps its turn.
            if both:
                self._owed_s += -self._frame_cost_s if picture is None else self._picture_cost_s
            batch.append(job)
            self._began_s[job] = self._clock()
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

    def _account(self, batch: Sequence[Job]) -> None:
        now_s = self._clock()
        for job in batch:
            each_s = (now_s - self._began_s.pop(job, now_s)) / len(batch)
            cost_s = _COST_WEIGHT * max(each_s, _LEAST_COST_S)
            if job in self._in_flight:
                self._frames_s += each_s
                self._frame_cost_s = (1 - _COST_WEIGHT) * self._frame_cost_s + cost_s
            else:
                self._pictures_s += each_s
                self._picture_cost_s = (1 - _COST_WEIGHT) * self._picture_cost_s + cost_s

    def _next_picture(self) -> Job | None:
        """Return the picture that has waited longest; large ones are left out while a large one is in flight."""
        return next((picture for picture in self._pictures if self._large is None or not picture.is_large), None)
