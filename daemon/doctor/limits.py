"""From where on something is worth a word, and why from there.

Those that say "measured" were measured with the bundled detector-v4 on the bundled clip, worsened step by step.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """All thresholds of the verdict; each says where it comes from."""

    key_interval_s: float = 4.0
    """A camera that is joined, or loses a packet, shows nothing (right) until its next key frame: on average half of
    this, which is the time (`tracker.lost_s`, 2 s) after which a track ends without a look at its face."""
    frame_rate_share: float = 0.9
    """The frame rate relative to the one that is promised. A rate is found out within some 2 % in 15 s; what is lower
    by a tenth is dropped by the camera: for long exposures in the dark, or an encoder or network that is too slow."""
    needless_fps: float = 16.0
    """Every frame is decoded, `fps` (5) of them are analysed. 12.5 and 15 are the usual settings below 25 and 30."""
    busy_ms_per_s: float = 200.0
    """A fifth of a core for one camera, twice what 720p at 25 pictures a second takes here (80 to 107 ms); below it,
    there is little to be saved by a lower frame rate."""
    jitter_s: float = 0.2
    """The interval between two analysed frames at the default `fps` of 5: with more, which of them come first is
    chance, and ages differ by more than that from message to message."""
    gap_s: float = 2.0
    """`tracker.lost_s`: faces that move away within such a gap come back as another track."""
    stall_s: float = 20.0
    """Twice the default `read_timeout_s`, after which the daemon ends the connection and begins anew."""
    silent_share: float = 0.5
    """Share of the look without video from which there is nothing to be analysed most of the time."""
    waiting_share: float = 0.05
    """A reader that waits for data in less of its time than this is as busy as it can be, and falls behind sooner or
    later: work comes in bursts (key frames take several times as long as others to decode)."""
    damaged_share: float = 0.001
    """Of all packets. At 25 pictures a second, it is a picture every 40 s, more than a wired network or TCP shows."""
    ruined_share: float = 0.02
    """Of all packets. Damage stays until the next key frame; with one in 50 pictures, as cameras send them, at least
    one in 50 damaged means that most of them show something wrong."""
    stamp_rate: float = 0.01
    """Deviation from real time from which the daemon logs a warning (`pipelines/source/video.py`)."""
    clock_s: float = 0.5
    """By how much a camera's clock may be ahead before arrival times are taken instead; behind, half a second of delay
    comes on top (`pipelines/source/times/camera_clock.py`)."""
    large_px: int = 1920
    """Long side. The README's figures are for 1080p; 4K takes four times the work, and is scaled to 640 px anyway."""
    substream_face_px: float = 224.0
    """Height of the smaller faces above which a stream of half the size loses nothing: the analyzer sees 112 px."""
    small_px: int = 640
    """Long side of the detector's canvas; a smaller stream is enlarged."""
    face_px: float = 20.0
    """Default of `inference.min_face_px`: the attributes of smaller faces are not read."""
    missed_share: float = 0.2
    """Share of the faces that a closer look finds and the configured one does not. A closer look has false alarms too:
    3 of 147 photos without a face get one (README)."""
    fewest_missed: int = 3
    """As one or two of them may be false alarms."""
    dark_mean_percent: float = 6.0
    """Measured: of 59 faces, 55 are still found at a mean of 4.3 % (with noise of 3 of 255 levels), 44 at 2.6 %, none
    at 1.6 %; real cameras have more noise in the dark."""
    bright_percent: float = 40.0
    """Share of nearly white pixels. Measured: of 59 faces, 58 are found with 39 %, 54 with 50 %, 38 with 65 %."""
    blur: float = 0.6
    """`models/geometry.blur`: eyes and lips begin to lose their edges at 0.5 on a crop of 112 px. Measured: sharp faces
    have 0.11, blurred by 2 px 0.57, by 3 px 0.75; they are found nearly as well, but cannot be read."""
    load: float = 0.68
    """Share of the cores' time that decoding and detecting take when a machine is as full as it can be without dropping
    a frame: 11 cameras of 16.1 that decoding and detecting alone would allow (`tests/benchmarks/capacity.py`)."""


LIMITS = Limits()
