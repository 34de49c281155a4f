"""What the inference workers are given: one picture to look at, whatever it comes from and whoever waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from visaged.models.search import Look
from visaged.models.types import Detections
from visaged.pipelines.attributes import Reading, Request

DropCause = Literal["overtaken", "removed", "shutdown"]
"""Why a job was not worked on: a newer frame took its place, its camera was removed, or the daemon stops."""


class Job(Protocol):
    """One picture on its way through the networks.

    An inference worker calls `start`, `looks`, `release`, `observe` and `conclude`, in this order and from one thread,
    or `fail` in place of what is left of them. Whoever gives a job up before that calls `drop`. What a method raises
    costs this job alone.
    """

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width of the largest canvas in pixels; None where it is known only after `start`."""
        ...

    @property
    def is_large(self) -> bool:
        """Whether searching takes so long, and so much memory, that one such job at a time is enough."""
        ...

    def start(self, now_s: float) -> bool:
        """Get ready to be searched at monotonic `now_s`; return whether somebody still waits for the result."""
        ...

    def looks(self) -> Sequence[Look]:
        """Return the canvases that the detector searches, at least one, largest first."""
        ...

    def release(self) -> None:
        """Give up the canvases: the detector has seen them."""
        ...

    def observe(self, found: Detections) -> Sequence[Request]:
        """Take in the faces found, in the picture's pixels; return those whose attributes are to be read."""
        ...

    def conclude(self, readings: Sequence[Reading] | None, started_s: float) -> None:
        """Deliver the result.

        Args:
            readings: One for each request that `observe` returned; None if the analyzer failed on them.
            started_s: Monotonic seconds when computing began.
        """
        ...

    def fail(self) -> None:
        """Give up the canvases and say that this job could not be worked on; why is in the log, and counted."""
        ...

    def drop(self, cause: DropCause) -> None:
        """Say that this job will not be worked on."""
        ...


class Overloaded(Exception):
    """Too many jobs wait, or the daemon is stopping: try again in a moment."""


class InferenceFailed(Exception):
    """The networks failed on a picture, or again and again."""
