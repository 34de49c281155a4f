"""Which sources there are and how they are configured."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, field_validator

from visaged.pipelines.runtime.config import HiddenText, StrictConfig
from visaged.pipelines.runtime.redact import redact

_LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "rtp"})
_DEVICE_SCHEMES = {"v4l2": "v4l2", "avfoundation": "avfoundation", "dshow": "dshow"}


class SourceConfig(StrictConfig):
    """Where a camera's pictures come from and how they are read."""

    url: HiddenText
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
    options: dict[str, str] = Field(default={})
    """More options for FFmpeg's demuxer, by its names."""

    @field_validator("url")
    @classmethod
    def _known_kind(cls, url: str) -> str:
        if not url.strip():
            raise ValueError("is empty; give an RTSP or HTTP URL, a file, or a device")
        scheme = scheme_of(url)
        if scheme is not None and scheme not in _LIVE_SCHEMES | {"file"} | set(_DEVICE_SCHEMES):
            raise ValueError(
                f"scheme {scheme!r} is not supported; known are {', '.join(sorted(_LIVE_SCHEMES))}, file, "
                f"{', '.join(_DEVICE_SCHEMES)}"
            )
        if scheme in _LIVE_SCHEMES:
            try:
                parts = urlsplit(url)
                host, _ = parts.hostname, parts.port
            except ValueError:
                # The reason would quote what may be a part of the password.
                raise ValueError("is not a valid URL; percent-encode / ? # @ in a user or password") from None
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
        return scheme_of(self.url) in (None, "file") and self.device is None

    @property
    def device(self) -> tuple[str, str] | None:
        """FFmpeg's input format and device name of a USB camera."""
        scheme = scheme_of(self.url)
        if scheme in _DEVICE_SCHEMES:
            name = self.url.partition(":")[2].removeprefix("//")
            return _DEVICE_SCHEMES[scheme], f"video={name}" if scheme == "dshow" else name
        if scheme is None and sys.platform == "linux" and self.url.startswith("/dev/video"):
            return "v4l2", self.url
        return None

    @property
    def path(self) -> Path:
        """The file's path."""
        return Path(unquote(urlsplit(self.url).path) if scheme_of(self.url) == "file" else self.url)

    def missing_file(self) -> str | None:
        """Return what is wrong with the file, in words without credentials; None if it is there, or for no file."""
        if not self.is_file or self.path.is_file():
            return None
        return f"{redact(str(self.path))} {'is not a file' if self.path.exists() else 'does not exist'}"


def scheme_of(url: str) -> str | None:
    """Return the scheme of a URL, lower case; None for a path, also one with a Windows drive."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", url)
    return match[1].lower() if match else None
