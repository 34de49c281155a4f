"""The keys of `kit`: the drop-in for the face detection of the AWS AI Solution Kit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from visaged.pipelines.runtime.config import StrictConfig


class KitSettings(StrictConfig):
    """`POST /face_detection`, compatible with the AWS AI Solution Kit."""

    enabled: bool = True
    """Answer `/face_detection` and `/face-detection`."""
    min_confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    """Smallest confidence of a face in the answer; null for that of `inference.min_confidence`. Nothing is found below
    `tracker.low_confidence`."""
    max_side: Annotated[int, Field(ge=1, le=65_535)] = 4096
    """Longest side of a picture in pixels; the kit documents 4096."""
    upright: bool = False
    """Whether coordinates are in the picture as its EXIF orientation turns it. Off, they are in the picture as it is
    stored, as the kit's were. Faces are found in the turned picture in both cases."""
