"""Boxes with short labels, drawn into a picture for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from visaged.models.types import Image
from visaged.pipelines.records import Face

_FONT = cv2.FONT_HERSHEY_DUPLEX
# Height of its capital letters in pixels at scale 1.
_FONT_PX = 21.0
# BGR of the boxes, by number of track: bright enough for dark letters, far enough apart to follow one by eye.
_COLOURS = (
    (120, 220, 120), (255, 190, 90), (90, 190, 255), (230, 150, 240), (230, 230, 110), (120, 160, 255), (150, 240, 230),
)  # fmt: skip
_UNTRACKED = (200, 200, 200)
_INK = (24, 24, 24)
# Wide pictures are shown small: letters grow with the picture, but stay readable in small ones.
_LETTER_SHARE, _LEAST_LETTER_PX, _MOST_LETTER_PX = 1 / 90, 7.0, 22.0


def draw_faces(image: Image, faces: Sequence[Face], scale: tuple[float, float]) -> None:
    """Draw faces into a picture, in place.

    Args:
        image: (H, W, 3) uint8 BGR.
        faces: The faces, in square pixels of the frame.
        scale: Pixels of the picture for one square pixel of the frame, across and down.
    """
    height, width = image.shape[:2]
    letter_px = min(_MOST_LETTER_PX, max(_LEAST_LETTER_PX, max(width, height) * _LETTER_SHARE))
    line_px = max(1, round(letter_px / 7))
    limit = np.array([width - 1, height - 1] * 2)
    boxes = [
        np.clip(np.round(face.shot.box * np.array([*scale, *scale])), 0, limit).astype(int).tolist() for face in faces
    ]
    for face, (left, top, right, bottom) in zip(faces, boxes, strict=True):
        cv2.rectangle(image, (left, top), (right, bottom), _colour(face), line_px)
    for face, box in zip(faces, boxes, strict=True):  # after all boxes, so that none crosses a label
        _label(image, label(face), box, _colour(face), letter_px, line_px)


def label(face: Face) -> str:
    """Return what is written at a face, in ASCII: the number of its track, about how old, and the emotion."""
    words = [] if face.track is None else [str(face.track)]
    age = face.attributes.get("age")
    if age is not None and isinstance(age.value, float | int):
        words.append(f"~{age.value:.0f}")
    emotion = face.attributes.get("emotion")
    if emotion is not None and isinstance(emotion.value, str):
        words.append(emotion.value.encode("ascii", "replace").decode())
    return " ".join(words)


def _colour(face: Face) -> tuple[int, int, int]:
    return _UNTRACKED if face.track is None else _COLOURS[face.track % len(_COLOURS)]


def _label(
    image: Image, text: str, box: list[int], colour: tuple[int, int, int], letter_px: float, line_px: int
) -> None:
    """Write a text on a strip outside of a box: above it, or below it where there is no room, or else at the top."""
    if not text:
        return
    height, width = image.shape[:2]
    left, top, _, bottom = box
    scale = letter_px / _FONT_PX
    (across, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
    pad = max(2, round(letter_px / 2))
    strip_width, strip_height = across + 2 * pad, round(letter_px) + 2 * pad
    x = max(0, min(left - line_px // 2, width - strip_width))
    y = top - strip_height if top >= strip_height else bottom if bottom + strip_height <= height else 0
    cv2.rectangle(image, (x, y), (x + strip_width - 1, y + strip_height - 1), colour, cv2.FILLED)
    cv2.putText(image, text, (x + pad, y + pad + round(letter_px)), _FONT, scale, _INK, 1, cv2.LINE_AA)
