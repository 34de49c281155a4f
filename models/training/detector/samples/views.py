"""Random views of pictures: the decoded pictures, the similarities that draw them, and what becomes of their faces.

A small face's label is exact when it was made on a large face and scaled down. So every picture is drawn through a
random similarity that brings one of its faces to a size drawn log-uniformly. Pictures of groups mostly keep about their
own scale: that is where real small faces are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from visaged.models.training.common import photometric
from visaged.models.training.common.packs import Faces, FloatArray, PackedPicture

Image = NDArray[np.uint8]

MIRRORED_POINTS = [1, 0, 2, 4, 3]
SMALLEST_FACE = 7.0
LEAST_VISIBLE, LEAST_VISIBLE_CLOSE, CLOSE = 0.55, 0.33, 48.0
"""Faces cut to less than this, or smaller than SMALLEST_FACE pixels, are doubtful. Of a face that still shows CLOSE
pixels a third is enough to know it."""
NOTHING_LEFT = 0.1
"""A face cut to less than this is background: an eye, a mouth or a chin alone must not be called a face."""

LARGEST_ENLARGEMENT, LARGEST_CLOSE_UP = 2.5, 4.0
GROUP, GROUP_SCALES = 4, (0.45, 1.4)
"""Pictures with this many faces are mostly drawn at these scales."""

DONOR_SIZE = 26.0
"""Smallest face, in pixels of its picture, whose head may be pasted into a crowd."""

CLOSE_UP_SIZE = 80.0
"""Smallest face, in pixels of its picture, that may be drawn to fill a view."""

CLOSE_UP, DETAIL, DETAIL_CHANCE = (0.45, 1.5), (2.5, 5.0), 0.1
"""Sizes of a close-up's face in lengths of the view's shorter side; and those of which only a detail shows."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture with its halves, quarters and eighths, so that no view has to shrink it anew."""

    pack: str
    levels: tuple[Image, ...]
    faces: Faces
    sizes: FloatArray
    anchors: NDArray[np.int64]
    """The sure faces that a view may be centred on."""

    @classmethod
    def of(cls, packed: PackedPicture) -> Picture:
        """Decode and shrink."""
        levels = [packed.decode()]
        while min(levels[-1].shape[:2]) >= 48 and len(levels) < 4:
            height, width = levels[-1].shape[:2]
            half = cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
            levels.append(np.asarray(half, np.uint8))
        faces = packed.faces
        return cls(packed.pack, tuple(levels), faces, faces.sizes(), np.nonzero(faces.sure)[0])


class Library:
    """All pictures, drawn by pack with given weights.

    Attributes:
        packs: the pictures of each pack, in the order of the weights.
        faceless: the pictures without a face.
    """

    def __init__(self, packs: dict[str, list[Picture]], weights: dict[str, float]) -> None:
        """Take the pictures of each pack and how often, relative to the others, a picture of it is drawn.

        Raises:
            ValueError: There is no background, or no head to paste.
        """
        self.packs = [packs[name] for name in weights]
        share = np.array([weights[name] for name in weights])
        self._cumulative = np.cumsum(share / share.sum())
        everything = [picture for pictures in self.packs for picture in pictures]
        self.faceless = [p for p in everything if not len(p.faces)]
        self._close_ups = [large for pictures in self.packs if (large := _close_ups(pictures))]
        self._donors = [heads for pictures in self.packs if (heads := _donors(pictures))]
        if not self.faceless:
            raise ValueError("no pack has a picture without a face: training needs some as background")
        if not self._donors:
            raise ValueError(f"no pack has a sure face of {DONOR_SIZE:.0f} px and more that stands alone")

    def __len__(self) -> int:
        """Return the number of pictures."""
        return sum(len(pictures) for pictures in self.packs)

    def picture(self, rng: Generator) -> Picture:
        """Draw any picture."""
        pictures = self.packs[min(int(np.searchsorted(self._cumulative, rng.random())), len(self.packs) - 1)]
        return pictures[rng.integers(len(pictures))]

    def background(self, rng: Generator) -> Picture:
        """Draw a picture without a face."""
        return self.faceless[rng.integers(len(self.faceless))]

    def close_up(self, rng: Generator) -> Picture:
        """Draw a picture with a large face, every pack that has some as often as another; any if none has."""
        if not self._close_ups:
            return self.picture(rng)
        pictures = self._close_ups[rng.integers(len(self._close_ups))]
        return pictures[rng.integers(len(pictures))]

    def donor(self, rng: Generator) -> tuple[Picture, int]:
        """Draw a head to paste: a picture and which of its faces; every pack with heads as often as another."""
        heads = self._donors[rng.integers(len(self._donors))]
        return heads[rng.integers(len(heads))]


def _close_ups(pictures: list[Picture]) -> list[Picture]:
    """List the pictures with a sure face that is large enough to fill a view."""
    return [picture for picture in pictures if picture.sizes[picture.anchors].max(initial=0) >= CLOSE_UP_SIZE]


def _donors(pictures: list[Picture]) -> list[tuple[Picture, int]]:
    """List the large sure faces that have no other face in the way."""
    found = []
    for picture in pictures:
        centres = (picture.faces.boxes[:, :2] + picture.faces.boxes[:, 2:]) / 2
        for face in picture.anchors:
            distances = np.abs(centres - centres[face]).max(1) / max(picture.sizes[face], 1)
            if picture.sizes[face] >= DONOR_SIZE and (distances < 1.9).sum() == 1:
                found.append((picture, int(face)))
    return found


@dataclass(slots=True)
class Labels:
    """Faces of a sample while it is being composed.

    Attributes:
        boxes: (N, 4) float32 pixels of the sample.
        points: (N, 5, 2) float32 pixels, NaN where unknown.
        sure: (N,) bool.
    """

    boxes: FloatArray
    points: FloatArray
    sure: NDArray[np.bool_]

    @classmethod
    def empty(cls) -> Labels:
        """Return no faces."""
        return cls(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, bool))

    def extend(self, other: Labels) -> None:
        """Add the faces of another list."""
        self.boxes = np.concatenate([self.boxes, other.boxes])
        self.points = np.concatenate([self.points, other.points])
        self.sure = np.concatenate([self.sure, other.sure])


def draw_tilt(rng: Generator) -> float:
    """Draw a tilt in radians: mostly upright, up to about 50 degrees."""
    degrees = rng.normal(0, 8) if rng.random() < 0.8 else rng.normal(0, 25)
    return float(np.radians(np.clip(degrees, -55, 55)))


def similarity(centre: FloatArray, target: FloatArray, scale: float, tilt: float, mirror: bool) -> NDArray[np.float64]:
    """Return the (2, 3) matrix that takes `centre` to `target`."""
    cos, sin = scale * np.cos(tilt), scale * np.sin(tilt)
    linear = np.array([[cos, sin], [-sin, cos]])
    if mirror:
        linear[:, 0] *= -1
    return np.column_stack([linear, target - linear @ centre])


def warp(
    picture: Picture, matrix: NDArray[np.float64], scale: float, size: tuple[int, int], border: int, colour: list[int]
) -> Image:
    """Draw the picture through the matrix into (width, height), from the level that is at most twice too large."""
    level = int(np.clip(np.floor(np.log2(1 / max(scale, 1e-3))), 0, len(picture.levels) - 1))
    whole, source = picture.levels[0], picture.levels[level]
    ratio = np.array([whole.shape[1] / source.shape[1], whole.shape[0] / source.shape[0]])
    from_level = matrix.copy()
    # Boxes and points count from pixels' edges, warpAffine from their centres: the centre of a level's pixel x lies at
    # ratio * (x + 0.5) of the whole picture, and what lies at y of the view is its pixel y - 0.5.
    from_level[:, 2] += matrix[:, :2] @ (0.5 * ratio) - 0.5
    from_level[:, :2] *= ratio
    view = cv2.warpAffine(source, from_level, size, flags=cv2.INTER_LINEAR, borderMode=border, borderValue=colour)
    return np.asarray(view, np.uint8)


def moved(
    faces: Faces, matrix: NDArray[np.float64], scale: float, tilt: float, mirror: bool
) -> tuple[FloatArray, FloatArray]:
    """Return boxes (N, 4) and points (N, 5, 2) after the similarity; a tilted box stays upright about its face."""
    linear, offset = matrix[:, :2], matrix[:, 2]
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 @ linear.T + offset
    edges = (faces.boxes[:, 2:] - faces.boxes[:, :2]) * scale
    lean = abs(np.sin(tilt)) if abs(tilt) > np.radians(10) else 0.0
    edges = edges * (1 - lean) + edges[:, ::-1] * lean
    points = faces.points @ linear.T + offset
    if mirror:
        points = points[:, MIRRORED_POINTS]
    return np.concatenate([centres - edges / 2, centres + edges / 2], 1).astype(np.float32), points.astype(np.float32)


def clipped(boxes: FloatArray, points: FloatArray, sure: NDArray[np.bool_], size: tuple[int, int]) -> Labels:
    """Cut boxes to (width, height); drop what is all but outside, doubt what is mostly cut off or too small."""
    edges = boxes[:, 2:] - boxes[:, :2]
    limit = np.array([*size, *size], np.float32)
    cut = np.clip(boxes, 0, limit)
    inner = (cut[:, 2:] - cut[:, :2]).clip(0)
    there = (inner > 0).all(1)
    visible = inner.prod(1) / np.maximum(edges.prod(1), 1e-6)
    there &= visible >= NOTHING_LEFT
    enough = np.where(np.sqrt(inner.prod(1)) >= CLOSE, LEAST_VISIBLE_CLOSE, LEAST_VISIBLE)
    good = sure & (visible >= enough) & (np.sqrt(edges.prod(1)) >= SMALLEST_FACE)
    return Labels(cut[there], points[there], good[there])


def place(
    canvas: Image, tile: tuple[int, int, int, int], picture: Picture, sizes: tuple[float, float], rng: Generator
) -> Labels:
    """Draw a random view of a picture into a tile of the canvas.

    Args:
        canvas: (S, S, 3) uint8 BGR, changed.
        tile: left, top, right, bottom.
        picture: what to draw.
        sizes: smallest and largest size in pixels that the chosen face may get.
        rng: source of chance.
    """
    left, top, right, bottom = tile
    extent = np.array([right - left, bottom - top], np.float32)
    height, width = picture.levels[0].shape[:2]
    if len(picture.anchors):
        face = picture.anchors[rng.integers(len(picture.anchors))]
        if len(picture.anchors) >= GROUP and rng.random() < 0.5:
            # A group keeps its own scale, or nearly: that is where real small faces are, not enlarged ones.
            size = picture.sizes[face] * float(np.exp(rng.uniform(*np.log(GROUP_SCALES))))
        else:
            # A portrait shrunk to a stamp would leave a tile of nothing: cover at least half of its width or height.
            smallest = max(sizes[0], 0.5 * float((extent / (width, height)).min()) * picture.sizes[face])
            size = float(np.exp(rng.uniform(np.log(smallest), np.log(max(sizes[1], smallest * 1.05)))))
        scale = min(size / max(picture.sizes[face], 4), LARGEST_ENLARGEMENT)
        centre = picture.faces.boxes[face].reshape(2, 2).mean(0)
        target = extent / 2 + rng.uniform(-0.45, 0.45, 2) * np.maximum(0, extent - size)
        border = (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE)[rng.integers(2)]
    else:
        scale = min(rng.uniform(0.4, 1.5) * float((extent / (width, height)).max()), LARGEST_ENLARGEMENT)
        centre, target = rng.uniform(0.3, 0.7, 2) * (width, height), extent / 2
        # Mirrored edges would repeat faces without their labels; here there are none.
        border = cv2.BORDER_CONSTANT if len(picture.faces) else cv2.BORDER_REFLECT_101
    labels = _draw(canvas, tile, picture, (centre, target), float(scale), border, rng)
    if not len(picture.faces) and rng.random() < 0.15:
        _write(canvas[top:bottom, left:right], rng)
    return labels


def place_close_up(canvas: Image, picture: Picture, rng: Generator) -> Labels:
    """Fill a canvas, or its left top as a picture of another shape does, with one face, often cut by the edges.

    One in ten shows a detail alone, an eye or a cheek, which is background.
    """
    side = canvas.shape[0]
    width, height = side, side
    if rng.random() < 0.5:
        canvas[:] = 0
        short = int(side * rng.uniform(0.5, 1))
        width, height = (side, short) if rng.random() < 0.5 else (short, side)
    face = picture.anchors[picture.sizes[picture.anchors] >= min(CLOSE_UP_SIZE, picture.sizes[picture.anchors].max())]
    face = face[rng.integers(len(face))]
    detail = rng.random() < DETAIL_CHANCE
    low, high = np.log(DETAIL if detail else CLOSE_UP)
    size = min(width, height) * float(np.exp(rng.uniform(low, high)))
    scale = min(size / float(picture.sizes[face]), LARGEST_CLOSE_UP * (2 if detail else 1))
    box = picture.faces.boxes[face].reshape(2, 2)
    edges = (box[1] - box[0]) * scale
    extent = np.array([width, height], np.float32)
    if detail:
        centre = box[0] + rng.uniform(0.1, 0.9, 2) * (box[1] - box[0])
        target = extent / 2
    else:
        # Up to four tenths of the face's width or height lie outside; where it is larger than the view, more may.
        centre = box.mean(0)
        inner = np.abs(extent - edges) / 2 + rng.choice((0.0, 0.4), 2, p=(0.6, 0.4)) * edges
        target = extent / 2 + rng.uniform(-1, 1, 2) * inner
    border = (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE)[rng.integers(2)]
    return _draw(canvas, (0, 0, width, height), picture, (centre, target), scale, border, rng)


def _draw(
    canvas: Image,
    tile: tuple[int, int, int, int],
    picture: Picture,
    move: tuple[NDArray[Any], NDArray[Any]],
    scale: float,
    border: int,
    rng: Generator,
) -> Labels:
    """Draw a picture into a tile of the canvas, one of its points moved to a point of the tile, tilted by chance."""
    left, top, right, bottom = tile
    size_px = (right - left, bottom - top)
    tilt, mirror = draw_tilt(rng), bool(rng.random() < 0.5)
    matrix = similarity(*move, scale, tilt, mirror)
    colour = rng.integers(0, 256, 3).tolist() if rng.random() < 0.6 else [0, 0, 0]  # black as on the product's canvases
    view = warp(picture, matrix, scale, size_px, border, colour)
    if rng.random() < 0.3:
        view = photometric.tone(view, rng)
    canvas[top:bottom, left:right] = view
    labels = clipped(*moved(picture.faces, matrix, scale, tilt, mirror), picture.faces.sure, size_px)
    labels.boxes += np.array([left, top, left, top], np.float32)
    labels.points += np.array([left, top], np.float32)
    return labels


def _write(view: Image, rng: Generator) -> None:
    """Write text: letters are a young network's favourite false alarm."""
    for _ in range(rng.integers(1, 5)):
        text = "".join(rng.choice(list("OQ08B&@%G69aeosSDCR:.-"), rng.integers(2, 9)))
        at = (int(rng.integers(-10, view.shape[1])), int(rng.integers(8, view.shape[0] + 10)))
        size = float(np.exp(rng.uniform(np.log(0.3), np.log(2.5))))
        colour, font, stroke = rng.integers(0, 256, 3).tolist(), int(rng.integers(0, 8)), int(rng.integers(1, 5))
        cv2.putText(view, text, at, font, size, colour, stroke)
