"""Live pictures of the cameras, made while somebody looks.

A picture costs a few milliseconds, so it is made in a thread of its own, once for all who want the same, and no more
often than the one among them who wants the most. Between that thread and the inference workers stands the newest result
of each camera; one that is not taken in time is replaced. A result holds a picture of the decoder, so it is kept only
for cameras that somebody looks at.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from visaged.pipelines.live.pace import Pace
from visaged.pipelines.live.picture import Picture, View, pictures_of
from visaged.pipelines.pictures.recent import RecentFaces
from visaged.pipelines.records import FrameResult
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.progress import beat
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)

_LOOK_S = 0.5
# The share of this machine's processors that pictures may take, so that analysing goes before looking.
_SHARE = 0.25


@dataclass(eq=False)
class Watch:
    """Somebody who looks.

    Attributes:
        cameras: Names of the cameras; None for all, also those that are added later.
        view: What is wanted.
        interval_s: Least seconds from picture to picture of a camera; 0 for every frame.
        on_picture: Takes a picture, in the thread that makes them; must return at once.
        on_removed: Called with the name of a camera of `cameras` that was removed; must return at once.
        once: Whether one picture is all that is wanted.
    """

    cameras: frozenset[str] | None
    view: View
    interval_s: float
    on_picture: Callable[[Picture], None]
    on_removed: Callable[[str], None] = lambda name: None
    once: bool = False
    _paces: dict[str, Pace] = field(default_factory=dict, repr=False)

    def pace(self, camera: str) -> Pace:
        """Return the pace at which the pictures of a camera go here."""
        return self._paces.setdefault(camera, Pace())


@dataclass(slots=True)
class _Shared:
    """A picture that is made for all who want the same: its pace, and the number of the frame that it last showed."""

    pace: Pace = field(default_factory=Pace)
    number: int = 0


@dataclass(slots=True)
class _Newest:
    """The newest result of a camera, and how many there were before it."""

    result: FrameResult
    number: int


class LivePictures:
    """A frame sink, and the body of the thread that makes pictures of what it is given. Any thread may call any method.

    Args:
        metrics: Counts pictures, and their cost.
        blur: Whether faces are made unrecognisable.
        cores: Processors of this machine; None to ask the system.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        metrics: Metrics,
        blur: bool = False,
        cores: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._recent = RecentFaces() if blur else None
        self._most_busy = min(1.0, _SHARE * (cores or os.cpu_count() or 1))
        self._clock = clock
        self._changed = threading.Condition()
        self._watches: dict[Watch, None] = {}  # in the order in which they came
        self._everywhere = 0  # how many of them look at all cameras
        self._watched: dict[str, int] = {}  # how many of the others look at a camera
        self._newest: dict[str, _Newest] = {}  # the camera that waits for longest comes first
        self._shared: dict[tuple[str, View], _Shared] = {}
        self._count = 0
        self._complain = LimitedLog(log)

    def __call__(self, result: FrameResult) -> None:
        """Take a result; it is kept if somebody looks at its camera."""
        if self._recent is not None:
            self._recent.note(result)
        if not self._watches:  # read without the lock: whoever has only just come gets the next frame
            return
        camera = result.frame.camera
        with self._changed:
            if not self._is_watched(camera):
                return
            self._count += 1
            newest = self._newest.get(camera)
            if newest is None:
                self._newest[camera] = _Newest(result, self._count)
            else:  # in its place, so that a fast camera does not lose its turn again and again
                newest.result, newest.number = result, self._count
            self._changed.notify()

    def add(self, watch: Watch) -> None:
        """Have pictures made for somebody, from the next frame on; `remove` must follow."""
        with self._changed:
            self._watches[watch] = None
            if watch.cameras is None:
                self._everywhere += 1
            for camera in watch.cameras or ():
                self._watched[camera] = self._watched.get(camera, 0) + 1

    def remove(self, watch: Watch) -> None:
        """Make no more pictures for somebody; may be called more than once."""
        with self._changed:
            if watch not in self._watches:
                return
            del self._watches[watch]
            if watch.cameras is None:
                self._everywhere -= 1
            for camera in watch.cameras or ():
                self._watched[camera] -= 1
                if not self._watched[camera]:
                    del self._watched[camera]
            wanted = {one.view for one in self._watches}
            self._shared = {
                key: one for key, one in self._shared.items() if key[1] in wanted and self._is_watched(key[0])
            }
            self._newest = {camera: one for camera, one in self._newest.items() if self._is_watched(camera)}

    def forget(self, camera: str) -> None:
        """Forget a camera that was removed, and tell those who look at it. No result of it may follow."""
        with self._changed:
            lookers = [watch for watch in self._watches if camera in (watch.cameras or ())]
            self._newest.pop(camera, None)
            self._shared = {key: one for key, one in self._shared.items() if key[0] != camera}
            for watch in self._watches:
                watch._paces.pop(camera, None)
        if self._recent is not None:
            self._recent.forget(camera)
        for watch in lookers:
            watch.on_removed(camera)

    def run(self, stopping: threading.Event) -> None:
        """Make pictures until `stopping` is set."""
        while not stopping.is_set():
            beat()
            taken = self._take()
            if taken is None:
                continue
            began_s = self._clock()
            self._make(*taken)
            del taken  # it holds a picture of the decoder
            busy_s = self._clock() - began_s
            stopping.wait(min(_LOOK_S, busy_s * (1 / self._most_busy - 1)))

    def _is_watched(self, camera: str) -> bool:
        return self._everywhere > 0 or camera in self._watched

    def _take(self) -> tuple[FrameResult, dict[View, list[Watch]]] | None:
        """Wait for a frame of which pictures are due; return it with those who get them, or None after a while."""
        with self._changed:
            now_s, wait_s = self._clock(), _LOOK_S
            for camera, newest in list(self._newest.items()):
                due, camera_wait_s = self._due(camera, newest.number, now_s)
                if due:
                    # It goes to the end of the queue, or out of it if everybody has it now.
                    del self._newest[camera]
                    if camera_wait_s is not None:
                        self._newest[camera] = newest
                    return newest.result, due
                if camera_wait_s is None:
                    del self._newest[camera]
                else:
                    wait_s = min(wait_s, camera_wait_s)
            self._changed.wait(wait_s)
            return None

    def _due(self, camera: str, number: int, now_s: float) -> tuple[dict[View, list[Watch]], float | None]:
        """Return the views of a frame that are due, with who gets them, and the wait for others; None for no others."""
        views: dict[View, list[Watch]] = {}
        for watch in self._watches:
            if watch.cameras is None or camera in watch.cameras:
                views.setdefault(watch.view, []).append(watch)
        due: dict[View, list[Watch]] = {}
        waits_s: list[float] = []
        for view, watches in views.items():
            shared = self._shared.setdefault((camera, view), _Shared())
            if shared.number == number:
                continue
            interval_s = min(watch.interval_s for watch in watches)
            own_s = [watch.pace(camera).wait_s(now_s, watch.interval_s) for watch in watches]
            view_wait_s = max(shared.pace.wait_s(now_s, interval_s), min(own_s))
            if view_wait_s > 0:
                waits_s.append(view_wait_s)
                continue
            shared.pace.passed(now_s, interval_s)
            shared.number = number
            due[view] = [watch for watch, one_s in zip(watches, own_s, strict=True) if one_s <= 0]
            for watch in due[view]:
                watch.pace(camera).passed(now_s, watch.interval_s)
        return due, min(waits_s, default=None)

    def _make(self, result: FrameResult, due: dict[View, list[Watch]]) -> None:
        hidden = None if self._recent is None else self._recent.boxes(result)
        camera, began_s = result.frame.camera, self._clock()
        try:
            for picture in pictures_of(result, due, hidden, self._clock):
                done_s = self._clock()
                self._metrics.live_encode.observe(done_s - began_s)
                self._metrics.count_live_picture(camera)
                began_s = done_s
                self._hand_out(picture, due[picture.view])
        except Exception as error:  # the next frame may do better, and other cameras go on
            self._complain("no live picture of a frame of camera %s: %s: %s", camera, type(error).__name__, error)
            log.debug("the live picture that failed", exc_info=error)

    def _hand_out(self, picture: Picture, watches: Collection[Watch]) -> None:
        for watch in watches:
            if watch.once:
                self.remove(watch)
            watch.on_picture(picture)
