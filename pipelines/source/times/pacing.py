"""Holds back frames of sources that deliver them faster than real time.

A file, and a recording behind a URL, delivers frames as fast as they are read. Live segments (HLS, DASH) come in bursts
of seconds. Both are held back in the reading thread until each frame is due by its stamp; later frames wait in the file
or in TCP's buffers. A stream that a camera sends by itself (RTSP, plain HTTP) is not delayed, unless it has run so far
ahead of the clock that it cannot be live.
"""

from __future__ import annotations

from typing import Protocol

# In formats that may have cuts, a forward step in the stamps that is larger than this is a cut and no pause; FFmpeg's
# own programs use the same limit.
_CUT_S = 10.0
_BACK_S = 0.1


class Pace(Protocol):
    """Decides how long to hold back a frame."""

    def wait_s(self, stamp_s: float, now_s: float, read_s: float) -> float:
        """Return how many seconds to wait before a frame is delivered; to be called once for every frame, in order.

        Args:
            stamp_s: The frame's stamp on the stream's time line, seconds.
            now_s: Monotonic seconds now, after the frame was read.
            read_s: Seconds that reading the frame's packet took.
        """
        ...


class Unpaced:
    """Holds back no frame."""

    def wait_s(self, stamp_s: float, now_s: float, read_s: float) -> float:
        """Return 0."""
        return 0.0


class FilePace:
    """Plays a recording at its own speed; one that falls behind by more than a second does not catch up.

    Args:
        may_have_cuts: Whether the format may have steps in its stamps, which are then not waited for.
        is_camera: Whether it stands for a camera, which would send on while it is not read: it catches up with more.
    """

    _MOST_BEHIND_S = 1.0
    _CAMERA_BEHIND_S = 20.0

    def __init__(self, may_have_cuts: bool = False, is_camera: bool = False) -> None:
        self._may_have_cuts = may_have_cuts
        self._most_behind_s = self._CAMERA_BEHIND_S if is_camera else self._MOST_BEHIND_S
        self._start: float | None = None  # monotonic seconds of stamp 0
        self._last_s = 0.0

    def wait_s(self, stamp_s: float, now_s: float, read_s: float) -> float:
        """See `Pace.wait_s`."""
        start = now_s - stamp_s
        is_cut = self._may_have_cuts and stamp_s - self._last_s > _CUT_S
        self._last_s = stamp_s
        if self._start is None or is_cut:
            self._start = start
        self._start = max(self._start, start - self._most_behind_s)
        return max(0.0, self._start + stamp_s - now_s)


class SegmentPace:
    """Plays live segments at their own speed, as far behind the newest one as the first frame was.

    A segment that comes late delays all later frames by as much, so that frames stay evenly spread. When the delays add
    up to more than `MOST_LATE_S`, frames are not held back until reading had to wait for one: that frame is the newest,
    and the delay is counted from it again.
    """

    MOST_LATE_S = 10.0
    _AT_THE_EDGE_S = 0.5

    def __init__(self) -> None:
        self._start: float | None = None  # monotonic seconds of stamp 0
        self._earliest = 0.0
        self._last_s = 0.0
        self._is_catching_up = False

    def wait_s(self, stamp_s: float, now_s: float, read_s: float) -> float:
        """See `Pace.wait_s`."""
        start = now_s - stamp_s
        is_step = not -_BACK_S < stamp_s - self._last_s < _CUT_S
        self._last_s = stamp_s
        if self._start is None or is_step or (self._is_catching_up and read_s > self._AT_THE_EDGE_S):
            self._start = self._earliest = start
            self._is_catching_up = False
        self._start = max(self._start, start)
        if self._start - self._earliest > self.MOST_LATE_S:
            self._is_catching_up = True
        return 0.0 if self._is_catching_up else self._start + stamp_s - now_s


class LeadPace:
    """Holds back no frame, until the stream has run so far ahead of the clock that it is no camera.

    A live stream may begin with some seconds that the server had buffered. A stream that is `MOST_LEAD_S` ahead, at
    more than four times real time, is a recording that is sent as fast as it is read; from then on it is played at its
    own speed. Stamps at a wrong rate get ahead more slowly; to hold those frames back would make them later and later.
    """

    MOST_LEAD_S = 15.0
    _FASTEST_CAMERA = 4.0

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None  # stamp and monotonic seconds
        self._last_s = 0.0
        self._file: FilePace | None = None

    def wait_s(self, stamp_s: float, now_s: float, read_s: float) -> float:
        """See `Pace.wait_s`."""
        is_step = not -_BACK_S < stamp_s - self._last_s < _CUT_S
        self._last_s = stamp_s
        if self._file is not None:
            return self._file.wait_s(stamp_s, now_s, read_s)
        if self._first is None or is_step:
            self._first = stamp_s, now_s
        ran_s, took_s = stamp_s - self._first[0], now_s - self._first[1]
        if ran_s - took_s > self.MOST_LEAD_S and ran_s > self._FASTEST_CAMERA * took_s:
            self._file = FilePace(may_have_cuts=True)
        return 0.0
