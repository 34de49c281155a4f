"""Searching a picture at several sizes: which canvases it is put on, and how their finds become one list of faces.

A detector knows faces of some sizes, in pixels of its canvas: one canvas of 640 px shows it neither the face of a
passport photo nor one of 10 px in a photo of a group. So a picture is put on a small canvas, on one of the usual size
and on a large one. Each is made from the next larger one, which costs little. Pictures are enlarged for a canvas, but
at most twice: of the faces from 6 to 20 px in photos of crowds, a detector finds a third more when they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visaged.models.detector import Detector, suppress
from visaged.models.preprocess import Canvas, canvas_for, place, round_up
from visaged.models.surface import DeviceCanvas, Surface, batch_of_canvases
from visaged.models.types import Detections, Image

SMALL = 256
"""Long side of the small canvas in pixels: a face that fills it is one of the sizes that any detector knows best."""

_MARGIN = 8
"""The small canvas has a margin of an eighth of its long side on every side: of 300 tight shots of heads, whose faces
the picture's edges cut, the threshold was passed by 276 with a black margin and by 261 without."""

_STEP = 128
"""Long sides are multiples of about this: few shapes, few plans of a GPU's memory."""
_ENLARGED = 2.0
"""A picture is enlarged by this at most, but for the smallest canvas."""
_APART, _FARTHEST = 1.25, 5.0
"""A canvas that is not this much larger than the next smaller one is left out; one that is more than five times as
large gets another one between them, since no face may be too large for the one and too small for the other."""
_THINNEST = 8
"""Pixels: where a picture is no wider or higher than this on a canvas, there is no face to be seen."""
MOST_PIXELS = 16 * 640 * 640
"""Pixels of all canvases of one run of the network: a GPU's memory has an end."""

_LEAST, _ENOUGH = 40.0, 120.0
"""Pixels of the canvas. Smaller faces are left to the next larger canvas, and those that the next smaller one still
shows with _ENOUGH pixels to that: each canvas raises false alarms of its own, most of them at sizes that another one
shows better. A neck of 330 px on a canvas of 1280 px is no face on one of 640."""

_PART_AREA, _PART_INSIDE = 0.45, 0.85
"""What has this much of a surer face's area at most, and lies inside it by this much at least, is a part of it. What
has more of its area overlaps it enough to be the same face."""


@dataclass(frozen=True, slots=True)
class Look:
    """A picture on one canvas.

    Attributes:
        image: (canvas.height, canvas.width, 3) uint8 BGR; or one that is to be made on a device.
        canvas: Where the picture lies in it.
    """

    image: Image | DeviceCanvas
    canvas: Canvas

    def smaller(self, canvas: Canvas) -> Look:
        """Return the same picture on a smaller canvas."""
        if isinstance(self.image, DeviceCanvas):
            return Look(DeviceCanvas(self.image.surface, canvas), canvas)
        return Look(place(self.canvas.part(self.image), canvas), canvas)


@dataclass(frozen=True, slots=True)
class Scales:
    """The long sides of the canvases on which pictures are searched, in pixels.

    Attributes:
        usual: The long side of the canvas for every picture that is at least half as large.
        large: The long side of the largest canvas, for pictures that are at least half as large; 0 for none.
        small: The long side of the smallest canvas, for every picture, with a margin; None for none, and then the
            usual one is for every picture.
        multiple_of: What a canvas's sides must divide by.
    """

    usual: int
    large: int = 0
    small: int | None = SMALL
    multiple_of: int = 32

    @classmethod
    def of(cls, detector: Detector, usual: int, large: int = 0) -> Scales:
        """Return the scales for a detector: the usual one alone where its file takes one size of picture only."""
        if detector.fixed_size:
            return cls(usual, 0, None, detector.multiple_of)
        return cls(usual, large, multiple_of=detector.multiple_of)

    def canvases(self, width: int, height: int) -> list[Canvas]:
        """Return the canvases for a picture of width x height pixels, at least one, largest first."""
        step = round_up(_STEP, self.multiple_of)
        smallest, *others = [round_up(side, self.multiple_of) for side in (self.small, self.usual, self.large) if side]
        most = max(smallest, int(max(width, height) * _ENLARGED) // step * step)
        sides = self._rungs([smallest, *(min(max(side, smallest), most) for side in others)])
        shown = [side for side in sides if min(width, height) * side > _THINNEST * max(width, height)]
        return [self._canvas(width, height, side) for side in reversed(shown or sides[:1])]

    def looks(self, surface: Surface) -> list[Look]:
        """Return a picture on all its canvases, largest first."""
        first, *rest = self.canvases(surface.width, surface.height)
        slot = first.blank()
        surface.scale_onto(first, slot)
        looks = [Look(slot, first)]
        for canvas in rest:
            looks.append(looks[-1].smaller(canvas))
        return looks

    def close_up(self, look: Look, width: int, height: int) -> list[Look]:
        """Return a look at a frame of width x height pixels, and one on each smaller canvas down to the small one."""
        looks = [look]
        for canvas in self.smaller(look.canvas, width, height):
            looks.append(looks[-1].smaller(canvas))
        return looks

    def smaller(self, canvas: Canvas, width: int, height: int) -> list[Canvas]:
        """Return the canvases on which a close-up of a frame of width x height pixels is searched besides `canvas`."""
        if self.small is None:
            return []
        long = max(canvas.width, canvas.height)
        sides = self._rungs([round_up(self.small, self.multiple_of), long])
        return [self._canvas(width, height, side) for side in reversed(sides) if side * _APART <= long]

    def _rungs(self, wanted: Sequence[int]) -> list[int]:
        """Return long sides that are neither too close to each other nor too far apart, smallest first."""
        step, rungs = round_up(_STEP, self.multiple_of), list[int]()
        for side in sorted(wanted):
            if not rungs or side >= _APART * rungs[-1]:
                while rungs and side > _FARTHEST * rungs[-1]:
                    rungs.append(round_up(math.sqrt(rungs[-1] * min(side, _FARTHEST**2 * rungs[-1])), step))
                rungs.append(side)
        return rungs

    def _canvas(self, width: int, height: int, side: int) -> Canvas:
        is_small = self.small is not None and side <= round_up(self.small, self.multiple_of)
        return canvas_for(width, height, side, self.multiple_of, side // _MARGIN if is_small else 0)


def find(detector: Detector, pictures: Sequence[Sequence[Look]]) -> list[Detections]:
    """Return the faces of each picture, in its own pixels, best first; canvases of one shape are one batch.

    Args:
        detector: The network.
        pictures: For each picture its looks at the canvases to search, at least one, largest first.
    """
    # By shape, and by whether they are on a device: picture and canvas.
    shapes: dict[tuple[tuple[int, ...], bool], list[tuple[int, int]]] = {}
    for index, looks in enumerate(pictures):
        for level, look in enumerate(looks):
            kind = look.image.shape, isinstance(look.image, DeviceCanvas)
            shapes.setdefault(kind, []).append((index, level))
    parts = [[Detections.empty()] * len(looks) for looks in pictures]
    for ((height, width, _), _), places in shapes.items():
        for run in _batched(places, max(1, MOST_PIXELS // (height * width))):
            images = [pictures[index][level].image for index, level in run]
            with batch_of_canvases(images, detector.longest_batch) as batch:
                found = detector.detect(batch)
            for (index, level), detections in zip(run, found, strict=True):
                believed = detections[best_shown(detections, [look.canvas for look in pictures[index]], level)]
                parts[index][level] = pictures[index][level].canvas.to_picture(believed)
    return [without_parts(found[0]) if len(found) == 1 else join(found, detector.nms_iou) for found in parts]


def prepare(detector: Detector, long_side: int, most: int) -> None:
    """Get a detector ready for what most cameras send, pictures of 16:9, before the first of them comes.

    Args:
        detector: The network.
        long_side: The longer side of cameras' canvases in pixels.
        most: Most frames in a batch.

    Raises:
        ModelError: The network cannot be run; the text says why.
    """
    canvas = canvas_for(16, 9, long_side, detector.multiple_of)
    fitting = max(1, MOST_PIXELS // (canvas.height * canvas.width))
    detector.prepare(canvas.blank()[None], min(most, fitting))


def _batched(places: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    """Yield the places in runs of `size`."""
    for start in range(0, len(places), size):
        yield places[start : start + size]


def best_shown(found: Detections, canvases: Sequence[Canvas], level: int) -> NDArray[np.bool_]:
    """Return which of a canvas's finds (N,) are of sizes that no other canvas shows better.

    Args:
        found: The finds, in pixels of the canvas.
        canvases: All canvases of the picture, largest first.
        level: Index in `canvases` of the one that the finds are on.
    """
    sizes = np.sqrt((found.boxes[:, 2:] - found.boxes[:, :2]).prod(1))  # (N,) pixels
    keep = np.ones(len(found), bool)
    if level > 0:
        keep &= sizes >= _LEAST
    if level < len(canvases) - 1:
        keep &= sizes <= _ENOUGH * canvases[level].scale_x / canvases[level + 1].scale_x
    return keep


def join(found: Iterable[Detections], iou: float) -> Detections:
    """Return the faces that one picture showed at several sizes, each once.

    Of boxes that overlap by more than `iou` the surest stays: a detector's confidence says how exact a box is. What
    lies inside a surer, much larger face is an eye, a nose or a mouth of it and goes away.

    Args:
        found: The faces of each canvas, in pixels of the picture.
        iou: Two boxes that overlap by more than this are one face.
    """
    parts = list(found)
    together = Detections(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.confidences for part in parts]),
        np.concatenate([part.landmarks for part in parts]),
    )
    return without_parts(suppress(together, iou))


def without_parts(faces: Detections) -> Detections:
    """Drop what lies inside a surer, much larger face; the faces come best first, and so do those returned."""
    if len(faces) < 2:
        return faces
    low, high = faces.boxes[:, :2], faces.boxes[:, 2:]
    shared = np.clip(np.minimum(high[:, None], high) - np.maximum(low[:, None], low), 0, None).prod(2)  # (N, N)
    area = (high - low).prod(1)
    part = (area[:, None] <= _PART_AREA * area) & (shared >= _PART_INSIDE * area[:, None])  # row of column
    keep = np.ones(len(faces), bool)
    for index in part.any(1).nonzero()[0]:
        keep[index] = not (part[index, :index] & keep[:index]).any()  # only what is itself a face has parts
    return faces if keep.all() else faces[keep]
