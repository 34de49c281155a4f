"""Decoded frames that stay on the device that decoded them: ONNX graphs put them on canvases and cut faces out.

What the graphs do not know goes through host memory as ever: pixels that are not square, odd sizes, and formats other
than NV12, which ten bits a value come in. FFmpeg copies each frame out of NVDEC's few surfaces, unless it is told not
to (`unsafe_output`), so frames may be kept without stopping the decoder. Each takes 1.5 bytes a pixel of the GPU's
memory, and a camera has four at most: the newest, one that waits, one in work, and the one that people last looked at.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import av
import numpy as np
from av.video.plane import VideoPlane

from visaged.models.alignment import Matrix
from visaged.models.device import Array, Device, DeviceArray
from visaged.models.graphs.frames import CanvasPlan, FrameGraphs, Nv12
from visaged.models.preprocess import Canvas
from visaged.models.types import Image
from visaged.pipelines.presentation import Presentation
from visaged.pipelines.source.picture.planes import FROM_BT601, is_full_range

_MOST_CANVASES = 8
"""Canvases of one stream whose places and weights are kept: the detector's, and those of live pictures."""


class Plans:
    """What puts the frames of one stream on canvases, made when a canvas is first met; thread-safe.

    Args:
        graphs: The graphs.
        presentation: How the frames are shown.
    """

    def __init__(self, graphs: FrameGraphs, presentation: Presentation) -> None:
        self.graphs = graphs
        self._shown = presentation
        self._lock = threading.Lock()
        self._known: OrderedDict[Canvas, CanvasPlan] = OrderedDict()

    def of(self, canvas: Canvas) -> CanvasPlan:
        """Return what puts a frame on a canvas."""
        with self._lock:
            plan = self._known.get(canvas)
            if plan is None:
                shown = self._shown
                size, turn = (shown.stored_width, shown.stored_height), shown.turn
                plan = self.graphs.plan(*size, canvas, turn.is_sideways, turn.stored_points)
                if len(self._known) >= _MOST_CANVASES:
                    self._known.popitem(last=False)
                self._known[canvas] = plan
            self._known.move_to_end(canvas)
            return plan

    def surface(self, frame: av.VideoFrame) -> FrameOnDevice | None:
        """Return a frame as a surface; None if the graphs do not know its format or its pixels."""
        shown = self._shown
        if shown.scale != (1.0, 1.0) or (shown.stored_width | shown.stored_height) & 1:
            return None
        planes = _nv12(frame, self.graphs.device)
        if planes is None:
            return None
        self.graphs.device.wait()
        return FrameOnDevice(planes, shown, self)


class FrameOnDevice:
    """A decoded frame on a device, a `visaged.models.surface.DeviceSurface`.

    Args:
        planes: The frame.
        presentation: How it is shown.
        plans: Of its stream.
    """

    def __init__(self, planes: Nv12, presentation: Presentation, plans: Plans) -> None:
        self._planes = planes
        self._shown = presentation
        self._plans = plans
        self.width = presentation.square_width
        self.height = presentation.square_height
        self.device = plans.graphs.device

    def scale_onto(self, canvas: Canvas, slot: Array) -> None:
        """Scale the upright picture onto a canvas, on the device or not; what lies beside it becomes black."""
        self._plans.graphs.put(self._planes, self._plans.of(canvas), slot)

    def picture(self, canvas: Canvas) -> Image:
        """Return the whole picture for people, as `Surface.picture` documents."""
        image = canvas.blank()
        self._plans.graphs.put(self._planes, self._plans.of(canvas), image, true_colours=True)
        return image

    def crops(self, matrices: Sequence[Matrix], size: int) -> Image:
        """Return (N, size, size, 3) uint8 BGR crops in this machine's own memory, as `Surface.crops` documents."""
        crops = np.empty((len(matrices), size, size, 3), np.uint8)
        self._cut(matrices, crops)
        return crops

    def crops_onto(self, matrices: Sequence[Matrix], target: DeviceArray) -> None:
        """Cut faces out into (N, size, size, 3) uint8 on the device."""
        self._cut(matrices, target)

    def _cut(self, matrices: Sequence[Matrix], target: Array) -> None:
        upright = self._shown.width, self._shown.height
        self._plans.graphs.cut(self._planes, upright, self._shown.turn.stored_points, matrices, target)


def downloaded(frame: av.VideoFrame) -> av.VideoFrame:
    """Return a frame in host memory: the same one if it is there."""
    if frame.format.name != "cuda" or frame.sw_format is None:
        return frame
    return frame.reformat(format=frame.sw_format.name)


def _nv12(frame: av.VideoFrame, device: Device) -> Nv12 | None:
    """Return the planes of a frame that lies on a device as NV12; None for other frames."""
    if device.kind == "cuda":
        if frame.format.name != "cuda" or frame.sw_format is None or frame.sw_format.name != "nv12":
            return None
    elif frame.format.name != "nv12":
        return None
    luma, chroma = frame.planes
    if luma.line_size <= 0 or luma.line_size % 2 or chroma.line_size != luma.line_size:
        return None
    y = _plane(device, frame, luma, (frame.height, luma.line_size))
    uv = _plane(device, frame, chroma, (frame.height // 2, chroma.line_size // 2, 2))
    correction = FROM_BT601.get(int(frame.colorspace), np.eye(3, dtype=np.float32))
    return Nv12(y, uv, frame.width, frame.height, is_full_range(frame), correction)


def _plane(device: Device, frame: av.VideoFrame, plane: VideoPlane, shape: tuple[int, ...]) -> DeviceArray:
    return device.at(plane.buffer_ptr, shape, np.uint8, frame)
