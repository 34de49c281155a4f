"""How far an analyzer's answers about one crop can be trusted, by signs that are at hand without knowing the truth.

A network's probabilities are right on average over the pictures that it was calibrated on. Here they are made right
for faces of each size, angle and sharpness, and worth nothing where there is no face to read: on the back of a head.
How much each sign counts stands in the manifest (`visaged.models.manifest.Doubt`), fitted by
`visaged.models.training.analyzer.trust`; an analyzer without it is believed as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visaged.models.manifest import Doubt, Head
from visaged.models.types import FloatArray

SIGNS = ("small", "turned", "tilted", "blurred", "poor", "askew", "unsure")
"""What speaks against an answer, each 0 for a large, sharp, frontal face that the detector is sure of."""

_LARGE_PX = 64.0
_LEAST_QUALITY, _LEAST_CONFIDENCE = 0.01, 0.05


def signs(
    size: float,
    confidence: float,
    landmarks: ArrayLike,
    template: ArrayLike,
    pose: ArrayLike,
    blur: float,
    quality: float | None,
) -> NDArray[np.float64]:
    """Return the signs of one crop, (7,) in the order of `SIGNS`.

    `small`: halvings below 64 px. `turned`, `tilted`: yaw beyond 30 and pitch beyond 20 degrees, in units of 30
    degrees. `blurred`: the blur. `poor`: -ln of the quality. `askew`: how far the five points lie from the template
    after a similarity took them there, in tenths of the distance of its eyes: a detector puts five points on the back
    of a head too, but seldom those of a face. `unsure`: -ln of the detector's confidence.

    Args:
        size: Of the face in the picture, the root of the area of its box in pixels.
        confidence: The detector's, 0..1.
        landmarks: (5, 2) in crop pixels.
        template: (5, 2) where they should be.
        pose: Yaw, pitch (and roll) in degrees, in the crop.
        blur: 0..1.
        quality: The network's, of the crop, 0..1; None where it tells none.
    """
    goal = np.asarray(template, np.float64)
    off = np.asarray(landmarks, np.float64) - goal
    (right, left), angles = goal[:2], np.abs(np.asarray(pose, np.float64))
    return np.array(
        [
            math.log2(_LARGE_PX / min(max(size, 1.0), _LARGE_PX)),
            max(0.0, (angles[0] - 30.0) / 30.0),
            max(0.0, (angles[1] - 20.0) / 30.0),
            blur,
            0.0 if quality is None else -math.log(min(max(quality, _LEAST_QUALITY), 1.0)),
            10.0 * float(np.hypot(off[:, 0], off[:, 1]).mean() / math.dist(right, left)),
            -math.log(min(max(confidence, _LEAST_CONFIDENCE), 1.0)),
        ]
    )


def doubt_of(doubt: Doubt, signs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what signs (..., 7) add up to, (...)."""
    total: NDArray[np.float64] = signs @ np.array([getattr(doubt, name) for name in SIGNS]) + doubt.base
    return total


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
        heads: By attribute.
        values: By attribute, as `visaged.models.analyzer.Analyzer.analyze` has them.
        signs: (7,) of the crop.
        face: What `readable` says of it.
    """
    found = dict(values)
    for name, value in values.items():
        head = heads[name]
        temperature = 1.0 if head.doubt is None else math.exp(min(float(doubt_of(head.doubt, signs)), 50.0))
        if temperature == 1.0 and face == 1.0:
            continue
        if head.kind in ("classes", "binary"):
            found[name] = mixed(tempered(value, temperature), face)
        elif head.kind == "number":
            found[name] = np.array([value[0], value[1] * temperature / max(face, 1e-3)], np.float32)
    return found


def tempered(chances: FloatArray, temperature: float | NDArray[np.float64]) -> FloatArray:
    """Return probabilities (..., K) drawn together by a temperature; (..., 1) for one each."""
    logits = np.log(np.maximum(np.asarray(chances, np.float64), 1e-9)) / temperature
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), np.float32)


def mixed(chances: FloatArray, face: float | NDArray[np.float64]) -> FloatArray:
    """Return probabilities (..., K) that are a guess with the chance 1 - face; (..., 1) for one each."""
    return np.asarray(face * chances + (1.0 - face) / chances.shape[-1], np.float32)
