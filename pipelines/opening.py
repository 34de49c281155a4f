"""How FFmpeg is asked to open a source."""

from __future__ import annotations

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
