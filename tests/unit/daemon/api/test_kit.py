"""The kit's form: what may be asked in how many ways, what is answered, and in what words it is refused."""

from __future__ import annotations

import base64
import itertools
import json
import random
from http import HTTPStatus
from typing import Any

import jsonschema
import numpy as np
import orjson
import pytest
from fastapi import Request
from pydantic import ValidationError

from tests.unit import fakes
from visaged.daemon.api.aws_kit import request as kit_request
from visaged.daemon.api.aws_kit.answer import POINT_ORDER, SCHEMA, answer_document, model_version
from visaged.daemon.api.aws_kit.app import refusal
from visaged.daemon.api.aws_kit.request import SCHEMA as BODY_SCHEMA
from visaged.daemon.api.aws_kit.request import from_base64, given_picture
from visaged.daemon.api.aws_kit.settings import KitSettings
from visaged.daemon.http.problems import Problem
from visaged.pipelines.records import AttributeValue, Face
from visaged.pipelines.tracking.tracks import faces_of

DATA = bytes(range(256)) * 3 + b"\xfb\xff"  # its base64 has + and / in it, and padding
CODED = base64.b64encode(DATA).decode()


# --- what is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        CODED,
        CODED.rstrip("="),
        CODED.replace("+", "-").replace("/", "_"),
        CODED.replace("+", "-").replace("/", "_").rstrip("="),
        base64.encodebytes(DATA).decode(),
        base64.encodebytes(DATA).decode().replace("\n", "\r\n"),
        f"  {CODED}\n\n",
        "\t".join(CODED),
        f"data:image/jpeg;base64,{CODED}",
        f"data:image/png;name=a.png;base64,{CODED}",
        f"data:;base64,{CODED}",
        f"  DATA:IMAGE/JPEG;BASE64,\n{base64.encodebytes(DATA).decode()}",
    ],
)
def test_base64_in_all_ways(text: str) -> None:
    assert from_base64(text) == DATA


@pytest.mark.parametrize("length", range(10))
def test_base64_of_every_length_without_its_padding(length: int) -> None:
    data = bytes(range(length))
    assert from_base64(base64.b64encode(data).decode().rstrip("=")) == data


@pytest.mark.parametrize("length", [196_606, 196_607, 196_608, 196_609, 700_001])
def test_base64_longer_than_a_slice(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert from_base64(base64.b64encode(data).decode()) == data
    assert from_base64(base64.encodebytes(data).decode()) == data
    coded = bytearray(base64.b64encode(data))
    coded[262_143] = ord("=")
    with pytest.raises(Problem, match="padded in the middle"):
        from_base64(coded.decode() + "AAAA")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a", "base64"),
        ("abcde", "base64"),
        ("ab=cd", "base64"),
        ("ab==cdef", "base64"),
        ("Z", "base64"),
        ("@@@@", "base64"),
        ("http://a.example/b.jpg", "base64"),
        ("Zm9v\x00", "base64"),
        ("Zm9vé", "other characters"),
        ("图像", "other characters"),
        ("\N{KELVIN SIGN}", "other characters"),
        ("data:image/jpeg,Zm9v", "data URL without base64"),
        ("data:image/jpeg;base64", "data URL without base64"),
        ("data:image/jpeg;base64;Zm9v", "data URL without base64"),
        ("data:", "data URL without base64"),
    ],
)
def test_what_is_no_base64(text: str, reason: str) -> None:
    with pytest.raises(Problem, match=reason) as caught:
        from_base64(text)
    assert caught.value.kind == "invalid-base64"


def test_what_is_given() -> None:
    assert given_picture(json.dumps({"img": CODED}).encode()).data == DATA
    given = given_picture(b'\xef\xbb\xbf {"url": " s3://bucket/a b.jpg\\n", "more": [1, {"img": 2}]} \n')
    assert (given.parameter, given.url) == ("url", "s3://bucket/a b.jpg")
    # The last of two equal keys counts, as in Python's own parser, which the kit used.
    assert given_picture(b'{"url": "a", "url": "b"}').url == "b"
    assert given_picture(b'{"img": ""}').data == b""


LARGE = random.Random(1).randbytes(600_001)


@pytest.mark.parametrize("beside", ["", "b" * 60_000])
@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,", "\n"])
@pytest.mark.parametrize("escapes", [{}, {"/": "\\/"}, {"+": "\\u002b"}, {"+": "\\u002B", "/": "\\/"}, {"A": "A\\n"}])
def test_a_large_picture_is_given_as_a_small_one(escapes: dict[str, str], prefix: str, beside: str) -> None:
    coded = "".join(escapes.get(char, char) for char in base64.b64encode(LARGE).decode())
    for form in ('{"img": "%s", "more": "%s"}', '{"a": [], "img":"%s","b":{"c":"%s"}}'):
        body = form % (json.dumps(prefix)[1:-1] + coded, beside)
        assert given_picture(body.encode()).data == LARGE


def test_a_large_picture_is_parsed_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    loads = orjson.loads

    def noting(text: bytes) -> Any:
        nonlocal most
        most = max(most, len(text))
        return loads(text)

    monkeypatch.setattr(kit_request.orjson, "loads", noting)
    given_picture(b'{"img": "' + b"A" * 20_000_000 + b'"}')
    assert 0 < most <= 300_000


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"img": "' + b"A" * 300_000 + b"\n" + b'"}', "invalid-body"),
        (b'{"img": "' + b"A" * 300_000 + b"\xff" + b'"}', "invalid-body"),
        (b'{"img": "' + b"A" * 300_000 + b'\\q"}', "invalid-body"),
        (b'{"img": "' + b"A" * 300_000 + b'\\"AAAA"}', "invalid-body"),
        (b'{"img": "' + b"\\\\" * 300_000 + b'"}', "invalid-base64"),
        (b'{"img": "' + b"," * 300_000 + b'"}', "invalid-base64"),
        (b'{"img": "' + b"A" * 300_000 + b'=AAA"}', "invalid-base64"),
        (b'{"img": "' + b"A" * 300_000, "invalid-body"),
        (b'{"img": "' + b"A" * 300_000 + b'", "more": "' + b"A" * 300_000 + b'"}', "invalid-body"),
        (b'{"url": "a", "img": "' + b"A" * 300_000 + b'"}', "url-and-img"),
        (b'{"' + b"A" * 300_000 + b'": "img"}', "no-picture"),
        (b'{"more": "' + b"A" * 300_000 + b'"}', "no-picture"),
        (b'"' + b"A" * 300_000 + b'"', "invalid-body"),
        (b'["' + b"A" * 300_000 + b'"]', "invalid-body"),
        (b'{"img": ""' + b" " * 300_000 + b"}", "invalid-body"),
        (b'""' * 300_000, "invalid-body"),
        (b'{"img": "AAAA", "more": [' + b"1," * 300_000 + b"1]}", "invalid-body"),
        (b"", "invalid-body"),
        (b" ", "invalid-body"),
        (b"\xef\xbb\xbf", "invalid-body"),
        (b"{", "invalid-body"),
        (b"url=http://a.example", "invalid-body"),
        (b"{'url': 'a'}", "invalid-body"),
        (b'{"url": "a"} x', "invalid-body"),
        (b'{"url": NaN}', "invalid-body"),
        (b'{"url": "\xff\xfe"}', "invalid-body"),
        (b'{"url": "\\ud800"}', "invalid-body"),
        ('{"url": "a"}'.encode("utf-16"), "invalid-body"),
        (b"[" * 50_000, "invalid-body"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "invalid-body"),
        (b'{"img": "Zm9v", "more": [' + b"[]," * 100_000 + b"[]]}", "invalid-body"),
        (b'{"img": "Zm9v", "more": ' + b'[{"a":' * 60_000, "invalid-body"),
        (b"null", "invalid-body"),
        (b"true", "invalid-body"),
        (b"5", "invalid-body"),
        (b'"url"', "invalid-body"),
        (b'["url"]', "invalid-body"),
        (b"{}", "no-picture"),
        (b'{"URL": "a"}', "no-picture"),
        (b'{"img": null}', "no-picture"),
        (b'{"img": 5}', "no-picture"),
        (b'{"img": ["Zm9v"]}', "no-picture"),
        (b'{"img": {"data": "Zm9v"}}', "no-picture"),
        (b'{"img": true}', "no-picture"),
        (b'{"url": null}', "fetch-bad-url"),
        (b'{"url": 5}', "fetch-bad-url"),
        (b'{"url": ["a"]}', "fetch-bad-url"),
        (b'{"url": "a", "img": "b"}', "url-and-img"),
        (b'{"url": null, "img": "b"}', "url-and-img"),
    ],
)
def test_what_nothing_is_given_by(body: bytes, kind: str) -> None:
    with pytest.raises(Problem) as caught:
        given_picture(body)
    assert caught.value.kind == kind
    assert "send" in caught.value.detail or kind == "invalid-base64"  # its text is the codec's


@pytest.mark.parametrize(
    ("body", "is_right"),
    [
        ({"url": "a"}, True),
        ({"img": "a", "more": 1}, True),
        ({}, False),
        ({"url": "a", "img": "b"}, False),
        ({"url": 1}, False),
        ({"img": None}, False),
        ([], False),
    ],
)
def test_the_schema_of_bodies(body: Any, is_right: bool) -> None:
    jsonschema.Draft202012Validator.check_schema(BODY_SCHEMA)
    assert jsonschema.Draft202012Validator(BODY_SCHEMA).is_valid(body) is is_right


# --- what is answered -------------------------------------------------------------------------------------------------


def face(x: float, confidence: float, **attributes: Any) -> Face:
    (shot,) = faces_of(fakes.faces((x, 100, 50, 0, confidence)))
    points = np.arange(212, dtype=np.float32).reshape(106, 2) / 4
    return Face(shot, None, {name: AttributeValue(value, 0.5) for name, value in attributes.items()}, points)


def test_a_face_is_told_as_the_kit_does() -> None:
    answer = answer_document(400, 200, [face(200, 0.75, gender="male", age=26.6)], "2.0.0")
    assert json.dumps(answer).startswith(
        '{"Faces": [{"BoundingBox": {"Width": 0.125, "Height": 0.25, "Left": 0.4375, "Top": 0.375}, '
        '"Confidence": 0.75, "landmark_106": [{"x": '
    )
    (told,) = answer["Faces"]
    assert list(told) == ["BoundingBox", "Confidence", "landmark_106", "gender", "age"]
    assert list(answer) == ["Faces", "FaceModelVersion"]
    assert told["age"] == 27
    assert told["gender"] == "male"
    assert answer["FaceModelVersion"] == "2.0.0"
    for number in [told["age"], *itertools.chain(*(point.values() for point in told["landmark_106"]))]:
        assert type(number) is int
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(answer)))


def test_no_faces() -> None:
    assert answer_document(1, 1, [], "1.2.0") == {"Faces": [], "FaceModelVersion": "1.2.0"}


def test_faces_come_best_first() -> None:
    told = answer_document(400, 200, [face(50, 0.5), face(150, 0.75), face(250, 0.625)], "")["Faces"]
    assert [one["Confidence"] for one in told] == [0.75, 0.625, 0.5]


def test_what_is_not_known_is_absent() -> None:
    shot = face(200, 0.5).shot
    assert list(answer_document(400, 200, [Face(shot)], "")["Faces"][0]) == ["BoundingBox", "Confidence"]
    known = {"age": AttributeValue(-0.7, 0.5), "mask": AttributeValue("none", 0.5)}
    (told,) = answer_document(400, 200, [Face(shot, None, known)], "")["Faces"]
    assert list(told) == ["BoundingBox", "Confidence", "age"]
    assert told["age"] == 0


def test_boxes_are_cut_at_the_picture() -> None:
    (told,) = answer_document(210, 110, [face(200, 0.5)], "")["Faces"]
    box = told["BoundingBox"]
    assert box["Left"] + box["Width"] == pytest.approx(1)
    assert box["Top"] + box["Height"] == pytest.approx(1)
    (told,) = answer_document(210, 110, [face(-500, 0.5)], "")["Faces"]
    assert told["BoundingBox"] == pytest.approx({"Width": 0, "Height": 35 / 110, "Left": 0, "Top": 75 / 110})


def test_every_point_is_told_once() -> None:
    assert sorted(POINT_ORDER.tolist()) == list(range(106))
    told = answer_document(400, 200, [face(200, 0.5)], "")["Faces"][0]["landmark_106"]
    assert told[0] == {"x": 8, "y": 8}  # the chin is the analyzer's point 16: (8.0, 8.25)


def test_the_version_of_the_networks() -> None:
    assert model_version("2", "1") == "2.1.0"
    assert model_version("2", None) == "2.0.0"


# --- what is refused --------------------------------------------------------------------------------------------------


def asked(*accept: str) -> Request:
    headers = [(b"accept", value.encode()) for value in accept]
    return Request({"type": "http", "method": "POST", "path": "/face_detection", "headers": headers})


def test_words_of_refusals() -> None:
    def words(kind: str, status: int = 418, name: str = "url") -> tuple[int, str]:
        response = refusal(Problem(HTTPStatus(status), kind, "because"), asked("*/*"), name)
        assert response.headers["x-visaged-problem"] == f"{kind}; because"
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        return response.status_code, bytes(response.body).decode()

    assert words("invalid-body") == (400, "invalid param")
    assert words("url-and-img") == (400, "`url` and `img` cannot be used at the same time")
    assert words("fetch-not-found") == (400, "`parameter `url` illegal")
    assert words("picture-unsupported") == (400, "`parameter `url` illegal")
    assert words("picture-damaged", name="img") == (400, "`parameter `img` illegal")
    assert words("picture-too-large", name="img") == (400, "`parameter `img` illegal: because")
    assert words("fetch-disabled") == (400, "`parameter `url` illegal: because")
    assert words("body-too-large", 413) == (413, "invalid param: because")
    assert words("overloaded", 503) == (503, "because")
    assert words("whatever comes later") == (418, "because")


@pytest.mark.parametrize(
    ("accept", "wants"),
    [
        (("application/problem+json",), True),
        (("application/json, application/problem+json;q=0.5",), True),
        (("text/html", "Application/Problem+JSON"), True),
        ((), False),
        (("*/*",), False),
        (("application/json",), False),
        (("application/problem+json;q=0",), False),
        (("application/problem+json ; q=0.0, */*",), False),
    ],
)
def test_who_gets_problem_details(accept: tuple[str, ...], wants: bool) -> None:
    response = refusal(Problem(HTTPStatus.BAD_GATEWAY, "fetch-status", "because"), asked(*accept))
    assert response.headers["vary"] == "Accept"
    if wants:
        assert response.status_code == 502
        assert response.headers["content-type"] == "application/problem+json"
        assert json.loads(bytes(response.body))["type"] == "urn:visaged:problem:fetch-status"
    else:
        assert response.status_code == 400


def test_causes_fit_a_header() -> None:
    response = refusal(Problem(HTTPStatus.BAD_REQUEST, "x", "a\r\nSet-Cookie: b\x00é{}" + "c" * 1000), asked())
    cause = response.headers["x-visaged-problem"]
    assert cause.startswith("x; a Set-Cookie: b {}ccc")
    assert len(cause) == 500
    for detail in ("a\n", "a ü", "c" * 496 + " d"):  # the server sends no value that ends in a space
        cause = refusal(Problem(HTTPStatus.BAD_REQUEST, "x", detail), asked()).headers["x-visaged-problem"]
        assert cause == cause.strip()


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings() -> None:
    assert KitSettings().max_side == 4096
    assert KitSettings(min_confidence=0.5).min_confidence == 0.5
    for wrong in ({"max_side": 0}, {"max_side": True}, {"min_confidence": -0.1}, {"upright": "stored"}, {"side": 1}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            KitSettings.model_validate(wrong)
