"""A live picture: how large it is, what is in it, and how it is made of an analysed frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import orjson

from visaged.models.preprocess import Canvas
from visaged.models.types import FloatArray
from visaged.pipelines.live.drawing import draw_faces
from visaged.pipelines.outputs.documents import milliseconds, result_document, timestamp
from visaged.pipelines.pictures.blur import blur_faces
from visaged.pipelines.pictures.encode import encode_jpeg
from visaged.pipelines.records import FrameResult

WIDTHS = (160, 320, 480, 640, 960, 1280, 1920, 3840)
"""The widths in pixels in which live pictures are made: few, so that those who look share them."""

# Nearly as good as 80 to the eye in a moving picture, for three quarters of the bytes.
_QUALITY = 75


@dataclass(frozen=True, slots=True, order=True)
class View:
    """What those who share a picture want alike.

    Attributes:
        width: Most pixels across, one of `WIDTHS`.
        boxes: Whether faces are marked by boxes with labels.
    """

    width: int
    boxes: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """A live picture.

    Attributes:
        camera: Name of the camera.
        view: What it was made for.
        jpeg: The picture as a JPEG file.
        document: What was found in the frame, as JSON in UTF-8.
    """

    camera: str
    view: View
    jpeg: bytes
    document: bytes


def wide_enough(width: int) -> int:
    """Return the smallest width in which pictures are made that is not smaller than the wanted one, or the largest."""
    return next((step for step in WIDTHS if step >= width), WIDTHS[-1])


def canvas_of(width: int, height: int, most_width: int) -> Canvas:
    """Return the place of a picture that is to be so wide at most; it is not enlarged, and not absurdly high.

    Args:
        width: Pixels of the frame across, upright and square.
        height: Pixels of the frame down.
        most_width: One of `WIDTHS`.
    """
    scale = min(1.0, most_width / width, WIDTHS[-1] / height)
    across, down = (
        # Even, so that video's halved chroma fits.
        max(2, min(2 * round(side * scale / 2), side & ~1))
        for side in (width, height)
    )
    return Canvas(across, down, across, down, across / width, down / height)


def pictures_of(
    result: FrameResult,
    views: Iterable[View],
    hidden: FloatArray | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Picture]:
    """Make the pictures of a frame, one for each of the views.

    Args:
        result: The frame, analysed.
        views: What the pictures are made for.
        hidden: (N, 4) float32, boxes in square pixels of the upright frame that are to be blurred; None for none.
        clock: Returns monotonic seconds.
    """
    frame, image = result.frame, None
    surface, width = frame.surface, 0
    for view in sorted(views):  # those of one width one after another, without boxes first
        if image is None or view.width != width:
            width = view.width
            canvas = canvas_of(surface.width, surface.height, width)
            scale = canvas.scale_x, canvas.scale_y
            image = surface.picture(canvas)
            if hidden is not None:
                blur_faces(image, hidden * (*scale, *scale))
        if view.boxes:
            draw_faces(image, result.faces, scale)
        document = {
            "camera": frame.camera,
            "captured_at": timestamp(frame.captured_at),
            "age_ms": milliseconds(clock() - frame.captured_s),
            **result_document(result),
            "picture": {"width": canvas.width, "height": canvas.height},
        }
        yield Picture(frame.camera, view, encode_jpeg(image, _QUALITY), orjson.dumps(document))
