"""Single pictures from outside: looked at before they are decoded, decoded completely or refused."""

from __future__ import annotations

import io
import struct
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from typing import Literal

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import ImageFile, ImageOps, UnidentifiedImageError

from visaged.models.alignment import ImagePixels
from visaged.models.preprocess import canvas_for, place
from visaged.models.types import Image
from visaged.pipelines.batcher import Batcher, Picture
from visaged.pipelines.tracks import Face

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
"""Pillow's names of what is read."""

# `open` checks sizes with a guess of its own; ours is the configuration's, right after the header and before decoding.
Pillow.MAX_IMAGE_PIXELS = None
ImageFile.LOAD_TRUNCATED_IMAGES = False
# Pillow's blocks of 16 MB stay in malloc's arenas, one arena a thread: after 16 large pictures the process kept 5.6 GB.
# Blocks above malloc's largest threshold (32 MB) are given back to the system at once.
Pillow.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, KeyError, IndexError, OverflowError)
"""What Pillow's readers raise on damaged files."""


class PictureError(Exception):
    """A picture that cannot be taken.

    Attributes:
        reason: `empty`, `unsupported`, `too_large` or `damaged`.
    """

    def __init__(self, reason: Literal["empty", "unsupported", "too_large", "damaged"], text: str) -> None:
        super().__init__(text)
        self.reason = reason


def measure(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Return a picture's width and height as its header has them, before the EXIF orientation.

    Args:
        data: A JPEG, PNG, BMP or WebP file.
        max_pixels: Larger pictures are refused.

    Raises:
        PictureError: It is not such a file, or too large.
    """
    with _open(data, max_pixels) as picture:
        return picture.size


def decode(data: bytes, max_pixels: int) -> Image:
    """Return a picture upright, as (H, W, 3) uint8 BGR.

    EXIF orientation is honoured; grey, 16-bit, CMYK and palette pictures are converted; alpha is dropped; of an
    animation the first frame is taken. While it works it holds up to 13 bytes a pixel.

    Args:
        data: A JPEG, PNG, BMP or WebP file.
        max_pixels: Larger pictures are refused by their header alone.

    Raises:
        PictureError: It is not such a file, too large, or damaged.
    """
    with warnings.catch_warnings(), _open(data, max_pixels) as picture:
        warnings.simplefilter("ignore")  # Pillow warns of odd EXIF and palettes; they do not matter here
        try:
            picture.load()
        except _DAMAGE as error:
            raise PictureError("damaged", f"the picture is damaged or cut short: {error}") from None
        try:
            ImageOps.exif_transpose(picture, in_place=True)
        except _DAMAGE:
            pass  # an unreadable orientation is no orientation
        if picture.mode.startswith("I"):  # 16-bit grey, whose conversion by Pillow clips instead of scaling
            grey = np.asarray(picture).clip(0, 65535).astype(np.uint16) >> 8
            bgr = cv2.cvtColor(grey.astype(np.uint8), cv2.COLOR_GRAY2BGR)
        else:
            rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
            bgr = cv2.cvtColor(np.asarray(rgb), cv2.COLOR_RGB2BGR)
        return bgr  # type: ignore[return-value]


def _open(data: bytes, max_pixels: int) -> Pillow.Image:
    if not data:
        raise PictureError("empty", "the body is empty; send the bytes of a picture")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = Pillow.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise PictureError("unsupported", "the body is no JPEG, PNG, BMP or WebP picture") from None
        except _DAMAGE as error:
            raise PictureError("damaged", f"the picture's header cannot be read: {error}") from None
    width, height = picture.size
    if width < 1 or height < 1:
        raise PictureError("damaged", f"the picture is {width} x {height} pixels")
    if width * height > max_pixels:
        raise PictureError(
            "too_large",
            f"the picture is {width} x {height} pixels; at most {max_pixels / 1e6:g} megapixels are taken",
        )
    return picture


def submit(
    batcher: Batcher,
    image: Image,
    long_side: int,
    multiple_of: int,
    attributes: frozenset[str],
    min_confidence: float,
    deadline_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> Future[list[Face]]:
    """Queue a picture for the inference callers and return where its faces will come.

    Args:
        batcher: The queue.
        image: (H, W, 3) uint8 BGR.
        long_side: Of the detector's canvas.
        multiple_of: What the canvas's sides must divide by.
        attributes: The attributes wanted; the name of a points head for all its landmarks.
        min_confidence: Of the faces wanted.
        deadline_s: Seconds from now after which nobody waits.
        clock: Monotonic seconds.

    Raises:
        Overloaded: Too many pictures wait.
    """
    height, width = image.shape[:2]
    canvas = canvas_for(width, height, long_side, multiple_of)
    picture = Picture(
        place(image, canvas), canvas, ImagePixels(image), attributes, min_confidence, clock() + deadline_s
    )
    batcher.submit(picture)
    return picture.future
