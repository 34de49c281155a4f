"""What a node of a fleet may publish: that of cameras for which it has a lease.

On a single machine there is no fence, and all is published in the epoch of the process.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol

from visaged.pipelines.outputs.messages import Message, OpenTrack


class Fence(Protocol):
    """The leases of a node. Its methods are called for every message, from any thread, and must be quick."""

    def epoch(self, camera: str) -> int | None:
        """Return the epoch in which a camera is published; None if the node publishes nothing of it.

        Time does not count here: the lease may have ended.
        """
        ...

    def holds(self, camera: str, epoch: int) -> bool:
        """Return whether the lease of an epoch lasts, so that its messages may be published now."""
        ...


class Keepers(Protocol):
    """Those who keep state of cameras: what is retained at the broker, open tracks on disk."""

    def released(self, camera: str, epoch: int) -> None:
        """Let what is retained of a camera to the owner of a later epoch; never blocks."""
        ...

    def ended_elsewhere(self, message: Message) -> None:
        """Note that a track has ended, by an event that another node publishes, and this one does not; never blocks."""
        ...


@dataclass(frozen=True, slots=True)
class Begun:
    """A camera is published from now on, in a new epoch or again.

    Attributes:
        camera: Name of the camera.
        epoch: Its epoch.
        orphans: Tracks of lost owners that are to be ended.
    """

    camera: str
    epoch: int
    orphans: tuple[OpenTrack, ...] = ()


@dataclass(frozen=True, slots=True)
class Released:
    """An epoch of a camera is over, or was interrupted: its tracks are to be ended.

    Attributes:
        camera: Name of the camera.
        epoch: The epoch.
        ended: Tracks that the new owner ends.
        is_over: Whether nothing is published in this epoch any more; otherwise it goes on afterwards.
    """

    camera: str
    epoch: int
    ended: frozenset[int] = frozenset()
    is_over: bool = True


@dataclass(frozen=True, slots=True)
class Published:
    """What was published of a camera in an epoch.

    Attributes:
        begun: Whether its beginning was handled: the ends of orphans have been composed.
        seq: Number of the newest event; 0 if there was none.
        open: The newest event of each track that has begun and not ended.
    """

    begun: bool = False
    seq: int = 0
    open: tuple[Message, ...] = ()


@dataclass(slots=True)
class _Epoch:
    begun: bool = False
    seq: int = 0
    open: dict[int, Message] = field(default_factory=dict)


class EventLedger:
    """What was published of each camera in each epoch. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epochs: dict[tuple[str, int], _Epoch] = {}

    def begin(self, camera: str, epoch: int) -> None:
        """Note that the beginning of an epoch was handled."""
        with self._lock:
            self._epochs.setdefault((camera, epoch), _Epoch()).begun = True

    def note(self, message: Message) -> None:
        """Note an event that was composed."""
        with self._lock:
            one = self._epochs.setdefault((message.camera, message.epoch), _Epoch())
            one.seq = message.seq
            if message.track is None:
                return
            if message.is_end:
                one.open.pop(message.track, None)
            else:
                one.open[message.track] = message

    def drop(self, camera: str, epoch: int) -> None:
        """Forget an epoch."""
        with self._lock:
            self._epochs.pop((camera, epoch), None)

    def of(self, camera: str, epoch: int) -> Published | None:
        """Return what was published in an epoch; None if nothing is known of it."""
        with self._lock:
            one = self._epochs.get((camera, epoch))
            return None if one is None else Published(one.begun, one.seq, tuple(one.open.values()))
