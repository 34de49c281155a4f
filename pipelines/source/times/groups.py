"""Where in its group of pictures a packet is: how a stream is thinned out where decoding is what takes long.

At 1080p three quarters of a camera's cost is decoding 25 frames a second, of which 5 are analysed. A lower rate with
frames spread evenly saves the small rest, because each picture refers to the one before. So the first part of each
group is decoded, and what follows is left out up to the next key frame: half of the frames then cost half. At a key
frame every two seconds the pause is a second, as long as between frames that cost as much and are spread evenly.
"""

from __future__ import annotations

_LONGEST_S = 4.5
"""Longest group that is decoded in part; the pause in longer ones would break off the tracks of those who are there."""
_SHORTEST_S = 0.3


class Groups:
    """The groups of pictures of one connection, by the stamps of its packets."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._length_s: float | None = None

    def passed(self, stamp_s: float | None, is_key: bool) -> float | None:
        """Return which part of its group lies before a packet; None where groups are not known, or too long or short.

        Args:
            stamp_s: The packet's stamp in seconds; packets come in the order of decoding. None if it has none.
            is_key: Whether it is a key frame.
        """
        if stamp_s is None:
            return None
        if is_key:
            length_s = 0.0 if self._began_s is None else stamp_s - self._began_s
            self._length_s = length_s if _SHORTEST_S <= length_s <= _LONGEST_S else None
            self._began_s = stamp_s
        if self._began_s is None or self._length_s is None:
            return None
        # A group that is longer than the one before is over, as far as this is concerned, when that was.
        return min(1.0, max(0.0, (stamp_s - self._began_s) / self._length_s))
