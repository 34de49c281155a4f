"""Runs of a history on one state folder, without a daemon, and with clocks that a test sets."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from prometheus_client import CollectorRegistry

from tests.support.messages import event, result
from tests.support.spool_bench import EPOCH, Clock
from visaged.models.surface import ImageSurface
from visaged.models.types import Image
from visaged.pipelines.history.history import History, HistoryPlan
from visaged.pipelines.history.query import Filter
from visaged.pipelines.outputs.messages import Composer, Message
from visaged.pipelines.records import AttributeValue, EventKind, Face, FrameResult, Shot, TrackEvent
from visaged.pipelines.runtime.metrics import Metrics


class Bench:
    """Runs of a daemon, as far as the history sees them, on one state folder; None for memory alone."""

    def __init__(self, folder: Path | None, **plan: Any) -> None:
        self.folder = folder
        self.plan = plan
        self.clock = Clock()
        self.clock.wall_s = float(int(self.clock.wall_s))  # messages have whole milliseconds
        self.epoch = EPOCH
        self.published: list[Message] = []
        self.start()

    def start(self, ended: Container[tuple[str, int, int]] = (), **plan: Any) -> History:
        """Begins a run; the one before, if any, was killed unless `end` was called."""
        self.plan |= plan
        self.epoch += 60_000
        self.metrics = Metrics(CollectorRegistry())
        self.history = History(
            HistoryPlan(**self.plan), self.folder, self.epoch, self.published.append, self.metrics,
            lambda: self.clock.now_s, lambda: self.clock.wall_s, ended,
        )  # fmt: skip
        self.composer = Composer("node", self.epoch, lambda: self.clock.now_s)
        return self.history

    def end(self) -> None:
        """Ends a run in order."""
        stopped = Stopped()
        if self.history.store is not None:
            self.history.store.run(stopped)  # type: ignore[arg-type]

    def tell(
        self,
        kind: EventKind = "update",
        track: int = 1,
        camera: str = "door",
        look: Shot | None = None,
        at: float | None = None,
        **attributes: str | float,
    ) -> int:
        """Tells an event, seen now or at a time; returns its number."""
        at = self.clock.wall_s if at is None else at
        base = event(track, camera, kind, "lost" if kind == "end" else None)
        shot = look or Shot(at, base.best.box, base.best.landmarks, 0.9, 0.5)
        newest = Shot(at, shot.box, shot.landmarks, 0.9, 0.5)
        known = {name: AttributeValue(value, 0.9) for name, value in attributes.items()}
        told = TrackEvent(
            camera, kind, Face(newest, track, known), shot, at - 1.0, 1.0, 3, self.clock.now_s, base.reason
        )
        self.history.output.offer(self.composer.event(told))
        self.history.output.turn()
        return self.history.newest

    def see(self, image: Image, *shots: Shot, first: int = 1, camera: str = "door") -> None:
        """Shows a frame with the best looks at tracks from a number on."""
        frame = result(camera).frame
        shown = replace(frame, surface=ImageSurface(image))
        faces = [Face(shot, first + index, is_best=True) for index, shot in enumerate(shots)]
        self.history.output.sink(FrameResult(shown, faces, [], 0.0, 0.0))

    def write(self, seconds: float = 1.0) -> None:
        """Lets time pass, and the store write."""
        self.clock.advance(seconds)
        assert self.history.store is not None
        self.history.store.turn()

    def documents(self, limit: int = 1000, **wanted: Any) -> list[dict[str, Any]]:
        """All events that pass a filter."""
        return [orjson.loads(one) for one in self.history.page(Filter(**wanted), None, limit)[0]]

    def disk(self) -> bytes:
        """All bytes of all files of the state folder."""
        assert self.folder is not None
        return b"".join(path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file())


class Stopped:
    """An event that is set."""

    def is_set(self) -> bool:
        return True


def shot_at(box: tuple[float, ...], at: float) -> Shot:
    """A look at a face."""
    corners = np.array(box, np.float32)
    return Shot(at, corners, np.tile(corners[:2] + 2, (5, 1)), 0.9, 0.5)
