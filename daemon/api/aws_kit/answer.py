"""The answer of the AWS AI Solution Kit's face detection: fields, their order and types, and the order of landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visaged.models.types import FloatArray
from visaged.pipelines.records import Face

ATTRIBUTES = frozenset({"age", "gender"})
"""The attributes that the answer has fields for. They are returned with any confidence: clients expect the fields."""

# The kit's 106 points are numbered as InsightFace's `2d106det` numbers them (deepinsight/insightface,
# alignment/coordinate_reg, "points mark-up"): in the kit's own sample 0 is the chin, and 1 begins the outline. Each
# entry is a part of the face as (indices of the analyzer, indices of the kit); left and right are the picture's.
_PARTS: tuple[tuple[Sequence[int], Sequence[int]], ...] = (
    # The outline, from the left temple by the chin (16) to the right one.
    (range(33), (1, *range(9, 17), *range(2, 9), 0, *range(24, 17, -1), *range(32, 24, -1), 17)),
    # The left brow's upper edge from its outer end, then its lower edge back; the right one the same, mirrored.
    ((33, 34, 35, 36, 37, 67, 66, 65, 64), (43, 48, 49, 51, 50, 46, 47, 45, 44)),
    ((42, 41, 40, 39, 38, 68, 69, 70, 71), (101, 105, 104, 103, 102, 97, 98, 99, 100)),
    # The nose: its bridge, then from the left of its root by the wings and nostrils to the right of its root.
    ((43, 44, 45, 46), (72, 73, 74, 86)),
    ((78, 80, 82, 47, 48, 49, 50, 51, 83, 81, 79), (75, 76, 77, 78, 79, 80, 85, 84, 83, 82, 81)),
    # The eyes from the outer corner along the upper lid and back along the lower; then two points on the iris.
    ((52, 53, 72, 54, 55, 56, 73, 57, 74, 104), (35, 41, 40, 42, 39, 37, 33, 36, 34, 38)),
    ((61, 60, 75, 59, 58, 63, 76, 62, 77, 105), (93, 96, 94, 95, 89, 90, 87, 91, 88, 92)),
    # The lips from the left corner along the upper edge and back along the lower: outside, then inside.
    (range(84, 96), (52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55)),
    (range(96, 104), (65, 66, 62, 70, 69, 57, 60, 54)),
)


def _order() -> NDArray[np.intp]:
    order = np.full(106, -1, np.intp)
    for ours, kits in _PARTS:
        order[list(kits)] = list(ours)
    return order


POINT_ORDER = _order()
"""(106,) intp: index of the analyzer's point for each of the kit's points."""


def model_version(detector: str, analyzer: str | None) -> str:
    """Return the value of `FaceModelVersion`: the networks' versions in the kit's form, `detector.analyzer.0`.

    Args:
        detector: Version in the detector's entry of the manifest.
        analyzer: Version in the analyzer's entry of the manifest; None without an analyzer.
    """
    return f"{detector}.{0 if analyzer is None else analyzer}.0"


def answer_document(width: int, height: int, faces: Sequence[Face], version: str) -> dict[str, Any]:
    """Return the answer for a picture.

    Fields whose attribute is off, or that need an analyzer where there is none, are absent.

    Args:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        faces: The faces, in pixels of the picture.
        version: Value of `FaceModelVersion`.
    """
    best_first = sorted(faces, key=lambda face: -face.shot.confidence)
    return {"Faces": [_face(width, height, face) for face in best_first], "FaceModelVersion": version}


def _face(width: int, height: int, face: Face) -> dict[str, Any]:
    sides = np.array([width, height, width, height], np.float64)
    left, top, right, bottom = np.clip(face.shot.box.astype(np.float64) / sides, 0, 1).tolist()
    document: dict[str, Any] = {
        "BoundingBox": {"Width": right - left, "Height": bottom - top, "Left": left, "Top": top},
        "Confidence": float(face.shot.confidence),
    }
    if face.landmarks_106 is not None:
        document["landmark_106"] = _points(face.landmarks_106)
    if "gender" in face.attributes:
        document["gender"] = face.attributes["gender"].value
    age = face.attributes.get("age")
    if age is not None and isinstance(age.value, float):
        document["age"] = max(0, round(age.value))
    return document


def _points(points: FloatArray) -> list[dict[str, int]]:
    # Not clipped to the picture: the kit did not clip either, and clipped points would be wrong.
    return [{"x": x, "y": y} for x, y in np.round(points[POINT_ORDER]).astype(int).tolist()]


_FRACTION: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}
_BOX_KEYS = ("Width", "Height", "Left", "Top")
_FACE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "BoundingBox": {
            "description": "Fractions of the picture's width and height.",
            "type": "object",
            "properties": dict.fromkeys(_BOX_KEYS, _FRACTION),
            "required": list(_BOX_KEYS),
            "additionalProperties": False,
        },
        "Confidence": _FRACTION,
        "landmark_106": {
            "description": "Points in pixels from the left and upper edge, in the order of InsightFace's 2d106det.",
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
                "required": ["x", "y"],
                "additionalProperties": False,
            },
            "minItems": 106,
            "maxItems": 106,
        },
        "gender": {"enum": ["male", "female"]},
        "age": {"type": "integer", "minimum": 0},
    },
    "required": ["BoundingBox", "Confidence"],
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "Faces": {"description": "Faces, most confident first.", "type": "array", "items": _FACE_SCHEMA},
        "FaceModelVersion": {"description": "Versions of the detector and the analyzer.", "type": "string"},
    },
    "required": ["Faces", "FaceModelVersion"],
    "additionalProperties": False,
}
"""JSON Schema of the answer."""
