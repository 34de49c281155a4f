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

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from visaged.models.graphs.frames import FrameGraphs
from visaged.models.preprocess import Canvas, canvas_for
from visaged.models.surface import DeviceCanvas, Surface
from visaged.models.types import Image
from visaged.pipelines.presentation import Presentation
from visaged.pipelines.records import Clock, Frame
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.errors import SourceError, explain
from visaged.pipelines.source.observer import SourceObserver
from visaged.pipelines.source.opening.demuxing import packets
from visaged.pipelines.source.opening.hardware import Hardware
from visaged.pipelines.source.opening.opener import Opener, has_end, pace_of
from visaged.pipelines.source.picture.canvases import CanvasPool
from visaged.pipelines.source.picture.display import Display, LastTurn
from visaged.pipelines.source.picture.limit import PictureLimit
from visaged.pipelines.source.picture.on_device import Plans, downloaded
from visaged.pipelines.source.picture.scaler import Scaler
from visaged.pipelines.source.picture.surface import VideoSurface
from visaged.pipelines.source.times.camera_clock import CameraClock
from visaged.pipelines.source.times.pacing import Pace
from visaged.pipelines.source.times.stamps import Stamps
from visaged.pipelines.source.times.timeline import Sampler, Timeline
from visaged.pipelines.source.waiting import PictureWatch

__all__ = ["SourceConfig", "SourceError", "VideoSource"]

log = logging.getLogger(__name__)

Discard = Literal["DEFAULT", "NONREF"]

# Deviation of the rate of stamps from real time above which there is a warning.
_WARN_OF_RATE = 0.01
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
        graphs: FrameGraphs | None = None,
    ) -> None:
        self._camera = camera
        self._config = config
        self._long_side = long_side
        self._multiple_of = multiple_of
        self._deliver = deliver
        self._on_open = on_open
        self._on_received = on_received
        self._on_damaged = on_damaged
        self._on_waiting = on_waiting
        self._clock = clock
        self._wall = wall
        self._observer = observer or SourceObserver()
        self._is_recording = config.is_file
        self._is_still = False
        self._pace: Pace
        self._watch: PictureWatch
        self._stamps: Stamps
        self._timeline: Timeline
        self._stream = 0
        self._opened = False
        self._camera_clock = CameraClock(camera)
        self._rate_warned = False
        self._graphs = graphs
        stays = graphs is not None and config.hardware == graphs.device.kind
        self._hardware = Hardware(camera, config.hardware, stays)
        self._opener = Opener(config, credentials, self._hardware, self._observer.connected)
        self._limit = PictureLimit(config)
        self._presentation: Presentation | None = None
        self._display: Display
        self._canvas: Canvas
        self._pool: CanvasPool
        self._scaler: Scaler
        self._plans: Plans | None

    @property
    def live(self) -> bool:
        """Whether the source goes on without waiting for its reader: all but recordings that do not loop at real speed.

        Whether a URL is a recording is known once it is open, before `on_open` is called.
        """
        return not self._is_recording or (self._config.loop and self._config.pace == "realtime")

    def run(self, stopping: threading.Event) -> None:
        """Read until a recording ends or `stopping` is set.

        Raises:
            SourceError: The source cannot be opened, failed, or is live and ended.
        """
        config = self._config
        self._stream += 1
        self._presentation = None
        self._sampler = Sampler(config.fps)
        self._camera_clock.begin(self._clock())
        self._rounds = 0
        self._last_turn = LastTurn()
        self._wanted = True
        while True:
            self._opened = False
            pictures = self._play(stopping)
            if stopping.is_set() or not self._wanted:
                return
            if self._is_still and pictures == 1:
                self._poll(stopping)
                return
            if not self._is_recording:
                raise SourceError("ended", "the stream ended")
            if not pictures:
                text = f"{config.shown_url} has no picture that can be decoded{self._limit.hint()}"
                raise SourceError("invalid", text)
            if not config.loop:
                return
            self._rounds += 1

    def _poll(self, stopping: threading.Event) -> None:
        """Fetch a URL that returns one picture again and again; every answer is a frame that is kept."""
        interval_s = 1 / (self._config.fps or _SNAPSHOTS_FPS)
        self._sampler = Sampler(None)
        due_s = self._clock()
        missed = 0  # in a row
        while self._wanted:
            # If an answer takes longer than the interval, the next request follows at once; missed ones are left out.
            due_s = max(due_s + interval_s, self._clock())
            if stopping.wait(due_s - self._clock()):
                return
            self._rounds += 1
            self._opened = False
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

    @contextmanager
    def _blaming(self) -> Iterator[None]:
        """Turn any exception into a `SourceError`: a camera must never end the daemon."""
        try:
            yield
        except SourceError:
            raise
        except Exception as error:
            raise explain(error, self._config, self._opened) from None

    def _play(self, stopping: threading.Event) -> int:
        """Read to the end; return how many pictures there were."""
        with self._blaming():
            container = self._opener.open()
        try:
            with self._blaming():
                stream = container.streams.best("video")
                if not isinstance(stream, VideoStream):
                    raise SourceError("invalid", f"{self._config.shown_url} has no video")
                if container.format.name in _TEXT_FORMATS:
                    raise SourceError("invalid", f"{self._config.shown_url} is a text, not a video")
                self._prepare(stream)
                self._is_recording = has_end(self._config, container, stream)
                if self._rounds == 0:
                    self._stamps = Stamps(live=not self._is_recording)
                    self._timeline = Timeline(live=not self._is_recording)
                    self._pace = pace_of(self._config, container, self._is_recording)
                self._is_still = self._opener.is_still(container)
                trusted = self._is_recording or not (self._is_still or container.format.name in _UNSTAMPED_FORMATS)
                self._stamps.begin(trusted, float(1 / (stream.average_rate or 25)))
            self._observer.opened(container, stream, self._is_recording, self._is_still)
            self._opened = True
            return self._read(container, stream, stopping)
        finally:
            self._opener.close(container)

    def _prepare(self, stream: VideoStream) -> None:
        context = stream.codec_context
        if context is None:
            raise SourceError("invalid", f"{self._config.shown_url}: no decoder for its video")
        self._limit.apply(context)
        self._hardware.check(context)
        self._display = Display(self._camera, self._config, stream, self._last_turn)
        stream.thread_type = "FRAME" if self._config.decoder_threads > 1 else "NONE"
        stream.thread_count = self._config.decoder_threads

    def _read(self, container: InputContainer, stream: VideoStream, stopping: threading.Event) -> int:
        handled_s = self._clock()
        self._watch = PictureWatch(2 * self._config.read_timeout_s, handled_s, self._on_waiting, self._limit.hint)
        pictures = 0
        context = stream.codec_context
        discard: Discard = "DEFAULT"
        for packet in self._packets(container, stream):
            if stopping.is_set():
                break
            asked_s, arrived_s = handled_s, self._clock()
            frames: list[av.VideoFrame] = []
            if packet.stream_index == stream.index:
                if not self._config.is_file:
                    self._camera_clock.report(packet, container.start_time_realtime)
                stamp = self._stamps.of_packet(packet)
                # Frames that the sampler will not keep, and that no other frame refers to, are not decoded.
                unwanted = stamp is not None and self._sampler.certainly_not(self._timeline.real(stamp))
                wanted: Discard = "NONREF" if unwanted else "DEFAULT"
                if wanted != discard:
                    context.skip_frame = discard = wanted
                self._watch.packet(packet.is_keyframe, arrived_s)
                self._observer.packet(packet, asked_s, arrived_s)
                frames = self._decode(context, packet)
            for frame in frames:
                pictures += 1
                stamp = self._stamps.of_frame(frame.time, arrived_s)
                wait_s = self._pace.wait_s(stamp, arrived_s, arrived_s - asked_s)
                if wait_s > 0:
                    if stopping.wait(wait_s):
                        return pictures
                    arrived_s = self._clock()
                self._watch.picture(arrived_s)
                if not self._handle(frame, stamp, stream, arrived_s, stopping):
                    return pictures
            handled_s = self._clock()
            if not self._is_recording:
                self._watch.check(arrived_s)
        return pictures

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        source = packets(container, stream, is_recording=self._is_recording, is_still=self._is_still)
        while True:
            with self._blaming():
                packet = next(source, None)
            if packet is None:
                return
            yield packet

    def _decode(self, context: VideoCodecContext, packet: Packet[VideoStream]) -> list[av.VideoFrame]:
        try:
            frames = packet.decode()
        except Exception as error:  # one bad packet; `_watch` notices when no picture comes any more
            self._observer.decoded((), error)
            self._limit.check_failed(context, packet, error)
            if not self._watch.waits_for_key_frame:
                self._on_damaged()
            return []
        self._observer.decoded(frames, None)
        return frames

    def _handle(
        self,
        frame: av.VideoFrame,
        stamp: float,
        stream: VideoStream,
        arrived_s: float,
        stopping: threading.Event,
    ) -> bool:
        if frame.is_corrupt:
            self._on_damaged()
        due_s = self._timeline.capture(stamp, arrived_s)
        kept = self._sampler.keep(self._timeline.real(stamp))
        self._warn_of_rate()
        self._observer.frame(frame, stamp, arrived_s, self._timeline, self._camera_clock)
        presentation = self._display.of(frame)
        if presentation != self._presentation:
            self._reshape(presentation, stream)
        self._on_received(kept)
        if not kept:
            return True
        position_s = frame.time if self._stamps.trusted else None
        captured_s, captured_at, clock = self._capture_time(position_s, due_s, arrived_s)
        with self._blaming():
            surface, image, release = self._on_canvas(frame, presentation)
        self._wanted = self._deliver(
            Frame(
                camera=self._camera,
                stream=self._stream,
                canvas=self._canvas,
                image=image,
                surface=surface,
                presentation=presentation,
                captured_s=captured_s,
                motion_s=self._timeline.scene_s,
                captured_at=captured_at,
                clock=clock,
                arrived_s=arrived_s,
                ready_s=self._clock(),
                position_s=position_s,
                release=release,
            ),
            stopping,
        )
        return self._wanted

    def _on_canvas(
        self, frame: av.VideoFrame, shown: Presentation
    ) -> tuple[Surface, Image | DeviceCanvas, Callable[[], None]]:
        """Return a frame as a surface, the detector's canvas with it, and what gives the canvas back."""
        if self._plans is not None:
            there = self._plans.surface(frame)
            if there is not None:
                return there, DeviceCanvas(there, self._canvas), lambda: None
            frame = downloaded(frame)
        surface = VideoSurface(frame, shown, self._scaler)
        pool = self._pool
        image = pool.take()
        surface.scale_onto(self._canvas, image)
        return surface, image, lambda: pool.give(image)

    def _reshape(self, shown: Presentation, stream: VideoStream) -> None:
        previous, self._presentation = self._presentation, shown
        self._canvas = canvas_for(shown.square_width, shown.square_height, self._long_side, self._multiple_of)
        self._pool = CanvasPool(self._canvas)
        self._scaler = Scaler()
        self._plans = None if self._graphs is None else Plans(self._graphs, shown)
        if previous is None or (previous.width, previous.height) != (shown.width, shown.height):
            self._on_open(stream.codec_context.name, shown.width, shown.height)

    def _warn_of_rate(self) -> None:
        timeline = self._timeline
        if self._rate_warned or not timeline.stamp_rate_settled or abs(timeline.stamp_rate - 1.0) < _WARN_OF_RATE:
            return
        self._rate_warned = True
        log.warning(
            "camera %s: its time stamps run at %.2f of real time, going by arrival times instead; "
            "set the frame rate that it really has, or mend its clock", self._camera, timeline.stamp_rate,
        )  # fmt: skip

    def _capture_time(self, position_s: float | None, due_s: float, arrived_s: float) -> tuple[float, float, Clock]:
        """Return when a frame was captured, in monotonic seconds and in seconds since 1970, and by whose clock."""
        if not self.live:
            due_s = arrived_s
        to_wall_s = self._wall() - self._clock()
        captured_at = None
        if self._timeline.stamp_rate == 1.0:  # the camera's clock is read every few seconds; stamps go on from there
            captured_at = self._camera_clock.captured_at(position_s, due_s, arrived_s, to_wall_s)
        if captured_at is None:
            return due_s, due_s + to_wall_s, "arrival"
        return min(captured_at - to_wall_s, arrived_s), captured_at, "camera"
