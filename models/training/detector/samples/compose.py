"""Composing training samples: close-ups, single views, mosaics of 2x2 to 6x6 views, pasted crowds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator

from visaged.models.training.common import photometric
from visaged.models.training.common.packs import FloatArray
from visaged.models.training.detector.samples.crowd import paste_crowd
from visaged.models.training.detector.samples.views import Image, Labels, Library, place, place_close_up


@dataclass(frozen=True, slots=True)
class Sample:
    """One training sample.

    Attributes:
        image: (S, S, 3) uint8 BGR.
        boxes: (N, 4) float32 pixels of sure faces.
        points: (N, 5, 2) float32 pixels, NaN where unknown.
        doubtful: (M, 4) float32 pixels of boxes to leave out of the loss.
    """

    image: Image
    boxes: FloatArray
    points: FloatArray
    doubtful: FloatArray


def cover(canvas: Image, labels: Labels, rng: Generator, chance: float = 0.08) -> None:
    """Cover up to 40 % of some faces with a flat colour or a piece of the picture: hands, poles, other people."""
    side = canvas.shape[0]
    for (left, top, right, bottom), sure in zip(labels.boxes, labels.sure, strict=True):
        width, height = right - left, bottom - top
        if not sure or min(width, height) < 12 or rng.random() >= chance:
            continue
        w, h = max(2, int(width * rng.uniform(0.2, 0.9))), max(2, int(height * rng.uniform(0.15, 0.44)))
        x, y = int(left + rng.uniform(-0.1, 0.9) * width), int(top + rng.uniform(-0.1, 0.8) * height)
        area = canvas[max(y, 0) : y + h, max(x, 0) : x + w]
        if area.size == 0:
            continue
        if rng.random() < 0.5:
            area[:] = rng.integers(0, 256, 3)
        else:
            sy, sx = rng.integers(0, side - area.shape[0] + 1), rng.integers(0, side - area.shape[1] + 1)
            area[:] = canvas[sy : sy + area.shape[0], sx : sx + area.shape[1]].copy()


def _mosaic(
    canvas: Image, columns: list[int], rows: list[int], smallest: float, library: Library, rng: Generator
) -> Labels:
    """Fill the canvas with views between the given column and row edges."""
    labels = Labels.empty()
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            largest = max(0.9 * min(right - left, bottom - top), smallest + 1)
            labels.extend(place(canvas, (left, top, right, bottom), library.picture(rng), (smallest, largest), rng))
    return labels


def compose(library: Library, side: int, rng: Generator, close_ups: float = 0.12) -> Sample:
    """Draw one training sample of side x side pixels; the given share of samples are close-ups."""
    canvas = np.empty((side, side, 3), np.uint8)
    kind = rng.random()
    if rng.random() < close_ups:
        labels = place_close_up(canvas, library.close_up(rng), rng)
    elif kind < 0.30:
        labels = place(canvas, (0, 0, side, side), library.picture(rng), (8, 0.8 * side), rng)
    elif kind < 0.62:
        x, y = rng.integers(side // 4, 3 * side // 4, 2).tolist()
        labels = _mosaic(canvas, [0, x, side], [0, y, side], 8, library, rng)
    elif kind < 0.82:
        edges = np.linspace(0, side, rng.integers(3, 7) + 1).astype(int).tolist()
        labels = _mosaic(canvas, edges, edges, 7.5, library, rng)
    else:
        scenery = library.background(rng) if rng.random() < 0.6 else library.picture(rng)
        labels = place(canvas, (0, 0, side, side), scenery, (8, 0.2 * side), rng)
        paste_crowd(canvas, labels, library, rng)
    cover(canvas, labels, rng)
    image = photometric.camera(canvas, rng)
    return Sample(image, labels.boxes[labels.sure], labels.points[labels.sure], labels.boxes[~labels.sure])
