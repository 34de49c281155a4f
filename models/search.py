"""Searching a picture at several sizes: which canvases it is put on, and how their finds become one list of faces.

A detector knows faces of some sizes, in pixels of its canvas: one canvas of 640 px shows it neither the face of a
passport photo nor one of 10 px in a photo of a group. So a picture is put on a small canvas, on one of the usual size,
and on a large one where it has the pixels for that. Each canvas is made from the next larger one, which costs little.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from visaged.models.detector import Detector, suppress
from visaged.models.preprocess import Canvas, canvas_for, place
from visaged.models.types import Detections, Image

SMALL = 256
"""Long side of the small canvas in pixels: a face that fills it is one of the sizes that any detector knows best."""

_MARGIN = 8
"""Of the small canvas, an eighth of its long side on every side: of 300 tight shots of heads, whose faces the picture's
edges cut, the threshold was passed by 276 with a black margin and by 261 without."""

_STEP = 4
"""Long sides are multiples of this many times the network's own step: few shapes, few plans of a GPU's memory."""
_ENLARGED = 2.0
"""A picture smaller than a canvas is enlarged by this at most: more shows nothing new and costs time."""
_APART = 1.25
"""A canvas that is not this much larger than the one before is left out."""

_LEAST, _MOST = 40.0, 400.0
"""Pixels of the canvas. Smaller faces are left to a larger canvas, larger ones to a smaller canvas, where there is one:
each canvas raises false alarms of its own, most of them at the sizes that another one shows better."""

_PART_AREA, _PART_INSIDE = 0.3, 0.8
"""What has this much of a face's area at most, and lies inside it by this much at least, may be a part of it."""


@dataclass(frozen=True, slots=True)
class Look:
    """A picture on one canvas.

    Attributes:
        image: (canvas.height, canvas.width, 3) uint8 BGR.
        canvas: Where the picture lies in it.
    """

    image: Image
    canvas: Canvas

    def smaller(self, canvas: Canvas) -> Look:
        """Return the same picture on a smaller canvas."""
        return Look(place(self.canvas.part(self.image), canvas), canvas)


@dataclass(frozen=True, slots=True)
class Scales:
    """The long sides of the canvases on which pictures are searched.

    Attributes:
        usual: The one that every picture of at least half its size is put on, in pixels.
        large: The largest, for pictures that have as many pixels; not larger than `usual` for none.
        small: The smallest, which every picture is put on, with a margin; None for none.
        multiple_of: What a canvas's sides must divide by.
    """

    usual: int
    large: int = 0
    small: int | None = SMALL
    multiple_of: int = 32

    def canvases(self, width: int, height: int) -> list[Canvas]:
        """Return the canvases for a picture of width x height pixels, at least one, largest first."""
        step = _STEP * self.multiple_of
        long = max(width, height)
        sides: list[tuple[int, int]] = []  # and margins
        for side in (self.small, self.usual, self.large):
            if side is None:
                continue
            fitting = side if long * _ENLARGED >= side else max(step, int(long * _ENLARGED) // step * step)
            if not sides or fitting >= _APART * sides[-1][0]:
                sides.append((fitting, fitting // _MARGIN if side == self.small else 0))
        return [canvas_for(width, height, side, self.multiple_of, margin) for side, margin in reversed(sides)]

    def looks(self, image: Image) -> list[Look]:
        """Return a picture, (H, W, 3) uint8 BGR, on all its canvases, largest first."""
        first, *rest = self.canvases(image.shape[1], image.shape[0])
        looks = [Look(place(image, first), first)]
        for canvas in rest:
            looks.append(looks[-1].smaller(canvas))
        return looks


def close_up(look: Look, width: int, height: int, multiple_of: int) -> list[Look]:
    """Return a look at a frame of width x height pixels and, if that is smaller, one on the small canvas."""
    small = Scales(SMALL, multiple_of=multiple_of).canvases(width, height)[-1]
    return [look, look.smaller(small)] if small.width < look.canvas.width else [look]


def find(detector: Detector, pictures: Sequence[Sequence[Look]]) -> list[Detections]:
    """Return the faces of each picture, in its own pixels, best first; canvases of one shape are one batch.

    Args:
        detector: The network.
        pictures: Each with the canvases to search, at least one, largest first.
    """
    shapes: dict[tuple[int, ...], list[tuple[int, int]]] = {}  # picture and canvas
    for index, looks in enumerate(pictures):
        for level, look in enumerate(looks):
            shapes.setdefault(look.image.shape, []).append((index, level))
    parts = [[Detections.empty()] * len(looks) for looks in pictures]
    for places in shapes.values():
        images = [pictures[index][level].image for index, level in places]
        found = detector.detect(images[0][None] if len(images) == 1 else np.stack(images))
        for (index, level), detections in zip(places, found, strict=True):
            last = len(pictures[index]) - 1
            believed = _believed(detections, level > 0, level < last)
            parts[index][level] = pictures[index][level].canvas.to_picture(believed)
    return [without_parts(found[0]) if len(found) == 1 else join(found, detector.nms_iou) for found in parts]


def _believed(found: Detections, has_larger: bool, has_smaller: bool) -> Detections:
    """Return a canvas's finds without those of sizes that another canvas shows better."""
    sizes = np.sqrt((found.boxes[:, 2:] - found.boxes[:, :2]).prod(1))  # (N,) pixels of the canvas
    keep = np.ones(len(found), bool)
    if has_larger:
        keep &= sizes >= _LEAST
    if has_smaller:
        keep &= sizes <= _MOST
    return found if keep.all() else found[keep]


def join(found: Iterable[Detections], iou: float) -> Detections:
    """Return the faces that one picture showed at several sizes, each once.

    Of boxes that overlap by more than `iou` the surest stays: a detector's confidence says how exact a box is. What
    lies inside a surer, much larger face is an eye, a nose or a mouth of it and goes away.

    Args:
        found: The faces of each canvas, in pixels of the picture.
        iou: From where on two boxes are one face.
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
    surer = np.tri(len(faces), k=-1, dtype=bool)  # columns before the row
    return faces[~(part & surer).any(1)]
