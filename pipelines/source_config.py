"""Which sources there are and how they are configured."""

from __future__ import annotations

import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from visaged.pipelines.redact import redact

_LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "rtp"})
_DEVICE_SCHEMES = {"v4l2": "v4l2", "avfoundation": "avfoundation", "dshow": "dshow"}


_ASPECT = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*:\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)")


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
    rotate: Literal[0, 90, 180, 270] | None = None
    """Degrees clockwise by which its pictures are turned; null: as its container or codec says, which most cameras that
    hang upside down do not."""
    aspect: str | None = None
    """Width and height of the whole picture before it is turned, as in `"16:9"` (quoted: YAML reads it as a number),
    where its pixels are not square and the stream does not say so, or says it wrongly; null: as the stream says."""
    options: dict[str, str] = {}
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

    @field_validator("aspect", mode="before")
    @classmethod
    def _quoted_aspect(cls, aspect: object) -> object:
        if isinstance(aspect, int) and not isinstance(aspect, bool):  # YAML 1.1 counts 16:9 as 16 * 60 + 9
            width, height = divmod(aspect, 60)
            example = f'"{width}:{height}"' if width and height else 'as in "16:9"'
            raise ValueError(f"is read as the number {aspect} by YAML; put it in quotes: {example}")
        return aspect

    @field_validator("aspect")
    @classmethod
    def _plausible_aspect(cls, aspect: str | None) -> str | None:
        if aspect is not None:
            shape = _ASPECT.fullmatch(aspect.strip())
            if shape is None or float(shape[2]) == 0 or not 0.1 <= float(shape[1]) / float(shape[2]) <= 10:
                raise ValueError('is not the shape of a picture; give its width and height as in "16:9" or "1.85:1"')
        return aspect

    @property
    def display_aspect(self) -> Fraction | None:
        """Width of the whole picture before it is turned, its height being 1, where the configuration says it."""
        if self.aspect is None:
            return None
        width, height = self.aspect.split(":")
        return Fraction(width.strip()) / Fraction(height.strip())

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
