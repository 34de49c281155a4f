"""Where pictures come from: RTSP, HTTP, files and USB cameras, through PyAV.

`VideoSource.run` opens a source, hands on the frames that the sampler keeps, and returns when a file has ended or
raises `SourceError` when the source is broken; who calls it again, and when, is not its business. Facts that shaped it,
each with a test:

- Only the thread that opened a container may close it; closing from another one is a segmentation fault. It is stopped
  by a flag that is seen between two packets, at the latest when the read timeout has passed.
- A stall is seen after twice the read timeout, because FFmpeg flushes a last frame first.
- A camera that goes away often looks like a clean end of file; on a live source that is a failure.
- `frame.reformat()` keeps a scaler for every frame that is held: 154 MB for 40 frames. One reformatter a stream: none.
- A hardware decoder that is not there raises, or silently decodes in software.
- The frames of one stream can change size, pixel format and time base.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

import av
import av.error
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from pydantic import BaseModel, ConfigDict, Field, field_validator

from visaged.models.preprocess import Canvas, canvas_for
from visaged.models.types import Image
from visaged.pipelines.frames import CanvasPool, Clock, Frame, VideoPixels, plane_rows
from visaged.pipelines.redact import redact, with_credentials
from visaged.pipelines.timeline import Sampler, Timeline

log = logging.getLogger(__name__)

Discard = Literal["DEFAULT", "NONREF"]

_LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "rtp"})
_DEVICE_SCHEMES = {"v4l2": "v4l2", "avfoundation": "avfoundation", "dshow": "dshow"}
# A camera clock further from the machine's than this says nothing about the age of a frame.
_PLAUSIBLE_AGE_S = (-0.5, 60.0)


class SourceError(Exception):
    """A source cannot be opened, or broke. The text says why, without credentials.

    Attributes:
        cause: One word for metrics: refused, unauthorized, not_found, timeout, unreachable, invalid, ended, device,
            other.
    """

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


class SourceConfig(BaseModel):
    """Where a camera's pictures come from and how they are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    """`rtsp://`, `rtsps://`, `http(s)://`, `rtmp://`, `srt://`, `udp://`; a file's path; `/dev/video0` (Linux),
    `avfoundation:NAME` (macOS) or `dshow:NAME` (Windows) for a USB camera."""
    transport: Literal["tcp", "udp"] = "tcp"
    """How RTSP carries its media. TCP loses nothing; UDP is for networks that cannot do otherwise."""
    open_timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    """How long opening may take."""
    read_timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    """How long a live source may be silent; a stall is seen after twice this time."""
    fps: Annotated[float, Field(gt=0, le=240)] | None = 5.0
    """Frames to analyse a second; null for every frame."""
    pace: Literal["realtime", "fast"] = "realtime"
    """Files only: at their own speed, or as fast as this machine can."""
    loop: bool = False
    """Files only: start again at the end, for ever; a looping file counts as a live camera."""
    decoder_threads: Annotated[int, Field(ge=1, le=16)] = 1
    """Threads to decode with. Each one more holds back a frame; one decodes some 300 frames of 1080p a second."""
    hardware: Literal["off", "cuda", "qsv", "vaapi", "videotoolbox", "d3d11va"] = "off"
    """Hardware decoder to try; without it the stream is decoded in software, and the log says so."""
    options: dict[str, str] = {}
    """More options for FFmpeg's demuxer, by its names."""

    @field_validator("url")
    @classmethod
    def _known_kind(cls, url: str) -> str:
        if not url.strip():
            raise ValueError("is empty; give an RTSP or HTTP URL, a file, or a device")
        scheme = _scheme(url)
        if scheme is not None and scheme not in _LIVE_SCHEMES | {"file"} | set(_DEVICE_SCHEMES):
            raise ValueError(
                f"scheme {scheme!r} is not supported; known are {', '.join(sorted(_LIVE_SCHEMES))}, file, "
                f"{', '.join(_DEVICE_SCHEMES)}"
            )
        if scheme in _LIVE_SCHEMES:
            try:
                parts = urlsplit(url)
                host, _ = parts.hostname, parts.port
            except ValueError as error:
                raise ValueError(f"is not a valid URL: {error}") from None
            if not host:
                raise ValueError("names no host")
        return url

    @property
    def live(self) -> bool:
        """Whether frames are lost when nobody takes them: everything but a file that is read once."""
        return not self.is_file or (self.loop and self.pace == "realtime")

    @property
    def is_file(self) -> bool:
        """Whether this is a file."""
        return _scheme(self.url) in (None, "file") and self.device is None

    @property
    def device(self) -> tuple[str, str] | None:
        """FFmpeg's input format and device name of a USB camera."""
        scheme = _scheme(self.url)
        if scheme in _DEVICE_SCHEMES:
            name = self.url.partition(":")[2].removeprefix("//")
            return _DEVICE_SCHEMES[scheme], f"video={name}" if scheme == "dshow" else name
        if scheme is None and sys.platform == "linux" and self.url.startswith("/dev/video"):
            return "v4l2", self.url
        return None

    @property
    def path(self) -> Path:
        """The file's path."""
        return Path(unquote(urlsplit(self.url).path) if _scheme(self.url) == "file" else self.url)


def _scheme(url: str) -> str | None:
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", url)  # one letter is a Windows drive
    return match[1].lower() if match else None


class VideoSource:
    """One camera's pictures.

    Args:
        camera: Its name.
        config: Where from and how.
        long_side: Of the detector's canvas in pixels.
        deliver: Takes a frame that the sampler kept; returns whether to go on.
        on_open: Called with codec, width and height when the first frame has come, and again when they change.
        on_received: Called for every decoded frame, with whether the sampler kept it.
        on_damaged: Called for every packet that could not be decoded and every frame that the decoder calls corrupt.
        credentials: User and password, put into the URL when it is opened.
        multiple_of: What the canvas's sides must divide by.
        clock: Monotonic seconds.
        wall: Seconds since 1970.
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
        credentials: tuple[str | None, str | None] = (None, None),
        multiple_of: int = 32,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._camera = camera
        self._config = config
        self._long_side = long_side
        self._multiple_of = multiple_of
        self._deliver = deliver
        self._on_open = on_open
        self._on_received = on_received
        self._on_damaged = on_damaged
        self._credentials = credentials
        self._clock = clock
        self._wall = wall
        self._stream = 0
        self._opened = False
        self._clock_warned = False
        self._size = (0, 0)
        self._canvas: Canvas
        self._pool: CanvasPool
        self._reformatter = VideoReformatter()

    def run(self, stopping: threading.Event) -> None:
        """Read until a file ends or `stopping` is set.

        Raises:
            SourceError: The source cannot be opened, broke, or is live and ended.
        """
        self._stream += 1
        self._size = (0, 0)
        self._sampler = Sampler(self._config.fps)
        self._timeline = Timeline()
        self._fast_start = self._clock()
        while True:
            self._opened = False
            try:
                self._play(stopping)
            except (av.error.FFmpegError, OSError) as error:
                raise _explain(error, self._config, self._opened) from None
            if stopping.is_set():
                return
            if not self._config.is_file:
                raise SourceError("ended", "the stream ended")
            if not self._config.loop:
                return

    def _play(self, stopping: threading.Event) -> None:
        container = self._open()
        try:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                raise SourceError("invalid", f"{redact(self._config.url)} has no video")
            self._prepare(stream)
            self._opened = True
            self._read(container, stream, stopping)
        finally:
            container.close()

    def _open(self) -> InputContainer:
        config = self._config
        target, format_name = config.url, None
        options = {"fflags": "nobuffer", "flags": "low_delay"} if config.live else {}
        microseconds = str(int(config.read_timeout_s * 1e6))
        scheme = _scheme(config.url)
        if config.device is not None:
            format_name, target = config.device
        elif config.is_file:
            target = str(config.path)
            if not config.path.is_file():
                what = "is not a file" if config.path.exists() else "does not exist"
                raise SourceError("not_found", f"{target} {what}")
            options = {}
        elif scheme in ("rtsp", "rtsps"):
            options |= {
                "rtsp_transport": config.transport,
                "timeout": microseconds,
                "allowed_media_types": "video",
                # Enough for a slow camera's first key frame, found by trying; the default waits for five seconds.
                "analyzeduration": "3000000",
            }
        elif scheme in ("http", "https"):
            options |= {"rw_timeout": microseconds}
        return av.open(
            with_credentials(target, *self._credentials) if not config.is_file and not config.device else target,
            format=format_name,
            options=options | config.options,
            timeout=(config.open_timeout_s, config.read_timeout_s),
            hwaccel=self._hardware(),
        )

    def _hardware(self) -> HWAccel | None:
        if self._config.hardware == "off":
            return None
        try:
            return HWAccel(self._config.hardware, allow_software_fallback=True)
        except (av.error.FFmpegError, OSError, ValueError, RuntimeError) as error:
            log.warning(
                "camera %s: hardware decoder %s is not usable here (%s), decoding in software",
                self._camera, self._config.hardware, redact(str(error)),
            )  # fmt: skip
            return None

    def _prepare(self, stream: VideoStream) -> None:
        context = stream.codec_context
        if context is None:
            raise SourceError("invalid", f"{redact(self._config.url)}: no decoder for its video")
        if self._config.hardware != "off" and not context.is_hwaccel:
            log.warning("camera %s: decoding in software, not by %s", self._camera, self._config.hardware)
        stream.thread_type = "FRAME" if self._config.decoder_threads > 1 else "NONE"
        stream.thread_count = self._config.decoder_threads

    def _read(self, container: InputContainer, stream: VideoStream, stopping: threading.Event) -> None:
        paced = self._config.is_file and self._config.pace == "realtime"
        pace_start: float | None = None
        interval_s = float(1 / (stream.average_rate or 25))
        last_stamp = -interval_s
        last_frame_s = self._clock()
        context = stream.codec_context
        discard: Discard = "DEFAULT"
        for packet in container.demux(stream):
            if stopping.is_set():
                return
            arrived_s = self._clock()
            stamp = None if packet.pts is None else float(packet.pts * packet.time_base)
            # Frames that no other frame needs and that the sampler will not want are not even decoded.
            wanted: Discard = "NONREF" if stamp is not None and self._sampler.certainly_not(stamp) else "DEFAULT"
            if wanted != discard:
                context.skip_frame = discard = wanted
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                self._on_damaged()
                frames = []
            for frame in frames:
                last_frame_s = arrived_s
                # A camera's first frame, and raw H.264 files, have no stamps: they follow at the nominal rate.
                last_stamp = frame.time if frame.time is not None else last_stamp + interval_s
                if paced:
                    pace_start = self._clock() - last_stamp if pace_start is None else pace_start
                    pace_start = max(pace_start, self._clock() - last_stamp - 1.0)  # fell behind: do not catch up
                    if stopping.wait(max(0.0, pace_start + last_stamp - self._clock())):
                        return
                    arrived_s = self._clock()
                if not self._handle(frame, last_stamp, container, arrived_s, stopping):
                    return
            if self._config.live and arrived_s - last_frame_s > 2 * self._config.read_timeout_s:
                raise SourceError("invalid", f"data comes, but no picture in {2 * self._config.read_timeout_s:.0f} s")

    def _handle(
        self,
        frame: av.VideoFrame,
        stamp: float,
        container: InputContainer,
        arrived_s: float,
        stopping: threading.Event,
    ) -> bool:
        if frame.is_corrupt:
            self._on_damaged()
        motion_s = self._timeline.capture(stamp, arrived_s)
        kept = self._sampler.keep(stamp)
        if (frame.width, frame.height) != self._size:
            self._resize(frame, container)
        self._on_received(kept)
        if not kept:
            return True
        captured_s, captured_at, clock = self._capture_time(container, frame.time, motion_s, arrived_s)
        if self._config.pace == "fast" and self._config.is_file:
            motion_s = self._fast_start + stamp
        pool = self._pool
        image = pool.take()
        self._scale(frame, image)
        return self._deliver(
            Frame(
                camera=self._camera,
                stream=self._stream,
                canvas=self._canvas,
                image=image,
                pixels=VideoPixels(frame),
                captured_s=captured_s,
                motion_s=motion_s,
                captured_at=captured_at,
                clock=clock,
                arrived_s=arrived_s,
                ready_s=self._clock(),
                position_s=frame.time,
                release=lambda: pool.give(image),
            ),
            stopping,
        )

    def _resize(self, frame: av.VideoFrame, container: InputContainer) -> None:
        self._size = (frame.width, frame.height)
        self._canvas = canvas_for(frame.width, frame.height, self._long_side, self._multiple_of)
        self._pool = CanvasPool(self._canvas)
        self._reformatter = VideoReformatter()
        self._on_open(container.streams.video[0].codec_context.name, frame.width, frame.height)

    def _scale(self, frame: av.VideoFrame, image: Image) -> None:
        canvas = self._canvas
        scaled = self._reformatter.reformat(
            frame, canvas.picture_width, canvas.picture_height, "bgr24", interpolation=Interpolation.AREA
        )
        rows = plane_rows(scaled.planes[0])
        image[: canvas.picture_height, : canvas.picture_width] = rows[:, : canvas.picture_width * 3].reshape(
            canvas.picture_height, canvas.picture_width, 3
        )

    def _capture_time(
        self, container: InputContainer, position: float | None, motion_s: float, arrived_s: float
    ) -> tuple[float, float, Clock]:
        now_s, now_at = self._clock(), self._wall()
        start = container.start_time_realtime if not self._config.is_file else None
        if start is not None and position is not None:
            captured_at = start / 1e6 + position
            age_s = now_at - captured_at
            if _PLAUSIBLE_AGE_S[0] <= age_s <= _PLAUSIBLE_AGE_S[1]:
                return min(now_s - age_s, arrived_s), captured_at, "camera"
            if not self._clock_warned:
                self._clock_warned = True
                log.warning(
                    "camera %s: its clock is %.1f s off this machine's, taking arrival times instead; "
                    "let both follow the same NTP server", self._camera, age_s,
                )  # fmt: skip
        captured_s = motion_s if self._config.live else arrived_s
        return captured_s, now_at - (now_s - captured_s), "arrival"


_CAUSES: tuple[tuple[type[Exception], str, str], ...] = (
    (av.error.HTTPUnauthorizedError, "unauthorized", "refused the user or password (401)"),
    (av.error.HTTPForbiddenError, "unauthorized", "refused access (403)"),
    (av.error.HTTPNotFoundError, "not_found", "has no such stream (404)"),
    (av.error.HTTPOtherClientError, "refused", "refused the request (4xx); an RTSP camera without video answers so"),
    (av.error.HTTPError, "refused", "answered with an error"),
    (av.error.ConnectionRefusedError, "refused", "refused the connection: nothing listens at this port"),
    (av.error.ExitError, "timeout", "did not answer in time"),
    (av.error.TimeoutError, "timeout", "did not answer in time"),
    (av.error.InvalidDataError, "invalid", "sent something that is no video"),
    (av.error.EOFError, "ended", "closed the connection"),
    (av.error.FileNotFoundError, "not_found", "does not exist"),
    (av.error.PermissionError, "device", "may not be opened: permission denied"),
    (BlockingIOError, "timeout", "did not answer in time"),
    (ConnectionError, "refused", "broke the connection"),
)


def _explain(error: Exception, config: SourceConfig, opened: bool) -> SourceError:
    """Return what went wrong in words. FFmpeg's own texts repeat the URL with its password, so they are not used."""
    where = redact(config.url)
    for kind, cause, text in _CAUSES:
        if isinstance(error, kind):
            return SourceError(cause, f"{where} {text}")
    reason = redact(str(getattr(error, "strerror", None) or type(error).__name__))
    if opened:
        return SourceError("timeout", f"{where} stopped sending: {reason}")
    if config.device is not None:
        return SourceError("device", f"{where} cannot be opened: {reason} (is another program using it?)")
    cause = "unreachable" if isinstance(error, OSError) else "other"
    return SourceError(cause, f"{where} cannot be reached: {reason}; check host, port and path")
