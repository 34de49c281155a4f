"""How FFmpeg is asked to open a source, and what it then is: a recording or live."""

from __future__ import annotations

from av.container import InputContainer
from av.video.stream import VideoStream

from visaged.pipelines.pacing import FilePace, LeadPace, Pace, SegmentPace, Unpaced
from visaged.pipelines.source_config import SourceConfig


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
    options = {"merge_pmt_versions": "1"}
    if address.scheme in ("http", "https"):
        options |= {"rw_timeout": microseconds}
    return options


# Playlists of segments.
_SEGMENTED = frozenset({"hls", "dash"})
# Parts of one answer, each a picture: always live, whatever length the answer claims.
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
    if container.format.name in _ENDLESS:
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
