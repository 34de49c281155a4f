"""The planes of decoded frames, and what their numbers mean as colours."""

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


# OpenCV knows video's limited range only; cameras that send full range ("yuvj") are brought to it first.
LUMA_TO_LIMITED = np.round(16 + np.arange(256) * 219 / 255).astype(np.uint8)
CHROMA_TO_LIMITED = np.round(128 + (np.arange(256) - 128) * 224 / 255).astype(np.uint8)


def _bgr_from_yuv(red: float, blue: float) -> NDArray[np.float64]:
    """Return the (3, 3) matrix from (Y, Pb, Pr) to BGR of a standard that weighs red and blue so in its luma."""
    green = 1 - red - blue
    return np.array(
        [
            [1, 2 * (1 - blue), 0],
            [1, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green],
            [1, 0, 2 * (1 - red)],
        ]
    )


# OpenCV takes all video for BT.601. What HD cameras tag as BT.709 (1) and UHD ones as BT.2020 (9), or SMPTE 240M (7),
# would be off by some 25 levels, and not like the detector's picture, for which swscale goes by the tag.
FROM_BT601 = {
    tag: (_bgr_from_yuv(red, blue) @ np.linalg.inv(_bgr_from_yuv(0.299, 0.114))).astype(np.float32)
    for tag, red, blue in ((1, 0.2126, 0.0722), (7, 0.212, 0.087), (9, 0.2627, 0.0593))
}
