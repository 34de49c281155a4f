"""Thins a stream out to a lower rate.

At 1080p three quarters of a camera's cost is decoding 25 frames a second, of which 5 are analysed. With frames that are
spread evenly a lower rate saves the rest alone, because each picture refers to the one before. So the first part of
each group of pictures is decoded, and what follows is left out up to the next key frame: half of the frames then cost
half. At a key frame every two seconds the pause is a second, as long as it would be between frames that are spread
evenly and cost as much.

Where a hardware decoder decodes, or groups are so long that the pause would break off the tracks of who is there,
frames are spread evenly.
"""

from __future__ import annotations

from visaged.pipelines.source.demand import Decode, Demand

_LONGEST_S = 4.5
_SHORTEST_S = 0.3
_ROUNDING = 0.001


class Thinning:
    """Chooses what is decoded of one camera's stream, and how many of its frames are analysed.

    Args:
        fps: Frames a second to analyse as configured; None for every one.

    Attributes:
        fps: At how many frames a second those that are decoded are to be sampled now; None for every one.
    """

    def __init__(self, fps: float | None) -> None:
        self._configured = self.fps = fps
        self.begin()

    def begin(self) -> None:
        """Begin a connection, or a file once more."""
        self._began_s: float | None = None
        self._length_s: float | None = None

    def heed(self, demand: Demand, stamp_s: float | None, is_key: bool, decoding_is_cheap: bool) -> Decode:
        """Return what is to be decoded of a packet, and set `fps`.

        Args:
            demand: What is wanted of the stream.
            stamp_s: The packet's stamp in seconds; packets come in the order of decoding. None if it has none.
            is_key: Whether it is a key frame.
            decoding_is_cheap: Whether a hardware decoder decodes.
        """
        passed = self._passed(stamp_s, is_key)
        if demand.decode != "all" or demand.fps is None or passed is None or decoding_is_cheap:
            self.fps = demand.capped(self._configured)
            return demand.decode
        self.fps = self._configured
        return "all" if passed < demand.share(self._configured) - _ROUNDING else "key_frames"

    def _passed(self, stamp_s: float | None, is_key: bool) -> float | None:
        """Return which part of its group lies before a packet; None where that is not known, or groups are not fit."""
        if stamp_s is None:
            return None
        if is_key:
            length_s = 0.0 if self._began_s is None else stamp_s - self._began_s
            self._length_s = length_s if _SHORTEST_S <= length_s <= _LONGEST_S else None
            self._began_s = stamp_s
        if self._began_s is None or self._length_s is None:
            return None
        return max(0.0, (stamp_s - self._began_s) / self._length_s)
