"""Runs of a spool on one state folder, without a daemon, and with clocks that a test sets."""

from __future__ import annotations

import shutil
import time
from collections.abc import Container
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from tests.support.messages import event
from visaged.pipelines.outputs.messages import Composer, Message
from visaged.pipelines.outputs.outbox import Envelope
from visaged.pipelines.outputs.spool.config import SpoolConfig
from visaged.pipelines.outputs.spool.spool import Spool
from visaged.pipelines.runtime.metrics import Metrics

EPOCH = 1_700_000_000_000


class Clock:
    """A monotonic clock and a wall clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.wall_s = time.time()

    def advance(self, seconds: float) -> None:
        """Lets time pass on both."""
        self.now_s += seconds
        self.wall_s += seconds


class Bench:
    """Runs of a daemon, as far as the spool sees them, on one state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.lost: dict[str, int] = {}
        self.epoch = EPOCH
        self.config: dict[str, Any] = {}
        self.memory = (100_000, 100_000_000)
        self.spool, self.composer = self.start()

    def start(self, ended: Container[tuple[str, int, int]] = ()) -> tuple[Spool, Composer]:
        """Begins a run; the one before, if any, has crashed."""
        self.epoch += 60_000
        self.metrics = Metrics(CollectorRegistry())
        self.spool = Spool(
            self.folder, SpoolConfig(**self.config), self.memory, self.epoch, self._lose, self.metrics,
            lambda: self.clock.now_s, lambda: self.clock.wall_s, ended,
        )  # fmt: skip
        self.composer = Composer("node", self.epoch)
        return self.spool, self.composer

    def put(self, kind: Any = "update", track: int = 1, camera: str = "door") -> Message:
        """Puts an event."""
        message = self.composer.event(event(track, camera, kind, "lost" if kind == "end" else None))
        self.spool.put(message)
        return message

    def send(self, limit: int = 1000) -> list[Envelope]:
        """Sends all that is due, and reads on from the disk, until nothing is due."""
        sent: list[Envelope] = []
        while True:
            self.spool.turn()
            some = self.spool.pending(limit)
            if not some:
                return sent
            sent += some

    def _lose(self, cause: str, count: int) -> None:
        self.lost[cause] = self.lost.get(cause, 0) + count


def ids(envelopes: list[Envelope]) -> list[tuple[int, int]]:
    """The run and number of each."""
    return [(e.message.epoch, e.message.seq) for e in envelopes]


def block(bench: Bench) -> None:
    """Makes the state folder unusable, whoever runs the test."""
    shutil.rmtree(bench.folder)
    bench.folder.write_text("no folder")
    bench.clock.advance(5)
    bench.spool.turn()


def unblock(bench: Bench) -> None:
    """Makes the folder usable again, empty."""
    bench.folder.unlink()
    bench.folder.mkdir()
    bench.clock.advance(5)
