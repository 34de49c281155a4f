"""Takes events and looks from the pipeline, and makes of them what is kept, told to listeners, and published.

The sink is called in the threads of inference workers before the messages of the same result are composed. So one
queue, in order, brings the look at a face before the event that it belongs to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import orjson

from visaged.pipelines.history.crops import Crops, cut
from visaged.pipelines.history.hub import Hub, Item
from visaged.pipelines.history.kept import Kept, Numbers, kept_from
from visaged.pipelines.history.store import Store
from visaged.pipelines.outputs.documents import timestamp
from visaged.pipelines.outputs.messages import Kind, Message
from visaged.pipelines.outputs.output import OutputState
from visaged.pipelines.pictures.recent import RecentFaces
from visaged.pipelines.records import Face, FrameResult
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.progress import beat
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)

_MOST_EVENTS = 10_000
# Pictures of the decoder are few and large, and it waits for them: 8 of 4K have 100 MB.
_MOST_PICTURES = 8
_WAIT_S = 0.5


class _Looks(NamedTuple):
    """The best looks of a frame."""

    result: FrameResult
    faces: Sequence[Face]


class _Gone(NamedTuple):
    """A camera was removed."""

    camera: str


class _Deleted(NamedTuple):
    """Events were deleted."""

    gone: Callable[[str, int, int], bool]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What pictures are made for.

    Attributes:
        kept: Whether they are kept with the events.
        published: Whether they are published with the events.
        blurred: Whether faces in them are blurred.
    """

    kept: bool = False
    published: bool = False
    blurred: bool = False

    @property
    def any(self) -> bool:
        """Whether pictures are made."""
        return self.kept or self.published


class HistoryOutput:
    """An output that keeps events, and hands them to listeners.

    Args:
        wishes: What pictures are made for.
        numbers: Numbers the events.
        hub: Hands events to listeners.
        store: Keeps events; None for none.
        publish: Takes messages with pictures.
        metrics: Counts what is lost.
        clock: Returns monotonic seconds.
    """

    name = "history"
    kinds: frozenset[Kind] = frozenset(("events", "status"))

    def __init__(
        self,
        wishes: Wishes,
        numbers: Numbers,
        hub: Hub,
        store: Store | None,
        publish: Callable[[Message], None],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wishes = wishes
        self._numbers = numbers
        self._hub = hub
        self._store = store
        self._publish = publish
        self._lost = metrics.history_lost
        self._recent = RecentFaces() if wishes.blurred else None
        self._clock = clock
        self._complain = LimitedLog(log)
        self._crops = Crops()
        self._changed = threading.Condition()
        self._queue: deque[Message | _Looks | _Gone | _Deleted] = deque()
        self._events = self._pictures = 0
        self._until_s = float("inf")
        for cause in ("busy", "busy_pictures", "failed_pictures", "overflow", "shutdown"):
            self._lost.labels(cause)

    def sink(self, result: FrameResult) -> None:
        """Take the best looks of a frame; never blocks, and may be called from any thread."""
        if self._recent is not None:
            self._recent.note(result)
        faces = [face for face in result.faces if face.is_best and face.track is not None]
        if faces and self._wishes.any:
            self._put(_Looks(result, faces))

    def offer(self, message: Message) -> None:
        """Take a message; never blocks, and may be called from any thread."""
        if message.kind == "events":
            self._put(message)
        self._hub.changed()

    def forget(self, camera: str) -> None:
        """Forget a camera that was removed; never blocks."""
        if self._recent is not None:
            self._recent.forget(camera)
        self._put(_Gone(camera))
        self._hub.changed()

    def drop(self, gone: Callable[[str, int, int], bool]) -> None:
        """Forget pictures of events that are deleted; never blocks. See `Crops.drop`."""
        self._put(_Deleted(gone))

    def drain(self, until_s: float) -> None:
        """Set the monotonic time at which `run` must end after a request to stop."""
        self._until_s = until_s

    def state(self) -> OutputState:
        """Return the state of the output; it is never away."""
        return OutputState(True, "", "history")

    def run(self, stopping: threading.Event) -> None:
        """Handle what comes until `stopping` is set and nothing waits, or the time given to `drain` is over."""
        while not (stopping.is_set() and (not self._queue or self._clock() >= self._until_s)):
            beat()
            self.turn(_WAIT_S)

    def turn(self, wait_s: float = 0.0) -> None:
        """Handle what has come; wait for that if nothing has."""
        with self._changed:
            if not self._queue:
                self._changed.wait(wait_s)
            some = list(self._queue)
            self._queue.clear()
            self._events = self._pictures = 0
        for one in some:
            beat()
            match one:
                case _Looks():
                    try:
                        self._cut(one)
                    except Exception as error:  # an event without a picture is better than none
                        self._lost.labels("failed_pictures").inc()
                        self._complain(
                            "no picture of the best looks in a frame of camera %s: %s: %s",
                            one.result.frame.camera, type(error).__name__, error,
                        )  # fmt: skip
                case _Gone():
                    self._crops.forget(one.camera)
                case _Deleted():
                    self._crops.drop(one.gone)
                case Message():
                    self._tell(one)

    def _put(self, one: Message | _Looks | _Gone | _Deleted) -> None:
        """Add to the queue; what is too much is lost, the oldest of its kind first."""
        lost: type | None = None
        with self._changed:
            self._queue.append(one)
            if isinstance(one, _Looks):
                self._pictures += 1
                lost = _Looks if self._pictures > _MOST_PICTURES else None
                self._pictures -= lost is not None
            elif isinstance(one, Message):
                self._events += 1
                lost = Message if self._events > _MOST_EVENTS else None
                self._events -= lost is not None
            if lost is not None:
                del self._queue[next(i for i, old in enumerate(self._queue) if isinstance(old, lost))]
            self._changed.notify()
        if lost is not None:
            self._lost.labels("busy_pictures" if lost is _Looks else "busy").inc()

    def _cut(self, looks: _Looks) -> None:
        result = looks.result
        surface, camera = result.frame.surface, result.frame.camera
        blurred = () if self._recent is None else self._recent.boxes(result)
        for face in looks.faces:
            assert face.track is not None
            image = cut(surface, face.shot.box, blurred)
            if image is not None:
                self._crops.add(camera, face.track, timestamp(face.shot.captured_at), image)

    def _tell(self, message: Message) -> None:
        body = message.encode(self._clock(), replayed=False)
        document = orjson.loads(body)
        event = kept_from(self._numbers.take(), document, body, self._clock())
        number, jpeg = self._crops.picture(
            event.camera,
            event.track,
            document["best_shot"]["captured_at"],
            event.number,
            message.is_end,
            event.at_ms,
        )
        if self._wishes.kept and self._store is not None:
            event = replace(event, picture=number, jpeg=jpeg)
        if self._store is not None:
            self._store.add(event)
        self._hub.publish(_item(event))
        if jpeg is not None and self._wishes.published:
            self._publish(
                Message("snapshot", event.camera, message.seq, message.epoch, jpeg, message.captured_s,
                        message.captured_at, event.track, message.is_end)
            )  # fmt: skip


def _item(event: Kept) -> Item:
    return Item(event.number, event.camera, event.kind, event.at_ms, event.document)
