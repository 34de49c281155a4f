"""The keys of `kit`: the drop-in for the face detection of the AWS AI Solution Kit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from visaged.daemon.config.base import Frozen


class KitSettings(Frozen):
    """`POST /face_detection`, as the AWS AI Solution Kit has it."""

    enabled: bool = True
    """Answer `/face_detection` and `/face-detection`."""
    min_confidence: Annotated[float, Field(ge=0.2, le=1)] | None = None
    """Of the faces told; null for the detector's own threshold."""
    max_side: Annotated[int, Field(ge=1, le=65_535)] = 4096
    """Longest side of a picture in pixels; 4096 is what the kit documents."""
    upright: bool = False
    """Coordinates in the picture as its EXIF orientation turns it. Off, they are in the picture as it is stored, as the
    kit's were; the faces are found whichever way it lies."""
