"""Scales decoded frames onto the detector's canvas.

8-bit YUV with halved chroma, which nearly all cameras send, is scaled plane by plane before it becomes BGR: luma is
halved by averaging until it is less than twice too large and then interpolated, so that no pixel is skipped. 1080p onto
640 x 360 takes 0.63 ms of one core, swscale's area averaging 1.24, and a detector finds the same faces (378 and 377 in
100 frames of a crowd). The picture is converted as BT.601 whatever its tag says: that makes no difference to detection,
and crops for the analyzer are converted exactly. Other formats go through one swscale context for each stream.
"""

from __future__ import annotations

import threading

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from visaged.models.preprocess import Canvas
from visaged.models.types import Image
from visaged.pipelines.presentation import UPRIGHT, Turn
from visaged.pipelines.source.picture.planes import CHROMA_TO_LIMITED, LUMA_TO_LIMITED, is_full_range, plane_rows

PLANAR = frozenset({"yuv420p", "yuvj420p"})
"""Formats of 8-bit YUV with halved chroma."""


# Buffers of a size that so many frames were scaled without are given up: nobody looks at pictures of that size now.
_UNUSED = 100


class Scaler:
    """Scales the frames of one stream, in buffers that it reuses while their size is wanted.

    Thread-safe: frames are scaled one at a time for each size. The detector's canvas has one, live pictures may have
    others, and neither waits for the other's, or costs the other its buffers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sizes: dict[tuple[int, int], _Buffers] = {}
        self._count = 0

    def scale(self, frame: av.VideoFrame, turn: Turn, canvas: Canvas, slot: Image) -> None:
        """Put a frame onto a canvas.

        Args:
            frame: The frame, in any pixel format.
            turn: How the stored picture becomes upright; the small picture is turned, not the large one.
            canvas: Place of the upright picture on the canvas.
            slot: (canvas.height, canvas.width, 3) uint8; the part with the picture is set, as BGR.
        """
        upright = canvas.part(slot)
        height, width = upright.shape[1::-1] if turn.is_sideways else upright.shape[:2]
        self._buffers(width, height).scale(frame, turn, upright)

    def _buffers(self, width: int, height: int) -> _Buffers:
        with self._lock:
            self._count += 1
            buffers = self._sizes.get((width, height))
            if buffers is None:
                buffers = self._sizes[width, height] = _Buffers(width, height)
            buffers.used = self._count
            if len(self._sizes) > 1:
                least = self._count - _UNUSED
                self._sizes = {size: one for size, one in self._sizes.items() if one.used > least}
            return buffers


class _Buffers:
    """Scales frames to one size: width x height pixels as stored."""

    def __init__(self, width: int, height: int) -> None:
        self.used = 0
        self._lock = threading.Lock()
        self._reformatter = VideoReformatter()
        self._stored = np.empty((height, width, 3), np.uint8)  # pages that nothing is written to cost no memory
        self._planar = np.empty((height * 3 // 2, width), np.uint8)  # I420: luma, then the two chroma planes
        self._luma = self._planar[:height]
        self._chroma = self._planar[height:].reshape(2, height // 2, width // 2)
        self._halves: dict[tuple[int, ...], NDArray[np.uint8]] = {}

    def scale(self, frame: av.VideoFrame, turn: Turn, upright: Image) -> None:
        with self._lock:
            target = upright if turn == UPRIGHT else self._stored
            if frame.format.name in PLANAR:
                self._scale_planes(frame, target)
            else:
                self._reformat(frame, target)
            if turn != UPRIGHT:
                turn.apply(target, upright)

    def _scale_planes(self, frame: av.VideoFrame, target: Image) -> None:
        luma, *chroma = (plane_rows(plane)[:, : plane.width] for plane in frame.planes)
        rows, columns = self._luma.shape
        while luma.shape[0] >= 2 * rows or luma.shape[1] >= 2 * columns:
            luma = self._halve(luma)
        _interpolate(luma, self._luma)
        for plane, small in zip(chroma, self._chroma, strict=True):
            _interpolate(plane, small)
        if is_full_range(frame):
            cv2.LUT(self._luma, LUMA_TO_LIMITED, self._luma)
            cv2.LUT(self._planar[rows:], CHROMA_TO_LIMITED, self._planar[rows:])
        cv2.cvtColor(self._planar, cv2.COLOR_YUV2BGR_I420, target)

    def _halve(self, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # Each side by itself: where pixels are not square, one may be much too large and the other not.
        shape = tuple(
            now // 2 if now >= 2 * wanted else now for now, wanted in zip(plane.shape, self._luma.shape, strict=True)
        )
        if shape not in self._halves:
            self._halves[shape] = np.empty(shape, np.uint8)
        cv2.resize(plane, shape[::-1], self._halves[shape], interpolation=cv2.INTER_AREA)
        return self._halves[shape]

    def _reformat(self, frame: av.VideoFrame, target: Image) -> None:
        height, width = target.shape[:2]
        scaled = self._reformatter.reformat(
            frame,
            width,
            height,
            "bgr24",
            interpolation=Interpolation.AREA,
            threads=1,  # there are other cameras for the other cores
        )
        target[:] = plane_rows(scaled.planes[0])[:, : width * 3].reshape(height, width, 3)


def _interpolate(plane: NDArray[np.uint8], small: NDArray[np.uint8]) -> None:
    """Scale a plane to the size of `small`, linearly."""
    down, across = (now // wanted for now, wanted in zip(plane.shape, small.shape, strict=True))
    if down % 2 and across % 2 and plane.shape == (down * small.shape[0], across * small.shape[1]):
        # The middle of every small pixel is the middle of a large one: the chroma of 1080p on 640, and what is not
        # scaled at all. The same values in a third of the time.
        small[:] = plane[down // 2 :: down, across // 2 :: across]
    else:
        cv2.resize(plane, small.shape[::-1], small, interpolation=cv2.INTER_LINEAR)
