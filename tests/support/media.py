"""Small media files for tests, made with PyAV: pictures with a moving box, and the files that cameras get wrong.

As cameras do, all of them use one slice a picture and no B-pictures, unless asked to.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.video.stream import VideoStream

Picture = npt.NDArray[np.uint8]

CLOCK_HZ = 90_000
BOX_SHARE = 4  # the box is a fourth of the picture's height


def pictures(width: int, height: int, count: int, *, noise: int = 8, seed: int = 0) -> Iterator[Picture]:
    """Yields `count` pictures (height, width, 3) uint8 RGB: a gradient with noise and a white box that crosses it."""
    rng = np.random.default_rng(seed)
    rows = np.linspace(40, 160, height)[:, None]
    columns = np.linspace(20, 120, width)[None, :]
    background = np.stack(np.broadcast_arrays(rows, columns, rows / 2 + columns / 2), axis=-1).astype(np.uint8)
    if noise:
        background += rng.integers(0, noise, background.shape, dtype=np.uint8)
    side = height // BOX_SHARE
    for index in range(count):
        picture = background.copy()
        left = round((width - side) * (index / max(1, count - 1)))
        top = (height - side) // 2
        picture[top : top + side, left : left + side] = 255
        yield picture


def write_video(
    path: Path,
    *,
    size: tuple[int, int] = (640, 360),
    fps: float = 25.0,
    seconds: float = 2.0,
    times: Sequence[float] | None = None,
    gop: int = 25,
    b_frames: int = 0,
    is_full_range: bool = False,
    noise: int = 8,
    seed: int = 0,
    x264: str = "",
) -> Path:
    """Writes H.264; the container by the suffix: .mp4, .mkv, .ts, or .h264 (raw Annex B, no time stamps).

    Args:
        path: The file to write.
        size: Width and height in pixels, even.
        fps: Pictures a second.
        seconds: The length.
        times: Time stamps of the pictures in seconds, rising, instead of `fps` and `seconds`: a variable rate.
        gop: Pictures from key frame to key frame.
        b_frames: B-pictures between others.
        is_full_range: Luma 0..255, which decodes as yuvj420p.
        noise: Amplitude of the noise, 0..95; more noise, more bytes.
        seed: Of the noise.
        x264: Further options of the encoder, as in "open-gop=1:intra-refresh=1".

    Returns:
        `path`.
    """
    if times is None:
        times = [index / fps for index in range(round(fps * seconds))]
    with av.open(path, "w") as container:
        stream = _add_stream(container, size, fps, gop=gop, b_frames=b_frames, is_full_range=is_full_range)
        stream.options |= {"x264-params": x264}
        for time_s, picture in zip(times, pictures(*size, len(times), noise=noise, seed=seed), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = round(time_s * CLOCK_HZ)
            frame.time_base = Fraction(1, CLOCK_HZ)
            if is_full_range:
                frame = frame.reformat(format="yuvj420p", dst_color_range="JPEG")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_variable_rate(path: Path, *, size: tuple[int, int] = (640, 360)) -> Path:
    """Writes 3 s whose rate changes: 25 fps, then 5 fps, then a pause of 0.8 s, then 12.5 fps."""
    times = [index / 25 for index in range(25)]
    times += [1 + index / 5 for index in range(4)]
    times += [2.4 + index / 12.5 for index in range(8)]
    return write_video(path, size=size, times=times)


def write_size_change(
    path: Path, *, sizes: Sequence[tuple[int, int]] = ((640, 360), (1280, 720)), seconds: float = 1.0, fps: float = 25.0
) -> Path:
    """Writes a raw .h264 that goes on in another size, `seconds` in each."""
    with path.open("wb") as whole:
        for index, size in enumerate(sizes):
            part = write_video(path.with_name(f"{path.stem}-part{index}.h264"), size=size, seconds=seconds, fps=fps)
            with part.open("rb") as source:
                shutil.copyfileobj(source, whole)
            part.unlink()
    return path


def write_audio(path: Path, *, seconds: float = 1.0, rate: int = 16_000) -> Path:
    """Writes a tone of 440 Hz as AAC (.m4a or .mp4), and no video."""
    count = round(seconds * rate)
    tone = (np.sin(2 * np.pi * 440 * np.arange(count) / rate) * 8000).astype(np.int16)
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        for start in range(0, count, 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="s16", layout="mono")
            frame.sample_rate = rate
            frame.pts = start
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def transcode(
    source: Path,
    target: Path,
    *,
    size: tuple[int, int] | None = None,
    seconds: float | None = None,
    gop: int = 25,
    b_frames: int = 0,
) -> Path:
    """Encodes a video again in another size (default: its own), of its first `seconds` (default: all)."""
    with av.open(source) as reader, av.open(target, "w") as writer:
        video = reader.streams.video[0]
        output = _add_stream(
            writer, size or (video.width, video.height), float(video.average_rate or 25), gop=gop, b_frames=b_frames
        )
        for frame in reader.decode(video):
            if seconds is not None and frame.time is not None and frame.time >= seconds:
                break
            scaled = frame.reformat(output.width, output.height, "yuv420p")
            scaled.pts, scaled.time_base = frame.pts, frame.time_base
            writer.mux(output.encode(scaled))
        writer.mux(output.encode(None))
    return target


def remux_to_annexb(source: Path, target: Path) -> Path:
    """Copies the H.264 of an mp4 into a raw .h264 (Annex B), without encoding it again."""
    with av.open(source) as reader, target.open("wb") as writer:
        video = reader.streams.video[0]
        bitstream = BitStreamFilterContext("h264_mp4toannexb", video)
        for packet in reader.demux(video):
            for converted in bitstream.filter(packet if packet.size else None):
                writer.write(bytes(converted))
    return target


def truncate(source: Path, target: Path, *, share: float = 0.5) -> Path:
    """Copies the first `share` of a file. An mp4 of this module becomes unreadable: its index lies at the end."""
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target


def _add_stream(
    container: OutputContainer,
    size: tuple[int, int],
    fps: float,
    *,
    gop: int,
    b_frames: int,
    is_full_range: bool = False,
) -> VideoStream:
    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
    stream.width, stream.height = size
    stream.pix_fmt = "yuvj420p" if is_full_range else "yuv420p"
    stream.codec_context.time_base = Fraction(1, CLOCK_HZ)
    stream.codec_context.thread_count = 1  # more threads would cut each picture into slices
    stream.codec_context.gop_size = gop
    stream.options = {"preset": "veryfast", "bf": str(b_frames), "sc_threshold": "0"}
    return stream
