"""Notes what comes from a camera while the daemon's own reader reads it; nothing is worked out here."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import av
import av.logging
from av.container import InputContainer
from av.packet import Packet
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from visaged.pipelines.source.observer import SourceObserver
from visaged.pipelines.source.times.camera_clock import CameraClock
from visaged.pipelines.source.times.timeline import Timeline

_MOST_FPS = 240
"""Some encoders write the unit of their time stamps where the frame rate belongs, 90,000 a second."""


class PacketRow(NamedTuple):
    """A packet of video: monotonic seconds when it was asked for and had come; stamp in seconds; bytes."""

    asked_s: float
    arrived_s: float
    stamp_s: float | None
    size: int
    is_key: bool


class FrameRow(NamedTuple):
    """A decoded picture: its stamp on the daemon's time line, monotonic seconds of its arrival."""

    stamp_s: float
    arrived_s: float


class OpenStream(NamedTuple):
    """What an open source says about its video before a picture was decoded."""

    container: str
    codec: str
    profile: str | None
    level: int
    promised_fps: float | None
    is_recording: bool
    is_still: bool
    is_hardware: bool


class Picture(NamedTuple):
    """What a decoded picture is like."""

    pixel_format: str
    is_full_range: bool
    is_interlaced: bool


class Watcher(SourceObserver):
    """Notes what comes. Written by the thread that reads; others may read at any time.

    Attributes:
        stream: What the source said when it was opened first; None before.
        is_open: Set when it has been opened.
        opened_s: Monotonic seconds of that.
        rounds: How often it was opened.
    """

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.connect_s: float | None = None
        self.opened_s: float | None = None
        self.first_picture_s: float | None = None
        self.rounds = 0
        self.stream: OpenStream | None = None
        self.picture: Picture | None = None
        self.packets: list[PacketRow] = []
        self.frames: list[FrameRow] = []
        self.decode_s: list[float] = []
        self.corrupt = 0
        self.is_reordered = False
        self.jumps = 0
        self.stamp_rate = 1.0
        self.clock_behind_s: float | None = None
        self.clock_is_sent = False
        self.busy_s = (0.0, 0.0)
        self._newest_stamp = float("-inf")
        self._before_s = 0.0

    def connected(self, connect_s: float) -> None:
        """See `SourceObserver`."""
        self.connect_s = connect_s

    def opened(self, container: InputContainer, stream: VideoStream, is_recording: bool, is_still: bool) -> None:
        """See `SourceObserver`."""
        self.rounds += 1
        self._newest_stamp = float("-inf")
        if self.stream is not None:
            return
        context = stream.codec_context
        claims = [rate for rate in (context.framerate, stream.average_rate) if rate and rate <= _MOST_FPS]
        promised = claims[0] if claims else None
        self.stream = OpenStream(
            container.format.name,
            context.name,
            str(context.profile) if context.profile else None,
            int(context.level),
            float(promised) if promised and not is_still else None,
            is_recording,
            is_still,
            context.is_hwaccel,
        )
        self.opened_s = time.monotonic()
        self.busy_s = (time.process_time(),) * 2
        self.is_open.set()

    def packet(self, packet: Packet[VideoStream], asked_s: float, arrived_s: float) -> None:
        """See `SourceObserver`."""
        stamp = None if packet.pts is None else float(packet.pts * packet.time_base)
        if packet.size:  # the last one, which empties the decoder, has none
            self.packets.append(PacketRow(asked_s, arrived_s, stamp, packet.size, packet.is_keyframe))
        if stamp is not None:
            self.is_reordered |= stamp < self._newest_stamp <= stamp + 1.0
            self._newest_stamp = stamp if abs(stamp - self._newest_stamp) > 1.0 else max(stamp, self._newest_stamp)
        self.clock_is_sent |= packet.has_sidedata("prft")
        self._before_s = time.thread_time()

    def decoded(self, frames: Sequence[av.VideoFrame], error: Exception | None) -> None:
        """See `SourceObserver`."""
        self.decode_s.append(time.thread_time() - self._before_s)
        self.corrupt += sum(frame.is_corrupt for frame in frames)
        self.busy_s = (self.busy_s[0], time.process_time())

    def frame(
        self, frame: av.VideoFrame, stamp_s: float, arrived_s: float, timeline: Timeline, clock: CameraClock
    ) -> None:
        """See `SourceObserver`."""
        if self.first_picture_s is None:
            self.first_picture_s = time.monotonic()
        self.frames.append(FrameRow(stamp_s, arrived_s))
        self.jumps, self.stamp_rate = timeline.jumps, timeline.stamp_rate
        self.clock_behind_s = clock.behind_s
        name = frame.format.name
        full = name.startswith("yuvj") or frame.color_range == ColorRange.JPEG
        self.picture = Picture(name, full, frame.interlaced_frame)


class DecoderLog(logging.Handler):
    """Counts what FFmpeg reports and PyAV does not: RTP packets that are missing, and pictures that were mended.

    FFmpeg's lines are not kept, as they may hold URLs. Used only while FFmpeg has no threads of its own: a thread that
    logs would wait for Python's lock, which the one that waits for the thread may hold.

    Attributes:
        lost: RTP packets that did not come, or too late.
        mended: Pictures with damage that the decoder hid.
    """

    _MISSED = re.compile(r"RTP: missed (-?\d+) packets")
    _MENDED = re.compile(r"concealing \d+ DC")

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0
        self.mended = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count a line of FFmpeg's."""
        text = record.getMessage()
        missed = self._MISSED.search(text)
        if missed is not None:
            self.lost += max(0, int(missed[1]))
        elif "RTP: " in text and "bad cseq" in text:
            self.lost += 1
        elif self._MENDED.search(text):
            self.mended += 1

    def __enter__(self) -> DecoderLog:
        """Listen to FFmpeg."""
        self._logger = logging.getLogger("libav")
        self._logger.addHandler(self)
        self._logger.propagate = False
        self._logger.setLevel(logging.INFO)
        av.logging.set_skip_repeated(False)
        av.logging.set_level(av.logging.INFO)
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        av.logging.set_level(None)
        self._logger.removeHandler(self)


class Notes(logging.Handler):
    """Keeps what the daemon would warn of besides: a hardware decoder that is missing, a shape that cannot be."""

    _LOGGERS = ("visaged.pipelines.source.opening.hardware", "visaged.pipelines.source.picture.display")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning."""
        if record.name in self._LOGGERS:
            self.texts.append(record.getMessage().partition(": ")[2])

    def __enter__(self) -> Notes:
        """Keep the warnings of visaged, which then go nowhere else."""
        self._logger = logging.getLogger("visaged")
        self._logger.addHandler(self)
        self._logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        """Keep no more."""
        self._logger.removeHandler(self)
        self._logger.propagate = True
