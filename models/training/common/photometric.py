"""What cameras do to pictures: exposure, colour, darkness, blur, motion, low resolution, noise, compression.

All functions take and return (H, W, 3) uint8 BGR and leave the geometry alone.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[np.uint8]

_NOISE_UNIT = 32.0
_RAMP = np.arange(256, dtype=np.float32)


def _noise_bank() -> Image:
    """Draw normal noise once, as 128 + 32 n: drawing it for every sample would cost more than everything else."""
    noise = np.random.default_rng(0).standard_normal((640, 640, 3))
    return np.clip(128 + _NOISE_UNIT * noise, 0, 255).astype(np.uint8)


_NOISE = _noise_bank()


def tone(image: Image, rng: Generator, strength: float = 1.0) -> Image:
    """Change brightness, contrast, gamma and white balance by one table per channel."""
    gain = np.exp(rng.normal(0, 0.22 * strength))
    gamma = np.exp(rng.normal(0, 0.25 * strength))
    offset = rng.normal(0, 14 * strength)
    balance = np.exp(rng.normal(0, 0.06 * strength, 3))
    table = 255 * (_RAMP[:, None] / 255) ** gamma * gain * balance + offset  # (256, 3)
    return np.asarray(cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[None]), np.uint8)


def saturation(image: Image, rng: Generator) -> Image:
    """Pull the colours towards grey or push them away from it."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    amount = rng.uniform(0.2, 1.5)
    return np.asarray(cv2.addWeighted(image, amount, grey, 1 - amount, 0), np.uint8)


def infrared_like(image: Image, rng: Generator) -> Image:
    """Make a grey picture; half of them lit by a lamp at the camera, which leaves the edges dark."""
    weights = rng.dirichlet((1.0, 2.0, 2.0)).astype(np.float32)
    grey = cv2.transform(image, weights[None])
    if rng.random() < 0.5:
        height, width = grey.shape[:2]
        x = (np.arange(width) / width - rng.uniform(0.3, 0.7)) ** 2
        y = (np.arange(height) / height - rng.uniform(0.3, 0.7)) ** 2
        light = rng.uniform(0.9, 1.4) * np.exp(-rng.uniform(1, 4) * (y[:, None] + x))
        grey = np.clip(grey * light, 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)


def darkness(image: Image, rng: Generator) -> Image:
    """Take light away, add a sensor's noise, and sometimes the camera's own gain."""
    light = rng.uniform(0.12, 0.5)
    dark = noise(np.asarray(cv2.convertScaleAbs(image, alpha=light), np.uint8), rng, rng.uniform(1, 6))
    if rng.random() < 0.6:
        dark = np.asarray(cv2.convertScaleAbs(dark, alpha=rng.uniform(1, 0.9 / light)), np.uint8)
    return dark


def noise(image: Image, rng: Generator, sigma: float) -> Image:
    """Add normal noise of `sigma` grey values, in colour or the same on all channels."""
    height, width = image.shape[:2]
    top, left = rng.integers(0, 640 - height + 1), rng.integers(0, 640 - width + 1)
    bank = _NOISE[top : top + height, left : left + width]
    if rng.random() < 0.4:
        bank = np.asarray(cv2.cvtColor(np.ascontiguousarray(bank[..., 0]), cv2.COLOR_GRAY2BGR), np.uint8)
    amount = sigma / _NOISE_UNIT
    return np.asarray(cv2.addWeighted(image, 1, bank, amount, -128 * amount), np.uint8)


def motion_blur(image: Image, rng: Generator, longest: int = 9) -> Image:
    """Smear along a line of any direction."""
    length = int(rng.integers(3, longest + 1))
    kernel = np.zeros((length, length), np.float32)
    middle, angle = (length - 1) / 2, rng.uniform(0, np.pi)
    for step in np.linspace(-middle, middle, 2 * length):
        kernel[round(middle + step * np.sin(angle)), round(middle + step * np.cos(angle))] = 1
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


def low_resolution(image: Image, rng: Generator, most: float = 2.8) -> Image:
    """Scale down and up again, with filters good and bad."""
    height, width = image.shape[:2]
    factor = rng.uniform(1.2, most)
    down = cv2.INTER_AREA if rng.random() < 0.6 else cv2.INTER_LINEAR
    up = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[rng.choice(3, p=(0.5, 0.4, 0.1))]
    small = cv2.resize(image, (int(width / factor), int(height / factor)), interpolation=down)
    return np.asarray(cv2.resize(small, (width, height), interpolation=up), np.uint8)


def compression(image: Image, rng: Generator) -> Image:
    """Compress as cameras do, down to clearly visible blocks."""
    quality = int(rng.integers(12, 75))
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def sharpen(image: Image, rng: Generator) -> Image:
    """Overshoot at edges as many cameras do."""
    amount = rng.uniform(0.3, 1.2)
    return np.asarray(cv2.addWeighted(image, 1 + amount, cv2.GaussianBlur(image, (0, 0), 1.2), -amount, 0), np.uint8)


def camera(image: Image, rng: Generator) -> Image:
    """Apply a random few of the above, in the order in which a camera would."""
    if rng.random() < 0.5:
        image = tone(image, rng)
    if rng.random() < 0.25:
        image = saturation(image, rng)
    if rng.random() < 0.14:
        image = infrared_like(image, rng)
    if rng.random() < 0.10:
        image = darkness(image, rng)
    elif rng.random() < 0.18:
        image = noise(image, rng, rng.uniform(2, 14))
    kind = rng.random()
    if kind < 0.10:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.8)), np.uint8)
    elif kind < 0.20:
        image = motion_blur(image, rng)
    elif kind < 0.42:
        image = low_resolution(image, rng)
    elif kind < 0.48:
        image = sharpen(image, rng)
    if rng.random() < 0.30:
        image = compression(image, rng)
    return image
