"""Frames that are ready, handed to whoever is free to compute.

Between camera threads and inference callers stands one small lane for each camera, with a policy of its own for what
happens when frames come faster than they are taken. A camera has at most one frame in flight: that keeps its order
without locks, and shares the machine fairly, because a camera queues up again only when its last frame is done.
Pictures of the HTTP API have a lane too and are served in turn with the cameras.

A batch is filled from what is ready. Waiting for more, where batches pay (on a GPU), has a bound and is for live
cameras only that have no frame in flight; nobody waits for a dead camera.
"""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from visaged.models.alignment import Pixels
from visaged.models.preprocess import Canvas
from visaged.models.search import Look
from visaged.pipelines.frames import Frame


class WhenFull(enum.Enum):
    """What a lane does with a frame for which it has no room."""

    DROP_OLDEST = "drop_oldest"
    """Live cameras: the newest frame wins, the depth is one."""
    WAIT = "wait"
    """Files: the reader waits; nothing is lost."""


@dataclass(frozen=True, slots=True)
class View:
    """A picture as the networks look at it.

    Attributes:
        looks: The canvases that the detector searches, at least one, largest first.
        pixels: The full picture.
    """

    looks: Sequence[Look]
    pixels: Pixels


@dataclass(slots=True, eq=False)
class Picture:
    """A single picture of the HTTP API.

    Attributes:
        view: What the networks look at; None until `prepare` was called.
        attributes: The attributes wanted.
        min_confidence: Of the faces wanted.
        deadline_s: Monotonic seconds after which nobody waits for the answer.
        prepare: Makes the view, in the thread that computes; whatever it raises is the answer.
        future: Receives the answer; its type is the inference stage's.
    """

    view: View | None
    attributes: frozenset[str]
    min_confidence: float
    deadline_s: float
    prepare: Callable[[], View] | None = None
    future: Future[Any] = field(default_factory=Future)

    @property
    def looks(self) -> Sequence[Look]:
        """The view's."""
        assert self.view is not None
        return self.view.looks

    @property
    def canvas(self) -> Canvas:
        """The largest of the view."""
        return self.looks[0].canvas

    @property
    def is_large(self) -> bool:
        """Whether searching it takes so long, and so much memory, that one such picture at a time is enough."""
        pixels = 0 if self.view is None else sum(look.canvas.width * look.canvas.height for look in self.view.looks)
        return pixels > LARGE_PIXELS

    @property
    def pixels(self) -> Pixels:
        """The view's."""
        assert self.view is not None
        return self.view.pixels


LARGE_PIXELS = 4_000_000
"""Of a picture's canvases together: more keep an inference caller from the cameras for a tenth of a second and longer.
All callers at work on such pictures left a camera one frame in six seconds."""

Item = Frame | Picture


class Overloaded(Exception):
    """The lane of pictures is full: try again in a moment."""


@dataclass(slots=True)
class _Lane:
    camera: str
    when_full: WhenFull
    depth: int
    on_drop: Callable[[Frame], None]
    frames: deque[Frame] = field(default_factory=deque)
    in_flight: bool = False
    live: bool = False


class Batcher:
    """The meeting point of camera threads, API calls and inference callers. All methods are thread-safe.

    Args:
        max_batch: Most items of one batch; 1 where batching does not pay (CPU).
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
        self._lanes: dict[str, _Lane] = {}
        self._ready: deque[_Lane] = deque()  # lanes with a frame and none in flight, longest waiting first
        self._pictures: deque[Picture] = deque()
        self._picture_next = False
        self._large: Picture | None = None  # in flight
        self._closed = False

    def add_camera(self, camera: str, when_full: WhenFull, depth: int, on_drop: Callable[[Frame], None]) -> None:
        """Open a camera's lane; `on_drop` is called with each frame that it loses."""
        with self._changed:
            self._lanes[camera] = _Lane(camera, when_full, depth, on_drop)

    def set_policy(self, camera: str, when_full: WhenFull, depth: int) -> None:
        """Change what a camera's lane does when it is full; what waits there stays."""
        with self._changed:
            lane = self._lanes[camera]
            lane.when_full, lane.depth = when_full, depth
            self._changed.notify_all()

    def set_live(self, camera: str, live: bool) -> None:
        """Say whether frames are to be expected from a camera; batches wait for live ones only."""
        with self._changed:
            self._lanes[camera].live = live
            self._changed.notify_all()

    def offer(self, frame: Frame, stopping: threading.Event) -> bool:
        """Hand a frame over; return whether it was taken.

        A lane that waits blocks until there is room, `stopping` is set, or the batcher closes.
        """
        with self._changed:
            lane = self._lanes[frame.camera]
            while lane.when_full is WhenFull.WAIT and len(lane.frames) >= lane.depth and not self._closed:
                if stopping.is_set():
                    return False
                self._changed.wait(0.1)
            if self._closed:
                return False
            waited = bool(lane.frames)
            dropped = []
            while len(lane.frames) >= lane.depth:
                dropped.append(lane.frames.popleft())
            lane.frames.append(frame)
            if not waited and not lane.in_flight:
                self._ready.append(lane)
                self._changed.notify_all()
        for old in dropped:
            lane.on_drop(old)
        return True

    def submit(self, picture: Picture) -> None:
        """Queue a picture.

        Raises:
            Overloaded: Too many wait already, or the daemon is stopping.
        """
        with self._changed:
            if self._closed or len(self._pictures) >= self._max_pictures:
                raise Overloaded
            self._pictures.append(picture)
            self._changed.notify_all()

    def take(self, timeout_s: float) -> list[Item]:
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

    def done(self, batch: Sequence[Item]) -> None:
        """Say that a batch is finished: its cameras may have their next frame computed."""
        with self._changed:
            for item in batch:
                if isinstance(item, Frame):
                    lane = self._lanes[item.camera]
                    lane.in_flight = False
                    if lane.frames:
                        self._ready.append(lane)
                elif item is self._large:
                    self._large = None
            self._changed.notify_all()

    def close(self) -> list[Item]:
        """Accept nothing more and return what had not been started."""
        with self._changed:
            self._closed = True
            rest: list[Item] = [*self._pictures, *(frame for lane in self._lanes.values() for frame in lane.frames)]
            self._pictures.clear()
            self._ready.clear()
            for lane in self._lanes.values():
                lane.frames.clear()
            self._changed.notify_all()
        return rest

    def waiting(self) -> tuple[int, int]:
        """Return how many frames and how many pictures wait."""
        with self._changed:
            return sum(len(lane.frames) for lane in self._lanes.values()), len(self._pictures)

    def idle(self, camera: str) -> bool:
        """Return whether a camera has no frame waiting or in flight."""
        with self._changed:
            lane = self._lanes[camera]
            return not lane.frames and not lane.in_flight

    def _fill(self) -> None:
        deadline = self._clock() + self._max_wait_s
        while not self._closed and len(self._ready) + len(self._pictures) < self._max_batch:
            expected = any(lane.live and not lane.in_flight and not lane.frames for lane in self._lanes.values())
            left = deadline - self._clock()
            if not expected or left <= 0:
                return
            self._changed.wait(left)

    def _collect(self) -> list[Item]:
        batch: list[Item] = []
        shape: tuple[int, int] | None = None
        while len(batch) < self._max_batch:
            # Pictures and cameras in turn: neither starves the other.
            picture = self._next_picture()
            if picture is not None and self._ready and not self._picture_next:
                picture = None
            if picture is None and not self._ready:
                break
            if picture is not None and picture.view is None:
                if not batch:  # what has no shape yet is computed alone
                    self._picture_next = False
                    self._pictures.remove(picture)
                    batch.append(picture)
                break
            canvas = self._ready[0].frames[0].canvas if picture is None else picture.canvas
            if shape is None:
                shape = (canvas.height, canvas.width)
            elif shape != (canvas.height, canvas.width):
                break
            self._picture_next = picture is None  # only now: who is left for another shape is first next time
            if picture is not None:
                if picture.is_large:
                    self._large = picture
                self._pictures.remove(picture)
                batch.append(picture)
                continue
            lane = self._ready.popleft()
            lane.in_flight = True
            batch.append(lane.frames.popleft())
            if lane.when_full is WhenFull.WAIT:
                self._changed.notify_all()
        return batch

    def _next_picture(self) -> Picture | None:
        """Return the picture that has waited longest, but for large ones while one of these is in flight."""
        return next((picture for picture in self._pictures if self._large is None or not picture.is_large), None)
