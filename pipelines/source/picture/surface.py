"""Decoded frames in host memory, as surfaces that are scaled for the detector and cropped for the analyzer."""

from __future__ import annotations

import av
import cv2
import numpy as np

from visaged.models.preprocess import Canvas
from visaged.models.surface import HostSurface
from visaged.models.types import Image
from visaged.pipelines.presentation import UPRIGHT, Presentation
from visaged.pipelines.source.picture.planes import (
    CHROMA_TO_LIMITED,
    FROM_BT601,
    LUMA_TO_LIMITED,
    is_full_range,
    plane_rows,
)
from visaged.pipelines.source.picture.scaler import PLANAR, Scaler


class VideoSurface(HostSurface):
    """A decoded frame that stays in its own pixel format; only the regions that are asked for become BGR.

    A face is a hundredth of a 1080p frame, and to convert the whole frame costs 1 ms and 6 MB. Coordinates are those of
    the upright picture with square pixels, however it is stored; only the regions are turned and stretched.

    Args:
        frame: The frame, in any pixel format.
        presentation: How the frame is shown; None for as it is stored.
        scaler: Scales the frame; the frames of a stream share one. None for a new one.
    """

    def __init__(
        self, frame: av.VideoFrame, presentation: Presentation | None = None, scaler: Scaler | None = None
    ) -> None:
        self._frame = frame
        self._presentation = presentation or Presentation(frame.width, frame.height)
        super().__init__(self._presentation.square_width, self._presentation.square_height)
        self._scaler = scaler or Scaler()
        self._whole: Image | None = None

    def scale_onto(self, canvas: Canvas, slot: Image) -> None:
        """Scale the upright picture onto a detector's canvas."""
        self._scaler.scale(self._frame, self._presentation.turn, canvas, slot)

    def picture(self, canvas: Canvas) -> Image:
        """Return the whole picture for people, as `Surface.picture` documents."""
        image = super().picture(canvas)
        # Only these are scaled as BT.601 whatever their tag says; swscale honours it.
        correction = FROM_BT601.get(int(self._frame.colorspace)) if self._frame.format.name in PLANAR else None
        return image if correction is None else cv2.transform(image, correction, image)  # type: ignore[return-value]

    def region(self, left: int, top: int, right: int, bottom: int) -> Image:
        """Return a region inside the upright picture with square pixels, (bottom - top, right - left, 3) uint8 BGR."""
        shown = self._presentation
        if shown.scale == (1.0, 1.0):
            return self._upright(left, top, right, bottom)
        # A pixel's centre is half a pixel from its corner; one more stored pixel on every side is for interpolation.
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
        if name not in PLANAR:
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
        correction = FROM_BT601.get(int(self._frame.colorspace))
        return region if correction is None else cv2.transform(region, correction)  # type: ignore[return-value]

    def _converted(self) -> Image:
        if self._whole is None:
            self._whole = self._frame.to_ndarray(format="bgr24")  # type: ignore[assignment]
        assert self._whole is not None
        return self._whole
