"""Encoding pictures for people to look at."""

from __future__ import annotations

import cv2

from visaged.models.types import Image


def encode_jpeg(image: Image, quality: int = 80) -> bytes:
    """Return a picture as a JPEG file, without any metadata.

    Args:
        image: (H, W, 3) uint8 BGR.
        quality: JPEG quality, 1 to 100.
    """
    encoded, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))
    if not encoded:
        raise RuntimeError(f"OpenCV did not encode a picture of {image.shape[1]}x{image.shape[0]} pixels as JPEG")
    return data.tobytes()
