"""The options for FFmpeg's protocols and demuxers, by the kind of a source."""

from __future__ import annotations

from visaged.pipelines.source.config import SourceConfig


def demuxer_options(config: SourceConfig) -> dict[str, str]:
    """Return the options for FFmpeg's protocol and demuxer, by name; options of the configuration override them."""
    secured = config.tls.options() if config.address.kind == "stream" else {}
    return secured | config.pixel_options() | _by_kind(config)


def _by_kind(config: SourceConfig) -> dict[str, str]:
    address = config.address
    microseconds = str(int(config.read_timeout_s * 1e6))
    # No "nobuffer": it drops what probing read, with the first key frame, and the next one may come 10 s later.
    if address.kind == "device":
        return {}
    if address.kind == "file":
        return {"pattern_type": "none"}  # % or * in the name of a picture must not be read as a pattern
    if address.kind == "sdp":
        return {"protocol_whitelist": "file,crypto,data,udp,rtp,tcp"}
    if address.scheme in ("rtsp", "rtsps"):
        return {
            "rtsp_transport": config.transport,
            "timeout": microseconds,
            "allowed_media_types": "video",
            # Enough for the first key frame of a slow camera, as tried; the default waits for five seconds.
            "analyzeduration": "3000000",
        }
    # For MPEG transport streams: a stream whose codec changes stays the same stream. PyAV would not know a new one, and
    # would drop its packets within one call for ever, without a timeout or a way to stop.
    options = {
        "merge_pmt_versions": "1",
        # Between two key frames there is nothing to analyse; this must not take all the time for opening.
        "analyzeduration": str(int(min(5.0, 0.6 * config.open_timeout_s) * 1e6)),
    }
    if address.scheme in ("http", "https"):
        options |= {"rw_timeout": microseconds}
    return options
