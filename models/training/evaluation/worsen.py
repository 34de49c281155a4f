"""Ways of making the picture of a face worse, for `failures`.

Each takes a `Portrait` and how much, and returns the picture, (H, W, 3) uint8 BGR. Points are the 106 of the analyzer,
(106, 2) pixels of that picture. Colours are BGR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from visaged.models.types import FloatArray, Image


@dataclass(frozen=True, slots=True)
class Portrait:
    """A picture of one person.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        box: (4,) left, top, right, bottom of the face, pixels.
        five: (5, 2) points, pixels.
    """

    image: Image
    box: FloatArray
    five: FloatArray

    @property
    def size(self) -> float:
        """Root of the area of the face's box, pixels."""
        return float(np.sqrt(np.prod(self.box[2:] - self.box[:2])))

    def scaled(self, size: float) -> Portrait:
        """Return it with a face of that size."""
        factor = size / self.size
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(self.image, None, fx=factor, fy=factor, interpolation=how), np.uint8)
        return Portrait(image, self.box * factor, self.five * factor)

    def close(self, reach: float = 1.25) -> Image:
        """Return a square of `reach` face heights to each side of the face's centre; grey beyond the picture."""
        half = max(4, round(float(self.box[3] - self.box[1]) * reach))
        x, y = (round(float(v)) for v in self.box.reshape(2, 2).mean(0))
        framed = cv2.copyMakeBorder(self.image, half, half, half, half, cv2.BORDER_CONSTANT, value=(128, 128, 128))
        return np.asarray(framed[y : y + 2 * half, x : x + 2 * half], np.uint8)


def tilted(face: Portrait, degrees: float) -> Image:
    """Return it turned clockwise about the face's centre."""
    x, y = (float(v) for v in face.box.reshape(2, 2).mean(0))
    matrix = cv2.getRotationMatrix2D((x, y), -degrees, 1.0)
    return np.asarray(cv2.warpAffine(face.image, matrix, face.image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE))


def dark(face: Portrait, grey: float) -> Image:
    """Return it with that mean grey value of the face, and a sensor's noise (standard deviation 5)."""
    left, top, right, bottom = face.box.astype(int)
    gain = grey / float(face.image[top:bottom, left:right].mean())
    noise = np.random.default_rng(1).normal(0, 5, face.image.shape)
    return np.clip(face.image * gain + noise, 0, 255).astype(np.uint8)


def backlit(face: Portrait, gain: float) -> Image:
    """Return it as before a bright window: the face `gain` times as bright, all about it white."""
    x, y = face.box.reshape(2, 2).mean(0)
    down, across = np.mgrid[: face.image.shape[0], : face.image.shape[1]]
    far = np.hypot((across - x) / (0.75 * face.size), (down - y) / (0.95 * face.size))
    glare = np.clip(far - 0.8, 0, 1)[..., None] ** 0.7
    return np.asarray(np.clip(face.image * gain * (1 - glare) + 255 * glare + 12, 0, 255), np.uint8)


def blurred(face: Portrait, part: float) -> Image:
    """Return it blurred by a standard deviation of so many hundredths of the face."""
    return np.asarray(cv2.GaussianBlur(face.image, (0, 0), part / 100 * face.size), np.uint8)


def covered(face: Portrait, percent: float, colour: tuple[int, int, int]) -> Image:
    """Return it with cloth from below the chin up to so many percent of the face."""
    left, _, right, bottom = face.box
    width, height = right - left, face.box[3] - face.box[1]
    edge = bottom - height * percent / 100
    outline = [(left - 0.25 * width, edge - 0.06 * height), ((left + right) / 2, edge), (right + 0.25 * width, edge)]
    outline += [(right + 0.3 * width, bottom + 0.5 * height), (left - 0.3 * width, bottom + 0.5 * height)]
    return _painted(face.image, outline, colour)


def masked(face: Portrait, points: FloatArray, colour: tuple[int, int, int], transparency: float) -> Image:
    """Return it with a mask from the bridge of the nose to below the chin, `transparency` percent of it see-through."""
    outline = points[5:28].copy()  # from cheek to cheek over the chin
    outline = outline.mean(0) + (outline - outline.mean(0)) * 1.05
    top = [points[31] * 0.4 + points[61] * 0.6, points[45], points[1] * 0.4 + points[52] * 0.6]
    top = [point + np.array([0, 0.12 * face.size]) for point in top]
    masked = _painted(face.image, [*outline, *top], colour)
    return np.asarray(cv2.addWeighted(masked, 1 - transparency / 100, face.image, transparency / 100, 0), np.uint8)


def shaded(face: Portrait, points: FloatArray, transparency: float) -> Image:
    """Return it with dark lenses before the eyes, `transparency` percent see-through."""
    image = face.image.copy()
    for eye in (points[52:58].mean(0), points[58:64].mean(0)):
        centre = (round(float(eye[0])), round(float(eye[1] + 0.03 * face.size)))
        axes = (round(0.21 * face.size), round(0.16 * face.size))
        cv2.ellipse(image, centre, axes, 0, 0, 360, (25, 22, 20), -1, cv2.LINE_AA)
    return np.asarray(cv2.addWeighted(image, 1 - transparency / 100, face.image, transparency / 100, 0), np.uint8)


def hand(face: Portrait, points: FloatArray, fingers: float) -> Image:
    """Return it with so many fingers of the skin's colour before the mouth, from the picture's left."""
    skin = cv2.mean(face.image[tuple(slice(int(v) - 3, int(v) + 4) for v in points[[78, 79]].mean(0)[::-1])])[:3]
    mouth, thick, image = points[84:96].mean(0), 0.15 * face.size, face.image
    for finger in range(int(fingers)):
        y = float(mouth[1]) + thick * (finger - (fingers - 1) / 2)
        start = (round(float(face.box[0]) - 0.5 * face.size), round(y) + 6)
        tip = (round(float(mouth[0]) + 0.32 * face.size), round(y))
        for width, light in ((1.0, 0.72), (0.84, 0.93), (0.4, 1.0)):
            colour = [min(255.0, light * c) for c in skin]
            across = max(1, round(thick * width))
            image = np.asarray(cv2.line(image.copy(), start, tip, colour, across, cv2.LINE_AA), np.uint8)
    return image


def _painted(image: Image, outline: Sequence[object], colour: tuple[int, int, int]) -> Image:
    cover = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(cover, [np.round(np.array(outline, np.float64) * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
    weight = cv2.GaussianBlur(cover, (0, 0), 0.8)[..., None] / 255.0
    folds = 1 + 0.12 * np.sin(np.arange(image.shape[0]) / 4.0)[:, None, None]
    return np.clip(image * (1 - weight) + np.array(colour) * folds * weight, 0, 255).astype(np.uint8)
