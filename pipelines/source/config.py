"""Which sources there are and how they are configured."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, field_validator

from visaged.pipelines.runtime.config import HiddenText, StrictConfig
from visaged.pipelines.source.address import Address, address_of

_ASPECT = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*:\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)")


class SourceConfig(StrictConfig):
    """Where a camera's pictures come from and how they are read."""

    url: HiddenText
    """`rtsp://`, `rtsps://`, `http(s)://`, `rtmp://`, `udp://`, `tcp://`, and what else the installed FFmpeg has; the
    path of a file, or of an SDP file (.sdp) for plain RTP; `/dev/video0` (Linux), `avfoundation:NAME` (macOS) or
    `dshow:NAME` (Windows) for a USB camera."""
    transport: Literal["tcp", "udp"] = "tcp"
    """How RTSP carries its media. TCP loses nothing; UDP is for networks that cannot do otherwise."""
    open_timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    """How long opening may take."""
    read_timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    """How long a live source may be silent; a stall is seen after twice this time. The first key frame of a camera that
    sends them rarely is waited for longer, up to five minutes."""
    fps: Annotated[float, Field(gt=0, le=240)] | None = 5.0
    """Frames to analyse a second; null for every frame. A URL that gives one picture is asked so often (null: 5)."""
    pace: Literal["realtime", "fast"] = "realtime"
    """Recordings only (files, also behind HTTP, and complete HLS playlists): at their own speed, or as fast as this
    machine can."""
    loop: bool = False
    """Recordings only: start again at the end, for ever; one that loops at its own speed counts as a live camera."""
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
    options: dict[str, str] = Field(default={})
    """More options for FFmpeg's demuxer, by its names."""

    _address: Address = PrivateAttr()

    @field_validator("url")
    @classmethod
    def _known_kind(cls, url: str) -> str:
        return url if address_of(url).kind == "file" else url.strip()

    def model_post_init(self, context: object, /) -> None:
        """Remember what the URL names: a file that goes away later is still a file."""
        self._address = address_of(self.url)

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
    def address(self) -> Address:
        """What the URL names."""
        return self._address

    @property
    def live(self) -> bool:
        """Whether frames are lost when nobody takes them, as far as that is known before it is open."""
        return not self.is_file or (self.loop and self.pace == "realtime")

    @property
    def is_file(self) -> bool:
        """Whether this is a file on this machine."""
        return self._address.kind == "file"
