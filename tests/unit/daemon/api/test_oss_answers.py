"""Faces in the words of IMM."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from visaged.daemon.api.aliyun_oss.answers import detectface, eye_status, figures
from visaged.models.geometry import HeadPose
from visaged.pipelines.images.job import PictureResult
from visaged.pipelines.records import AttributeValue, Face, Shot


def pair(value: str, confidence: float, other: str) -> AttributeValue:
    """Return what is known of an attribute of two labels."""
    return AttributeValue(value, confidence, {value: confidence, other: 1 - confidence})


EVERYTHING: dict[str, AttributeValue] = {
    "age": AttributeValue(30.5, 0.49, deviation=11.4),
    "gender": pair("female", 0.9, "male"),
    "emotion": AttributeValue(
        "scared",
        0.6,
        {"angry": 0.1, "calm": 0.1, "disgusted": 0.0, "happy": 0.1, "sad": 0.0, "scared": 0.6, "surprised": 0.1},
    ),
    "glasses": AttributeValue("sunglasses", 0.7, {"none": 0.1, "glasses": 0.2, "sunglasses": 0.7}),
    "mask": pair("mask", 0.8, "none"),
    "beard": pair("beard", 0.75, "none"),
    "hat": pair("none", 0.65, "hat"),
    "left_eye": pair("open", 0.9, "closed"),
    "right_eye": pair("closed", 0.8, "open"),
    "attractiveness": AttributeValue(0.95, 0.5, is_score=True),
    "blur": AttributeValue(0.25, 0.5, is_score=True),
    "head_pose": AttributeValue(HeadPose(10.0, -5.0, 2.0), 0.5),
}


def answer(
    attributes: dict[str, AttributeValue], box: tuple[float, float, float, float] = (10.2, 20.7, 50.1, 80.0)
) -> PictureResult:
    shot = Shot(0.0, np.array(box, np.float32), np.zeros((5, 2), np.float32), 0.97, 0.81)
    return PictureResult(100, 90, [Face(shot, None, attributes)])


def face(attributes: dict[str, AttributeValue], **more: Any) -> dict[str, Any]:
    document = detectface(answer(attributes, **more), b"picture", "oss://b/k", "A" * 24)
    found: dict[str, Any] = document["Faces"][0]
    return found


def test_every_field() -> None:
    found = face(EVERYTHING)
    attributes = found.pop("FaceAttributes")
    details = found.pop("EmotionDetails")
    assert len(found.pop("FaceId")) == 64
    assert found == {
        "FaceConfidence": 0.97, "FaceQuality": 0.81, "Age": 30, "AgeConfidence": 0.49,
        "Gender": "FEMALE", "GenderConfidence": 0.9, "Attractive": 0.95, "AttractiveConfidence": 0.5,
        "Emotion": "SCARED", "EmotionConfidence": details["SCARED"],
    }  # fmt: skip
    assert sum(details.values()) == pytest.approx(1, abs=1e-12)
    box = {"Left": 10, "Top": 20, "Width": 41, "Height": 60}
    eyes = attributes.pop("EyeStatus")
    assert attributes == {
        "Beard": "HAVE", "BeardConfidence": 0.75,
        "Glasses": "SUNGLASSES", "GlassesConfidence": 0.7,
        "Mask": "HAVE", "MaskConfidence": 0.8,
        "FaceBoundary": box,
        "FaceRectangle": box,
        "FaceQuality": {"Value": 0.81, "Threshold": 0.5},
        "Gender": {"Value": "FEMALE"},
        "Age": {"Value": 30},
        "HeadPose": {
            "Pitch": -5.0, "Roll": 2.0, "Yaw": 10.0, "PitchAngle": -5.0, "RollAngle": 2.0, "YawAngle": 10.0,
        },
        "Blur": {"Blurness": {"Value": 0.25, "Threshold": 0.5}},
    }  # fmt: skip
    assert eyes["LeftEyeStatus"] == {
        "NoGlassEyeOpen": 0.09, "NoGlassEyeClose": 0.01, "NormalGlassEyeOpen": 0.18, "NormalGlassEyeClose": 0.02,
        "DarkGlasses": 0.7, "Occlusion": 0.0,
    }  # fmt: skip
    assert eyes["RightEyeStatus"]["NoGlassEyeClose"] == pytest.approx(0.08)


def test_every_field_of_the_third_generation() -> None:
    document = figures(answer(EVERYTHING), b"picture", "oss://b/k", "A" * 24)
    assert document["Faces"] == document["Figures"]
    (found,) = document["Figures"]
    assert len(found.pop("FigureId")) == 36
    details = found.pop("EmotionConfidence")
    assert details == 0.6
    assert found == {
        "FigureType": "face", "FigureConfidence": 0.97, "FaceQuality": 0.81,
        "Boundary": {"Left": 10, "Top": 20, "Width": 41, "Height": 60},
        "Age": 30, "AgeSD": 11.4, "Gender": "female", "GenderConfidence": 0.9, "Emotion": "fear",
        "Attractive": 0.95, "Beard": "beard", "BeardConfidence": 0.75,
        "Glasses": "sunglasses", "GlassesConfidence": 0.7, "Hat": "none", "HatConfidence": 0.65,
        "Mask": "mask", "MaskConfidence": 0.8, "Sharpness": 0.75,
        "HeadPose": {"Pitch": -5.0, "Roll": 2.0, "Yaw": 10.0},
    }  # fmt: skip


def test_nothing_is_made_up() -> None:
    found = face({})
    assert set(found) == {"FaceId", "FaceConfidence", "FaceQuality", "FaceAttributes"}
    assert set(found["FaceAttributes"]) == {"FaceBoundary", "FaceRectangle", "FaceQuality"}
    (figure,) = figures(answer({}), b"", "", "")["Figures"]
    assert set(figure) == {"FigureId", "FigureType", "FigureConfidence", "FaceQuality", "Boundary"}
    # What an eye is behind cannot be told without glasses.
    assert "EyeStatus" not in face({"left_eye": EVERYTHING["left_eye"]})["FaceAttributes"]
    one_eye = face({"left_eye": EVERYTHING["left_eye"], "glasses": EVERYTHING["glasses"]})
    assert set(one_eye["FaceAttributes"]["EyeStatus"]) == {"LeftEyeStatus"}
    assert "AgeSD" not in figures(answer({"age": AttributeValue(3.0, 0.5)}), b"", "", "")["Figures"][0]


@pytest.mark.parametrize("glasses", ["none", "glasses"])
@pytest.mark.parametrize("eye", ["open", "closed"])
def test_eyes_by_glasses_of_two_kinds(glasses: str, eye: str) -> None:
    eyes = pair(eye, 0.9, "closed" if eye == "open" else "open")
    found = eye_status(eyes, pair(glasses, 0.8, "glasses" if glasses == "none" else "none"))
    name = f"{'No' if glasses == 'none' else 'Normal'}Glass{'EyeOpen' if eye == 'open' else 'EyeClose'}"
    assert found[name] == max(found.values()) == pytest.approx(0.72)
    assert sum(found.values()) == pytest.approx(1)
    assert found["DarkGlasses"] == found["Occlusion"] == 0


def test_eyes_behind_glasses_of_kinds_that_the_answer_has_no_field_for() -> None:
    glasses = AttributeValue("none", 0.5, {"none": 0.5, "glasses": 0.25, "goggles": 0.25})
    found = eye_status(pair("open", 0.75, "closed"), glasses)
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    assert found["NoGlassEyeOpen"] == 0.5
    assert found["NoGlassEyeClose"] == pytest.approx(0.5 / 3, abs=1e-6)
    unknown = AttributeValue("goggles", 1.0, {"goggles": 1.0})
    assert not any(eye_status(pair("open", 0.75, "closed"), unknown).values())


def test_numbers_have_no_more_than_six_decimals() -> None:
    digits = 1 / 3
    scores = {name: AttributeValue(digits, digits, is_score=True) for name in ("attractiveness", "blur")}
    pose = {"head_pose": AttributeValue(HeadPose(digits, digits, digits), digits)}
    found, (figure,) = face(scores | pose), figures(answer(scores | pose), b"", "", "")["Figures"]
    assert found["Attractive"] == found["AttractiveConfidence"] == figure["Attractive"] == 0.333333
    assert found["FaceAttributes"]["Blur"]["Blurness"]["Value"] == 0.333333
    assert figure["Sharpness"] == 0.666667
    assert set(figure["HeadPose"].values()) == {0.333333}


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((-5.0, -7.0, 200.0, 300.0), (0, 0, 100, 90)),
        ((10.0, 20.0, 30.0, 40.0), (10, 20, 20, 20)),
        ((99.9, 89.9, 99.95, 89.95), (99, 89, 1, 1)),
        ((150.0, 150.0, 160.0, 160.0), (99, 89, 1, 1)),
        ((-20.0, -20.0, -10.0, -10.0), (0, 0, 1, 1)),
    ],
)
def test_boundaries_are_inside_the_picture(
    box: tuple[float, float, float, float], expected: tuple[int, int, int, int]
) -> None:
    found = face({}, box=box)["FaceAttributes"]["FaceBoundary"]
    assert (found["Left"], found["Top"], found["Width"], found["Height"]) == expected
    assert all(isinstance(value, int) for value in found.values())


def test_ids_are_of_the_file_and_the_box() -> None:
    def identity(data: bytes, box: tuple[float, float, float, float]) -> str:
        document = detectface(answer({}, box), data, "oss://b/k", "A" * 24)
        return str(document["Faces"][0]["FaceId"])

    first = identity(b"one", (1, 2, 30, 40))
    assert first == identity(b"one", (1, 2, 30, 40))
    assert len({first, identity(b"two", (1, 2, 30, 40)), identity(b"one", (1, 2, 30, 41))}) == 3
