"""Crowds: heads pasted over a scene, nearer ones in front, so that they hide one another as on a stand."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from visaged.models.training.common import photometric
from visaged.models.training.detector.samples.views import (
    LEAST_VISIBLE,
    Image,
    Labels,
    Library,
    clipped,
    draw_tilt,
    moved,
    similarity,
    warp,
)

HEADS_ONLY = frozenset({"ages", "emotions", "mask_crops"})
"""Packs of chips without shoulders."""

_HEAD_CANVAS, _HEAD_FACE, _HEAD_CENTRE = 96, 40.0, np.array([48.0, 40.0], np.float32)


@cache
def _head_shape(shoulders: bool) -> NDArray[np.float32]:
    """Draw the soft outline of a head, with or without shoulders, (96, 96) float32 0..1, face size 40 at (48, 40)."""
    shape = np.zeros((96, 96), np.float32)
    cv2.ellipse(shape, (48, 38), (25, 32), 0, 0, 360, 1.0, -1)
    if shoulders:
        cv2.ellipse(shape, (48, 96), (44, 34), 0, 0, 360, 1.0, -1)
    return np.asarray(cv2.GaussianBlur(shape, (0, 0), 1.6), np.float32)


def paste_crowd(canvas: Image, labels: Labels, library: Library, rng: Generator) -> None:
    """Paste heads from the back of the scene to its front; a face that is then mostly hidden becomes doubtful.

    Args:
        canvas: (S, S, 3) uint8 BGR, changed.
        labels: faces that the canvas already holds; the pasted ones are added.
        library: the pictures that heads are taken from.
        rng: source of chance.
    """
    side = canvas.shape[0]
    count = int(np.exp(rng.uniform(np.log(4), np.log(45))))
    back = np.exp(rng.uniform(np.log(7.5), np.log(26)))
    front = back * np.exp(rng.uniform(0, 1.3))
    rows = np.sort(rng.uniform(rng.uniform(0, 0.4), 1, count))
    sizes = (back + (front - back) * rows) * np.exp(rng.normal(0, 0.12, count))
    owner = np.full((side, side), -1, np.int32)  # which head shows at each pixel
    numbers = np.full(len(labels.boxes), -1)
    for number, (row, size) in enumerate(zip(rows, sizes, strict=True)):
        pasted = _paste_head(canvas, owner, number, (rng.uniform(0, side), row * side), float(size), library, rng)
        labels.extend(pasted)
        numbers = np.append(numbers, np.full(len(pasted.boxes), number))
    for face, (box, number) in enumerate(zip(labels.boxes, numbers, strict=True)):
        left, top, right, bottom = np.round(box).astype(int)
        shown = owner[top:bottom, left:right] == number
        if shown.size == 0 or shown.mean() < LEAST_VISIBLE:
            labels.sure[face] = False


def _paste_head(
    canvas: Image,
    owner: NDArray[np.int32],
    number: int,
    at: tuple[float, float],
    size: float,
    library: Library,
    rng: Generator,
) -> Labels:
    """Paste one head with its face's centre near `at`, mark its pixels in `owner`, return its label (or none)."""
    side = canvas.shape[0]
    picture, face = library.donor(rng)
    scale, tilt, mirror = size / float(picture.sizes[face]), draw_tilt(rng), bool(rng.random() < 0.5)
    if scale > 1.3:
        return Labels.empty()
    extent = round(_HEAD_CANVAS * size / _HEAD_FACE)
    middle = _HEAD_CENTRE * size / _HEAD_FACE
    matrix = similarity(picture.faces.boxes[face].reshape(2, 2).mean(0), middle, scale, tilt, mirror)
    head = warp(picture, matrix, scale, (extent, extent), cv2.BORDER_REPLICATE, [0, 0, 0])
    if rng.random() < 0.5:
        head = photometric.tone(head, rng, 0.7)
    shoulders = picture.pack not in HEADS_ONLY and rng.random() < 0.7
    alpha = cv2.resize(_head_shape(bool(shoulders)), (extent, extent), interpolation=cv2.INTER_LINEAR)

    left, top = round(at[0] - middle[0]), round(at[1] - middle[1])
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + extent, side), min(top + extent, side)
    if x1 - x0 < 4 or y1 - y0 < 4:
        return Labels.empty()
    inside = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    alpha, under = alpha[inside][..., None], canvas[y0:y1, x0:x1].astype(np.float32)
    canvas[y0:y1, x0:x1] = (under + alpha * (head[inside] - under)).astype(np.uint8)
    owner[y0:y1, x0:x1][alpha[..., 0] > 0.5] = number

    boxes, points = moved(picture.faces, matrix, scale, tilt, mirror)
    shift = np.array([left, top], np.float32)
    return clipped(boxes[[face]] + np.tile(shift, 2), points[[face]] + shift, np.ones(1, bool), (side, side))
