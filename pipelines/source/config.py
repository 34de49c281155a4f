"""The configuration of a camera's source."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from visaged.pipelines.runtime.config import HiddenText, StrictConfig
from visaged.pipelines.runtime.redact import shown
from visaged.pipelines.source.address import Address, address_of
from visaged.pipelines.source.tls import CameraTls

# Options of FFmpeg that keys of this configuration stand for, which are checked and reported.
_RESERVED = {
    "tls_verify": "tls.verify",
    "ca_file": "tls.ca_file",
    "cafile": "tls.ca_file",
    "verifyhost": "tls.verify",
    "max_pixels": "max_megapixels",
    "protocol_whitelist": "other_hosts",
    "format_whitelist": "format",
    "max_redirects": "other_hosts",
}
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_DEVICE = re.compile(r"[0-9]|[1-5][0-9]|6[0-3]|/dev/[A-Za-z0-9/_-]+", re.ASCII)
_ASPECT = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*:\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)")


class SourceConfig(StrictConfig):
    """Source of a camera's pictures, and how it is read."""

    url: HiddenText
    """`rtsp://`, `rtsps://`, `http(s)://`, `rtmp://`, `udp://`, `tcp://`, and what else the installed FFmpeg has; the
    path of a file, or of an SDP file (.sdp) for plain RTP; `/dev/video0` (Linux), `avfoundation:NAME` (macOS) or
    `dshow:NAME` (Windows) for a USB camera."""
    format: Literal["hls", "dash"] | None = None
    """Kind of a playlist whose URL or file does not end in `.m3u8`, `.m3u` or `.mpd`; null for what the URL says.
    Nothing else is played as a playlist, because it names what the daemon asks for next."""
    other_hosts: list[str] = Field(default=[])
    """Hosts besides the camera's own that redirects and playlists of an `http(s)://` camera may lead to, each perhaps
    with `:port`. The camera's login is not sent there."""
    transport: Literal["tcp", "udp"] = "tcp"
    """Transport of RTSP media. TCP loses nothing; UDP is for networks on which TCP does not work."""
    open_timeout_s: Annotated[float, Field(ge=0.001, le=300)] = 10.0
    """Longest time in seconds for opening the source."""
    read_timeout_s: Annotated[float, Field(ge=0.001, le=300)] = 10.0
    """Longest silence of a live source in seconds; a stall is noticed after twice this time. The wait for the first key
    frame of a camera may be longer, up to five minutes."""
    fps: Annotated[float, Field(ge=0.001, le=240)] | None = 5.0
    """Frames to analyse per second; null for every frame. A URL of one picture is fetched as often (null: 5)."""
    pace: Literal["realtime", "fast"] = "realtime"
    """Recordings only (files, also behind HTTP, and complete HLS playlists): play them at their own speed, or as fast
    as this machine can."""
    loop: bool = False
    """Recordings only: start again at the end, for ever; one that loops at its own speed counts as a live camera."""
    idle: Literal["off", "keyframes"] = "off"
    """Live sources only: what is decoded while nobody is there. `keyframes`: key frames alone; what lies between them
    is kept, and decoded and analysed afterwards when a face, motion or larger packets show that somebody may be there.
    A face is then told later, by the time from key frame to key frame at most and half a second."""
    idle_after_s: Annotated[float, Field(ge=0.001, le=86400)] = 10.0
    """Seconds without a face after which a camera is idle."""
    decoder_threads: Annotated[int, Field(ge=1, le=16)] = 1
    """Decoder threads. Each further one delays frames by one frame; one decodes some 300 frames of 1080p a second."""
    loop_filter: bool = True
    """H.264 and H.265 in software: smooth the edges of the codec's blocks. Without, decoding takes a fifth less time;
    faces and their points change no more than by the encoder itself, and live pictures look coarser."""
    hardware: Literal["off", "cuda", "qsv", "vaapi", "videotoolbox", "d3d11va"] = "off"
    """Hardware decoder to try; if it cannot be used, the stream is decoded in software, with a warning in the log, and
    it is tried again when the camera is opened again."""
    hardware_device: str | None = None
    """Device of the hardware decoder: a GPU's number for `cuda`, or a path such as `/dev/dri/renderD129`. Null: with
    `cuda` one of `inference.devices`, by the camera's name; else the first."""
    rotate: Literal[0, 90, 180, 270] | None = None
    """Degrees clockwise by which pictures are turned; null for the rotation in the container or codec, which most
    cameras that hang upside down do not set."""
    aspect: str | None = None
    """Aspect ratio of the whole picture before it is turned, as in `"16:9"` (in quotes: YAML reads it as a number), for
    streams whose pixels are not square and that do not say so, or wrongly; null for the aspect ratio in the stream."""
    max_megapixels: Annotated[float, Field(ge=0.001, le=1000)] = 40.0
    """Most megapixels of a picture; a camera that sends larger ones is refused, because decoding them takes gigabytes.
    Cameras of 8K have 33 to 36."""
    tls: CameraTls = CameraTls()
    """Whose certificates are accepted where the URL's scheme uses TLS (`https://`, `rtsps://`, `rtmps://`)."""
    options: dict[str, HiddenText] = Field(default={})
    """Additional options for FFmpeg's demuxer, by name."""

    _address: Address = PrivateAttr()

    @field_validator("url")
    @classmethod
    def _known_kind(cls, url: str) -> str:
        return url if address_of(url).kind == "file" else url.strip()

    def model_post_init(self, context: object, /) -> None:
        """Parse the URL once, so that a file that is removed later still counts as a file."""
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

    @field_validator("hardware_device", mode="before")
    @classmethod
    def _number_as_text(cls, device: object) -> object:
        return str(device) if isinstance(device, int) and not isinstance(device, bool) else device

    @field_validator("hardware_device")
    @classmethod
    def _names_a_device(cls, device: str | None) -> str | None:
        if device is not None and _DEVICE.fullmatch(device) is None:
            raise ValueError("is neither a GPU's number from 0 to 63 nor a path like /dev/dri/renderD128")
        return device

    @model_validator(mode="after")
    def _device_of_cuda(self) -> SourceConfig:
        if self.hardware == "cuda" and self.hardware_device is not None and not self.hardware_device.isdecimal():
            raise ValueError("hardware_device must be a GPU's number where hardware is cuda")
        return self

    @field_validator("other_hosts")
    @classmethod
    def _hosts_alone(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            if _HOST.fullmatch(host) is None:
                raise ValueError(
                    f"{shown(host)!r} is not a host; give a name or an address (IPv6 in brackets), perhaps with :port"
                )
        return [host.lower() for host in hosts]

    @field_validator("options")
    @classmethod
    def _not_reserved(cls, options: dict[str, str]) -> dict[str, str]:
        for name in options:
            if name in _RESERVED:
                raise ValueError(f"{name} cannot be set here; use the camera's key {_RESERVED[name]}")
        return options

    @property
    def display_aspect(self) -> Fraction | None:
        """Configured width of the whole picture relative to its height, before it is turned; None if not configured."""
        if self.aspect is None:
            return None
        width, height = self.aspect.split(":")
        return Fraction(width.strip()) / Fraction(height.strip())

    @property
    def max_pixels(self) -> int:
        """Most pixels of a picture."""
        return int(self.max_megapixels * 1e6)

    def pixel_options(self) -> dict[str, str]:
        """Return FFmpeg's options that bound the pixels of a picture."""
        return {"max_pixels": str(self.max_pixels)}

    @property
    def address(self) -> Address:
        """The parsed URL."""
        return self._address

    @property
    def shown_url(self) -> str:
        """The URL as it may be shown: without what is or may be a secret."""
        return shown(self.url)

    @property
    def live(self) -> bool:
        """Whether the source goes on without waiting for its reader, as far as that is known before it is open."""
        return not self.is_file or (self.loop and self.pace == "realtime")

    @cached_property
    def is_file(self) -> bool:
        """Whether the source is a file on this machine."""
        return self._address.kind == "file"
