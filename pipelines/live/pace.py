"""Lets pictures through at a wanted rate."""

from __future__ import annotations


class Pace:
    """Says when the next picture is due, so that there are no more than wanted in the long run.

    This is the virtual scheduling algorithm of ITU-T I.371: a picture may be early by half an interval, which is then
    missing to the next one. Frames that come at nearly the wanted rate are all let through, however unevenly they come.
    """

    __slots__ = ("_due_s",)

    def __init__(self) -> None:
        self._due_s = float("-inf")

    def wait_s(self, now_s: float, interval_s: float) -> float:
        """Return the seconds until a picture may pass; 0 if it may now.

        Args:
            now_s: Monotonic seconds.
            interval_s: Seconds from picture to picture.
        """
        return max(0.0, self._due_s - interval_s / 2 - now_s)

    def passed(self, now_s: float, interval_s: float) -> None:
        """Note that a picture has passed."""
        self._due_s = max(self._due_s, now_s) + interval_s
