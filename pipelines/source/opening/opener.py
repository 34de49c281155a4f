"""How FFmpeg is asked to open a source, and what it then is: a recording or live."""

from __future__ import annotations

import functools

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from visaged.pipelines.runtime.redact import redact, with_credentials
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.errors import SourceError
from visaged.pipelines.source.opening.hardware import Hardware
from visaged.pipelines.source.opening.jpegs import JpegStream
from visaged.pipelines.source.times.pacing import FilePace, LeadPace, Pace, SegmentPace, Unpaced


class Opener:
    """Opens one camera's source, and remembers whether it is one of JPEGs that FFmpeg does not read by itself.

    Such a camera is opened twice for the first time: FFmpeg is tried first, because it can nearly everything.

    Args:
        config: The source.
        credentials: User and password, put into the URL when it is opened.
        hardware: The decoder.
    """

    def __init__(self, config: SourceConfig, credentials: tuple[str | None, str | None], hardware: Hardware) -> None:
        self._config = config
        self._credentials = credentials
        self._hardware = hardware
        self._is_jpegs = False
        self._jpegs: JpegStream | None = None

    def open(self) -> InputContainer:
        """Return the open source.

        Raises:
            SourceError: Its file is missing, or it sends no picture.
            Exception: Whatever PyAV raises.
        """
        missing = self._config.address.missing()
        if missing is not None:
            raise SourceError("not_found", missing)
        if self._config.address.scheme not in ("http", "https"):
            return self._open(self._config.address.format, demuxer_options(self._config))
        if not self._is_jpegs:
            container = self._open_known()
            if container is not None:
                return container
        self._is_jpegs = False
        container = self._open_jpegs()
        self._is_jpegs = True
        return container

    def close(self, container: InputContainer) -> None:
        """Close the source that `open` returned; in the same thread."""
        container.close()
        if self._jpegs is not None:
            self._jpegs.close()
            self._jpegs = None

    def is_still(self, container: InputContainer) -> bool:
        """Return whether an open source may be one picture: a camera's snapshot, and not a stream."""
        name = container.format.name
        return self._config.address.scheme in ("http", "https") and (name == "mpjpeg" or name.endswith("_pipe"))

    def _open_known(self) -> InputContainer | None:
        """Return the source as FFmpeg opens it; None where JPEGs may be found in what it does not know."""
        options = demuxer_options(self._config) | {
            "format_whitelist": _all_but_bare_jpegs(),
            # A camera of one small JPEG a second would take minutes to send the megabyte that FFmpeg looks at.
            "formatprobesize": "65536",
        }
        try:
            container = self._open(None, options)
        except (av.error.InvalidDataError, av.error.ArgumentError):
            return None
        # Every JPEG has its size: where there is none, FFmpeg has not found one.
        contexts = [stream.codec_context for stream in container.streams.video]
        if not any(context and context.name == "mjpeg" and not context.width for context in contexts):
            return container
        container.close()
        return None

    def _open_jpegs(self) -> InputContainer:
        config = self._config
        answer = self._open("data", demuxer_options(config) | {"raw_packet_size": "65536"})
        self._jpegs = JpegStream(redact(config.url), answer, 2 * config.read_timeout_s)
        try:
            return av.open(self._jpegs, "r", format="mpjpeg", hwaccel=self._hardware.decoder())
        except BaseException:
            self._jpegs.close()
            self._jpegs = None
            raise

    def _open(self, format_name: str | None, options: dict[str, str]) -> InputContainer:
        config, address = self._config, self._config.address
        return av.open(
            with_credentials(address.target, *self._credentials) if address.kind == "stream" else address.target,
            format=format_name,
            options=options | config.options,
            timeout=(config.open_timeout_s, config.read_timeout_s),
            hwaccel=self._hardware.decoder(),
        )


@functools.cache
def _all_but_bare_jpegs() -> str:
    """Return the demuxers that are tried; those left out would read pictures by their URL's ending, or too slowly."""
    return ",".join(sorted(av.formats_available - {"jpeg_pipe", "mjpeg", "image2"}))


def demuxer_options(config: SourceConfig) -> dict[str, str]:
    """Return the options for FFmpeg's protocol and demuxer, by its names; those of the configuration go over them."""
    address = config.address
    microseconds = str(int(config.read_timeout_s * 1e6))
    # No "nobuffer": it throws away what probing reads, with the first key frame, and the next one may be 10 s off.
    if address.kind == "device":
        return {}
    if address.kind == "file":
        return {"pattern_type": "none"}  # a picture's name with % or * is no pattern of many names
    if address.kind == "sdp":
        return {"protocol_whitelist": "file,crypto,data,udp,rtp,tcp"}
    if address.scheme in ("rtsp", "rtsps"):
        return {
            "rtsp_transport": config.transport,
            "timeout": microseconds,
            "allowed_media_types": "video",
            # Enough for a slow camera's first key frame, found by trying; the default waits for five seconds.
            "analyzeduration": "3000000",
        }
    # Of an MPEG transport stream: one whose codec changes stays the stream that it was. A new one would be
    # unknown to PyAV, which swallows its packets within one call: no timeout, no stop, for ever.
    options = {
        "merge_pmt_versions": "1",
        # Video that is joined between two key frames shows nothing to find out; opening must not take all its time.
        "analyzeduration": str(int(min(5.0, 0.6 * config.open_timeout_s) * 1e6)),
    }
    if address.scheme in ("http", "https"):
        options |= {"rw_timeout": microseconds}
    return options


# Playlists of segments.
_SEGMENTED = frozenset({"hls", "dash"})
# Pictures of one answer: live, whatever length the answer claims.
_ENDLESS = frozenset({"mpjpeg"})
# AVFMT_TS_DISCONT: stamps may have steps.
_MAY_HAVE_CUTS = 0x200
# Lengths that servers claim of what has none.
_MOST_BYTES = 1 << 40
_NO_LENGTHS = frozenset({(1 << 31) - 1, (1 << 32) - 1})


def has_end(config: SourceConfig, container: InputContainer, stream: VideoStream) -> bool:
    """Return whether an open source is a recording: a file, here or behind HTTP, or a playlist that is complete.

    Where that cannot be known, it is live: a recording that is taken for a camera is played again, but a camera that is
    taken for a recording would be lost when its connection breaks.
    """
    if config.is_file:
        return True
    if config.address.scheme not in ("http", "https"):
        return False
    has_duration = (container.duration or 0) > 0
    if container.format.name in _SEGMENTED:
        return has_duration
    if container.format.name in _ENDLESS or container.format.name.endswith("_pipe"):
        return False
    # A table of all frames, as MP4 has one, cannot be written before the last of them.
    return (has_duration and stream.frames > 0) or _has_length(container)


def _has_length(container: InputContainer) -> bool:
    size = container.size
    return 0 < size < _MOST_BYTES and size not in _NO_LENGTHS


def pace_of(config: SourceConfig, container: InputContainer, is_recording: bool) -> Pace:
    """Return when the frames of an open source are due."""
    if is_recording:
        return FilePace(bool(container.format.flags & _MAY_HAVE_CUTS)) if config.pace == "realtime" else Unpaced()
    if container.format.name in _SEGMENTED:
        return SegmentPace()
    return LeadPace() if config.address.scheme in ("http", "https", "rtmp", "rtmps", "tcp") else Unpaced()
