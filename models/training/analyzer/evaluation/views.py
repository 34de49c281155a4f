"""Held-out crops as the product would cut them: aligned well or badly, from large or small faces."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from visaged.models.training.analyzer import occlusion
from visaged.models.training.analyzer.heads import SIZE
from visaged.models.training.analyzer.labelling.cache import Pack
from visaged.models.training.analyzer.labelling.crops import MARGIN
from visaged.models.training.analyzer.samples import FACE_SIZE, jitter

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class View:
    """One way to see the held-out crops.

    Attributes:
        title: what tables call it.
        face: size of the face in the picture in pixels (root of the area of its box), or none: as it is.
        errors: the five points are as wrong as a detector's.
        cover: what is drawn over the face by its 106 points, or none.
        blur: standard deviation in crop pixels by which the crop is smoothed.
    """

    title: str
    face: float | None = None
    errors: bool = False
    cover: Callable[[Image, NDArray[np.float32], Generator], Image] | None = None
    blur: float = 0.0

    @property
    def size(self) -> int:
        """Edge in pixels to which crops are shrunk before they are enlarged again; SIZE where they are not."""
        return SIZE if self.face is None else round(SIZE * self.face / FACE_SIZE)


VIEWS = (View("as packed"), View("detector's errors", errors=True), View("face 32 px", 32), View("face 24 px", 24))
COVERED_VIEWS = (
    View("bare", errors=True),
    View("mask drawn on", errors=True, cover=occlusion.draw_mask),
    View("sunglasses drawn on", errors=True, cover=occlusion.draw_sunglasses),
    View("hand drawn on", errors=True, cover=occlusion.draw_hand),
)
BLURRED_VIEWS = tuple(View(f"{sigma:g} px", blur=sigma) for sigma in (0.0, 0.8, 1.5, 2.5, 4.0))

_THUMBNAIL = 20
_SAME_PICTURE = 0.97
"""Correlation of two thumbnails from which on they show one picture. Looked at: in FER2013, of which every eleventh
held-out crop has a copy under another name, pairs above 0.965 are nearly all the same photo."""


def held_out(pack: Pack) -> NDArray[np.intp]:
    """Return the places of the held-out crops of which training saw no copy under another name."""
    held = np.flatnonzero(pack.val)
    shown = _thumbnails(pack, np.flatnonzero(~pack.val))  # (M, 400)
    likest = [(part @ shown.T).max(1) for part in np.array_split(_thumbnails(pack, held), 8)]
    return held[np.concatenate(likest) < _SAME_PICTURE]


def half_of(name: str) -> int:
    """Return the half that a picture belongs to, 0 or 1, with all its faces."""
    return zlib.crc32(name.encode()) % 2


def _thumbnails(pack: Pack, places: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return (N, 400) small grey crops of mean 0 and length 1, so that a product is their correlation."""
    edge, rows = slice(MARGIN, -MARGIN), []
    for place in places:
        image = pack.image(int(place))[edge, edge]
        small = cv2.resize(image, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
        rows.append(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).reshape(-1).astype(np.float32))
    values = np.stack(rows)
    values -= values.mean(1, keepdims=True)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6), np.float32)


def crops(
    pack: Pack, places: NDArray[np.intp], view: View, batch: int = 64
) -> Iterator[tuple[Image, NDArray[np.float64]]]:
    """Yield inputs (B, 112, 112, 3) uint8 BGR, and (B, 2, 3) the transforms from cached crops to them."""
    for start in range(0, len(places), batch):
        chunk = [_crop(pack, int(place), view) for place in places[start : start + batch]]
        yield np.stack([image for image, _ in chunk]), np.stack([matrix for _, matrix in chunk])


def _crop(pack: Pack, place: int, view: View) -> tuple[Image, NDArray[np.float64]]:
    image, outside = pack.image(place), pack.outside(place)
    if outside is not None:
        image[outside] = 0
    rng = np.random.default_rng(place)  # every network sees the same
    if view.cover is not None:
        image = view.cover(image, pack.labels["points"][place], rng)
    if view.errors:
        matrix = jitter(rng, SIZE, strength=0.8, turned=False)
    else:
        matrix = np.array([[1.0, 0, -MARGIN], [0, 1, -MARGIN]])
    crop = np.asarray(cv2.warpAffine(image, matrix, (SIZE, SIZE)), np.uint8)
    if view.face is not None:
        crop = np.asarray(cv2.resize(crop, (view.size, view.size), interpolation=cv2.INTER_AREA), np.uint8)
        crop = np.asarray(cv2.resize(crop, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR), np.uint8)
    if view.blur:
        crop = np.asarray(cv2.GaussianBlur(crop, (0, 0), view.blur), np.uint8)
    return crop, matrix


def roll_of(matrices: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (B,) by how many degrees the transforms turn clockwise."""
    return np.array([math.degrees(math.atan2(m[1, 0], m[0, 0])) for m in matrices], np.float32)
