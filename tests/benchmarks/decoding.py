"""What a decoder may leave out: processor time saved by skipping the loop filter or frames, and the harm to detection.

Clips are encoded anew as cameras do it, and decoded in full and in each mode of FFmpeg's `skip_loop_filter` and
`skip_frame`. Frames go through the daemon's scaler and detector; what full decoding finds is the truth to which each
mode is compared:

- `time`: processor time of decoding a frame of the stream, and relative to full decoding, packet by packet in turn;
- `frames`: pictures that come out; what is skipped cannot be searched;
- `lost`, `new`: faces of full decoding without one of IoU 0.5 in that mode, and the reverse, of 100 faces;
- `IoU`, `points`, `conf.`: mean overlap, mean distance of the five points in % of the face's size (the root of its
  area), and mean difference of confidence, of the faces in both;
- `drift`: the same distance by quarters of the interval between key frames. Without the loop filter the decoder
  predicts from other pictures than the encoder did, and the error grows until the next key frame.

The first line of each table, `(encoder)`, compares the pictures before they were encoded: the harm that the encoder's
own loss does. Without `--videos FOLDER`, whose files are only read, the bundled demo clip is taken.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.frame import PictureType, VideoFrame

from tests.benchmarks.clip import ROOT
from visaged.models.detector import Detector
from visaged.models.manifest import Manifest
from visaged.models.preprocess import canvas_for
from visaged.models.session import SessionConfig
from visaged.models.types import Detections
from visaged.pipelines.presentation import UPRIGHT
from visaged.pipelines.source.picture.scaler import Scaler

FPS = 25
MODES = {
    "full": {},
    "filter nonref": {"skip_loop_filter": "noref"},
    "filter bidir": {"skip_loop_filter": "bidir"},
    "filter nonkey": {"skip_loop_filter": "nokey"},
    "filter all": {"skip_loop_filter": "all"},
    "frame nonref": {"skip_frame": "noref"},
    "frame bidir": {"skip_frame": "bidir"},
}
PART = 0.4
"""Of the frames, drawn at random, this many are searched: a fixed step would meet the pattern of B-frames."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a camera encodes: size, codec, seconds between key frames, B-frames, and its rate.

    Attributes:
        mbit: Megabits a second, with a sensor's noise; 0 for constant quality without noise.
    """

    codec: str
    height: int
    interval_s: int
    b_frames: int
    mbit: float

    def __str__(self) -> str:
        """Return a line that says it."""
        rate = f"constant {self.mbit:g} Mb/s, noise" if self.mbit else "constant quality"
        return f"{self.codec} {self.height}p25, key frame every {self.interval_s} s, {self.b_frames} B-frames, {rate}"

    def options(self) -> dict[str, str]:
        """Return the encoder's options."""
        group = self.interval_s * FPS
        if self.codec == "H.265":
            said = f"keyint={group}:min-keyint={group}:scenecut=0:bframes={self.b_frames}:log-level=none"
            if self.mbit:
                said += f":vbv-maxrate={self.mbit * 1000:g}:vbv-bufsize={self.mbit * 1000:g}"
            return {"preset": "veryfast", "x265-params": said, **({} if self.mbit else {"crf": "26"})}
        options = {"preset": "veryfast", "g": str(group), "sc_threshold": "0", "bf": str(self.b_frames), "refs": "1"}
        if self.mbit:
            return options | {"maxrate": f"{self.mbit * 1e6:.0f}", "bufsize": f"{self.mbit * 1e6:.0f}"}
        return options | {"crf": "24"}


ENCODINGS = [
    Encoding("H.264", 1080, 2, 0, 4),
    Encoding("H.264", 1080, 4, 0, 4),
    Encoding("H.264", 1080, 2, 2, 4),
    Encoding("H.264", 1080, 4, 0, 0),
    Encoding("H.264", 1080, 4, 2, 0),
    Encoding("H.264", 720, 2, 0, 2),
    Encoding("H.264", 720, 4, 2, 2),
    Encoding("H.264", 720, 4, 0, 0.8),
    Encoding("H.265", 1080, 2, 0, 3),
    Encoding("H.265", 1080, 4, 2, 3),
    Encoding("H.265", 720, 4, 0, 0),
]


@dataclass(slots=True)
class Harm:
    """What a mode changed, over many frames."""

    faces: int = 0
    lost: int = 0
    new: int = 0
    overlaps: list[float] = field(default_factory=list)
    shifts: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    by_quarter: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def compare(self, truth: Detections, found: Detections, quarter: int) -> None:
        """Add a frame: `found` beside what full decoding found in it."""
        overlap = overlaps(truth.boxes, found.boxes)
        pairs = []
        while overlap.size and overlap.max() >= 0.5:
            one, other = np.unravel_index(overlap.argmax(), overlap.shape)
            pairs.append((int(one), int(other), float(overlap.max())))
            overlap[one, :] = overlap[:, other] = 0
        self.faces += len(truth)
        self.lost += len(truth) - len(pairs)
        self.new += len(found) - len(pairs)
        for one, other, iou in pairs:
            left, top, right, bottom = truth.boxes[one]
            distances = np.linalg.norm(truth.landmarks[one] - found.landmarks[other], axis=1)
            shift = 100 * float(distances.mean() / np.sqrt((right - left) * (bottom - top)))
            self.overlaps.append(iou)
            self.shifts.append(shift)
            self.by_quarter[quarter].append(shift)
            self.changes.append(float(found.confidences[other] - truth.confidences[one]))

    def add(self, other: Harm) -> None:
        """Add what another one counted."""
        self.faces, self.lost, self.new = self.faces + other.faces, self.lost + other.lost, self.new + other.new
        self.overlaps += other.overlaps
        self.shifts += other.shifts
        self.changes += other.changes
        for quarter, shifts in other.by_quarter.items():
            self.by_quarter[quarter] += shifts

    def row(self) -> str:
        """Return the part of a table's row that says it."""
        if not self.faces or not self.shifts:
            return f"{self.faces:6d} faces"
        drift = " ".join(f"{mean(self.by_quarter[quarter]):4.1f}" for quarter in range(4))
        return (
            f"{self.faces:6d} {100 * self.lost / self.faces:5.1f} {100 * self.new / self.faces:5.1f} "
            f"{mean(self.overlaps):6.3f} {mean(self.shifts):6.2f} {mean(self.changes):+7.3f}   {drift}"
        )


HEAD = f"  {'':14} {'ms':>5} {'time':>5} {'frames':>6}  " + "faces  lost   new    IoU points   conf.   drift"


def mean(values: list[float]) -> float:
    """Return the mean, NaN of nothing."""
    return statistics.fmean(values) if values else float("nan")


def overlaps(ones: Any, others: Any) -> Any:
    """Return the IoU of all pairs of boxes, (N, 4) and (M, 4), as (N, M)."""
    low = np.maximum(ones[:, None, :2], others[None, :, :2])
    high = np.minimum(ones[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    area, other_area = ((b[:, 2:] - b[:, :2]).prod(1) for b in (ones, others))
    return shared / (area[:, None] + other_area[None] - shared)


class Search:
    """The daemon's way from a decoded frame to faces: its scaler, its canvas of 640 px, its detector."""

    def __init__(self) -> None:
        manifest = Manifest()
        self._detector = Detector.load(manifest, manifest.default_detector(on_gpu=False).name, SessionConfig("cpu"))
        self._scaler = Scaler()

    def __call__(self, frame: VideoFrame) -> Detections:
        """Return the faces of a frame, in canvas pixels."""
        canvas = canvas_for(frame.width, frame.height, 640)
        slot = canvas.blank()
        self._scaler.scale(frame, UPRIGHT, canvas, slot)
        return self._detector.detect(slot[None])[0]


def pictures(video: Path, encoding: Encoding, most: int) -> Iterator[VideoFrame]:
    """Yield a video's pictures at the encoding's size, as many as there are and at most `most`."""
    noise = np.random.default_rng(0).normal(0, 3.0, (4, encoding.height, 2000)).astype(np.int8)
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        for number, frame in enumerate(islice(container.decode(stream), most)):
            width = 2 * round(frame.width * encoding.height / frame.height / 2)
            planes = frame.reformat(width, encoding.height, "yuv420p").to_ndarray()  # (H * 3 / 2, W), luma first
            if encoding.mbit:
                grain = np.roll(noise[number % 4], number * 37, axis=1)[:, :width]
                cv2.add(planes[: encoding.height], grain, dst=planes[: encoding.height], dtype=cv2.CV_8U)
            picture = VideoFrame.from_ndarray(planes, format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            yield picture


def encode(video: Path, encoding: Encoding, target: Path, most: int) -> int:
    """Encode a video; return the number of its pictures."""
    count = 0
    with av.open(str(target), "w") as written:
        stream: Any = written.add_stream("libx265" if encoding.codec == "H.265" else "libx264", rate=FPS)
        stream.options = encoding.options()
        if encoding.mbit:
            stream.bit_rate = int(encoding.mbit * 1e6)
        for picture in pictures(video, encoding, most):
            if not count:
                stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
            count += 1
            picture.pict_type = PictureType.NONE
            written.mux(stream.encode(picture))
        written.mux(stream.encode(None))
    return count


@dataclass(slots=True)
class Decoder:
    """One mode's decoder of a clip, the time it took, the pictures that came, and what was found in some of them."""

    context: Any
    seconds: float = 0.0
    came: int = 0
    found: dict[int, Detections] = field(default_factory=dict)

    def decode(self, packet: Any) -> list[VideoFrame]:
        """Decode a packet, None for the end, on the clock of this thread's processor time."""
        began = time.thread_time()
        frames: list[VideoFrame] = self.context.decode(packet)
        self.seconds += time.thread_time() - began
        self.came += len(frames)
        return frames


def decoders(stream: Any, encoding: Encoding) -> dict[str, Decoder]:
    """Return a decoder for each mode that can differ: without B-frames every picture is referred to."""
    made = {}
    for name, mode in MODES.items():
        if encoding.b_frames or not name.endswith(("nonref", "bidir")):
            context: Any = av.CodecContext.create(stream.codec_context.name, "r")
            context.extradata, context.options, context.thread_count = stream.codec_context.extradata, mode, 1
            made[name] = Decoder(context)
    return made


@dataclass(slots=True)
class Row:
    """A table's row: the seconds that decoding took, the pictures that came out of `count`, and the harm."""

    seconds: float = 0.0
    came: int = 0
    count: int = 0
    harm: Harm = field(default_factory=Harm)

    def add(self, other: Row) -> None:
        """Add another row's figures."""
        self.seconds, self.came, self.count = (
            self.seconds + other.seconds,
            self.came + other.came,
            self.count + other.count,
        )
        self.harm.add(other.harm)


def measure(search: Search, video: Path, encoding: Encoding, most: int, folder: Path) -> dict[str, Row]:
    """Encode a video and decode it in every mode, packet by packet in turn, so that all meet the same machine."""
    path = folder / "clip.mp4"
    count = encode(video, encoding, path, most)
    group = encoding.interval_s * FPS
    drawn = set(random.Random(0).sample(range(count), round(count * PART)))
    before = {n: search(frame) for n, frame in enumerate(pictures(video, encoding, most)) if n in drawn}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        modes = decoders(stream, encoding)
        for packet in container.demux(stream):
            for decoder in modes.values():
                for frame in decoder.decode(packet if packet.size else None):
                    number = round(float(frame.pts * stream.time_base * FPS))
                    if number in drawn:
                        decoder.found[number] = search(frame)
    rows = {"(encoder)": Row(0.0, count, count)} | {
        name: Row(decoder.seconds, decoder.came, count) for name, decoder in modes.items()
    }
    truth = modes["full"].found
    for name, row in rows.items():
        for number, faces in (modes[name].found if name in modes else before).items():
            row.harm.compare(truth[number], faces, 4 * (number % group) // group)
    return rows


def show(rows: dict[str, Row]) -> None:
    """Print a table."""
    print(HEAD)
    for name, row in rows.items():
        ms = 1000 * row.seconds / row.count
        part = row.seconds / rows["full"].seconds
        print(f"  {name:14} {ms:5.2f} {part:5.2f} {row.came / row.count:6.2f}  {row.harm.row()}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks decoding", description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="videos with faces, in place of the demo clip")
    parser.add_argument("--frames", type=int, default=200, help="pictures of each video, at most (200)")
    arguments = parser.parse_args()
    videos = sorted(p for p in arguments.videos.iterdir() if p.suffix in {".mp4", ".mkv"}) if arguments.videos else []
    cv2.setNumThreads(1)
    search = Search()
    with_b: dict[str, Row] = defaultdict(Row)
    without_b: dict[str, Row] = defaultdict(Row)
    with tempfile.TemporaryDirectory() as folder:
        for encoding in ENCODINGS:
            rows: dict[str, Row] = defaultdict(Row)
            for video in videos or [ROOT / "daemon" / "demo" / "demo.mp4"]:
                for name, row in measure(search, video, encoding, arguments.frames, Path(folder)).items():
                    rows[name].add(row)
                    (with_b if encoding.b_frames else without_b)[name].add(row)
            print(f"{encoding}: {rows['full'].count} frames", flush=True)
            show(rows)
    print("all without B-frames")
    show(without_b)
    print("all with B-frames")
    show(with_b)


if __name__ == "__main__":
    main()
