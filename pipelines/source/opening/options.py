"""The options for FFmpeg's protocols and demuxers, by the kind of a source."""

from __future__ import annotations

import functools
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import av

from visaged.pipelines.source.config import SourceConfig

# Demuxers that open further files and hosts, which their data name. FFmpeg chooses a demuxer by the data, so a camera
# or a file could choose one of these. Playlists are opened by `playlist_format` alone.
_LEADING_ELSEWHERE = frozenset(
    {"hls", "dash", "webm_dash_manifest", "imf", "concat", "sdp", "rtsp", "rtp", "sap", "vobsub", "lavfi", "avisynth",
     "vapoursynth", "dvdvideo", "bluray", "libcdio"}
)  # fmt: skip
_PLAYLISTS = {".m3u8": "hls", ".m3u": "hls", ".mpd": "dash"}
# Protocols that FFmpeg may use for a scheme, beneath it and for what it is led to.
_WEB = "http,https,tls,tcp,httpproxy,crypto"
_PROTOCOLS = {
    "rtsp": "rtp,srtp,udp,tcp",
    "rtsps": "rtp,srtp,udp,tcp,tls",
    "http": _WEB,
    "https": _WEB,
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "rtp": "rtp,udp",
}


@functools.cache
def formats(*more: str, without: frozenset[str] = frozenset()) -> str:
    """Return the demuxers that may be chosen by the data, for FFmpeg's `format_whitelist`.

    Args:
        more: Demuxers that are allowed although they open further files or hosts.
        without: Demuxers that are not allowed.
    """
    return ",".join(sorted(((av.formats_available - _LEADING_ELSEWHERE) | set(more)) - without))


def playlist_format(config: SourceConfig) -> str | None:
    """Return FFmpeg's demuxer for a source that is a playlist by its configuration or its URL; None for others."""
    address = config.address
    if address.path is None and address.scheme not in ("http", "https"):
        return None
    path = urlsplit(address.target).path if address.path is None else address.path.name
    return config.format or _PLAYLISTS.get(PurePosixPath(path).suffix.lower())


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
        # % or * in the name of a picture must not be read as a pattern
        return {"pattern_type": "none", "protocol_whitelist": "file,crypto", "format_whitelist": formats()}
    if address.kind == "sdp":
        return {"protocol_whitelist": "file,rtp,srtp,udp"}
    own = {"rtsp": "rtsp", "rtsps": "rtsp", "rtp": "rtp"}.get(address.scheme)
    options = {
        "protocol_whitelist": _PROTOCOLS.get(address.scheme, address.scheme),
        "format_whitelist": formats() if own is None else formats(own),
    }
    if address.scheme in ("rtsp", "rtsps"):
        return options | {
            # Over TLS, media cannot come by UDP.
            "rtsp_transport": "tcp" if address.scheme == "rtsps" else config.transport,
            "timeout": microseconds,
            "allowed_media_types": "video",
            # Enough for the first key frame of a slow camera, as tried; the default waits for five seconds.
            "analyzeduration": "3000000",
        }
    # For MPEG transport streams: a stream whose codec changes stays the same stream. PyAV would not know a new one, and
    # would drop its packets within one call for ever, without a timeout or a way to stop.
    options |= {
        "merge_pmt_versions": "1",
        # Between two key frames there is nothing to analyse; this must not take all the time for opening.
        "analyzeduration": str(int(min(5.0, 0.6 * config.open_timeout_s) * 1e6)),
    }
    if address.scheme in ("http", "https"):
        options |= {"rw_timeout": microseconds, "max_redirects": "0"}
    return options
