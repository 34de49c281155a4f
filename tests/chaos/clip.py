"""What the cameras show: faces that come and go every few seconds, so that events flow all the time.

The faces are cut from the demo clip and pasted onto a plain picture, each into a cell of its own, where it is shown for
a while and then not. The same pictures are there as JPEG and as H.264, in two sizes.
"""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.frame import PictureType

from visaged.models.detector import Detector
from visaged.models.manifest import Manifest
from visaged.models.preprocess import canvas_for, place
from visaged.models.session import SessionConfig
from visaged.models.types import Image

DEMO = Path(__file__).parents[2] / "daemon" / "demo" / "demo.mp4"
FPS = 5
SECONDS = 24
SIZES = ((640, 360), (480, 270))
CLOCK_HZ = 90_000
_COLUMNS, _ROWS = 4, 2
_FACE_PX = 90  # height of a pasted face in the larger size
_SHOWN_S, _HIDDEN_S = (0.8, 2.0), (0.8, 1.6)


@dataclass(frozen=True, slots=True)
class Clip:
    """The pictures of one size, coded; picture `index` of a live camera is number `index % len(clip.jpegs)`.

    Attributes:
        size: Width and height in pixels.
        jpegs: Each picture as JPEG.
        units: Each picture as H.264 (Annex B), all of them key frames with their parameter sets.
    """

    size: tuple[int, int]
    jpegs: list[bytes]
    units: list[bytes]


def make_clips(seed: int) -> list[Clip]:
    """Return the same pictures in every size of `SIZES`; takes some seconds."""
    pictures = _pictures(random.Random(seed), _faces())
    clips = []
    for size in SIZES:
        scaled = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8) for picture in pictures]
        clips.append(coded(scaled))
    return clips


def coded(pictures: Sequence[Image]) -> Clip:
    """Return pictures, each (H, W, 3) uint8 BGR and all of one size with even sides, as a clip."""
    height, width = pictures[0].shape[:2]
    jpegs = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]
    return Clip((width, height), jpegs, _units(pictures, (width, height)))


def write_mp4(clip: Clip, path: Path) -> Path:
    """Write the H.264 of a clip as MP4, for servers that read files."""
    with av.open(io.BytesIO(b"".join(clip.units)), format="h264", options={"framerate": str(FPS)}) as read:
        source = read.streams.video[0]
        with av.open(str(path), "w") as written:
            stream = written.add_stream_from_template(source)
            for index, packet in enumerate(read.demux(source)):
                if packet.size:
                    packet.pts = packet.dts = index * CLOCK_HZ // FPS
                    packet.time_base = Fraction(1, CLOCK_HZ)
                    packet.stream = stream
                    written.mux(packet)
    return path


def _faces() -> list[Image]:
    """Return faces of the demo clip with some room around them, each (_FACE_PX * 2, any, 3) uint8 BGR."""
    manifest = Manifest()
    detector = Detector.load(manifest, manifest.default_detector(on_gpu=False).name, SessionConfig(provider="cpu"))
    found: list[Image] = []
    with av.open(str(DEMO)) as container:
        for frame in itertools.islice(container.decode(video=0), 0, None, 50):
            image = np.ascontiguousarray(frame.to_ndarray(format="bgr24"), np.uint8)
            canvas = canvas_for(image.shape[1], image.shape[0], 640)
            faces = canvas.to_picture(detector.detect(place(image, canvas)[None])[0])
            for box, confidence in zip(faces.boxes, faces.confidences, strict=True):
                if confidence > 0.8:
                    found.append(_cut(image, box))
            if len(found) >= _COLUMNS * _ROWS:
                return found
    raise AssertionError("the demo clip has too few faces")


def _cut(image: Image, box: np.ndarray) -> Image:
    left, top, right, bottom = box
    scale = _FACE_PX / (bottom - top)
    centre, half = ((left + right) / 2, (top + bottom) / 2), 0.75 * (bottom - top)
    whole = cv2.copyMakeBorder(image, 400, 400, 400, 400, cv2.BORDER_REPLICATE)
    x, y, reach = round(centre[0] + 400), round(centre[1] + 400), round(half)
    crop = whole[y - reach : y + reach, x - reach : x + reach]
    return cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _pictures(rng: random.Random, faces: list[Image]) -> list[Image]:
    """Return the pictures in the larger size, (H, W, 3) uint8 BGR."""
    width, height = SIZES[0]
    count = FPS * SECONDS
    shown = [_schedule(rng, count) for _ in range(_COLUMNS * _ROWS)]
    plain = np.linspace(90, 150, height)[:, None, None] + np.zeros((1, width, 3))
    pictures = []
    for index in range(count):
        picture = plain.astype(np.uint8)
        for cell, (face, times) in enumerate(zip(faces, shown, strict=False)):
            if times[index]:
                middle_x = (cell % _COLUMNS * 2 + 1) * width // (2 * _COLUMNS)
                middle_y = (cell // _COLUMNS * 2 + 1) * height // (2 * _ROWS)
                top, left = middle_y - face.shape[0] // 2, middle_x - face.shape[1] // 2
                picture[top : top + face.shape[0], left : left + face.shape[1]] = face
        pictures.append(picture)
    return pictures


def _schedule(rng: random.Random, count: int) -> list[bool]:
    """Return for every picture whether a face is shown; hidden at the end, so that the clip can begin again."""
    shown: list[bool] = [False] * rng.randrange(round(FPS * _HIDDEN_S[0]))
    while len(shown) < count:
        shown += [True] * round(FPS * rng.uniform(*_SHOWN_S)) + [False] * round(FPS * rng.uniform(*_HIDDEN_S))
    hidden = round(FPS * _HIDDEN_S[0])
    return shown[: count - hidden] + [False] * hidden


def _units(pictures: Sequence[Image], size: tuple[int, int]) -> list[bytes]:
    context = av.VideoCodecContext.create("libx264", "w")
    context.width, context.height = size
    context.pix_fmt, context.time_base, context.thread_count = "yuv420p", Fraction(1, FPS), 1
    context.options = {"preset": "veryfast", "tune": "zerolatency", "bf": "0", "crf": "28"}
    units = []
    for index, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="yuv420p")
        frame.pts, frame.pict_type = index, PictureType.I
        units += [bytes(packet) for packet in context.encode(frame)]
    units += [bytes(packet) for packet in context.encode(None)]
    assert len(units) == len(pictures)
    return units
