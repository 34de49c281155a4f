"""What is known of the machine and of its cameras when it is decided how much is left out."""

from __future__ import annotations

import math
from dataclasses import dataclass

BUSY = 0.9
"""Part of the processors, or of the inference workers, above which they count as never idle."""
_OVERTAKEN = 0.05
"""Part of the frames that may be overtaken; cameras that are not in step lose one now and then."""
_BEHIND_S = 0.15
"""Seconds by which the cameras' threads may be further behind real time than they have been."""


@dataclass(frozen=True, slots=True)
class CameraLoad:
    """A live camera that streams, as it is now.

    Attributes:
        name: Its name.
        priority: -3..3; each step doubles the share of its frames that it keeps.
        fps: Frames a second that it is to be analysed at.
        face_ago_s: Seconds since it showed a face; infinite if it never did.
        lag_s: Seconds by which its thread is behind real time.
        worked_s: Seconds so far in which its thread did not wait for its stream.
        offered: Frames that it has handed over so far.
        overtaken: Those of them that a newer one overtook.
    """

    name: str
    priority: int = 0
    fps: float = 5.0
    face_ago_s: float = math.inf
    lag_s: float = 0.0
    worked_s: float = 0.0
    offered: int = 0
    overtaken: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """How the machine did since the last look at it.

    Attributes:
        busy: Part of the processors, or of a GPU's inference workers, that was in use, whichever is more, 0..1.
        own: Part of them that this process used, 0..1. In both, what cameras that skip would take counts as in use.
        overtaken: Part of the cameras' frames that newer ones overtook, 0..1.
        behind_s: Seconds by which the cameras' threads are further behind real time than they have been.
        pictures: Part of them that single pictures took, 0..1.
    """

    busy: float
    own: float
    overtaken: float = 0.0
    behind_s: float = 0.0
    pictures: float = 0.0

    @property
    def lacks(self) -> bool:
        """Whether frames are lost or late, whatever the reason."""
        return self.overtaken > _OVERTAKEN or self.behind_s > _BEHIND_S

    @property
    def is_too_much(self) -> bool:
        """Whether two of the three signs are there that there is too much to do."""
        return (self.busy > BUSY) + (self.overtaken > _OVERTAKEN) + (self.behind_s > _BEHIND_S) >= 2

    @property
    def taken(self) -> float:
        """Part of the machine that cameras cannot have more of: pictures beyond their half give way to them.

        What other programs take is not in it: they may give way as well. If they do not, giving the cameras more fails.
        """
        return self.own - max(0.0, self.pictures - 0.5)
