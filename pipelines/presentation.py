"""How a stored picture is to be shown: turned, mirrored, and with pixels that may not be square.

Inside the pipeline, pictures are upright and have square pixels, as the networks need them. Published coordinates are
upright too, as a player shows the picture, but in stored pixels: `Presentation.scale` converts between the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from visaged.models.types import Image

Rotation = Literal[0, 90, 180, 270]

# A header with a larger pixel aspect ratio than this, or its inverse, is damaged.
MOST_PIXEL_ASPECT = 8.0

_CV2_ROTATIONS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True, slots=True)
class Turn:
    """How a stored picture becomes upright.

    Attributes:
        rotation: Degrees clockwise.
        mirrored: Whether left and right are swapped after the rotation.
    """

    rotation: Rotation = 0
    mirrored: bool = False

    @classmethod
    def from_matrix(cls, matrix: ArrayLike) -> Turn:
        """Return the turn of a display matrix, rounded to quarters.

        Args:
            matrix: (3, 3) as containers store it; a row vector (x, y, 1) is multiplied from the left.
        """
        (a, b, _), (c, d, _), _ = np.asarray(matrix, np.float64).tolist()
        determinant = a * d - b * c
        if not math.isfinite(determinant) or determinant == 0:  # no picture could be shown that way
            return UPRIGHT
        mirrored = determinant < 0
        quarters = round(math.degrees(math.atan2(b, -a if mirrored else a)) / 90) % 4
        return cls((0, 90, 180, 270)[quarters], mirrored)

    @property
    def is_sideways(self) -> bool:
        """Whether width and height are swapped."""
        return self.rotation in (90, 270)

    def apply(self, image: Image, out: Image | None = None) -> Image:
        """Return a stored picture upright.

        Args:
            image: (H, W, 3) uint8, the stored picture or a part of it.
            out: Array for the result, (H, W, 3) or (W, H, 3); None for a new array.
        """
        if self.rotation:
            image = cv2.rotate(image, _CV2_ROTATIONS[self.rotation], None if self.mirrored else out)  # type: ignore[assignment]
        if self.mirrored:
            image = cv2.flip(image, 1, out)  # type: ignore[assignment]
        elif out is not None and not self.rotation:
            out[:] = image
        return image

    def stored(
        self, left: int, top: int, right: int, bottom: int, width: int, height: int
    ) -> tuple[int, int, int, int]:
        """Return where a region of the upright picture lies in the stored one: left, top, right, bottom.

        Args:
            left: Left edge of the region in pixels.
            top: Top edge of the region in pixels.
            right: Right edge of the region in pixels.
            bottom: Bottom edge of the region in pixels.
            width: Width of the upright picture in pixels.
            height: Height of the upright picture in pixels.
        """
        if self.mirrored:
            left, right = width - right, width - left
        if self.rotation == 90:
            return top, width - right, bottom, width - left
        if self.rotation == 180:
            return width - right, height - bottom, width - left, height - top
        if self.rotation == 270:
            return height - bottom, left, height - top, right
        return left, top, right, bottom

    def stored_points(
        self, x: NDArray[np.int64], y: NDArray[np.int64], width: int, height: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where pixels of the upright picture lie in the stored one.

        Args:
            x: Their columns.
            y: Their rows.
            width: Width of the upright picture in pixels.
            height: Height of the upright picture in pixels.
        """
        if self.mirrored:
            x = width - 1 - x
        if self.rotation == 90:
            return y, width - 1 - x
        if self.rotation == 180:
            return width - 1 - x, height - 1 - y
        if self.rotation == 270:
            return height - 1 - y, x
        return x, y


UPRIGHT = Turn()


@dataclass(frozen=True, slots=True)
class Presentation:
    """A picture's stored size, and how it is shown.

    Attributes:
        stored_width: Width of the stored picture in pixels.
        stored_height: Height of the stored picture in pixels.
        turn: How the stored picture becomes upright.
        stored_aspect: Width of a stored pixel relative to its height.
    """

    stored_width: int
    stored_height: int
    turn: Turn = UPRIGHT
    stored_aspect: float = 1.0

    @property
    def width(self) -> int:
        """Width of the upright picture in stored pixels."""
        return self.stored_height if self.turn.is_sideways else self.stored_width

    @property
    def height(self) -> int:
        """Height of the upright picture in stored pixels."""
        return self.stored_width if self.turn.is_sideways else self.stored_height

    @property
    def pixel_aspect(self) -> float:
        """Width of a pixel of the upright picture relative to its height."""
        return 1 / self.stored_aspect if self.turn.is_sideways else self.stored_aspect

    @property
    def square_width(self) -> int:
        """Width of the upright picture in square pixels; never less than in stored pixels, so that none is lost."""
        return round(self.width * max(1.0, self.pixel_aspect))

    @property
    def square_height(self) -> int:
        """Height of the upright picture in square pixels; never less than in stored pixels."""
        return round(self.height * max(1.0, 1 / self.pixel_aspect))

    @property
    def scale(self) -> tuple[float, float]:
        """Square pixels per stored pixel of the upright picture, across and down."""
        return self.square_width / self.width, self.square_height / self.height
