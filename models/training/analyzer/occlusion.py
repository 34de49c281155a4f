"""Things drawn over faces: medical and cloth masks, sunglasses, hands and other objects.

Pictures whose age or sex is known hardly ever show a mask, so that a network learns that masked faces are odd, not
that they are of every age. Shapes follow the 106 points; all drawing is on the cached crop, before it is warped.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[np.uint8]
FloatArray = NDArray[np.float32]

MASK_COLOURS = np.array(
    [
        (225, 205, 160),
        (235, 225, 205),
        (245, 245, 245),
        (40, 40, 40),
        (200, 160, 110),
        (190, 180, 230),
        (120, 120, 120),
    ],
    np.float64,
)
"""BGR of surgical blue and white, black, denim, rose and grey masks; others are drawn at random."""


def _shaded(rng: Generator, colour: NDArray[np.float64], size: int) -> Image:
    """Return (size, size, 3): a colour under light from one side, with folds across."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0, 0.5) * (x * np.cos(angle) + y * np.sin(angle))
    if rng.random() < 0.5:
        light += rng.uniform(0.01, 0.05) * np.sin(2 * np.pi * rng.uniform(12, 30) * (y + rng.normal(0, 0.1) * x))
    return np.asarray(np.clip(light[..., None] * colour, 0, 255), np.uint8)


def _paste(image: Image, patch: Image, polygon: FloatArray, rng: Generator, alpha: float = 1.0) -> Image:
    cover = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(cover, [np.round(polygon * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
    cover = np.asarray(cv2.GaussianBlur(cover, (0, 0), rng.uniform(0.5, 1.2)), np.uint8)
    weight = cover[..., None].astype(np.float32) * (alpha / 255)
    return np.asarray(image * (1 - weight) + patch * weight, np.uint8)


def draw_mask(image: Image, points: FloatArray, rng: Generator) -> Image:
    """Put a mask over nose, mouth and chin.

    Args:
        image: (S, S, 3) uint8 BGR.
        points: (106, 2) pixels of it.
        rng: source of chance.
    """
    first = int(rng.integers(3, 8))
    outline = points[first : 33 - first].copy()  # from cheek to cheek over the chin
    centre = outline.mean(0)
    outline = centre + (outline - centre) * rng.uniform(1.0, 1.1)
    outline[:, 1] += rng.uniform(0, 4)
    share = rng.uniform(0.1, 0.75)  # how high on the nose it sits
    bridge = points[44] * (1 - share) + points[46] * share
    right, left = points[83] * 0.5 + points[82] * 0.5, points[78] * 0.5 + points[79] * 0.5
    top = np.stack([right * 0.5 + outline[-1] * 0.5 - [0, 3], bridge, left * 0.5 + outline[0] * 0.5 - [0, 3]])
    if top[0, 0] < top[2, 0]:
        top = top[::-1]
    polygon = np.concatenate([outline, top]).astype(np.float32)
    if rng.random() < 0.6:
        colour = MASK_COLOURS[rng.integers(len(MASK_COLOURS))] * rng.uniform(0.75, 1.05)
    else:
        colour = rng.uniform(20, 240, 3)
    brightness = image[40:120, 40:120].mean() / 130
    patch = _shaded(rng, np.clip(colour * np.clip(brightness, 0.4, 1.2), 0, 255), image.shape[0])
    drawn = _paste(image, patch, polygon, rng)
    if rng.random() < 0.6:  # the straps
        tone = tuple(float(c) for c in np.clip(colour * brightness, 0, 255))
        for cheek, ear in ((outline[0], points[0]), (outline[-1], points[32])):
            start, end = (tuple(int(v) for v in np.round(p)) for p in (cheek, ear - [0, 6]))
            drawn = np.asarray(cv2.line(drawn, start, end, tone, 1, cv2.LINE_AA), np.uint8)
    return drawn


def draw_sunglasses(image: Image, points: FloatArray, rng: Generator) -> Image:
    """Put dark glasses over the eyes; arguments as for `draw_mask`."""
    right, left = points[52:58].mean(0), points[58:64].mean(0)
    apart = left - right
    distance = float(np.hypot(*apart))
    angle = float(np.degrees(np.arctan2(apart[1], apart[0])))
    if distance < 8:
        return image
    wide, high = distance * rng.uniform(0.36, 0.47), distance * rng.uniform(0.24, 0.40)
    down = np.array([-apart[1], apart[0]]) / distance * rng.uniform(0.0, 0.12) * distance
    cover = np.zeros(image.shape[:2], np.uint8)
    square = rng.random() < 0.5
    for eye, side in ((right, -1), (left, 1)):
        x, y = eye + down + side * apart * 0.02
        if square:
            box = cv2.boxPoints(((float(x), float(y)), (2 * wide, 2 * high), angle))
            cv2.fillPoly(cover, [np.round(box * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
        else:
            cv2.ellipse(cover, ((float(x), float(y)), (2 * wide, 2 * high), angle), 255, -1, cv2.LINE_AA)
    bridge = [tuple(int(v) for v in np.round(p - down * 0.5)) for p in (right, left)]
    cv2.line(cover, bridge[0], bridge[1], 255, int(rng.integers(1, 4)), cv2.LINE_AA)
    for eye, ear in ((right, points[1]), (left, points[31])):
        ends = [tuple(int(v) for v in np.round(p)) for p in (eye, np.array([ear[0], eye[1] + down[1]]))]
        cv2.line(cover, ends[0], ends[1], 255, int(rng.integers(1, 4)), cv2.LINE_AA)
    patch = _shaded(rng, rng.uniform(0, 70) + rng.uniform(0, 25, 3), image.shape[0])
    if rng.random() < 0.5:  # a reflection
        shine = np.zeros_like(patch)
        x, y = (right if rng.random() < 0.5 else left) + rng.normal(0, 4, 2)
        cv2.ellipse(shine, ((float(x), float(y)), (wide, high * 0.7), rng.uniform(0, 180)), (160, 150, 140), -1)
        patch = np.asarray(cv2.add(patch, cv2.GaussianBlur(shine, (0, 0), 3)), np.uint8)
    weight = cv2.GaussianBlur(cover, (0, 0), 0.6)[..., None] * (rng.uniform(0.85, 1.0) / 255)
    return np.asarray(image * (1 - weight) + patch * weight, np.uint8)


def draw_hand(image: Image, points: FloatArray, rng: Generator) -> Image:
    """Put some fingers in the face's own colour over mouth, chin, cheek or an eye; arguments as for `draw_mask`."""
    cheek = np.round(points[[78, 79]].mean(0)).astype(int).clip(4, image.shape[0] - 5)
    skin = image[cheek[1] - 4 : cheek[1] + 5, cheek[0] - 4 : cheek[0] + 5].reshape(-1, 3).mean(0)
    patch = _shaded(rng, skin * rng.uniform(0.75, 1.15), image.shape[0])
    target = points[rng.choice([16, 10, 22, 87, 93, 54])] + rng.normal(0, 5, 2)
    direction = rng.uniform(-0.35 * np.pi, 0.35 * np.pi) + np.pi / 2  # from below
    along, thick = np.array([np.cos(direction), np.sin(direction)]), rng.uniform(9, 14)
    across = np.array([-along[1], along[0]])
    for finger in range(int(rng.integers(2, 5))):
        base = target + across * thick * (finger - 1.5)
        tip, end = base - along * rng.uniform(0, 12), base + along * 90
        cover = np.zeros(image.shape[:2], np.uint8)
        ends = [tuple(int(v) for v in np.round(p)) for p in (tip, end)]
        cv2.line(cover, ends[0], ends[1], 255, int(thick), cv2.LINE_AA)
        weight = cv2.GaussianBlur(cover, (0, 0), 1.0)[..., None] / 255.0
        light = rng.uniform(0.85, 1.1)
        image = np.clip(image * (1 - weight) + patch * light * weight, 0, 255).astype(np.uint8)
    return image


def draw_block(image: Image, rng: Generator) -> Image:
    """Put a plain rectangle anywhere, in place."""
    size = image.shape[0]
    width, height = rng.integers(size // 10, size // 3, 2)
    x, y = rng.integers(0, size, 2)
    image[y : y + height, x : x + width] = rng.integers(0, 256, 3)
    return image
