"""The clips that are measured: the bundled demo, encoded anew at each size as the chip of a camera does it.

What a frame costs to decode depends on its size, on the bit rate and on the tools of the codec more than on what it
shows. So the clips have 25 frames a second, a key frame every two seconds, one reference frame, no B-frames, a bit rate
that is usual for the size, and the noise of a sensor: without noise, an enlarged picture would need a fraction of it.

One group of pictures is encoded and then repeated, because encoding 4K takes longer than measuring it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

SOURCE_FPS = 25
GROUP_FRAMES = 2 * SOURCE_FPS
GROUPS = 1
REPEATS = 16
"""How often the encoded group stands in a clip: it has to be opened anew at its end, which a camera has not."""
BEGIN_S = 6.0
"""Where in the demo the clips begin: two faces are in view."""

_ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox", "h264_nvenc", "h264_qsv", "h264_amf", "mpeg4")
_X264 = {"preset": "superfast", "tune": "zerolatency", "bf": "0", "refs": "1", "sc_threshold": "0"}
_NOISES = 4
_DEVIATION = 3.0
"""Standard deviation of the noise, in steps of 256: that of a camera in a room that is well lit."""


class NoEncoder(Exception):
    """No encoder of the installed FFmpeg can make the clips."""


@dataclass(frozen=True, slots=True)
class Size:
    """A size of picture that cameras have.

    Attributes:
        name: Its usual name.
        width: In pixels.
        height: In pixels.
        bit_rate: Bits a second that cameras send of it, at 25 frames a second in H.264.
    """

    name: str
    width: int
    height: int
    bit_rate: int


SIZES = (
    Size("720p", 1280, 720, 2_000_000),
    Size("1080p", 1920, 1080, 4_000_000),
    Size("4K", 3840, 2160, 12_000_000),
)


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip to measure.

    Attributes:
        path: The file.
        size: Size of its pictures.
        codec: `h264`, or `mpeg4` where the installed FFmpeg encodes nothing better.
        bit_rate: Bits a second that it really has.
    """

    path: Path
    size: Size
    codec: str
    bit_rate: float


def make_clip(demo: Path, size: Size, path: Path, on_frame: Callable[[float], None] = lambda part: None) -> Clip:
    """Encode the demo at a size.

    Args:
        demo: The bundled clip.
        size: Size and bit rate.
        path: The file to write, an MP4.
        on_frame: Called after each frame with the part that is done, 0..1.

    Raises:
        NoEncoder: No encoder can do it; the text says what was tried.
    """
    troubles = []
    groups = path.with_name(f"groups-{path.name}")
    for name in _ENCODERS:
        try:
            _encode(name, demo, size, groups, on_frame)
        except (UnknownCodecError, av.error.FFmpegError, ValueError) as error:
            troubles.append(f"{name}: {error}")
            continue
        finally:
            cv2.setNumThreads(1)
        codec = _repeat(groups, path)
        bit_rate = 8 * groups.stat().st_size * SOURCE_FPS / (GROUPS * GROUP_FRAMES)
        groups.unlink()
        return Clip(path, size, codec, bit_rate)
    raise NoEncoder(f"the installed FFmpeg cannot encode a clip of {size.name} ({'; '.join(troubles)})")


def make_clip_apart(demo: Path, size: Size, path: Path, on_frame: Callable[[float], None] = lambda part: None) -> Clip:
    """Do what `make_clip` does in another process, so that what the encoder leaves in memory is not measured."""
    command = [sys.executable, "-m", __name__, str(demo), size.name, str(path)]
    with subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            said = ""
            for said in process.stdout:
                if not said.startswith("{"):
                    on_frame(float(said))
            trouble = process.stderr.read().strip()
        finally:
            process.kill()
    if not said.startswith("{"):
        raise NoEncoder(trouble.splitlines()[-1] if trouble else "the process that encodes them has died")
    made = json.loads(said)
    return Clip(path, size, made["codec"], made["bit_rate"])


def first_picture(demo: Path) -> NDArray[np.uint8]:
    """Return the picture of the demo with which the clips begin, (H, W, 3) uint8 BGR."""
    return next(_frames(demo)).to_ndarray(format="bgr24").astype(np.uint8, copy=False)


def _encode(name: str, demo: Path, size: Size, path: Path, on_frame: Callable[[float], None]) -> None:
    with av.open(str(path), "w", format="mp4") as written:
        stream = written.add_stream(name, rate=SOURCE_FPS)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = size.width, size.height, "yuv420p"
        stream.bit_rate = size.bit_rate
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = GROUP_FRAMES, 0
        rate: dict[str, object] = {"maxrate": str(size.bit_rate), "bufsize": str(size.bit_rate)}
        stream.options = _X264 | rate if name == "libx264" else rate
        frames = GROUPS * GROUP_FRAMES
        for number, picture in enumerate(_pictures(demo, size, frames)):
            picture.pts = number
            picture.pict_type = PictureType.I if number % GROUP_FRAMES == 0 else PictureType.NONE
            written.mux(stream.encode(picture))
            on_frame((number + 1) / frames)
        written.mux(stream.encode(None))


def _repeat(groups: Path, path: Path) -> str:
    """Write the packets of a file again and again into another one; return the codec's name."""
    with av.open(str(groups)) as read, av.open(str(path), "w", format="mp4") as written:
        source = read.streams.video[0]
        target = written.add_stream_from_template(source)
        assert source.time_base is not None
        length = round(GROUPS * GROUP_FRAMES / SOURCE_FPS / source.time_base)
        for turn in range(REPEATS):
            read.seek(0)
            for packet in read.demux(source):
                if packet.size:
                    assert packet.pts is not None
                    assert packet.dts is not None
                    packet.pts, packet.dts = packet.pts + turn * length, packet.dts + turn * length
                    packet.stream = target
                    written.mux(packet)
        return source.codec_context.name


def _pictures(demo: Path, size: Size, count: int) -> Iterator[VideoFrame]:
    """Yield pictures of the demo at a size, with noise, forwards and then backwards so that faces do not jump."""
    noise = _noise(size)
    frames = [frame for frame, _ in zip(_frames(demo), range(count // 2), strict=False)]
    for number, frame in enumerate([*frames, *reversed(frames)]):
        planes = frame.reformat(size.width, size.height, "yuv420p").to_ndarray()  # (H * 3 / 2, W), luma first
        luma = planes[: size.height]
        grain = np.roll(noise[number % _NOISES], number * 37, axis=1)
        cv2.add(luma, grain, dst=luma, dtype=cv2.CV_8U)
        yield VideoFrame.from_ndarray(planes, format="yuv420p")


def _noise(size: Size) -> list[NDArray[np.int8]]:
    # A small field is repeated: to draw one for every pixel of 4K would take a second.
    field = np.random.default_rng(0).normal(0, _DEVIATION, (_NOISES, 270, 480)).astype(np.int8)
    rows, columns = -(-size.height // 270), -(-size.width // 480)
    return [np.tile(one, (rows, columns))[: size.height, : size.width] for one in field]


def _frames(demo: Path) -> Iterator[VideoFrame]:
    with av.open(str(demo)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= BEGIN_S:
                yield frame


def _main(demo: str, name: str, path: str) -> None:
    """Make a clip; print the part that is done after each frame, and at last what was made."""
    size = next(size for size in SIZES if size.name == name)
    try:
        clip = make_clip(Path(demo), size, Path(path), lambda part: print(part, flush=True))  # noqa: T201
    except (NoEncoder, OSError) as error:
        sys.exit(str(error))
    print(json.dumps({"codec": clip.codec, "bit_rate": clip.bit_rate}), flush=True)  # noqa: T201


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to both, and the other process ends this one
    _main(*sys.argv[1:])
