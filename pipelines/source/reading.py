"""Turns the packets of an open source into frames: when each is decoded, and what it is handed over with.

Packets come in the order of decoding. A packet is decoded at once, left out because less is wanted of the camera, or
kept while nobody is there. What is decoded is stamped, sampled, put onto the canvas and handed over.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from visaged.models.graphs.frames import FrameGraphs
from visaged.models.preprocess import Canvas, canvas_for
from visaged.models.surface import DeviceCanvas, Surface
from visaged.models.types import Image
from visaged.pipelines.attention import Attention
from visaged.pipelines.presentation import Presentation
from visaged.pipelines.records import Frame, Lookout, WakeCause
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.decoding import Decoding
from visaged.pipelines.source.demand import FULL, Decode, Demand
from visaged.pipelines.source.errors import blaming
from visaged.pipelines.source.idle.idling import Idling
from visaged.pipelines.source.idle.kept import Arrival
from visaged.pipelines.source.observer import SourceObserver
from visaged.pipelines.source.opening.demuxing import packets
from visaged.pipelines.source.opening.hardware import Hardware
from visaged.pipelines.source.picture.canvases import CanvasPool
from visaged.pipelines.source.picture.display import Display, LastTurn
from visaged.pipelines.source.picture.limit import PictureLimit
from visaged.pipelines.source.picture.on_device import Plans, downloaded
from visaged.pipelines.source.picture.scaler import Scaler
from visaged.pipelines.source.picture.surface import VideoSurface
from visaged.pipelines.source.times.frame_times import FrameTimes
from visaged.pipelines.source.times.pacing import Pace
from visaged.pipelines.source.times.thinning import Thinning
from visaged.pipelines.source.times.timeline import Sampler
from visaged.pipelines.source.times.waiting import PictureWatch


@dataclass(frozen=True, slots=True)
class Told:
    """What is called while a source is read; see `VideoSource`."""

    deliver: Callable[[Frame, threading.Event], bool]
    on_open: Callable[[str, int, int], None]
    on_received: Callable[[bool], None]
    on_damaged: Callable[[], None]
    on_waiting: Callable[[str], None]
    on_idle: Callable[[WakeCause | None], None]
    on_late: Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class _Placed:
    """A frame on the detector's canvas.

    Attributes:
        surface: The whole frame.
        image: The canvas, (H, W, 3) uint8 BGR, or what puts the frame on it where the frame is.
        release: Gives the canvas back.
    """

    surface: Surface
    image: Image | DeviceCanvas
    release: Callable[[], None] = lambda: None


class Reading:
    """Reads one source, connection after connection.

    Args:
        camera: Name of the camera.
        config: The source.
        shape: Long side of the detector's canvas in pixels, and the number that its sides are multiples of.
        told: What is called.
        times: The times of the frames.
        limit: The bound on the pictures.
        observer: Looks on.
        demand: Returns what is wanted of the stream.
        attention: What is found in the frames.
        hardware: The hardware decoder.
        graphs: Work on the frames that it leaves on its device; None where all frames go to host memory.
        clock: Returns monotonic seconds.

    Attributes:
        is_recording: Whether the source has an end.
        is_still: Whether it may be a single picture.
        is_wanted: Whether the last frame was taken.
        pictures: Number of pictures in this round.
        times: The times of the frames.
        pace: At which frames are delivered.
        lag_s: Seconds by which the newest packet came later than by its stamp.
        worked_s: Seconds so far in which it did not wait for packets, or until they were due.
    """

    def __init__(
        self,
        camera: str,
        config: SourceConfig,
        shape: tuple[int, int],
        told: Told,
        times: FrameTimes,
        limit: PictureLimit,
        observer: SourceObserver,
        demand: Callable[[], Demand],
        attention: Attention,
        hardware: Hardware,
        graphs: FrameGraphs | None,
        clock: Callable[[], float],
    ) -> None:
        self._camera = camera
        self._config = config
        self._long_side, self._multiple_of = shape
        self._told = told
        self._limit = limit
        self._observer = observer
        self._asked = demand
        self._hardware = hardware
        self._graphs = graphs
        self._clock = clock
        self._idling = Idling(camera, config, attention, self._let_go, told.on_idle, told.on_late)
        self._stream = 0
        self.is_recording = config.is_file
        self.is_still = False
        self.times = times
        self.lag_s = self.worked_s = 0.0
        self._held_back_s = 0.0  # of the time that the newest packet took
        self.pace: Pace
        self._watch: PictureWatch
        self._decoding: Decoding
        self._display: Display
        self._canvas: Canvas
        self._pool: CanvasPool
        self._scaler: Scaler
        self._plans: Plans | None

    @property
    def live(self) -> bool:
        """Whether the source goes on without waiting for its reader; see `VideoSource.live`."""
        return not self.is_recording or (self._config.loop and self._config.pace == "realtime")

    def begin(self) -> None:
        """Begin a connection."""
        self._stream += 1
        self._presentation: Presentation | None = None
        self._demand = FULL
        self._newest_stamp = -math.inf  # of the pictures that the source's pace was applied to
        self._let_go_pts: int | None = None  # of the newest picture that was not decoded while nobody was there
        self._sampler = Sampler(self._config.fps)
        self._thinning = Thinning(self._config.fps)
        self._last_turn = LastTurn()
        self._idling.begin(self._clock())
        self.times.camera_clock.begin(self._clock())
        self.is_wanted = True

    def begin_round(self, stream: VideoStream) -> None:
        """Begin a round of a file, or the one of a camera, whose decoder is not open yet."""
        self._display = Display(self._camera, self._config, stream, self._last_turn)
        self.pictures = 0

    def end_round(self) -> None:
        """End a round, whose pictures have all come."""
        self._idling.end_round()

    def end(self) -> None:
        """End the connection."""
        self._idling.end()

    def keep_all(self) -> None:
        """Hand every frame over: they are asked for one by one."""
        self._sampler = Sampler(None)

    def read(self, container: InputContainer, stream: VideoStream, stopping: threading.Event) -> None:
        """Read an open source to its end, or until `stopping` is set.

        Raises:
            SourceError: The source failed.
        """
        self._decoding = Decoding(self._camera, stream.codec_context)
        try:
            self._read(container, stream, stopping)
        finally:
            # They hold the decoder, and that a pool of pictures, until the next connection.
            del self._decoding, self._display

    def _read(self, container: InputContainer, stream: VideoStream, stopping: threading.Event) -> None:
        handled_s = self._clock()
        self._watch = PictureWatch(2 * self._config.read_timeout_s, handled_s, self._told.on_waiting, self._limit.hint)
        self._thinning.begin()
        for packet in self._packets(container, stream):
            if stopping.is_set():
                return
            asked_s, arrived_s = handled_s, self._clock()
            if packet.stream_index == stream.index:
                if not self._config.is_file:
                    self.times.camera_clock.report(packet, container.start_time_realtime)
                self._watch.packet(packet.is_keyframe, arrived_s)
                self._observer.packet(packet, asked_s, arrived_s)
                if self._idling.is_idle:
                    self.times.stamps.begin_with(packet)
                stamp = self.times.stamps.of_packet(packet)
                arrival = Arrival(packet, stamp, asked_s, arrived_s)
                if not self._take(arrival, stream, stopping):
                    return
                rest_s = self._idling.rest_s(arrival)
                if rest_s and stopping.wait(rest_s):
                    return
                self._held_back_s += rest_s
            handled_s = self._clock()
            self.worked_s += handled_s - arrived_s - self._held_back_s
            self._held_back_s = 0.0
            if not self.is_recording:
                self._watch.check(arrived_s)

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        with blaming(self._config, opened=True):  # whoever takes the packets raises no exception in here
            yield from packets(container, stream, is_recording=self.is_recording, is_still=self.is_still)

    def _take(self, arrival: Arrival, stream: VideoStream, stopping: threading.Event) -> bool:
        """Decode a packet, or keep it while nobody is there; return whether to go on."""
        decode = self._heed(self._asked() if self.live else FULL, arrival)
        if arrival.stamp_s is not None:
            self.lag_s = self.times.timeline.late_s(arrival.stamp_s, arrival.arrived_s)
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
            if stopping.wait(max(0.0, arrival.arrived_s - self._clock())):
                return False
        for one in due:
            idling.hurry(self._clock())
            if not self._take_whole(one, "all", stream, stopping, is_kept=True):
                return False
        return True

    @property
    def _can_idle(self) -> bool:
        is_reduced = self._demand.decode != "all"
        has_stamps = self.times.stamps.trusted and not self.is_still
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
            self.pictures += decode == "none"  # whether there were any is not known
            self._watch.left_out(arrival.arrived_s)
            return self._hold_back(arrival, stopping) is not None
        for frame in frames:
            self.pictures += 1
            stamp = self.times.stamps.of_frame(frame.time, arrival.arrived_s)
            if is_kept and frame.pts == self._let_go_pts:
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
            self.pictures += 1
            self._watch.picture(self._clock())
            if frame.pts != arrival.packet.pts:  # the decoder still held it
                stamp = self.times.stamps.of_frame(frame.time, arrival.arrived_s)
                if not self._handle(frame, stamp, stream, arrival.arrived_s, stopping):
                    return False
                continue
            if self._display.of(frame) != self._presentation:
                self._idling.wake("shape")
                continue
            with blaming(self._config, opened=True):
                placed = self._in_memory(frame)
            assert not isinstance(placed.image, DeviceCanvas)
            lookout = self._idling.look(arrival, self._canvas.part(placed.image))
            if lookout is None:
                placed.release()
                continue
            self._told.on_received(True)
            due_s, scene_s = self.times.timeline.foresee(arrival.stamp_s or 0.0, arrival.arrived_s)
            if not self._hand_over(frame, placed, due_s, scene_s, arrival.arrived_s, stopping, lookout):
                return False
        if not self._decoding.can_reduce:
            self._idling.wake("key_frames")
        return True

    def _let_go(self, arrival: Arrival) -> None:
        """Count a picture that is not decoded, because nobody was there, as shown."""
        packet, arrived_s = arrival.packet, arrival.arrived_s
        position_s = None if packet.pts is None else float(packet.pts * packet.time_base)
        self.times.advance(self.times.stamps.of_frame(position_s, arrived_s), arrived_s)
        self._let_go_pts = packet.pts

    def _hold_back(self, arrival: Arrival, stopping: threading.Event) -> float | None:
        """Wait until a packet that is left out is due at the source's pace; return when that was.

        B-frames lie behind what was waited for already. None if the source is to stop.
        """
        if arrival.stamp_s is None or arrival.stamp_s <= self._newest_stamp:
            return arrival.arrived_s
        return self._wait(arrival.stamp_s, arrival, stopping)

    def _wait(self, stamp: float, arrival: Arrival, stopping: threading.Event) -> float | None:
        # For the first picture the decoder was opened, which takes a hardware decoder half a second: a recording's pace
        # would be late by that for ever.
        is_first = self._newest_stamp == -math.inf
        now_s = arrival.arrived_s if is_first else self._clock()
        self._newest_stamp = stamp
        wait_s = self.pace.wait_s(stamp, now_s, arrival.arrived_s - arrival.asked_s)
        if wait_s <= 0:
            return arrival.arrived_s
        if self._idling.is_idle and self._idling.may_be_ahead(arrival, wait_s):
            return now_s + wait_s
        self._idling.caught_up()
        if stopping.wait(wait_s):
            return None
        held_until_s = self._clock()
        self._held_back_s += held_until_s - now_s
        return held_until_s

    def _decode(self, arrival: Arrival, decode: Decode) -> list[av.VideoFrame]:
        # Frames that the sampler will not keep, and that no other frame refers to, are not decoded; an idle camera's
        # key frames are looked at however low its rate is.
        stamp = arrival.stamp_s
        is_wanted = (
            self._idling.is_idle or stamp is None or not self._sampler.certainly_not(self.times.timeline.real(stamp))
        )
        try:
            frames = self._decoding.decode(arrival.packet, decode, is_wanted)
        except Exception as error:  # one bad packet; `_watch` notices when no picture comes any more
            self._observer.decoded((), error)
            self._limit.check_failed(self._decoding.context, arrival.packet, error)
            if not self._watch.waits_for_key_frame:
                self._told.on_damaged()
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
        if thinning.fps != before and not self.is_still:  # pictures by URL are asked for at that rate
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
            self._told.on_damaged()
        times = self.times
        due_s = times.advance(stamp, arrived_s)
        kept = self._sampler.keep(times.timeline.real(stamp))
        self._observer.frame(frame, stamp, arrived_s, times.timeline, times.camera_clock)
        presentation = self._display.of(frame)
        if presentation != self._presentation:
            self._reshape(presentation, stream)
        self._told.on_received(kept)
        if not kept:
            return True
        with blaming(self._config, opened=True):
            placed = self._on_canvas(frame)
        return self._hand_over(frame, placed, due_s, times.timeline.scene_s, arrived_s, stopping)

    def _on_canvas(self, frame: av.VideoFrame) -> _Placed:
        """Return a frame on the detector's canvas; on its device if it is there and the graphs know it."""
        there = None if self._plans is None else self._plans.surface(frame)
        return self._in_memory(frame) if there is None else _Placed(there, DeviceCanvas(there, self._canvas))

    def _in_memory(self, frame: av.VideoFrame) -> _Placed:
        """Return a frame on a canvas of the pool, both in this machine's memory."""
        assert self._presentation is not None
        if self._plans is not None:
            frame = downloaded(frame)
        surface, pool = VideoSurface(frame, self._presentation, self._scaler), self._pool
        image = pool.take()
        surface.scale_onto(self._canvas, image)
        return _Placed(surface, image, lambda: pool.give(image))

    def _hand_over(
        self,
        frame: av.VideoFrame,
        placed: _Placed,
        due_s: float,
        scene_s: float,
        arrived_s: float,
        stopping: threading.Event,
        lookout: Lookout | None = None,
    ) -> bool:
        assert self._presentation is not None
        position_s = frame.time if self.times.stamps.trusted else None
        captured_s, captured_at, clock = self.times.captured(position_s, due_s if self.live else arrived_s, arrived_s)
        self.is_wanted = self._told.deliver(
            Frame(
                camera=self._camera,
                stream=self._stream,
                canvas=self._canvas,
                image=placed.image,
                surface=placed.surface,
                presentation=self._presentation,
                captured_s=captured_s,
                motion_s=scene_s,
                captured_at=captured_at,
                clock=clock,
                arrived_s=arrived_s,
                ready_s=self._clock(),
                position_s=position_s,
                release=placed.release,
                lookout=lookout,
            ),
            stopping,
        )
        return self.is_wanted

    def _reshape(self, shown: Presentation, stream: VideoStream) -> None:
        previous, self._presentation = self._presentation, shown
        self._hardware.decoded(stream.codec_context)
        self._canvas = canvas_for(shown.square_width, shown.square_height, self._long_side, self._multiple_of)
        self._pool = CanvasPool(self._canvas)
        self._scaler = Scaler()
        self._plans = None if self._graphs is None else Plans(self._graphs, shown)
        if previous is None or (previous.width, previous.height) != (shown.width, shown.height):
            self._told.on_open(stream.codec_context.name, shown.width, shown.height)
