"""The jobs of the inference workers: each is one picture, a camera's frame or a single picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from visaged.models.search import Look
from visaged.models.types import Detections
from visaged.pipelines.attributes import Reading, Request

DropCause = Literal["overtaken", "removed", "shutdown"]
"""Why a job was dropped: a newer frame took its place, its camera was removed, or the daemon stops."""


class Job(Protocol):
    """One picture on its way through the networks.

    An inference worker calls `start`, `looks`, `release`, `observe` and `conclude`, in this order and from one thread,
    or `fail` in place of the remaining ones. `drop` is called for a job that is given up before. An exception from a
    method fails this job alone.
    """

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width of the largest canvas in pixels; None if it is known only after `start`."""
        ...

    @property
    def is_large(self) -> bool:
        """Whether searching takes so much time and memory that only one such job may be computed at a time."""
        ...

    def start(self, now_s: float) -> bool:
        """Prepare the search, at monotonic time `now_s`; return whether the result is still needed."""
        ...

    def looks(self) -> Sequence[Look]:
        """Return the canvases that the detector searches, at least one, largest first."""
        ...

    def release(self) -> None:
        """Release the canvases: the detector does not need them any more."""
        ...

    def observe(self, found: Detections) -> Sequence[Request]:
        """Store the detections, in the picture's pixels; return requests for the faces that are to be read."""
        ...

    def conclude(self, readings: Sequence[Reading] | None, started_s: float) -> None:
        """Deliver the result.

        Args:
            readings: One for each request that `observe` returned; None if the analyzer failed on them.
            started_s: Monotonic seconds when computing began.
        """
        ...

    def fail(self) -> None:
        """Release the canvases, and report that this job failed; the caller logs and counts the reason."""
        ...

    def drop(self, cause: DropCause) -> None:
        """Report that this job will not be computed."""
        ...


class Overloaded(Exception):
    """Too many jobs wait, or the daemon is stopping: try again in a moment."""


class InferenceFailed(Exception):
    """The networks failed on a picture, or too often in a row."""
