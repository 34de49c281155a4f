"""How far an analyzer's answers about one crop can be trusted, by signs that are at hand without knowing the truth.

A network's probabilities are right on average over the pictures that it was calibrated on. Here they are made right
for faces of each size, angle and sharpness, and worth nothing where there is no face to read: on the back of a head.
How much each sign counts stands in the manifest (`visaged.models.manifest.Doubt`), fitted by
`visaged.models.training.analyzer.evaluation.trust`; an analyzer without it is believed as it is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visaged.models.manifest import Doubt, Head
from visaged.models.types import FloatArray

SIGNS = ("small", "turned", "tilted", "blurred", "poor", "askew", "unsure")
"""What speaks against an answer, each 0 for a large, sharp, frontal face that the detector is sure of."""

_LARGE_PX = 64.0
_LEAST_QUALITY, _LEAST_CONFIDENCE, LEAST_CHANCE, _LEAST_FACE = 0.01, 0.05, 1e-9, 1e-3


def signs(
    size: float,
    confidence: float,
    landmarks: ArrayLike,
    template: Sequence[tuple[float, float]],
    pose: Sequence[float] | FloatArray,
    blur: float,
    quality: float | None,
) -> NDArray[np.float64]:
    """Return the signs of one crop, (7,) in the order of `SIGNS`.

    `small`: halvings below 64 px. `turned`, `tilted`: yaw beyond 30 and pitch beyond 20 degrees, in units of 30
    degrees. `blurred`: the blur. `poor`: -ln of the quality. `askew`: how far the five points lie from the template
    after a similarity took them there, in tenths of the distance of its eyes: a detector puts five points on the back
    of a head too, but seldom those of a face. `unsure`: -ln of the detector's confidence.

    Args:
        size: Size of the face in the picture: the root of the area of its box, in pixels.
        confidence: The detector's confidence, 0..1.
        landmarks: (5, 2) in crop pixels.
        template: (5, 2) where the landmarks of an aligned face lie, in crop pixels.
        pose: Yaw, pitch (and roll) in degrees, in the crop.
        blur: Blur of the crop, 0..1.
        quality: The network's value for the quality of the crop, 0..1; None where it has no such head.
    """
    # In plain numbers: numpy takes several times as long for so few, for every face.
    goal = [(float(x), float(y)) for x, y in template]
    points = np.asarray(landmarks, np.float64).tolist()
    off = sum(math.dist(point, place) for point, place in zip(points, goal, strict=True)) / len(goal)
    yaw, pitch = abs(float(pose[0])), abs(float(pose[1]))
    return np.array(
        [
            math.log2(_LARGE_PX / min(max(size, 1.0), _LARGE_PX)),
            max(0.0, (yaw - 30.0) / 30.0),
            max(0.0, (pitch - 20.0) / 30.0),
            blur,
            0.0 if quality is None else -math.log(min(max(quality, _LEAST_QUALITY), 1.0)),
            10.0 * off / math.dist(goal[0], goal[1]),
            -math.log(min(max(confidence, _LEAST_CONFIDENCE), 1.0)),
        ]
    )


def doubt_of(doubt: Doubt, signs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what signs (..., 7) add up to, (...)."""
    total: NDArray[np.float64] = signs @ _slopes(doubt) + doubt.base
    return total


@functools.lru_cache
def _slopes(doubt: Doubt) -> NDArray[np.float64]:
    return np.array([getattr(doubt, name) for name in SIGNS])


def readable(doubt: Doubt | None, signs: NDArray[np.float64]) -> float:
    """Return the chance that a crop shows a face that can be read, by its signs (7,); 1 without anything to go by."""
    return 1.0 if doubt is None else 1.0 / (1.0 + math.exp(min(float(doubt_of(doubt, signs)), 50.0)))


def trusted(
    heads: Mapping[str, Head], values: Mapping[str, FloatArray], signs: NDArray[np.float64], face: float
) -> dict[str, FloatArray]:
    """Return the answers about a crop as far as they can be trusted.

    Probabilities are tempered by the head's doubt (exponent 1 / T, T = e^doubt; Guo et al., "On calibration of modern
    neural networks", ICML 2017, with a temperature for each crop), and mixed with those of a guess where there may be
    no face. A deviation grows by T / face. The value itself, scores, angles and points stay as they are.

    Args:
        heads: The analyzer's heads by attribute.
        values: The answers by attribute, as `visaged.models.analyzer.Analyzer.analyze` has them.
        signs: (7,) signs of the crop.
        face: The chance that the crop shows a readable face, of `readable`.
    """
    found = dict(values)
    for name, value in values.items():
        head = heads[name]
        temperature = 1.0 if head.doubt is None else math.exp(min(float(doubt_of(head.doubt, signs)), 50.0))
        if temperature == 1.0 and face == 1.0:
            continue
        if head.kind in ("classes", "binary"):
            found[name] = _drawn_together(value, temperature, face)
        elif head.kind == "number":
            found[name] = np.array([value[0], value[1] * temperature / max(face, _LEAST_FACE)], np.float32)
    return found


def _drawn_together(chances: FloatArray, temperature: float, face: float) -> FloatArray:
    # Against the largest, so that no temperature makes all of them vanish.
    largest = max(LEAST_CHANCE, *chances.tolist())
    powers = [(max(chance, LEAST_CHANCE) / largest) ** (1.0 / temperature) for chance in chances.tolist()]
    share, guess = face / sum(powers), (1.0 - face) / len(powers)
    return np.array([share * power + guess for power in powers], np.float32)
