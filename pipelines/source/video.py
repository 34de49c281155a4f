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

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from visaged.models.preprocess import Canvas, canvas_for
from visaged.models.types import Image
from visaged.pipelines.attention import Attention
from visaged.pipelines.presentation import Presentation
from visaged.pipelines.records import Frame, Lookout, WakeCause
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.decoding import Decoding
from visaged.pipelines.source.demand import FULL, Decode, Demand
from visaged.pipelines.source.errors import SourceError, explain
from visaged.pipelines.source.idle.idling import Idling
from visaged.pipelines.source.idle.kept import Arrival
from visaged.pipelines.source.observer import SourceObserver
from visaged.pipelines.source.opening.demuxing import packets
from visaged.pipelines.source.opening.hardware import Hardware
from visaged.pipelines.source.opening.opener import Opener, has_end, pace_of
from visaged.pipelines.source.picture.canvases import CanvasPool
from visaged.pipelines.source.picture.display import Display, LastTurn
from visaged.pipelines.source.picture.limit import PictureLimit
from visaged.pipelines.source.picture.scaler import Scaler
from visaged.pipelines.source.picture.surface import VideoSurface
from visaged.pipelines.source.times.frame_times import FrameTimes
from visaged.pipelines.source.times.pacing import Pace
from visaged.pipelines.source.times.thinning import Thinning
from visaged.pipelines.source.times.timeline import Sampler
from visaged.pipelines.source.waiting import PictureWatch

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

    Attributes:
        lag_s: Seconds by which the newest packet came later than by its stamp.
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
        self._observer = observer or SourceObserver()
        self._wanted_now = demand
        self._demand = FULL
        self._is_recording = config.is_file
        self._is_still = False
        self._thinning = Thinning(config.fps)
        self.lag_s = 0.0
        self._stream = 0
        self._opened = False
        self._pictures = 0  # of the round
        self._newest_stamp = -math.inf  # of the pictures that the source's pace was applied to
        self._told_pts: int | None = None  # of the newest picture that an idle source did not decode
        self._times = FrameTimes(camera, clock, wall)
        self._hardware = Hardware(camera, config.hardware, config.hardware_device, on_decoder)
        self._opener = Opener(config, credentials, self._hardware, self._observer.connected)
        self._limit = PictureLimit(config)
        self._idling = Idling(camera, config, attention or Attention(), self._let_go, on_idle, on_late)
        self._pace: Pace
        self._watch: PictureWatch
        self._decoding: Decoding
        self._presentation: Presentation | None = None
        self._display: Display
        self._canvas: Canvas
        self._pool: CanvasPool
        self._scaler: Scaler

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
        self._demand = FULL
        self._newest_stamp = -math.inf
        self._sampler = Sampler(config.fps)
        self._thinning = Thinning(config.fps)
        self._times.camera_clock.begin(self._clock())
        self._idling.begin(self._clock())
        self._rounds = 0
        self._last_turn = LastTurn()
        self._wanted = True
        try:
            self._play_rounds(stopping)
        finally:
            self._idling.end()

    def _play_rounds(self, stopping: threading.Event) -> None:
        while True:
            self._opened = False
            pictures = self._play(stopping)
            self._idling.end_round()
            if stopping.is_set() or not self._wanted:
                return
            if self._is_still and pictures == 1:
                self._poll(stopping)
                return
            if not self._is_recording:
                raise SourceError("ended", "the stream ended")
            if not pictures:
                text = f"{self._config.shown_url} has no picture that can be decoded{self._limit.hint()}"
                raise SourceError("invalid", text)
            if not self._config.loop:
                return
            self._rounds += 1

    def _poll(self, stopping: threading.Event) -> None:
        """Fetch a URL that returns one picture again and again; every answer is a frame that is kept."""
        self._sampler = Sampler(None)
        due_s = self._clock()
        missed = 0  # in a row
        while self._wanted:
            interval_s = 1 / (self._wanted_now().capped(self._config.fps or _SNAPSHOTS_FPS) or _SNAPSHOTS_FPS)
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
                    self._times.begin(live=not self._is_recording)
                    self._pace = pace_of(self._config, container, self._is_recording)
                self._is_still = self._opener.is_still(container)
                trusted = self._is_recording or not (self._is_still or container.format.name in _UNSTAMPED_FORMATS)
                self._times.stamps.begin(trusted, float(1 / (stream.average_rate or 25)))
            self._observer.opened(container, stream, self._is_recording, self._is_still)
            self._opened = True
            self._pictures = 0
            self._read(container, stream, stopping)
            return self._pictures
        finally:
            self._opener.close(container)

    def _prepare(self, stream: VideoStream) -> None:
        context = stream.codec_context
        if context is None:
            raise SourceError("invalid", f"{self._config.shown_url}: no decoder for its video")
        self._limit.apply(context)
        self._display = Display(self._camera, self._config, stream, self._last_turn)
        stream.thread_type = "FRAME" if self._config.decoder_threads > 1 else "NONE"
        stream.thread_count = self._config.decoder_threads

    def _read(self, container: InputContainer, stream: VideoStream, stopping: threading.Event) -> None:
        handled_s = self._clock()
        self._watch = PictureWatch(2 * self._config.read_timeout_s, handled_s, self._on_waiting, self._limit.hint)
        self._decoding = Decoding(self._camera, stream.codec_context)
        self._thinning.begin()
        for packet in self._packets(container, stream):
            if stopping.is_set():
                return
            asked_s, arrived_s = handled_s, self._clock()
            if packet.stream_index == stream.index:
                if not self._config.is_file:
                    self._times.camera_clock.report(packet, container.start_time_realtime)
                self._watch.packet(packet.is_keyframe, arrived_s)
                self._observer.packet(packet, asked_s, arrived_s)
                if self._idling.is_idle:
                    self._times.stamps.begin_with(packet)
                stamp = self._times.stamps.of_packet(packet)
                if not self._take(Arrival(packet, stamp, asked_s, arrived_s), stream, stopping):
                    return
            handled_s = self._clock()
            if not self._is_recording:
                self._watch.check(arrived_s)

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        source = packets(container, stream, is_recording=self._is_recording, is_still=self._is_still)
        while True:
            with self._blaming():
                packet = next(source, None)
            if packet is None:
                return
            yield packet

    def _take(self, arrival: Arrival, stream: VideoStream, stopping: threading.Event) -> bool:
        """Decode a packet, or keep it while nobody is there; return whether to go on."""
        decode = self._heed(self._wanted_now() if self.live else FULL, arrival)
        if arrival.stamp_s is not None:
            self.lag_s = self._times.timeline.late_s(arrival.stamp_s, arrival.arrived_s)
        idling = self._idling
        idling.note(arrival, can_idle=self._can_idle)
        if not idling.is_idle:
            return self._take_whole(arrival, decode, stream, stopping)
        if not arrival.packet.size:  # the end of a file that is begun again
            return True
        self._watch.left_out(arrival.arrived_s)
        held_until_s = self._hold_back(arrival, stopping)
        if held_until_s is None:
            return False
        arrival = replace(arrival, arrived_s=held_until_s)
        if idling.is_due(arrival) and not self._look_out(arrival, stream, stopping):
            return False
        due = idling.keep(arrival)
        if due:
            self._decoding.rewind()
        return all(self._take_whole(one, "all", stream, stopping, is_kept=True) for one in due)

    @property
    def _can_idle(self) -> bool:
        is_reduced = self._demand.decode != "all"
        has_stamps = self._times.stamps.trusted and not self._is_still
        return self.live and has_stamps and self._decoding.can_reduce and not is_reduced

    def _take_whole(
        self, arrival: Arrival, decode: Decode, stream: VideoStream, stopping: threading.Event, *, is_kept: bool = False
    ) -> bool:
        """Decode a packet, and handle its frames; return whether to go on.

        Args:
            arrival: The packet.
            decode: What is to be decoded.
            stream: The stream.
            stopping: Set when the source is to stop.
            is_kept: Whether it was kept, so that it is late already, and its picture may have been told of.
        """
        frames = self._decode(arrival, decode)
        if not frames and not self._decoding.is_whole:
            self._pictures += decode == "none"  # whether there were any is not known
            self._watch.left_out(arrival.arrived_s)
            return self._hold_back(arrival, stopping) is not None
        for frame in frames:
            self._pictures += 1
            stamp = self._times.stamps.of_frame(frame.time, arrival.arrived_s)
            if is_kept and frame.pts == self._told_pts:
                self._display.of(frame)
                continue
            held_until_s = arrival.arrived_s
            if not is_kept:
                held_s = self._wait(stamp, arrival, stopping)
                if held_s is None:
                    return False
                held_until_s = held_s
            self._watch.picture(self._clock())
            if stopping.is_set() or not self._handle(frame, stamp, stream, held_until_s, stopping):
                return False
        return True

    def _look_out(self, arrival: Arrival, stream: VideoStream, stopping: threading.Event) -> bool:
        """Decode a key frame of an idle camera, and look whether something is there; return whether to go on."""
        for frame in self._decode(arrival, "key_frames"):
            self._pictures += 1
            self._watch.picture(self._clock())
            if frame.pts != arrival.packet.pts:  # the decoder still held it
                stamp = self._times.stamps.of_frame(frame.time, arrival.arrived_s)
                if not self._handle(frame, stamp, stream, arrival.arrived_s, stopping):
                    return False
                continue
            if self._display.of(frame) != self._presentation:
                self._idling.wake("shape")
                continue
            surface, image = self._on_canvas(frame)
            lookout = self._idling.look(arrival, self._canvas.part(image))
            if lookout is None:
                self._pool.give(image)
                continue
            self._on_received(True)
            due_s, scene_s = self._times.timeline.foresee(arrival.stamp_s or 0.0, arrival.arrived_s)
            if not self._hand_over(frame, surface, image, due_s, scene_s, arrival.arrived_s, stopping, lookout):
                return False
        if not self._decoding.can_reduce:
            self._idling.wake("key_frames")
        return True

    def _let_go(self, arrival: Arrival) -> None:
        """Count a picture that is not decoded, because nobody was there, as shown."""
        packet, arrived_s = arrival.packet, arrival.arrived_s
        position_s = None if packet.pts is None else float(packet.pts * packet.time_base)
        self._times.advance(self._times.stamps.of_frame(position_s, arrived_s), arrived_s)
        self._told_pts = packet.pts

    def _hold_back(self, arrival: Arrival, stopping: threading.Event) -> float | None:
        """Wait until a packet that is left out is due at the source's pace; return when that was.

        B-frames lie behind what was waited for already. None if the source is to stop.
        """
        if arrival.stamp_s is None or arrival.stamp_s <= self._newest_stamp:
            return arrival.arrived_s
        return self._wait(arrival.stamp_s, arrival, stopping)

    def _wait(self, stamp: float, arrival: Arrival, stopping: threading.Event) -> float | None:
        self._newest_stamp = stamp
        now_s = self._clock()
        wait_s = self._pace.wait_s(stamp, now_s, arrival.arrived_s - arrival.asked_s)
        if wait_s <= 0:
            return arrival.arrived_s
        return None if stopping.wait(wait_s) else self._clock()

    def _decode(self, arrival: Arrival, decode: Decode) -> list[av.VideoFrame]:
        # Frames that the sampler will not keep, and that no other frame refers to, are not decoded.
        stamp = arrival.stamp_s
        is_wanted = stamp is None or not self._sampler.certainly_not(self._times.timeline.real(stamp))
        try:
            frames = self._decoding.decode(arrival.packet, decode, is_wanted)
        except Exception as error:  # one bad packet; `_watch` notices when no picture comes any more
            self._observer.decoded((), error)
            self._limit.check_failed(self._decoding.context, arrival.packet, error)
            if not self._watch.waits_for_key_frame:
                self._on_damaged()
            return []
        self._observer.decoded(frames, None)
        return frames

    def _heed(self, demand: Demand, arrival: Arrival) -> Decode:
        """Set which frames are chosen, and return what is to be decoded of a packet."""
        if demand is not self._demand:
            self._demand = demand
            if demand.decode != "all":
                self._idling.end()  # as little is decoded without it
        thinning, packet = self._thinning, arrival.packet
        before = thinning.fps
        decode = thinning.heed(demand, arrival.stamp_s, packet.is_keyframe, self._hardware.is_used)
        if thinning.fps != before and not self._is_still:  # pictures by URL are asked for at that rate
            self._sampler.set_fps(thinning.fps)
        return decode

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
        times = self._times
        due_s = times.advance(stamp, arrived_s)
        kept = self._sampler.keep(times.timeline.real(stamp))
        self._observer.frame(frame, stamp, arrived_s, times.timeline, times.camera_clock)
        presentation = self._display.of(frame)
        if presentation != self._presentation:
            self._reshape(presentation, stream)
        self._on_received(kept)
        if not kept:
            return True
        surface, image = self._on_canvas(frame)
        return self._hand_over(frame, surface, image, due_s, times.timeline.scene_s, arrived_s, stopping)

    def _on_canvas(self, frame: av.VideoFrame) -> tuple[VideoSurface, Image]:
        """Return a frame's full picture, and a canvas of the pool with it."""
        assert self._presentation is not None
        surface = VideoSurface(frame, self._presentation, self._scaler)
        image = self._pool.take()
        with self._blaming():
            surface.scale_onto(self._canvas, image)
        return surface, image

    def _hand_over(
        self,
        frame: av.VideoFrame,
        surface: VideoSurface,
        image: Image,
        due_s: float,
        scene_s: float,
        arrived_s: float,
        stopping: threading.Event,
        lookout: Lookout | None = None,
    ) -> bool:
        assert self._presentation is not None
        pool = self._pool
        position_s = frame.time if self._times.stamps.trusted else None
        captured_s, captured_at, clock = self._times.captured(position_s, due_s if self.live else arrived_s, arrived_s)
        self._wanted = self._deliver(
            Frame(
                camera=self._camera,
                stream=self._stream,
                canvas=self._canvas,
                image=image,
                surface=surface,
                presentation=self._presentation,
                captured_s=captured_s,
                motion_s=scene_s,
                captured_at=captured_at,
                clock=clock,
                arrived_s=arrived_s,
                ready_s=self._clock(),
                position_s=position_s,
                release=lambda: pool.give(image),
                lookout=lookout,
            ),
            stopping,
        )
        return self._wanted

    def _reshape(self, shown: Presentation, stream: VideoStream) -> None:
        previous, self._presentation = self._presentation, shown
        self._hardware.decoded(stream.codec_context)
        self._canvas = canvas_for(shown.square_width, shown.square_height, self._long_side, self._multiple_of)
        self._pool = CanvasPool(self._canvas)
        self._scaler = Scaler()
        if previous is None or (previous.width, previous.height) != (shown.width, shown.height):
            self._on_open(stream.codec_context.name, shown.width, shown.height)
