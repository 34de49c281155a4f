"""Making faces in a picture unrecognisable."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from visaged.models.types import FloatArray, Image

# Boxes reach from forehead to chin; hair, ears and jaw tell who somebody is, too.
_WIDER = 0.25
# Mean colours of so many blocks across a face are left. Faces of 12 x 16 pixels are beyond what people recognise
# (Harmon and Julesz, "Masking in visual recognition", Science 180, 1973, took 16 x 16 with a blur as their limit).
_BLOCKS = 6


def blur_faces(image: Image, boxes: Iterable[FloatArray]) -> None:
    """Replace each face by a few smooth patches of its mean colours, in place.

    What is left depends on the means of blocks alone, so no sharpening brings the face back.

    Args:
        image: (H, W, 3) uint8 BGR.
        boxes: (4,) each: left, top, right, bottom of a face in the picture's pixels; may reach beyond the picture.
    """
    height, width = image.shape[:2]
    for box in boxes:
        if not np.isfinite(box).all():
            continue
        left, top, right, bottom = (float(value) for value in box)
        across, down = _WIDER * (right - left), _WIDER * (bottom - top)
        left, top, right, bottom = left - across, top - down, right + across, bottom + down
        x, y = max(0, int(left)), max(0, int(top))
        region = image[y : max(0, min(height, int(np.ceil(bottom)))), x : max(0, min(width, int(np.ceil(right))))]
        if not region.size:
            continue
        rows, columns = region.shape[:2]
        # Of a face at the edge of the picture, a part is left, and gets as large blocks as the whole would.
        blocks = _blocks(columns, right - left), _blocks(rows, bottom - top)
        few = cv2.resize(region, blocks, interpolation=cv2.INTER_AREA)
        region[:] = cv2.resize(few, (columns, rows), interpolation=cv2.INTER_CUBIC)


def _blocks(visible_px: int, whole_px: float) -> int:
    """Return how many blocks the visible part of a face gets along one side."""
    return max(1, min(visible_px, round(_BLOCKS * visible_px / max(whole_px, visible_px))))
