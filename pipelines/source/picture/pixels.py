"""The pixels of decoded frames: canvases for the detector, and regions of the full picture for crops."""

from __future__ import annotations

import threading

import av
import cv2
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

from visaged.models.preprocess import Canvas
from visaged.models.types import Image
from visaged.pipelines.presentation import UPRIGHT, Presentation


class VideoPixels:
    """A decoded frame that stays in its own pixel format; only the regions that are asked for become BGR.

    A face is a hundredth of a 1080p frame, whose conversion as a whole costs 1 ms and 6 MB. The picture is upright and
    has square pixels here, however it is stored; only regions are turned and stretched.

    Args:
        frame: In any pixel format.
        presentation: How it is shown; None for as it is stored.
    """

    def __init__(self, frame: av.VideoFrame, presentation: Presentation | None = None) -> None:
        self._frame = frame
        self._presentation = presentation or Presentation(frame.width, frame.height)
        self.width = self._presentation.square_width
        self.height = self._presentation.square_height
        self._whole: Image | None = None

    def region(self, left: int, top: int, right: int, bottom: int) -> Image:
        """Return the pixels of a region that lies inside the upright picture with square pixels."""
        shown = self._presentation
        if shown.scale == (1.0, 1.0):
            return self._upright(left, top, right, bottom)
        # A pixel's centre lies half a pixel from its corner; one stored pixel more on every side to interpolate with.
        across, down = shown.scale
        x0, y0 = max(0, int(left / across) - 1), max(0, int(top / down) - 1)
        x1, y1 = min(shown.width, int(right / across) + 2), min(shown.height, int(bottom / down) + 2)
        to_source = np.array(
            [[1 / across, 0, (left + 0.5) / across - 0.5 - x0], [0, 1 / down, (top + 0.5) / down - 0.5 - y0]]
        )
        return cv2.warpAffine(  # type: ignore[return-value]
            self._upright(x0, y0, x1, y1),
            to_source,
            (right - left, bottom - top),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def _upright(self, left: int, top: int, right: int, bottom: int) -> Image:
        """Return a region of the upright picture in stored pixels."""
        shown = self._presentation
        if shown.turn == UPRIGHT:
            return self._stored(left, top, right, bottom)
        return shown.turn.apply(self._stored(*shown.turn.stored(left, top, right, bottom, shown.width, shown.height)))

    def _stored(self, left: int, top: int, right: int, bottom: int) -> Image:
        """Return a region of the frame as it is stored."""
        width, height = self._frame.width, self._frame.height
        name = self._frame.format.name
        if name not in ("yuv420p", "yuvj420p"):
            return self._converted()[top:bottom, left:right]
        # Chroma comes for blocks of 2 x 2 pixels: take whole blocks, convert, cut.
        x0, y0 = left & ~1, top & ~1
        x1, y1 = min(right + 1 & ~1, width & ~1), min(bottom + 1 & ~1, height & ~1)
        if x1 < right or y1 < bottom or x1 <= x0 or y1 <= y0:  # the last column or row of an odd size
            return self._converted()[top:bottom, left:right]
        rows, columns = y1 - y0, x1 - x0
        planes = [plane_rows(plane) for plane in self._frame.planes]
        luma = planes[0][y0:y1, x0:x1]
        chroma = [plane[y0 // 2 : y1 // 2, x0 // 2 : x1 // 2] for plane in planes[1:]]
        if is_full_range(self._frame):
            luma, chroma = LUMA_TO_LIMITED[luma], [CHROMA_TO_LIMITED[c] for c in chroma]
        packed = np.empty((rows * 3 // 2, columns), np.uint8)  # I420: luma, then the two chroma planes
        packed[:rows] = luma
        packed[rows:].reshape(2, rows // 2, columns // 2)[:] = chroma
        bgr: Image = cv2.cvtColor(packed, cv2.COLOR_YUV2BGR_I420)  # type: ignore[assignment]
        region = bgr[top - y0 : bottom - y0, left - x0 : right - x0]
        correction = _FROM_BT601.get(int(self._frame.colorspace))
        return region if correction is None else cv2.transform(region, correction)  # type: ignore[return-value]

    def _converted(self) -> Image:
        if self._whole is None:
            self._whole = self._frame.to_ndarray(format="bgr24")  # type: ignore[assignment]
        assert self._whole is not None
        return self._whole


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
_FROM_BT601 = {
    tag: (_bgr_from_yuv(red, blue) @ np.linalg.inv(_bgr_from_yuv(0.299, 0.114))).astype(np.float32)
    for tag, red, blue in ((1, 0.2126, 0.0722), (7, 0.212, 0.087), (9, 0.2627, 0.0593))
}


class CanvasPool:
    """Detector canvases used again and again: fresh megabytes for every frame cost page faults.

    Canvases come back black outside of the picture as long as all pictures of the pool have one shape.
    """

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._free: list[Image] = []
        self._lock = threading.Lock()

    def take(self) -> Image:
        """Return a canvas, (H, W, 3) uint8."""
        with self._lock:
            if self._free:
                return self._free.pop()
        return self._canvas.blank()

    def give(self, image: Image) -> None:
        """Take a canvas back; the caller must not use it again."""
        with self._lock:
            self._free.append(image)
