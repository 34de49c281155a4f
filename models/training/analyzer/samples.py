"""Drawing training crops: what is outside of the picture, things over the face, a real detector's errors, a camera.

The crop is warped once, by the similarity that an aligner finds when the detector's five points are as wrong as they
are in use: independent errors of each point and a shift of all, 4 to 5 % of the face on average, more on small ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from visaged.models.alignment import similarity
from visaged.models.geometry import turned
from visaged.models.training.analyzer import occlusion
from visaged.models.training.analyzer.heads import GLASSES, MIRROR_106, QUALITY_SIZES, SIZE
from visaged.models.training.analyzer.labelling.cache import FloatArray, Pack
from visaged.models.training.analyzer.labelling.crops import CROP, FIVE, MARGIN
from visaged.models.training.common import photometric

Image = NDArray[np.uint8]

FACE_SIZE = 78.8
"""Size (root of the area) of a detector's box in an aligned crop, median of 300 portraits."""

PACK_WEIGHTS = {"ages": 0.38, "emotions": 0.30, "portraits": 0.16, "street_masks": 0.08, "mask_crops": 0.08}

POINT_ERROR = 2.0
SHIFT_ERROR = 1.9
"""Standard deviations in crop pixels, per axis: together 3.5 px or 4.4 % of the face on average."""

_LOG_SIZES = np.log(np.array(QUALITY_SIZES[::-1], np.float64))
BLUR_UNIT = 2.5


@dataclass(frozen=True, slots=True)
class Sample:
    """A crop and what is to be said of it.

    Attributes:
        image: (112, 112, 3) uint8 BGR.
        targets: float32 by head as in `Pack.labels`, points in pixels of this crop; `quality` and `blur` are scalars.
    """

    image: Image
    targets: dict[str, FloatArray]


def blur_of(sigma: float) -> float:
    """Return the blur 0..1 of a crop whose detail is smoothed by `sigma` crop pixels; 0 up to 0.5, a sharp crop's."""
    return 1 - math.exp(-max(sigma - 0.5, 0.0) / BLUR_UNIT)


class Sampler:
    """Draws samples from the training side of all packs.

    Args:
        packs: the packs by name.
        weights: how often each pack is drawn.
        rng: source of chance.
    """

    def __init__(self, packs: dict[str, Pack], weights: dict[str, float], rng: Generator) -> None:
        self._packs = [pack for name, pack in packs.items() if weights.get(name)]
        share = np.array([weights[pack.name] for pack in self._packs])
        self._share = np.cumsum(share / share.sum())
        self._often = [np.cumsum(picture_weights(pack)) for pack in self._packs]
        self._rng = rng

    def draw(self) -> Sample:
        """Draw one sample."""
        rng = self._rng
        which = int(np.searchsorted(self._share, rng.random()).clip(0, len(self._packs) - 1))
        pack, often = self._packs[which], self._often[which]
        index = int(np.searchsorted(often, rng.random() * often[-1], side="right").clip(0, len(often) - 1))
        return self._sample(pack, index)

    def _sample(self, pack: Pack, index: int) -> Sample:
        rng = self._rng
        targets = {name: np.array(values[index]) for name, values in pack.labels.items()}
        image = with_border(pack, index, self._packs, rng)
        if pack.images.shape[3] == 1 and rng.random() < 0.45:
            image = _tinted(image, rng)
        image = _cover(image, targets, pack.name, rng)
        if rng.random() < 0.5:
            image = _mirror(image, targets)

        size = SIZE if rng.random() < 0.4 else math.exp(rng.uniform(math.log(22), math.log(SIZE)))
        matrix = jitter(rng, size)
        image = np.asarray(cv2.warpAffine(np.ascontiguousarray(image), matrix, (SIZE, SIZE)), np.uint8)
        targets["points"] = (targets["points"] @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
        angle = np.array([math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))], np.float32)
        targets["pose"] = turned(targets["pose"][None], angle)[0]
        image, sigma = _camera(image, size, rng)
        own = 0.5 * max(1.0, float(pack.scale[index]))
        targets["blur"] = np.array(blur_of(math.hypot(own, sigma)), np.float32)
        shrunk = SIZE * 0.5 / math.hypot(0.5, sigma)
        quality = np.interp(math.log(shrunk), _LOG_SIZES, targets["quality"][::-1])
        targets["quality"] = np.array(quality, np.float32)
        if rng.random() < 0.10:
            image = occlusion.draw_block(image, rng)
        return Sample(image, targets)


def with_border(pack: Pack, index: int, others: Sequence[Pack], rng: Generator) -> Image:
    """Return a crop with something in place of what its picture did not have, so that the border is no clue.

    Args:
        pack: the crop's pack.
        index: number of the crop in its pack.
        others: packs whose crops may fill the border; held-out ones never do.
        rng: source of chance.

    Returns:
        (160, 160, 3) uint8 BGR.
    """
    image, outside = pack.image(index), pack.outside(index)
    if outside is None:
        if rng.random() < 0.12:  # as when a face is at the frame's edge
            _cut_edge(image, rng)
        return image
    kind = rng.random()
    if kind < 0.55:
        image[outside] = 0
    elif kind < 0.65:
        image[outside] = rng.integers(0, 256, 3)
    elif kind < 0.85:
        other = others[int(rng.integers(len(others)))]
        chosen = int(rng.choice(np.flatnonzero(~other.val)))
        image[outside] = other.image(chosen)[:, ::-1][outside]
    return image  # otherwise the border goes on as the cache has it


def picture_weights(pack: Pack) -> NDArray[np.float64]:
    """Return (N,) how often each crop is drawn: never a held-out one, rare things more often."""
    weights = np.ones(len(pack))
    age = pack.labels["age"]
    if np.isfinite(age).any():
        years = np.nan_to_num(age, nan=30).clip(0, 100).astype(int)
        density = np.convolve(np.bincount(years, minlength=101), np.ones(5) / 5, "same")
        weights *= (density[years] / density.max()).clip(0.01) ** -0.35
    votes = pack.labels["emotion"]
    known = np.isfinite(votes).all(1)
    if known.any():
        winner = np.nan_to_num(votes).argmax(1)
        counts = np.bincount(winner[known], minlength=votes.shape[1])
        weights *= np.where(known, (counts[winner] / counts.max()).clip(0.01) ** -0.45, 0.6)
    weights[(pack.labels["eyes"] < 0.3).any(1)] *= 4.0
    weights[pack.labels["glasses"] == GLASSES.index("sunglasses")] *= 5.0
    weights[pack.labels["hat"] == 1] *= 2.5
    weights[pack.seen] *= 2.0
    weights[pack.val] = 0
    return weights


def jitter(rng: Generator, size: float, *, strength: float | None = None, turned: bool = True) -> NDArray[np.float64]:
    """Return the (2, 3) transform from a cached crop to an input whose five points a detector found.

    Args:
        rng: source of chance.
        size: edge of the crop in pixels of the picture: points of small faces are less exact.
        strength: strength of the errors, 1 for 4.4 % of the face; drawn if not given.
        turned: turn and scale a little more, so that training sees rarer errors too.
    """
    if strength is None:
        strength = rng.uniform(0.3, 1.25) * (SIZE / size) ** 0.2
    found = FIVE + rng.normal(0, POINT_ERROR * strength, (5, 2)) + rng.normal(0, SHIFT_ERROR * strength, 2)
    matrix = similarity(found, FIVE)
    angle, factor = 0.0, 1.0
    if turned:
        angle = math.radians(rng.normal(0, 3) if rng.random() < 0.85 else rng.uniform(-25, 25))
        factor = math.exp(rng.normal(0, 0.04))
    turn = factor * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = turn @ matrix[:, :2]
    middle = np.array([56.0, 62.0])
    shift = turn @ (matrix[:, 2] - middle) + middle
    return np.hstack([linear, (shift - linear @ np.array([MARGIN, MARGIN]))[:, None]])


def _mirror(image: Image, targets: dict[str, FloatArray]) -> Image:
    points = targets["points"][MIRROR_106]
    points[:, 0] = CROP - 1 - points[:, 0]
    targets["points"] = points
    targets["eyes"] = targets["eyes"][::-1].copy()
    targets["pose"] *= np.array([-1, 1, -1], np.float32)
    return image[:, ::-1]


def _cut_edge(image: Image, rng: Generator) -> None:
    """Blacken one side, in place."""
    depth = int(rng.integers(1, 50))
    view = image if rng.random() < 0.5 else image.transpose(1, 0, 2)
    if rng.random() < 0.5:
        view = view[::-1]
    view[:depth] = 0


def _tinted(image: Image, rng: Generator) -> Image:
    """Give a grey picture the colours of skin under some light: grey must not give away which pack a face is from."""
    grey = np.arange(256) / 255.0
    warmth = rng.uniform(0.0, 0.5)
    exponents = np.array([1 + warmth, 1 + 0.35 * warmth, 1 - 0.3 * warmth]) * np.exp(rng.normal(0, 0.06, 3))
    table = (255 * grey[:, None] ** exponents).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[None]), np.uint8)


def _cover(image: Image, targets: dict[str, FloatArray], pack: str, rng: Generator) -> Image:
    """Draw something over some faces and let the labels say so."""
    points = targets["points"]
    if np.isnan(points[0, 0]) or targets["mask"] == 1:
        return image
    common = pack in ("ages", "portraits")
    kind = rng.random()
    if kind < (0.10 if common else 0.03):
        image = occlusion.draw_mask(image, points, rng)
        targets["mask"] = np.array(1.0, np.float32)
        targets["beard"] = np.array(np.nan, np.float32)
        targets["attractiveness"] = np.array(np.nan, np.float32)
        targets["quality"][:] = np.nan
        if rng.random() < 0.5:
            targets["points"] = np.full_like(points, np.nan)
    elif kind < (0.15 if common else 0.05):
        image = occlusion.draw_sunglasses(image, points, rng)
        targets["glasses"] = np.array(GLASSES.index("sunglasses"), np.float32)
        targets["eyes"][:] = np.nan
        targets["attractiveness"] = np.array(np.nan, np.float32)
        targets["quality"][:] = np.nan
    elif kind < (0.18 if common else 0.06):
        image = occlusion.draw_hand(image, points, rng)
        targets["beard"] = np.array(np.nan, np.float32)
        targets["eyes"][:] = np.nan
        targets["attractiveness"] = np.array(np.nan, np.float32)
        targets["quality"][:] = np.nan
    return image


def _camera(image: Image, size: float, rng: Generator) -> tuple[Image, float]:
    """Apply what cameras do; return the crop and by how many of its pixels (standard deviation) it was smoothed."""
    variance = 0.0
    if size < SIZE - 1:
        small = max(12, round(size))
        down = cv2.INTER_AREA if rng.random() < 0.6 else cv2.INTER_LINEAR
        up = cv2.INTER_LINEAR if rng.random() < 0.7 else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, (small, small), interpolation=down), np.uint8)
    if rng.random() < 0.65:
        image = photometric.tone(image, rng)
    kind = rng.random()
    if kind < 0.15:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None], 3, 2)
    elif kind < 0.22:
        image = photometric.infrared_like(image, rng)
    elif kind < 0.32:
        image = photometric.saturation(image, rng)
    kind = rng.random()
    if kind < 0.06:
        image = photometric.darkness(image, rng)
    elif kind < 0.22:
        image = photometric.noise(image, rng, rng.uniform(2, 10))
    compressed = rng.random()
    if size < SIZE - 1 and compressed < 0.18:  # cameras compress before anybody enlarges
        image = photometric.compression(image, rng)
    if size < SIZE - 1:
        image = np.asarray(cv2.resize(image, (SIZE, SIZE), interpolation=up), np.uint8)
        variance += (0.5 * SIZE / size) ** 2 - 0.25
    kind = rng.random()
    if kind < 0.12:
        sigma = rng.uniform(0.4, 2.4)
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
        variance += sigma**2
    elif kind < 0.20:
        longest = int(rng.integers(3, 10))
        image = photometric.motion_blur(image, rng, longest)
        variance += longest**2 / 24  # a uniform line of about 0.7 x longest, half of it across
    elif kind < 0.26:
        image = photometric.sharpen(image, rng)
    if compressed > 0.82:
        image = photometric.compression(image, rng)
    return image, math.sqrt(variance)
