"""Real pictures for tests of the HTTP API, cut from the bundled clip."""

from __future__ import annotations

import io
from pathlib import Path

import av
from PIL import Image

_SUFFIXES = {"jpeg": "JPEG", "png": "PNG", "bmp": "BMP", "webp": "WEBP"}


def cut(clip: Path, at_s: float) -> Image.Image:
    """The clip's picture at a time, seconds."""
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= at_s:
                return frame.to_image()
    raise AssertionError(f"{clip} is shorter than {at_s} s")


def encoded(picture: Image.Image, kind: str = "jpeg", orientation: int | None = None) -> bytes:
    """A picture as a file; with an EXIF orientation if one is given."""
    file = io.BytesIO()
    options: dict[str, object] = {} if kind in ("png", "bmp") else {"quality": 95}
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif.tobytes()
    picture.save(file, _SUFFIXES[kind], **options)
    return file.getvalue()
