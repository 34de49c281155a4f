"""The planes of decoded frames, and conversions of their colours."""

from __future__ import annotations

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange
from numpy.typing import NDArray


def plane_rows(plane: VideoPlane) -> NDArray[np.uint8]:
    """Return the bytes of a plane, (height, bytes in a row) uint8, without copying; rows end in padding."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)


def is_full_range(frame: av.VideoFrame) -> bool:
    """Return whether luma goes from 0 to 255, and not from 16 to 235 as is usual for video."""
    return frame.format.name.startswith("yuvj") or frame.color_range == ColorRange.JPEG


# OpenCV converts only the limited range of video; full range ("yuvj") is converted to it first.
LUMA_TO_LIMITED = np.round(16 + np.arange(256) * 219 / 255).astype(np.uint8)
CHROMA_TO_LIMITED = np.round(128 + (np.arange(256) - 128) * 224 / 255).astype(np.uint8)


def _bgr_from_yuv(red: float, blue: float) -> NDArray[np.float64]:
    """Return the (3, 3) matrix from (Y, Pb, Pr) to BGR for a standard, given its luma weights of red and blue."""
    green = 1 - red - blue
    return np.array(
        [
            [1, 2 * (1 - blue), 0],
            [1, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green],
            [1, 0, 2 * (1 - red)],
        ]
    )


# OpenCV converts all video as BT.601. Video that is tagged as BT.709 (1), as HD cameras do, BT.2020 (9) for UHD, or
# SMPTE 240M (7) would be off by some 25 levels.
FROM_BT601 = {
    tag: (_bgr_from_yuv(red, blue) @ np.linalg.inv(_bgr_from_yuv(0.299, 0.114))).astype(np.float32)
    for tag, red, blue in ((1, 0.2126, 0.0722), (7, 0.212, 0.087), (9, 0.2627, 0.0593))
}
