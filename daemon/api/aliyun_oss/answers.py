"""Answers in the format of IMM: `imm/detectface`, which has the fields of both generations, and `image/faces`.

Coordinates are integers, in pixels of the upright picture (after its EXIF orientation), as viewers show the file.
Confidences and probabilities are 0..1. Angles are degrees: `Yaw` is positive when the face turns to the picture's
right, `Pitch` when it looks up, `Roll` when it tilts clockwise. IMM's documents define no signs; these are the daemon's
own. Left and right eyes are the person's. An attribute that could not be read, or is switched off, has no field. One of
low confidence has a field, and its confidence: `min_confidence` of the configuration does not apply here.

Sources: "Facial recognition" of OSS (the sample of `imm/detectface`), IMM 2017-09-06 `DetectImageFaces` and
`DetectFace` (whose `FaceAttribute` has the six attributes that the OSS document mentions), IMM 2020-09-30
`DetectImageFaces` and its `Figure`.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from typing import Any

from visaged.models.geometry import HeadPose
from visaged.pipelines.images.job import PictureResult
from visaged.pipelines.records import AttributeValue, Face

BLUR_THRESHOLD = 0.5
"""Blur above which a face counts as blurred: eyes and lips begin to lose their edges at 112 px."""
QUALITY_THRESHOLD = 0.5
"""Quality below which a shot is poor: half that of a confident, frontal face of 112 px."""

# The documents of `Figure` name only happiness and none; the other names are our own, nouns of the same kind.
_FIGURE_EMOTIONS = {
    "angry": "anger",
    "calm": "none",
    "disgusted": "disgust",
    "happy": "happiness",
    "sad": "sadness",
    "scared": "fear",
    "surprised": "surprise",
}

Document = dict[str, Any]


def detectface(result: PictureResult, data: bytes, uri: str, request_id: str) -> Document:
    """Return the answer to `imm/detectface`.

    Args:
        result: Faces of the picture.
        data: Bytes of the picture's file, for the ids of the faces.
        uri: `oss://bucket/key` of the picture.
        request_id: Id of the request, which the answer repeats.
    """
    return {
        "Faces": [_face(face, result, face_id) for face, face_id in _with_ids(result, data)],
        "ImageUri": uri,
        "RequestId": request_id,
        "httpStatusCode": 200,
        "success": True,
    }


def figures(result: PictureResult, data: bytes, uri: str, request_id: str) -> Document:
    """Return the answer to `image/faces`; the arguments are those of `detectface`.

    IMM's API calls the list of figures `Faces` in `DetectImageFaces` and `Figures` everywhere else; both are here.
    """
    found = [_figure(face, result, face_id) for face, face_id in _with_ids(result, data)]
    return {"Faces": found, "Figures": found, "ImageUri": uri, "RequestId": request_id}


def _with_ids(result: PictureResult, data: bytes) -> list[tuple[Face, str]]:
    """Return the faces with their ids, 64 hex digits.

    An id is a digest of the file and the box: the same face in the same file always has the same id, and no other face
    has it. It does not identify the person; there is no face recognition here.
    """
    picture = hashlib.sha256(data).digest()
    found = []
    for face in result.faces:
        box = ",".join(f"{value:.1f}" for value in face.shot.box.tolist())
        found.append((face, hashlib.sha256(picture + box.encode()).hexdigest()))
    return found


def _face(face: Face, result: PictureResult, face_id: str) -> Document:
    read, boundary = face.attributes, _boundary(face, result)
    document: Document = {"FaceId": face_id, "FaceConfidence": _rounded(face.shot.confidence)}
    document["FaceQuality"] = _rounded(face.shot.quality)
    if "age" in read:
        document["Age"] = _years(read["age"])
        document |= _confidence("Age", read["age"])
    if "gender" in read:
        document["Gender"] = str(read["gender"].value).upper()
        document |= _confidence("Gender", read["gender"])
    if "attractiveness" in read:
        document["Attractive"] = _rounded(_number(read["attractiveness"]))
        document |= _confidence("Attractive", read["attractiveness"])
    if "emotion" in read:
        document |= _emotion(read["emotion"])
    document["FaceAttributes"] = {
        **_worn("Beard", read.get("beard"), "HAVE"),
        **_worn("Glasses", read.get("glasses"), None),
        **_worn("Mask", read.get("mask"), "HAVE"),
        "FaceBoundary": boundary,
        **_first_generation(face, boundary),
    }
    return document


def _first_generation(face: Face, boundary: Document) -> Document:
    """Return the fields of the first generation: gender, age, head pose, eye status, blur and quality."""
    read = face.attributes
    document: Document = {
        "FaceRectangle": boundary,
        "FaceQuality": {"Value": _rounded(face.shot.quality), "Threshold": QUALITY_THRESHOLD},
    }
    if "gender" in read:
        document["Gender"] = {"Value": str(read["gender"].value).upper()}
    if "age" in read:
        document["Age"] = {"Value": _years(read["age"])}
    if "head_pose" in read:
        pose = _pose(read["head_pose"])
        document["HeadPose"] = pose | {f"{name}Angle": angle for name, angle in pose.items()}
    if "blur" in read:
        document["Blur"] = {"Blurness": {"Value": _rounded(_number(read["blur"])), "Threshold": BLUR_THRESHOLD}}
    eyes = {
        f"{side.capitalize()}EyeStatus": eye_status(read[f"{side}_eye"], read["glasses"])
        for side in ("left", "right")
        if f"{side}_eye" in read and "glasses" in read
    }
    return document | ({"EyeStatus": eyes} if eyes else {})


def eye_status(eye: AttributeValue, glasses: AttributeValue) -> dict[str, float]:
    """Return the six probabilities of an eye.

    Eyelids and glasses are taken as independent of each other, and the six add up to 1. `Occlusion` is always 0,
    because the networks do not detect hidden eyes.
    """
    opened = _probability(eye, "open")
    none, normal, dark = (_probability(glasses, label) for label in ("none", "glasses", "sunglasses"))
    total = none + normal + dark or 1.0  # a custom network may have further labels for glasses
    return {
        "NoGlassEyeOpen": _rounded(none * opened / total),
        "NoGlassEyeClose": _rounded(none * (1 - opened) / total),
        "NormalGlassEyeOpen": _rounded(normal * opened / total),
        "NormalGlassEyeClose": _rounded(normal * (1 - opened) / total),
        "DarkGlasses": _rounded(dark / total),
        "Occlusion": 0.0,
    }


def _figure(face: Face, result: PictureResult, face_id: str) -> Document:
    read = face.attributes
    document: Document = {
        "FigureId": str(uuid.UUID(face_id[:32])),
        "FigureType": "face",
        "FigureConfidence": _rounded(face.shot.confidence),
        "FaceQuality": _rounded(face.shot.quality),
        "Boundary": _boundary(face, result),
    }
    if "age" in read:
        document["Age"] = _years(read["age"])
        document |= {} if read["age"].deviation is None else {"AgeSD": _rounded(read["age"].deviation)}
    if "gender" in read:
        document["Gender"] = read["gender"].value
        document |= _confidence("Gender", read["gender"])
    if "emotion" in read:
        emotion = str(read["emotion"].value)
        document["Emotion"] = _FIGURE_EMOTIONS.get(emotion, emotion)
        document |= _confidence("Emotion", read["emotion"])
    if "attractiveness" in read:
        document["Attractive"] = _rounded(_number(read["attractiveness"]))
    for name in ("beard", "glasses", "hat", "mask"):
        if name in read:
            document[name.capitalize()] = read[name].value
            document |= _confidence(name.capitalize(), read[name])
    if "blur" in read:
        document["Sharpness"] = _rounded(1 - _number(read["blur"]))
    if "head_pose" in read:
        document["HeadPose"] = _pose(read["head_pose"])
    return document


def _boundary(face: Face, result: PictureResult) -> Document:
    """Return the box in whole pixels, around the face and inside the picture, at least one pixel large."""
    x1, y1, x2, y2 = (float(value) for value in face.shot.box)
    left = min(max(math.floor(x1), 0), result.width - 1)
    top = min(max(math.floor(y1), 0), result.height - 1)
    right = min(max(math.ceil(x2), left + 1), result.width)
    bottom = min(max(math.ceil(y2), top + 1), result.height)
    return {"Height": bottom - top, "Left": left, "Top": top, "Width": right - left}


def _emotion(read: AttributeValue) -> Document:
    document: Document = {"Emotion": str(read.value).upper(), **_confidence("Emotion", read)}
    if read.probabilities is not None:
        details = {name.upper(): float(value) for name, value in sorted(read.probabilities.items())}
        document |= {"EmotionConfidence": details[document["Emotion"]], "EmotionDetails": details}
    return document


def _worn(name: str, read: AttributeValue | None, worn: str | None) -> Document:
    """Return the fields of beard, glasses or mask: the value is NONE or `worn`, or the label if `worn` is None."""
    if read is None:
        return {}
    value = "NONE" if read.value == "none" else worn or str(read.value).upper()
    return {name: value, **_confidence(name, read)}


def _confidence(name: str, read: AttributeValue) -> Document:
    return {f"{name}Confidence": _rounded(read.confidence)}


def _probability(read: AttributeValue, label: str) -> float:
    """Return the probability of a label; 0 for one that the network does not know."""
    return (read.probabilities or {}).get(label, 0.0)


def _number(read: AttributeValue) -> float:
    """Return the value of an attribute; 0 if it is no number, as a custom network may have it."""
    return read.value if isinstance(read.value, float) else 0.0


def _pose(read: AttributeValue) -> Document:
    pose = read.value
    if not isinstance(pose, HeadPose):
        return {}
    return {"Pitch": _rounded(pose.pitch), "Roll": _rounded(pose.roll), "Yaw": _rounded(pose.yaw)}


def _years(read: AttributeValue) -> int:
    return max(0, round(_number(read)))


def _rounded(value: float) -> float:
    return round(float(value), 6)
