"""Reads pictures from RTSP, HTTP, files and USB cameras, through PyAV.

`VideoSource.run` opens a source and delivers the frames that the sampler keeps. It returns when a recording has ended,
and raises `SourceError` when the source fails; its caller decides when to try again. Facts that shaped it, each with a
test:

- Only the thread that opened a container may close it; closing from another one is a segmentation fault. It is stopped
  by a flag that is checked between two packets, at the latest when the read timeout has passed.
- A stall is noticed after twice the read timeout, because FFmpeg flushes a last frame first.
- A camera that goes away often looks like a clean end of file; on a live source that is a failure.
- `frame.reformat()` keeps a scaler for every frame that is held: 154 MB for 40 frames. So there is one for each stream.
- A hardware decoder that is missing raises, or silently decodes in software.
- The frames of one stream can change size, pixel format, time base, rotation and the shape of their pixels.
- Some demuxers invent time stamps: a web camera's JPEGs over HTTP get 25 a second, whatever rate they come at.
- A camera may be joined minutes before its next key frame, and then nothing can be decoded.
- What looks like a stream may be one picture, which must be fetched again and again.
- Any exception from PyAV, even `MemoryError`, is a failure of the source; one from our own callbacks is a bug, and is
  passed on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from av.video.stream import VideoStream

from visaged.models.graphs.frames import FrameGraphs
from visaged.pipelines.attention import Attention
from visaged.pipelines.records import Frame, WakeCause
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.demand import FULL, Demand
from visaged.pipelines.source.errors import SourceError, blaming
from visaged.pipelines.source.observer import SourceObserver
from visaged.pipelines.source.opening.hardware import Hardware
from visaged.pipelines.source.opening.opener import Opener, has_end, pace_of
from visaged.pipelines.source.picture.limit import PictureLimit
from visaged.pipelines.source.reading import Reading, Told
from visaged.pipelines.source.times.frame_times import FrameTimes

__all__ = ["SourceConfig", "SourceError", "VideoSource"]

# Formats of pictures without time stamps; FFmpeg counts the pictures, and makes stamps of that.
_UNSTAMPED_FORMATS = frozenset({"mpjpeg", "mjpeg", "jpeg_pipe", "h264", "hevc", "m4v"})
# Pictures per second from a URL that returns one picture, if every frame is to be analysed.
_SNAPSHOTS_FPS = 5.0
# A camera that is busy answers a request for a picture with an error now and then, and is asked again when the next is
# due. After this many in a row something is wrong; what takes long to fail is not tried so often.
_MOST_MISSED = 3
_PASSING = frozenset({"refused", "not_found", "invalid"})
# FFmpeg draws text files as pictures; a camera whose path is one is a mistake.
_TEXT_FORMATS = frozenset({"tty"})


class VideoSource:
    """Reads the pictures of one camera.

    Args:
        camera: Name of the camera.
        config: The source, and how it is read.
        long_side: Long side of the detector's canvas in pixels.
        deliver: Takes a frame that the sampler kept; returns whether to go on.
        on_open: Called with codec, width and height, as `Presentation` has them, when the first frame has come,
            and again when they change.
        on_received: Called for every decoded frame, with whether the sampler kept it.
        on_waiting: Called with the reason when data comes, but no picture can be had for a while.
        on_damaged: Called for every packet that could not be decoded, every frame that the decoder calls corrupt, and
            every snapshot that a camera which is asked for them did not give.
        credentials: User and password, put into the URL when it is opened.
        multiple_of: Number that the sides of the canvas are multiples of.
        clock: Returns monotonic seconds.
        wall: Returns seconds since 1970.
        observer: Looks on while the source is read.
        demand: Returns what is wanted of the stream; asked for each packet of a live source.
        on_decoder: Called when a stream's first picture has come with whether hardware decodes it, and again when the
            pictures change.
        attention: What is found in the frames.
        on_idle: Called with None when key frames alone are decoded from now on because nobody is there, and with the
            cause when that is over.
        on_late: Called with whether frames come late and all at once, none of which may be left out.
        graphs: Work on the frames that a decoder leaves on their device; None where all frames go to host memory.
    """

    def __init__(
        self,
        camera: str,
        config: SourceConfig,
        long_side: int,
        deliver: Callable[[Frame, threading.Event], bool],
        on_open: Callable[[str, int, int], None],
        on_received: Callable[[bool], None],
        on_damaged: Callable[[], None],
        on_waiting: Callable[[str], None] = lambda reason: None,
        credentials: tuple[str | None, str | None] = (None, None),
        multiple_of: int = 32,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        observer: SourceObserver | None = None,
        demand: Callable[[], Demand] = lambda: FULL,
        on_decoder: Callable[[bool], None] = lambda is_hardware: None,
        attention: Attention | None = None,
        on_idle: Callable[[WakeCause | None], None] = lambda cause: None,
        on_late: Callable[[bool], None] = lambda late: None,
        graphs: FrameGraphs | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._demand = demand
        self._on_damaged = on_damaged
        self._observer = observer or SourceObserver()
        stays = graphs is not None and graphs.device.is_of(config.hardware, config.hardware_device)
        self._hardware = Hardware(camera, config.hardware, config.hardware_device, on_decoder, stays=stays)
        self._opener = Opener(config, credentials, self._hardware, self._observer.connected)
        self._limit = PictureLimit(config)
        self._times = FrameTimes(camera, clock, wall)
        told = Told(deliver, on_open, on_received, on_damaged, on_waiting, on_idle, on_late)
        self._reading = Reading(
            camera, config, (long_side, multiple_of), told, self._times, self._limit, self._observer, demand,
            attention or Attention(), self._hardware, graphs, clock,
        )  # fmt: skip

    @property
    def live(self) -> bool:
        """Whether the source goes on without waiting for its reader: all but recordings that do not loop at real speed.

        Whether a URL is a recording is known once it is open, before `on_open` is called.
        """
        return self._reading.live

    @property
    def lag_s(self) -> float:
        """Seconds by which the newest packet came later than by its stamp."""
        return self._reading.lag_s

    @property
    def worked_s(self) -> float:
        """Seconds so far in which its thread did not wait for packets, or until they were due."""
        return self._reading.worked_s

    def run(self, stopping: threading.Event) -> None:
        """Read until a recording ends or `stopping` is set.

        Raises:
            SourceError: The source cannot be opened, failed, or is live and ended.
        """
        self._rounds = 0
        self._reading.begin()
        try:
            self._play_rounds(stopping)
        finally:
            self._reading.end()

    def _play_rounds(self, stopping: threading.Event) -> None:
        reading = self._reading
        while True:
            pictures = self._play(stopping)
            reading.end_round()
            if stopping.is_set() or not reading.is_wanted:
                return
            if reading.is_still and pictures == 1:
                self._poll(stopping)
                return
            if not reading.is_recording:
                raise SourceError("ended", "the stream ended")
            if not pictures:
                text = f"{self._config.shown_url} has no picture that can be decoded{self._limit.hint()}"
                raise SourceError("invalid", text)
            if not self._config.loop:
                return
            self._rounds += 1

    def _poll(self, stopping: threading.Event) -> None:
        """Fetch a URL that returns one picture again and again; every answer is a frame that is kept."""
        self._reading.keep_all()
        due_s = self._clock()
        missed = 0  # in a row
        while self._reading.is_wanted:
            interval_s = 1 / (self._demand().capped(self._config.fps or _SNAPSHOTS_FPS) or _SNAPSHOTS_FPS)
            # If an answer takes longer than the interval, the next request follows at once; missed ones are left out.
            due_s = max(due_s + interval_s, self._clock())
            if stopping.wait(due_s - self._clock()):
                return
            self._rounds += 1
            try:
                if not self._play(stopping) and not stopping.is_set():
                    text = f"{self._config.shown_url} gave no picture that can be decoded{self._limit.hint()}"
                    raise SourceError("invalid", text)
                missed = 0
            except SourceError as error:
                missed += 1
                if missed == _MOST_MISSED or error.cause not in _PASSING:
                    raise
                self._on_damaged()

    def _play(self, stopping: threading.Event) -> int:
        """Read to the end; return how many pictures there were."""
        reading = self._reading
        with blaming(self._config, opened=False):
            container = self._opener.open()
        try:
            with blaming(self._config, opened=False):
                stream = container.streams.best("video")
                if not isinstance(stream, VideoStream):
                    raise SourceError("invalid", f"{self._config.shown_url} has no video")
                if container.format.name in _TEXT_FORMATS:
                    raise SourceError("invalid", f"{self._config.shown_url} is a text, not a video")
                self._prepare(stream)
                is_recording = reading.is_recording = has_end(self._config, container, stream)
                if self._rounds == 0:
                    self._times.begin(live=not is_recording)
                    reading.pace = pace_of(self._config, container, is_recording)
                is_still = reading.is_still = self._opener.is_still(container)
                trusted = is_recording or not (is_still or container.format.name in _UNSTAMPED_FORMATS)
                self._times.stamps.begin(trusted, float(1 / (stream.average_rate or 25)))
            self._observer.opened(container, stream, is_recording, is_still)
            reading.read(container, stream, stopping)
            return reading.pictures
        finally:
            self._opener.close(container)

    def _prepare(self, stream: VideoStream) -> None:
        context = stream.codec_context
        if context is None:
            raise SourceError("invalid", f"{self._config.shown_url}: no decoder for its video")
        self._limit.apply(context)
        if not self._config.loop_filter:  # only a decoder that is not open yet takes it
            context.options = {**context.options, "skip_loop_filter": "all"}
        self._reading.begin_round(stream)
        stream.thread_type = "FRAME" if self._config.decoder_threads > 1 else "NONE"
        stream.thread_count = self._config.decoder_threads
