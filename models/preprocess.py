"""How a picture of any size becomes a detector's input.

The picture is scaled to fit a canvas and lies in its top left corner, or within a margin; the rest stays black. There
are few shapes of canvases (long side fixed, short side 3/5, 3/4 or all of it): pictures of odd sizes would otherwise
make every batch another shape, and an accelerator's memory grows with each shape that it meets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from visaged.models.device import Array, DeviceArray
from visaged.models.manifest import AnalyzerInput, DetectorInput
from visaged.models.types import Detections, Image

_Value = TypeVar("_Value", bound=np.generic)
_SHORT_SIDES = (3 / 5, 3 / 4, 1.0)


@dataclass(frozen=True, slots=True)
class Canvas:
    """A detector input's shape and where a picture lies in it.

    Attributes:
        width: Pixels of the canvas.
        height: Pixels of the canvas.
        picture_width: Pixels that the scaled picture covers, from `left` on.
        picture_height: Pixels that the scaled picture covers, from `top` on.
        scale_x: Canvas pixels for one pixel of the picture, across.
        scale_y: Canvas pixels for one pixel of the picture, down; differs from `scale_x` by rounding only.
        left: Black pixels left of the picture.
        top: Black pixels above the picture.
    """

    width: int
    height: int
    picture_width: int
    picture_height: int
    scale_x: float
    scale_y: float
    left: int = 0
    top: int = 0

    def blank(self) -> Image:
        """Return a black canvas, (height, width, 3) uint8."""
        return np.zeros((self.height, self.width, 3), np.uint8)

    def part(self, image: NDArray[_Value]) -> NDArray[_Value]:
        """Return the part of an image on this canvas, (height, width, ...), with the picture, without copying."""
        return image[self.top : self.top + self.picture_height, self.left : self.left + self.picture_width]

    def to_picture(self, detections: Detections) -> Detections:
        """Return detections on the canvas in the picture's pixels, boxes cut at its borders."""
        scale = np.array([self.scale_x, self.scale_y], np.float32)
        offset = np.array([self.left, self.top], np.float32)
        corners = (detections.boxes.reshape(-1, 2, 2) - offset) / scale
        limit = np.array([self.picture_width, self.picture_height], np.float32) / scale
        boxes = np.clip(corners, 0, limit).reshape(-1, 4)
        inside = (boxes[:, 2] - boxes[:, 0] > 1) & (boxes[:, 3] - boxes[:, 1] > 1)
        return Detections(boxes, detections.confidences, (detections.landmarks - offset) / scale)[inside]


def canvas_for(width: int, height: int, long_side: int, multiple_of: int = 32, margin: int = 0) -> Canvas:
    """Return the canvas for pictures of `width` x `height` pixels.

    Args:
        width: Pixels of the picture across, at least 1.
        height: Pixels of the picture down, at least 1.
        long_side: The canvas's longer side in pixels; rounded up to `multiple_of`.
        multiple_of: What both sides must divide by.
        margin: Black pixels on every side of the picture, even, less than a quarter of `long_side`.
    """
    long_side = round_up(long_side, multiple_of)
    long, short = max(width, height), min(width, height)
    scale = (long_side - 2 * margin) / long
    needed = short * scale + 2 * margin
    side = next(s for f in _SHORT_SIDES if (s := round_up(long_side * f, multiple_of)) >= min(needed, long_side))
    canvas_width, canvas_height = (long_side, side) if width >= height else (side, long_side)
    # Even, so that video's halved chroma fits.
    picture_width = min(canvas_width - 2 * margin, max(2, 2 * round(width * scale / 2)))
    picture_height = min(canvas_height - 2 * margin, max(2, 2 * round(height * scale / 2)))
    scales = picture_width / width, picture_height / height
    return Canvas(canvas_width, canvas_height, picture_width, picture_height, *scales, margin, margin)


def place(image: Image, canvas: Canvas) -> Image:
    """Return a new canvas with an (H, W, 3) BGR picture scaled onto it."""
    target = canvas.blank()
    scale_onto(image, canvas, target)
    return target


def scale_onto(image: Image, canvas: Canvas, target: Image) -> None:
    """Scale an (H, W, 3) BGR picture onto a canvas that is there, (canvas.height, canvas.width, 3) uint8."""
    view = canvas.part(target)
    shrink = canvas.picture_width < image.shape[1]
    cv2.resize(image, (canvas.picture_width, canvas.picture_height), view, interpolation=_interpolation(shrink))


def is_plain(form: DetectorInput | AnalyzerInput) -> bool:
    """Return whether a network takes (B, H, W, 3) uint8 BGR as it is; only such take batches on a device."""
    return (form.layout, form.dtype, form.colour) == ("NHWC", "uint8", "BGR")


@overload
def tensor(images: Image, form: DetectorInput | AnalyzerInput) -> NDArray[Any]: ...
@overload
def tensor(images: Array, form: DetectorInput | AnalyzerInput) -> Array: ...
def tensor(images: Array, form: DetectorInput | AnalyzerInput) -> Array:
    """Return a batch (B, H, W, 3) uint8 BGR in the layout, type, colours and scale that a network takes.

    Raises:
        ValueError: The batch is on a device, and the network takes another form.
    """
    if isinstance(images, DeviceArray):
        if not is_plain(form):
            raise ValueError("a batch on a device cannot be brought into another form")
        return images
    values: NDArray[Any] = images if form.colour == "BGR" else images[..., ::-1]
    if form.dtype == "float32":
        values = (values.astype(np.float32) - np.float32(form.mean)) * np.float32(form.scale)
    if form.layout == "NCHW":
        values = values.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(values)


def _interpolation(shrink: bool) -> int:
    return cv2.INTER_AREA if shrink else cv2.INTER_LINEAR


def round_up(value: float, multiple: int) -> int:
    """Return the smallest multiple that is not smaller than a value."""
    return math.ceil(round(value, 6) / multiple) * multiple
