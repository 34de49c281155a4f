"""How many faces are in front of each camera, from the events of tracks."""

from __future__ import annotations

import time
from collections.abc import Callable

from visaged.pipelines.records import CameraPresence, TrackEvent


class Presences:
    """Counts the tracks that have begun and not ended, for the cameras that there are.

    Events of a camera that has not begun, or was removed, do not count: nobody would clear what is told of it. One
    thread at a time may use this.

    Args:
        wall: Returns seconds since 1970.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._tracks: dict[str, set[int]] = {}
        # When the number of a camera changed last, where that is not told yet.
        self._changed: dict[str, float] = {}

    def __bool__(self) -> bool:
        """Return whether there is something to `take`."""
        return bool(self._changed)

    def begin(self, camera: str) -> None:
        """Count a camera's faces from now on, beginning with none; without effect if they are counted already."""
        if camera not in self._tracks:
            self._tracks[camera] = set()
            self._changed[camera] = self._wall()

    def note(self, event: TrackEvent) -> None:
        """Count a track that begins or ends."""
        tracks, track = self._tracks.get(event.camera), event.face.track
        if tracks is None or track is None:
            return
        before = len(tracks)
        if event.kind == "begin":
            tracks.add(track)
        elif event.kind == "end":
            tracks.discard(track)
        if len(tracks) != before:
            self._changed[event.camera] = self._wall()

    def forget(self, camera: str) -> None:
        """Count a camera's faces no longer."""
        self._tracks.pop(camera, None)
        self._changed.pop(camera, None)

    def take(self) -> list[CameraPresence]:
        """Return the newest number of every camera for which it has changed since the last call."""
        changed, self._changed = self._changed, {}
        return [CameraPresence(camera, len(self._tracks[camera]), since) for camera, since in changed.items()]
