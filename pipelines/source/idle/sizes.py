"""Whether the sizes of a camera's packets tell that something moves, learned from its own past.

An encoder that keeps the quality needs ten times the bytes for a person who moves, compared with an empty room; one
that keeps the bit rate, with a sensor's noise in the picture, always needs the same. So sizes count only where the
bytes of a camera with faces in view were clearly more than those of the same camera without.
"""

from __future__ import annotations

from collections import deque

import numpy as np

_WINDOW_S = 0.5
_KEPT = 240
_LEAST = 20  # windows of each kind from which something is known
_TIMES = 2.0  # how much more bytes there must be with faces in view


class Sizes:
    """Learns the sizes of one camera's packets between key frames."""

    def __init__(self) -> None:
        self._quiet: deque[int] = deque(maxlen=_KEPT)
        self._busy: deque[int] = deque(maxlen=_KEPT)
        self._begin_s: float | None = None
        self._bytes = 0
        self._limit: float | None = None

    @property
    def tells(self) -> bool:
        """Whether sizes have proved to tell of motion."""
        return self._limit is not None

    def add(self, size: int, is_key: bool, arrived_s: float, is_busy: bool) -> bool:
        """Note a packet; return whether the packets have become much larger than they are while nothing happens.

        Args:
            size: Its bytes.
            is_key: Whether it is a key frame, whose size says nothing.
            arrived_s: Monotonic seconds when it came.
            is_busy: Whether a face is in view.
        """
        if self._begin_s is None or not 0 <= arrived_s - self._begin_s < 2 * _WINDOW_S:
            self._begin_s, self._bytes = arrived_s, 0
        if arrived_s - self._begin_s >= _WINDOW_S:
            (self._busy if is_busy else self._quiet).append(self._bytes)
            self._begin_s, self._bytes = arrived_s, 0
            self._learn()
        self._bytes += 0 if is_key else size
        return self._limit is not None and self._bytes > self._limit

    def _learn(self) -> None:
        self._limit = None
        if len(self._quiet) >= _LEAST and len(self._busy) >= _LEAST:
            quiet, busy = float(np.percentile(self._quiet, 95)), float(np.median(self._busy))
            if busy > _TIMES * quiet:
                self._limit = max(_TIMES**0.5 * quiet, (quiet * busy) ** 0.5)
