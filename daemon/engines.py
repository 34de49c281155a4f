"""Builds TensorRT's engines while the daemon runs: until one is there, CUDA computes what it is for.

Building takes minutes, after each change of driver, TensorRT or network; nobody's cameras should stand still for that.
The log, `/readyz` and systemd's status line tell how far it is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from visaged.models.engines import Task
from visaged.models.nvidia.tensorrt import EngineCache

log = logging.getLogger(__name__)


class EngineBuilder:
    """Builds engines one after another; `run` is the body of its thread.

    Args:
        tasks: The engines.
        cache: Folder in which they are kept, and from which old ones are removed; None for none.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self, tasks: Sequence[Task] = (), cache: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tasks = tasks
        self._cache = cache
        self._clock = clock
        self._built = self._failed = 0
        self._now = ""

    def run(self, stopping: threading.Event) -> None:
        """Build all, until `stopping` is set; the one in work is not broken off. What fails is told and left out."""
        for number, task in enumerate(self._tasks, 1):
            if stopping.is_set():
                return
            self._now = task.text
            log.info("building TensorRT engine %d of %d: %s", number, len(self._tasks), task.text)
            began_s = self._clock()
            try:
                task.build()
            except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
                self._failed += 1
                log.warning("%s; CUDA goes on to compute that", error)
            else:
                self._built += 1
                log.info("TensorRT engine %d is in use after %.0f s", number, self._clock() - began_s)
        self._now = ""
        if self._tasks and self._cache is not None:
            gone = EngineCache(self._cache).prune()
            log.info(
                "TensorRT: %d engines in use, %d failed, %d old ones removed", self._built, self._failed, len(gone)
            )

    def document(self) -> dict[str, Any] | None:
        """Return how far it is; None where no engines are wanted. May be called from any thread."""
        if not self._tasks:
            return None
        return {
            "wanted": len(self._tasks),
            "in_use": self._built,
            "failed": self._failed,
            "building": self._now or None,
        }

    def status(self) -> str:
        """Return how far it is, as the end of a line; empty when there is nothing to tell."""
        done = self._built + self._failed
        return f"; TensorRT engine {done + 1} of {len(self._tasks)} is being built" if self._now else ""
