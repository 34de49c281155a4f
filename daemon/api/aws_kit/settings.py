"""The keys of `kit`: the drop-in for the face detection of the AWS AI Solution Kit."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated

from pydantic import AfterValidator, Field

from visaged.pipelines.runtime.config import StrictConfig

KIT_PATH = re.compile(r"(?:/[^/]+)?/face[_-]detection/?")
"""The paths of the kit, below a stage or not."""


def _is_origin(text: str) -> str:
    own_port = {"http": ":80", "https": ":443"}.get(text.partition(":")[0])
    if text != "*" and (_ORIGIN.fullmatch(text) is None or (own_port is not None and text.endswith(own_port))):
        raise ValueError(
            "is no origin of a web page: write https://host or http://host:port in lower case, without a path and "
            "without the port that belongs to the scheme, or * for all pages"
        )
    return text


# The last group is for pages of browser extensions, such as `moz-extension://...`.
_ORIGIN = re.compile(
    r"https?://(?:[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?|[a-z]{1,20}-extension://[a-z0-9-]{1,64}"
)
Origin = Annotated[str, AfterValidator(_is_origin)]


class KitSettings(StrictConfig):
    """`POST /face_detection`, compatible with the AWS AI Solution Kit."""

    enabled: bool = True
    """Answer `/face_detection` and `/face-detection`."""
    origins: list[Origin] | None = None
    """Web pages that may use these paths (CORS), by their origin such as `https://shop.example`, or `*` for all. null:
    with `http.keys` all, as with the kit, because a page then needs a key; without keys none."""
    min_confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    """Smallest confidence of a face in the answer; null for that of `inference.min_confidence`. Nothing is found below
    `tracker.low_confidence`."""
    max_side: Annotated[int, Field(ge=1, le=65_535)] = 4096
    """Longest side of a picture in pixels; the kit documents 4096."""
    upright: bool = False
    """Whether coordinates are in the picture as its EXIF orientation turns it. Off, they are in the picture as it is
    stored, as the kit's were. Faces are found in the turned picture in both cases."""

    def page_origins(self, with_keys: bool) -> Collection[str]:
        """Return the origins of pages that may use the kit's paths.

        Args:
            with_keys: Whether requests need an API key.
        """
        if self.origins is not None:
            return self.origins
        return ("*",) if with_keys else ()
