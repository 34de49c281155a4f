"""Pictures as the stages see them: what is put on the detector's canvas, and what is cut out for the analyzer."""

from __future__ import annotations

import contextlib
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import cv2
import numpy as np

from visaged.models.alignment import Matrix, invert
from visaged.models.device import Array, Device, DeviceArray
from visaged.models.preprocess import Canvas, round_up, scale_onto
from visaged.models.types import Image


class Surface(Protocol):
    """A picture, upright and with square pixels; all methods are thread-safe.

    Nothing here asks for the picture's pixels as such: they may be in this machine's own memory or on a device.
    """

    @property
    def width(self) -> int:
        """Pixels across."""
        ...

    @property
    def height(self) -> int:
        """Pixels down."""
        ...

    def scale_onto(self, canvas: Canvas, slot: Image) -> None:
        """Scale the whole picture onto a detector's canvas.

        Args:
            canvas: Where the picture lies in `slot`, made for this picture's width and height.
            slot: (canvas.height, canvas.width, 3) uint8, for example a row of a batch; becomes BGR where the picture
                lies, and stays as it is elsewhere.
        """
        ...

    def picture(self, canvas: Canvas) -> Image:
        """Return the whole picture for people to look at.

        Args:
            canvas: Where the picture lies in the result, made for this picture's width and height.

        Returns:
            (canvas.height, canvas.width, 3) uint8 BGR in the picture's true colours, black beside it.
        """
        ...

    def crops(self, matrices: Sequence[Matrix], size: int) -> Image:
        """Return upright faces for the analyzer.

        Args:
            matrices: The transform from the picture to the crop of each of N faces.
            size: Side of a crop in pixels.

        Returns:
            (N, size, size, 3) uint8 BGR, in the order of `matrices`; what lies outside of the picture is black.
        """
        ...


class DeviceSurface(Surface, Protocol):
    """A picture in the memory of a device, where canvases and crops can stay too."""

    @property
    def device(self) -> Device:
        """The device."""
        ...

    def scale_onto(self, canvas: Canvas, slot: Array) -> None:
        """Scale the whole picture onto a canvas, on the device or not; all of `slot` is set, black beside it."""
        ...

    def crops_onto(self, matrices: Sequence[Matrix], target: DeviceArray) -> None:
        """Cut faces out, as `crops` does, into (N, size, size, 3) uint8 on the device."""
        ...


@dataclass(frozen=True, slots=True)
class DeviceCanvas:
    """A canvas on a device, which is made when a batch takes it: at its place there, so that nothing is copied.

    Attributes:
        surface: The picture.
        canvas: Where it lies.
    """

    surface: DeviceSurface
    canvas: Canvas

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.canvas.height, self.canvas.width, 3

    def on_host(self) -> Image:
        """Return the canvas in this machine's own memory, for those who look at its pixels."""
        image = self.canvas.blank()
        self.surface.scale_onto(self.canvas, image)
        return image


class HostSurface(ABC):
    """A picture in host memory whose pixels are converted to BGR only where they are asked for.

    Args:
        width: Pixels across, upright and square.
        height: Pixels down, upright and square.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height

    @abstractmethod
    def region(self, left: int, top: int, right: int, bottom: int) -> Image:
        """Return the (bottom - top, right - left, 3) uint8 BGR pixels of a region that lies inside the picture."""

    @abstractmethod
    def scale_onto(self, canvas: Canvas, slot: Image) -> None:
        """Scale the whole picture onto a detector's canvas, as `Surface.scale_onto` documents."""

    def picture(self, canvas: Canvas) -> Image:
        """Return the whole picture for people, as `Surface.picture` documents."""
        image = canvas.blank()
        self.scale_onto(canvas, image)
        return image

    def crops(self, matrices: Sequence[Matrix], size: int) -> Image:
        """Return (N, size, size, 3) uint8 BGR crops, as `Surface.crops` documents, of regions around the faces."""
        crops = np.empty((len(matrices), size, size, 3), np.uint8)
        for matrix, crop in zip(matrices, crops, strict=True):
            self._cut(matrix, crop)
        return crops

    def _cut(self, matrix: Matrix, crop: Image) -> None:
        """Fill a (size, size, 3) crop."""
        cut = cut_of(matrix, len(crop), self.width, self.height)
        if cut is None:
            crop[:] = 0
            return
        region = self.region(cut.left, cut.top, cut.right, cut.bottom)
        if cut.factor > 1:
            whole = region[: cut.rows * cut.factor, : cut.columns * cut.factor]
            region = cv2.resize(whole, (cut.columns, cut.rows), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        size = crop.shape[1], crop.shape[0]
        cv2.warpAffine(region, cut.matrix, size, crop, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


class ImageSurface(HostSurface):
    """A picture that is already an (H, W, 3) uint8 BGR array."""

    def __init__(self, image: Image) -> None:
        super().__init__(image.shape[1], image.shape[0])
        self._image = image

    def region(self, left: int, top: int, right: int, bottom: int) -> Image:
        """Return the pixels of a region, without copying."""
        return self._image[top:bottom, left:right]

    def scale_onto(self, canvas: Canvas, slot: Image) -> None:
        """Scale the picture onto a detector's canvas."""
        scale_onto(self._image, canvas, slot)


@contextlib.contextmanager
def batch_of_canvases(canvases: Sequence[Image | DeviceCanvas], room: int) -> Iterator[Array]:
    """Lend canvases of one shape, at least one, as one batch.

    Args:
        canvases: (H, W, 3) uint8 BGR each; all of them on one device, or none.
        room: Batches on a device have room for a multiple of so many.

    Yields:
        (B, H, W, 3) uint8 BGR.
    """
    on_device = [one for one in canvases if isinstance(one, DeviceCanvas)]
    if not on_device:
        images = [one for one in canvases if not isinstance(one, DeviceCanvas)]
        yield images[0][None] if len(images) == 1 else np.stack(images)
        return
    count = len(on_device)
    device = on_device[0].surface.device
    with device.borrowed((count, *on_device[0].shape), np.uint8, round_up(count, room)) as batch:
        for index, one in enumerate(on_device):
            one.surface.scale_onto(one.canvas, batch.row(index))
        yield batch


@contextlib.contextmanager
def lent_crops(faces: Sequence[tuple[Surface, Matrix]], size: int, room: int) -> Iterator[Array]:
    """Lend the crops of faces from any number of pictures as one batch, on the device that holds all the pictures.

    Args:
        faces: As for `batch_of_crops`.
        size: Side of a crop in pixels.
        room: Batches on a device have room for a multiple of so many.

    Yields:
        (N, size, size, 3) uint8 BGR, in the order of `faces`.
    """
    devices = {id(device): device for surface, _ in faces if (device := getattr(surface, "device", None)) is not None}
    if len(devices) != 1 or any(getattr(surface, "device", None) is None for surface, _ in faces):
        yield batch_of_crops(faces, size)
        return
    (device,) = devices.values()
    with device.borrowed((len(faces), size, size, 3), np.uint8, round_up(len(faces), room)) as batch:
        begin = 0
        for surface, matrices in _by_picture(faces):
            end = begin + len(matrices)
            cast(DeviceSurface, surface).crops_onto(matrices, batch[begin:end])
            begin = end
        yield batch


def batch_of_crops(faces: Sequence[tuple[Surface, Matrix]], size: int) -> Image:
    """Return the crops of faces from any number of pictures as one batch.

    Args:
        faces: For each of N faces, at least one, its picture and the transform from the picture to the crop.
        size: Side of a crop in pixels.

    Returns:
        (N, size, size, 3) uint8 BGR, in the order of `faces`.
    """
    parts = [surface.crops(matrices, size) for surface, matrices in _by_picture(faces)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _by_picture(faces: Sequence[tuple[Surface, Matrix]]) -> Iterator[tuple[Surface, list[Matrix]]]:
    """Yield each picture with its faces, which follow each other."""
    for _, group in itertools.groupby(faces, key=lambda face: id(face[0])):
        cut = list(group)
        yield cut[0][0], [matrix for _, matrix in cut]


@dataclass(frozen=True, slots=True)
class Cut:
    """What a crop is made of: a region of the picture, whose blocks of pixels are averaged first.

    Attributes:
        left: First column of the region.
        top: First row of the region.
        right: The column behind it.
        bottom: The row behind it.
        factor: Pixels of a block, across and down.
        matrix: The transform from the averaged region to the crop.
    """

    left: int
    top: int
    right: int
    bottom: int
    factor: int
    matrix: Matrix

    @property
    def columns(self) -> int:
        """Blocks across."""
        return (self.right - self.left) // self.factor

    @property
    def rows(self) -> int:
        """Blocks down."""
        return (self.bottom - self.top) // self.factor


def cut_of(matrix: Matrix, size: int, width: int, height: int) -> Cut | None:
    """Return what a crop is made of; None if it lies outside of the picture.

    Args:
        matrix: The transform from the picture to the crop.
        size: Side of the crop in pixels.
        width: Pixels of the picture across.
        height: Pixels of the picture down.
    """
    (a, b, x), (c, d, y) = matrix.tolist()
    # Plain bilinear sampling skips pixels below half the size, so the picture is averaged down first: by a whole
    # number, which OpenCV does several times as fast as by others.
    factor = max(1, int(1.0 / math.sqrt(abs(a * d - b * c))))
    (p, q, left), (r, s, top) = invert(matrix).tolist()
    # A border of two pixels, so that interpolation sees the same neighbours as in the whole picture.
    horizontal = _span(left, p * size, q * size, 2 * factor, factor, width)
    vertical = _span(top, r * size, s * size, 2 * factor, factor, height)
    if horizontal is None or vertical is None:
        return None
    # Pixels' centres, not their corners, are whole numbers: a block's is half of it, less half a pixel, further.
    half = (factor - 1) / 2
    x += a * (horizontal[0] + half) + b * (vertical[0] + half)
    y += c * (horizontal[0] + half) + d * (vertical[0] + half)
    inside = np.array([[a * factor, b * factor, x], [c * factor, d * factor, y]])
    return Cut(horizontal[0], vertical[0], horizontal[1], vertical[1], factor, inside)


def _span(start: float, one: float, other: float, border: int, factor: int, edge: int) -> tuple[int, int] | None:
    """Return from where to where a crop reaches along one axis of the picture, in whole multiples of `factor`.

    Args:
        start: Where the crop's first corner lies.
        one: Distance from the first corner to the next one.
        other: Distance from the first corner to the last one.
        border: Pixels beside the crop that are needed too.
        factor: The length becomes a multiple of this, so that nothing is lost at an edge of the picture, unless the
            crop reaches both edges.
        edge: Pixels of the picture along this axis.
    """
    ends = (start, start + one, start + other, start + one + other)
    low, high = max(math.floor(min(ends)) - border, 0), min(math.ceil(max(ends)) + border, edge)
    high = min(high + (low - high) % factor, edge)
    low = max(low - (low - high) % factor, 0)
    return None if high - low < 2 * factor else (low, high)
