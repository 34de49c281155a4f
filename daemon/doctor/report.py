"""What `visaged doctor` found, as plain data: the document that `--json` prints.

Keys end in their unit. New keys may be added; those there are keep their meaning as long as `schema` stays the same.
What could not be measured is null. `visaged schema doctor` prints this as a JSON Schema.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "visaged.doctor/1"

Verdict = Literal["good", "usable", "unusable"]
Severity = Literal["advice", "fault"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Finding(_Part):
    """Something to change."""

    key: str
    """What it is about, one word for programs; the words are those of `visaged.daemon.doctor.judging`."""
    severity: Severity
    """`advice`: the camera is usable; `fault`: it is not."""
    text: str
    """What was found, with numbers."""
    advice: str
    """What to do about it."""


class Failure(_Part):
    """Why the camera could not be opened, or broke while it was looked at."""

    cause: str
    """One word, as in the metric `visaged_camera_failures_total`."""
    text: str
    """What happened, as the daemon would log it."""
    advice: str
    """The next thing to try."""


class Reach(_Part):
    """How long it took until there was a picture, in milliseconds from the start."""

    connect_ms: float | None = None
    """Connecting alone, with TLS; known for RTSP."""
    open_ms: float | None = None
    """Until the source was open: connected, logged in, and the kind of its video found out."""
    first_packet_ms: float | None = None
    """Until the first packet of video."""
    first_picture_ms: float | None = None
    """Until the first decoded picture."""


class Stream(_Part):
    """What the camera sends."""

    kind: Literal["live", "recording", "pictures"]
    """`recording`: it has an end; `pictures`: a URL of one picture, which is asked again and again."""
    transport: str
    """How it comes, as in `RTSP over TCP`."""
    container: str
    """FFmpeg's name of the format around the video."""
    codec: str
    """Name of the codec as FFmpeg has it."""
    profile: str | None
    """Profile of the codec."""
    level: str | None
    """Level of the codec, as in `4.1`."""
    width: int | None = None
    """Width in pixels of the upright picture, as stored; null before the first picture."""
    height: int | None = None
    """Height in pixels of the upright picture, as stored."""
    pixel_aspect: float | None = None
    """Width of a pixel relative to its height; 1 is square."""
    turned: bool = False
    """Whether stored pictures are turned or mirrored to be upright."""
    sizes: int = 0
    """How many sizes the pictures had."""
    pixel_format: str | None = None
    """FFmpeg's name of the pixel format."""
    full_range: bool | None = None
    """Whether luma goes from 0 to 255 (true) or from 16 to 235 (false), as the stream says."""
    interlaced: bool = False
    """Whether pictures are woven of two half pictures."""


class Frames(_Part):
    """How often pictures come, and how they depend on each other."""

    packets: int
    """Packets of video, each one coded picture."""
    true_fps: float | None = None
    """Pictures per second of real time."""
    promised_fps: float | None = None
    """Pictures per second that the stream itself claims."""
    key_frames: int = 0
    """Key frames that came."""
    key_interval_min_s: float | None = None
    """Shortest time between two key frames; null if fewer than two came, or if all are key frames."""
    key_interval_median_s: float | None = None
    """Usual time between two key frames."""
    key_interval_max_s: float | None = None
    """Longest time between two key frames."""
    key_interval_at_least_s: float | None = None
    """Where fewer than two key frames came, for how long none came."""
    all_key_frames: bool = False
    """Whether every picture is one by itself, as in MJPEG."""
    b_frames: bool = False
    """Whether pictures come in another order than they are shown."""


class Bits(_Part):
    """How much data comes."""

    mean_kbit_s: float | None = None
    """Mean over the whole look."""
    peak_kbit_s: float | None = None
    """The busiest second."""
    largest_frame_kbyte: float | None = None
    """The largest coded picture."""


class Arrival(_Part):
    """How evenly a live stream comes."""

    jitter_p95_ms: float | None = None
    """How much later than the fastest ones 95 % of the pictures come at most."""
    longest_gap_ms: float | None = None
    """Longest time in which no video came, that at the end included."""
    waiting_share: float | None = None
    """Share of the time in which the reader waited for data, 0..1; near 0 this machine cannot keep up."""


class Damage(_Part):
    """What was lost or broken."""

    damaged_packets: int = 0
    """Packets that could not be decoded, after the first key frame; pictures that were asked for and did not come."""
    corrupt_frames: int = 0
    """Pictures that the decoder marks as corrupt, or in which it hides damage."""
    lost_rtp_packets: int | None = None
    """RTP packets that FFmpeg missed, by their numbers; null where there is no RTP."""


class Stamps(_Part):
    """What the stream says about its times."""

    trusted: bool = True
    """Whether the format has time stamps of its own."""
    steps_back: int = 0
    """How often stamps fell back by more than a tenth of a second."""
    jumps: int = 0
    """How often the daemon would begin its time line anew: steps back, steps of five seconds and more."""
    longest_step_ms: float | None = None
    """Longest step between two pictures by their stamps."""
    rate: float | None = None
    """Seconds of stamps in a real second; exactly 1 within what can be told in so short a time."""


class CameraTime(_Part):
    """The camera's own clock (RTCP sender reports)."""

    is_sent: bool = False
    """Whether the camera sends it."""
    behind_ms: float | None = None
    """How far it is behind this machine's clock, with the delay of the fastest pictures in it."""
    is_plausible: bool | None = None
    """Whether the daemon takes capture times from it."""


class Cost(_Part):
    """What the camera costs on this machine, in time of a processor's core unless something else is said."""

    decode_ms: float | None = None
    """Decoding one picture; null with several decoder threads or a hardware decoder, where it cannot be told apart."""
    read_ms_per_s: float | None = None
    """Reading, decoding and scaling, for each second of the stream."""
    detect_ms: float | None = None
    """Searching one picture for faces; on a GPU, time as it passes."""
    detector: str | None = None
    """Name of the detector."""
    provider: str | None = None
    """What it runs on."""
    cores: int
    """Cores that this process may use."""
    fps: float | None = None
    """Pictures a second that are analysed: `fps` of the camera, or its true rate where that is lower."""
    cameras: int | None = None
    """How many such cameras this machine carries at that rate, with `load` 0.68 of its cores' time."""
    computed: str | None = None
    """How that was computed."""


class Faces(_Part):
    """The faces that were seen. Heights are in pixels of the picture."""

    searched: int = 0
    """Pictures that were searched."""
    with_faces: int = 0
    """Pictures with a face."""
    height_min_px: float | None = None
    """Height of the smallest face."""
    height_median_px: float | None = None
    """Height of the median face."""
    height_max_px: float | None = None
    """Height of the largest face."""
    compared: int = 0
    """Pictures that were searched more closely too, on a canvas of twice `long_side` and on a small one."""
    compared_faces: int = 0
    """Faces in them."""
    missed_small: int = 0
    """Of those, small ones that are not found as configured."""
    missed_large: int = 0
    """Of those, ones that fill much of the picture and are not found as configured."""
    blur: float | None = None
    """How blurred faces of at least 60 px are in the median, at the 112 px at which they are read: 0 sharp, 1 without
    any detail."""


class Light(_Part):
    """How bright the pictures are."""

    mean_percent: float | None = None
    """Mean brightness, 0 black to 100 white, of the median picture."""
    dark_percent: float | None = None
    """Share of pixels that are nearly black."""
    bright_percent: float | None = None
    """Share of pixels that are nearly white."""


class Facts(_Part):
    """What was measured."""

    looked_s: float = 0.0
    """Seconds from the moment at which the source was open."""
    interrupted: bool = False
    """Whether the look was ended early by the user."""
    reach: Reach = Reach()
    """How long it took until there was a picture."""
    stream: Stream | None = None
    """What the camera sends; null if it could not be opened."""
    frames: Frames = Frames(packets=0)
    """How often pictures come."""
    bits: Bits = Bits()
    """How much data comes."""
    arrival: Arrival = Arrival()
    """How evenly a live stream comes."""
    damage: Damage = Damage()
    """What was lost or broken."""
    stamps: Stamps = Stamps()
    """What the stream says about its times."""
    camera_time: CameraTime = CameraTime()
    """The camera's own clock."""
    cost: Cost
    """What the camera costs on this machine."""
    faces: Faces = Faces()
    """The faces that were seen."""
    light: Light = Light()
    """How bright the pictures are."""
    notes: list[str] = []
    """What the daemon would warn of in its log besides."""


class Report(Facts):
    """The whole document."""

    schema_: str = Field(default=SCHEMA, alias="schema")
    """Name and version of this document."""
    visaged: str
    """Version of visaged."""
    camera: str
    """The camera's URL, without credentials."""
    verdict: Verdict
    """`good`; `usable`: it works, and something should be changed; `unusable`."""
    failure: Failure | None = None
    """Why the camera could not be opened, or broke."""
    findings: list[Finding] = []
    """What to change, faults first."""
