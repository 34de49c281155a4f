"""The OSS endpoint with the real clients, unmodified: oss2 and alibabacloud-oss-v2 over sockets."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.oss_endpoint import (
    KEY_ID,
    KEYS,
    ODD_KEYS,
    PICTURE,
    SECRET,
    Endpoint,
    Network,
    is_error,
    make_folder,
    real_network,
    serve,
)
from visaged.daemon.api.aliyun_oss.settings import OssSettings

with warnings.catch_warnings():
    # Old regular expressions, and packages that announce their own end; nothing of it is ours.
    warnings.simplefilter("ignore")
    import alibabacloud_oss_v2 as oss
    import oss2

pytestmark = [
    # oss2 signs with datetime.utcnow(), which Python 3.12 calls deprecated.
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
    # Neither client can be closed; their connections are left to the garbage collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
]

REGION = "cn-hangzhou"
AT = "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with real_network() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("buckets"))


@pytest.fixture(scope="module")
def endpoint(network: Network, folder: Path) -> Iterator[Endpoint]:
    """With a key."""
    buckets = [
        {"name": "imm-demo", "folder": str(folder), "domains": ["pictures.example.com"]},
        {"name": "listed", "objects": {"/lead/ing.jpg": str(PICTURE), "person.jpg": str(PICTURE)}},
        {"name": "everybody", "folder": str(folder), "public_read": True},
    ]
    with serve(
        network.pictures, {"buckets": buckets, "keys": KEYS, "endpoints": ["oss.example.com", "localhost"]}
    ) as running:
        yield running


@pytest.fixture(scope="module")
def open_endpoint(network: Network, folder: Path) -> Iterator[Endpoint]:
    """Without keys."""
    with serve(network.pictures, {"buckets": [{"name": "imm-demo", "folder": str(folder)}]}) as running:
        yield running


AUTHS = {
    "v1": lambda key_id, secret: oss2.Auth(key_id, secret),
    "v4": lambda key_id, secret: oss2.AuthV4(key_id, secret),
    "provider-v1": lambda key_id, secret: oss2.ProviderAuth(oss2.StaticCredentialsProvider(key_id, secret)),
    "provider-v4": lambda key_id, secret: oss2.ProviderAuthV4(oss2.StaticCredentialsProvider(key_id, secret)),
    "sts-v4": lambda key_id, secret: oss2.StsAuth(key_id, secret, "a-token", "v4"),
    "sts-v1": lambda key_id, secret: oss2.StsAuth(key_id, secret, "a-token"),
}


def bucket_of(
    endpoint: Endpoint, auth: Any = "v1", secret: str = SECRET, bucket: str = "imm-demo", **options: Any
) -> Any:
    chosen = AUTHS[auth](KEY_ID, secret) if isinstance(auth, str) else auth
    return oss2.Bucket(chosen, options.pop("url", endpoint.url), bucket, region=REGION, **options)


def client_of(endpoint: Endpoint, secret: str = SECRET, *, url: str | None = None, **options: Any) -> Any:
    config = oss.config.load_default()
    config.credentials_provider = oss.credentials.StaticCredentialsProvider(KEY_ID, secret)
    config.region = REGION
    config.endpoint = url or endpoint.url
    for name, value in options.items():
        setattr(config, name, value)
    return oss.Client(config)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a line in the hosts file would do: names below example.com are this machine."""
    real = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith("example.com") else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


# The fields in the order that the document's sample has them in.
SAMPLE_FACE = [
    "Age", "Attractive", "Emotion", "EmotionConfidence", "EmotionDetails", "FaceAttributes", "FaceConfidence", "FaceId",
    "Gender", "GenderConfidence",
]  # fmt: skip
SAMPLE_ATTRIBUTES = [
    "Beard", "BeardConfidence", "FaceBoundary", "Glasses", "GlassesConfidence", "Mask", "MaskConfidence",
]  # fmt: skip


# --- the document's own sample ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", AUTHS)
def test_the_sample_of_the_document(endpoint: Endpoint, auth: str) -> None:
    bucket = bucket_of(endpoint, auth)
    style = "imm/detectface"
    result = bucket.get_object("person.jpg", process=style)
    buf = result.read(result.content_length)
    answer = json.loads(buf)
    is_detectface(answer, "imm-demo", "person.jpg", 1024, 576)
    assert answer["RequestId"] == result.request_id
    assert result.content_type == "application/json"
    face = answer["Faces"][0]
    assert list(answer) == ["Faces", "ImageUri", "RequestId", "httpStatusCode", "success"]
    assert [name for name in face if name in SAMPLE_FACE] == SAMPLE_FACE
    assert [name for name in face["FaceAttributes"] if name in SAMPLE_ATTRIBUTES] == SAMPLE_ATTRIBUTES
    assert list(face["FaceAttributes"]["FaceBoundary"]) == ["Height", "Left", "Top", "Width"]


def is_detectface(answer: dict[str, Any], bucket: str, key: str, width: int, height: int) -> None:
    assert set(answer) == {"Faces", "ImageUri", "RequestId", "httpStatusCode", "success"}
    assert answer["ImageUri"] == f"oss://{bucket}/{key}"
    assert answer["httpStatusCode"] == 200
    assert answer["success"] is True
    assert re.fullmatch(r"[0-9A-F]{24}", answer["RequestId"])
    assert answer["Faces"]
    assert len({face["FaceId"] for face in answer["Faces"]}) == len(answer["Faces"])
    for face in answer["Faces"]:
        assert isinstance(face["Age"], int)
        assert 0 <= face["Attractive"] <= 1
        assert set(face["EmotionDetails"]) == {"ANGRY", "CALM", "DISGUSTED", "HAPPY", "SAD", "SCARED", "SURPRISED"}
        assert sum(face["EmotionDetails"].values()) == pytest.approx(1)
        assert (
            face["EmotionConfidence"] == face["EmotionDetails"][face["Emotion"]] == max(face["EmotionDetails"].values())
        )
        assert face["Gender"] in ("MALE", "FEMALE")
        assert re.fullmatch(r"[0-9a-f]{64}", face["FaceId"])
        for name in ("FaceConfidence", "FaceQuality", "GenderConfidence", "AgeConfidence", "AttractiveConfidence"):
            assert 0 <= face[name] <= 1
        attributes = face["FaceAttributes"]
        assert attributes["Glasses"] in ("NONE", "GLASSES", "SUNGLASSES")
        assert attributes["Mask"] in ("NONE", "HAVE")
        assert attributes.get("Beard", "NONE") in ("NONE", "HAVE")
        assert 0.5 <= attributes["GlassesConfidence"] <= 1
        assert 0.5 <= attributes["MaskConfidence"] <= 1
        box = attributes["FaceBoundary"]
        assert all(isinstance(value, int) for value in box.values())
        assert 0 <= box["Left"] < box["Left"] + box["Width"] <= width
        assert 0 <= box["Top"] < box["Top"] + box["Height"] <= height
        # What the document's prose speaks of.
        assert attributes["FaceRectangle"] == box
        assert attributes["Gender"] == {"Value": face["Gender"]}
        assert attributes["Age"] == {"Value": face["Age"]}
        pose = attributes["HeadPose"]
        assert [pose[n] for n in ("Pitch", "Roll", "Yaw")] == [pose[f"{n}Angle"] for n in ("Pitch", "Roll", "Yaw")]
        assert set(attributes["Blur"]["Blurness"]) == set(attributes["FaceQuality"]) == {"Value", "Threshold"}


def test_the_third_generation(endpoint: Endpoint) -> None:
    answer = json.loads(bucket_of(endpoint).get_object("person.jpg", process="image/faces").read())
    assert answer["Figures"] == answer["Faces"]
    faces = json.loads(bucket_of(endpoint).get_object("person.jpg", process="imm/detectface").read())["Faces"]
    assert len(faces) == len(answer["Figures"])
    for figure, face in zip(answer["Figures"], faces, strict=True):
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", figure["FigureId"])
        assert figure["FigureType"] == "face"
        assert figure["Age"] == face["Age"]
        assert figure["AgeSD"] > 0
        assert figure["Gender"] == face["Gender"].lower()
        assert figure["Boundary"] == face["FaceAttributes"]["FaceBoundary"]
        assert figure["Emotion"] in {"anger", "none", "disgust", "happiness", "sadness", "fear", "surprise"}
        assert figure["Glasses"] in {"none", "glasses", "sunglasses"}
        assert set(figure["HeadPose"]) == {"Pitch", "Roll", "Yaw"}
        assert 0 <= figure["Sharpness"] <= 1
        # Nothing reads mouths, and nobody is recognised.
        assert not {"Mouth", "FigureClusterId", "FigureClusterConfidence"} & set(figure)


@pytest.mark.parametrize("process", ["imm/detecface", "imm%2Fdetectface", "image%2Ffaces"])
def test_other_spellings(endpoint: Endpoint, process: str) -> None:
    assert json.loads(bucket_of(endpoint).get_object("person.jpg", process=process).read())["Faces"]


def test_the_process_in_the_url(open_endpoint: Endpoint) -> None:
    for value in ("imm/detectface", "imm%2Fdetectface", "imm%2fdetectface", "imm%252Fdetectface"):
        response, body = open_endpoint.ask(f"/imm-demo/person.jpg?x-oss-process={value}")
        assert response.status == 200
        is_detectface(json.loads(body), "imm-demo", "person.jpg", 1024, 576)


def test_face_ids_are_of_the_picture_and_the_face_alone(endpoint: Endpoint) -> None:
    def ids(key: str) -> list[str]:
        found = json.loads(bucket_of(endpoint).get_object(key, process="imm/detectface").read())
        return [face["FaceId"] for face in found["Faces"]]

    assert ids("person.jpg") == ids("sub/folder/person.jpg")
    assert not set(ids("person.jpg")) & set(ids("turned.jpg"))


def test_coordinates_are_of_the_upright_picture(endpoint: Endpoint) -> None:
    def boxes(key: str) -> list[list[int]]:
        found = json.loads(bucket_of(endpoint).get_object(key, process="imm/detectface").read())
        return sorted(list(face["FaceAttributes"]["FaceBoundary"].values()) for face in found["Faces"])

    for turned, plain in zip(boxes("turned.jpg"), boxes("person.jpg"), strict=True):
        assert turned == pytest.approx(plain, abs=8)


def test_a_picture_without_faces(endpoint: Endpoint) -> None:
    answer = json.loads(bucket_of(endpoint).get_object("nobody.png", process="imm/detectface").read())
    assert answer["Faces"] == []
    assert answer["success"] is True


@pytest.mark.parametrize(
    ("off", "fields", "inner"),
    [
        ("attractiveness", {"Attractive", "AttractiveConfidence"}, set()),
        ("emotion", {"Emotion", "EmotionConfidence", "EmotionDetails"}, set()),
        ("age", {"Age", "AgeConfidence"}, {"Age"}),
        ("gender", {"Gender", "GenderConfidence"}, {"Gender"}),
        ("head_pose", set(), {"HeadPose"}),
        ("blur", set(), {"Blur"}),
    ],
)
def test_attributes_switched_off(network: Network, folder: Path, off: str, fields: set[str], inner: set[str]) -> None:
    document = {"buckets": [{"name": "imm-demo", "folder": str(folder)}], "attributes": {off: False}}
    with serve(network.pictures, document) as endpoint:
        face = json.loads(endpoint.ask("/imm-demo/person.jpg?x-oss-process=imm/detectface")[1])["Faces"][0]
        figure = json.loads(endpoint.ask("/imm-demo/person.jpg?x-oss-process=image/faces")[1])["Figures"][0]
    everything = {"Attractive", "Emotion", "Age", "Gender"}
    assert not fields & set(face)
    assert everything - fields <= set(face)
    assert not inner & set(face["FaceAttributes"])
    assert not fields & set(figure)


# --- alibabacloud-oss-v2 ----------------------------------------------------------------------------------------------


def test_the_newer_client(endpoint: Endpoint) -> None:
    client = client_of(endpoint)
    request = oss.GetObjectRequest(bucket="imm-demo", key="person.jpg", process="imm/detectface")
    with client.get_object(request).body as body:
        is_detectface(json.loads(body.read()), "imm-demo", "person.jpg", 1024, 576)
    found = client.head_object(oss.HeadObjectRequest(bucket="imm-demo", key="person.jpg"))
    assert found.content_length == PICTURE.stat().st_size
    assert found.etag == f'"{hashlib.md5(PICTURE.read_bytes()).hexdigest().upper()}"'
    assert client.is_object_exist("imm-demo", "person.jpg") is True
    assert client.is_object_exist("imm-demo", "absent.jpg") is False
    assert client.get_object_meta(oss.GetObjectMetaRequest(bucket="imm-demo", key="person.jpg")).etag == found.etag
    result = client.get_object(oss.GetObjectRequest(bucket="imm-demo", key="person.jpg"))
    assert result.body.content == PICTURE.read_bytes()


def test_the_newer_client_with_additional_headers(endpoint: Endpoint) -> None:
    client = client_of(endpoint, additional_headers=["range", "host"])
    result = client.get_object(oss.GetObjectRequest(bucket="imm-demo", key="hello.txt", range_header="bytes=10-19"))
    assert result.body.content == bytes(range(10, 20))


def test_the_newer_client_with_version_1(endpoint: Endpoint) -> None:
    client = client_of(endpoint, signature_version="v1", retry_max_attempts=1)
    result = client.get_object(oss.GetObjectRequest(bucket="imm-demo", key="hello.txt"))
    assert result.body.content == bytes(range(100))
    # Its version 1 forgets that x-oss-process is signed (oss2 and OSS do not): with OSS itself it has to use version 4.
    with pytest.raises(oss.exceptions.OperationError) as caught:
        client.get_object(oss.GetObjectRequest(bucket="imm-demo", key="person.jpg", process="imm/detectface"))
    assert service_error(caught.value).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("version", ["v1", "v4"])
def test_urls_signed_by_the_newer_client(endpoint: Endpoint, version: str) -> None:
    client = client_of(endpoint, signature_version=version)
    process = None if version == "v1" else "imm/detectface"
    signed = client.presign(oss.GetObjectRequest(bucket="imm-demo", key="女/人像 图片.jpg", process=process))
    response, body = endpoint.ask(signed.url.removeprefix(endpoint.url))
    assert response.status == 200, body
    if process:
        assert json.loads(body)["ImageUri"] == "oss://imm-demo/女/人像 图片.jpg"


def service_error(error: Any) -> Any:
    while not isinstance(error, oss.exceptions.ServiceError):
        error = error.unwrap()
    return error


def test_errors_of_the_newer_client(endpoint: Endpoint) -> None:
    client = client_of(endpoint, retry_max_attempts=1)
    with pytest.raises(oss.exceptions.OperationError) as caught:
        client.get_object(oss.GetObjectRequest(bucket="imm-demo", key="absent.jpg", process="imm/detectface"))
    error = service_error(caught.value)
    assert (error.status_code, error.code) == (404, "NoSuchKey")
    assert re.fullmatch(r"[0-9A-F]{24}", error.request_id)
    with pytest.raises(oss.exceptions.OperationError) as caught:
        client.head_object(oss.HeadObjectRequest(bucket="imm-demo", key="absent.jpg"))
    assert service_error(caught.value).code == "NoSuchKey"
    with pytest.raises(oss.exceptions.OperationError) as caught:
        client_of(endpoint, "wrong", retry_max_attempts=1).get_object(
            oss.GetObjectRequest(bucket="imm-demo", key="person.jpg")
        )
    assert service_error(caught.value).code == "SignatureDoesNotMatch"


# --- keys, styles and names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", ["v1", "v4"])
@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys(endpoint: Endpoint, auth: str, key: str) -> None:
    bucket = bucket_of(endpoint, auth)
    assert bucket.get_object(key).read() == PICTURE.read_bytes()
    assert bucket.head_object(key).content_length == PICTURE.stat().st_size
    for slash_safe in (False, True):
        url = bucket.sign_url("GET", key, 60, slash_safe=slash_safe)
        assert endpoint.ask(url.removeprefix(endpoint.url))[1] == PICTURE.read_bytes()
    if auth == "v4":
        result = client_of(endpoint).get_object(oss.GetObjectRequest(bucket="imm-demo", key=key))
        assert result.body.content == PICTURE.read_bytes()


@pytest.mark.parametrize("auth", ["v1", "v4"])
def test_keys_that_begin_with_a_slash(endpoint: Endpoint, auth: str) -> None:
    bucket = bucket_of(endpoint, auth, bucket="listed", is_verify_object_strict=False)
    assert bucket.get_object("/lead/ing.jpg").read() == PICTURE.read_bytes()
    # No file of a folder has such a name.
    with pytest.raises(oss2.exceptions.NoSuchKey):
        bucket_of(endpoint, auth, is_verify_object_strict=False).get_object("/person.jpg")
    assert client_of(endpoint).get_object(oss.GetObjectRequest(bucket="listed", key="/lead/ing.jpg")).status_code == 200


@pytest.mark.parametrize("auth", ["v1", "v4"])
@pytest.mark.usefixtures("names")
def test_virtual_hosts(endpoint: Endpoint, auth: str) -> None:
    url = f"http://oss.example.com:{endpoint.port}"
    bucket = bucket_of(endpoint, auth, url=url)
    result = bucket.get_object("sub/folder/person.jpg", process="imm/detectface")
    assert urlsplit(result.resp.response.url).hostname == "imm-demo.oss.example.com"
    assert json.loads(result.read())["ImageUri"] == "oss://imm-demo/sub/folder/person.jpg"
    path_style = bucket_of(endpoint, auth, url=url, is_path_style=True)
    assert path_style.get_object("hello.txt").read() == bytes(range(100))
    own_name = bucket_of(endpoint, auth, url=f"http://pictures.example.com:{endpoint.port}", is_cname=True)
    assert own_name.get_object("hello.txt").read() == bytes(range(100))
    assert own_name.object_exists("absent.jpg") is False
    client = client_of(endpoint, url=url)
    assert client.get_object(oss.GetObjectRequest(bucket="imm-demo", key="hello.txt")).body.content == bytes(range(100))


@pytest.mark.parametrize("auth", ["v1", "v4"])
def test_a_host_header_names_the_bucket(endpoint: Endpoint, auth: str) -> None:
    target = urlsplit(bucket_of(endpoint, auth).sign_url("GET", "hello.txt", 60))
    for host in ("imm-demo.oss.example.com", "IMM-DEMO.OSS.example.com:80", "imm-demo.localhost:8081"):
        response, body = endpoint.ask(f"/hello.txt?{target.query}", headers={"Host": host})
        assert response.status == 200, body
        assert body == bytes(range(100))
    response, body = endpoint.ask(f"/hello.txt?{target.query}", headers={"Host": "everybody.oss.example.com"})
    assert is_error(response, body, 403, "SignatureDoesNotMatch")["HostId"] == "everybody.oss.example.com"


def test_an_endpoint_with_a_path_is_none_to_the_clients(endpoint: Endpoint) -> None:
    """Why the endpoint has a port of its own: the path is dropped before anything is sent."""
    bucket = bucket_of(endpoint, url=f"{endpoint.url}/oss")
    assert bucket.get_object("hello.txt").read() == bytes(range(100))
    client = client_of(endpoint, url=f"{endpoint.url}/oss")
    assert client.get_object(oss.GetObjectRequest(bucket="imm-demo", key="hello.txt")).body.content == bytes(range(100))


# --- signatures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", AUTHS)
def test_a_wrong_secret(endpoint: Endpoint, auth: str) -> None:
    with pytest.raises(oss2.exceptions.ServerError) as caught:
        bucket_of(endpoint, auth, "wrong").get_object("person.jpg", process="imm/detectface")
    error = caught.value
    assert (error.status, error.code) == (403, "SignatureDoesNotMatch")
    assert error.details["OSSAccessKeyId"] == KEY_ID
    assert error.details["StringToSign"]
    assert error.request_id == error.details["RequestId"]
    assert error.ec == error.headers["x-oss-ec"]


@pytest.mark.parametrize("make", [oss2.Auth, oss2.AuthV4])
def test_an_unknown_key(endpoint: Endpoint, make: Any) -> None:
    with pytest.raises(oss2.exceptions.ServerError) as caught:
        bucket_of(endpoint, make("nobody", SECRET)).get_object("person.jpg")
    assert (caught.value.status, caught.value.code) == (403, "InvalidAccessKeyId")


def test_the_signature_version_that_is_not_served(endpoint: Endpoint) -> None:
    with pytest.raises(oss2.exceptions.ServerError) as caught:
        bucket_of(endpoint, oss2.AuthV2(KEY_ID, SECRET)).get_object("person.jpg")
    assert (caught.value.status, caught.value.code) == (400, "InvalidArgument")
    assert "version 4" in caught.value.message


def test_requests_without_a_signature(endpoint: Endpoint, open_endpoint: Endpoint) -> None:
    with pytest.raises(oss2.exceptions.AccessDenied):
        bucket_of(endpoint, oss2.AnonymousAuth()).get_object("person.jpg")
    # Not even whether a bucket is there.
    with pytest.raises(oss2.exceptions.AccessDenied):
        bucket_of(endpoint, oss2.AnonymousAuth(), bucket="absent").get_object("person.jpg")
    public = bucket_of(endpoint, oss2.AnonymousAuth(), bucket="everybody")
    assert json.loads(public.get_object("person.jpg", process="imm/detectface").read())["Faces"]
    with pytest.raises(oss2.exceptions.ServerError) as caught:
        bucket_of(endpoint, secret="wrong", bucket="everybody").get_object("person.jpg")
    assert caught.value.code == "SignatureDoesNotMatch"
    for auth in ("v1", "v4", oss2.AnonymousAuth()):
        assert bucket_of(open_endpoint, auth, "any secret").get_object("hello.txt").read() == bytes(range(100))


@pytest.mark.parametrize("auth", ["v1", "v4", "sts-v1", "sts-v4"])
def test_signed_urls(endpoint: Endpoint, auth: str) -> None:
    bucket = bucket_of(endpoint, auth)
    url = bucket.sign_url("GET", "person.jpg", 60, params={"x-oss-process": "imm/detectface"})
    target = url.removeprefix(endpoint.url)
    response, body = endpoint.ask(target)
    assert response.status == 200, body
    is_detectface(json.loads(body), "imm-demo", "person.jpg", 1024, 576)
    for changed in (
        target.replace("detectface", "detecface"),
        target.replace("person.jpg", "hello.txt"),
        re.sub(r"(ignature=)..", r"\1AA", target),
    ):
        assert changed != target
        response, body = endpoint.ask(changed)
        is_error(response, body, 403, "SignatureDoesNotMatch")
    response, body = endpoint.ask(target, "HEAD")
    assert response.status == 403


@pytest.mark.parametrize("auth", ["v1", "v4"])
def test_clocks(network: Network, folder: Path, auth: str) -> None:
    document = {
        "buckets": [{"name": "imm-demo", "folder": str(folder)}],
        "keys": KEYS,
    }
    ahead_s = 0.0
    with serve(network.pictures, document, lambda: time.time() + ahead_s) as endpoint:
        bucket = bucket_of(endpoint, auth)
        url = bucket.sign_url("GET", "hello.txt", 60).removeprefix(endpoint.url)
        for ahead_s in (-890.0, 0.0, 890.0):  # noqa: B007 - the server's clock reads it
            assert bucket.get_object("hello.txt").status == 200
        for ahead_s in (-910.0, 910.0):  # noqa: B007
            with pytest.raises(oss2.exceptions.ServerError) as caught:
                bucket.get_object("hello.txt")
            assert (caught.value.status, caught.value.code) == (403, "RequestTimeTooSkewed")
            assert caught.value.details["MaxAllowedSkewMilliseconds"] == "900000"
        ahead_s = 50.0
        assert endpoint.ask(url)[0].status == 200
        ahead_s = 61.0
        found = is_error(*endpoint.ask(url), 403, "AccessDenied")
        assert found["Message"] == "Request has expired."
        ahead_s = -1000.0
        if auth == "v4":
            assert is_error(*endpoint.ask(url), 403, "AccessDenied")["Message"] == "Request is not valid yet."


def test_a_region_of_its_own(network: Network, folder: Path) -> None:
    document = {
        "region": "cn-beijing",
        "buckets": [{"name": "imm-demo", "folder": str(folder)}],
        "keys": KEYS,
    }
    with serve(network.pictures, document) as endpoint:
        with pytest.raises(oss2.exceptions.ServerError) as caught:
            bucket_of(endpoint, "v4").get_object("hello.txt")
        assert caught.value.code == "InvalidArgument"
        assert "cn-beijing" in caught.value.message
        assert bucket_of(endpoint, "v1").get_object("hello.txt").status == 200


def test_secrets_are_in_no_log(endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "visaged"), contextlib.suppress(oss2.exceptions.ServerError):
        bucket_of(endpoint, "v1", "wrong").get_object("person.jpg")
    with caplog.at_level("DEBUG", "visaged"):
        bucket_of(endpoint, "v4").get_object("person.jpg")
    assert SECRET not in caplog.text
    assert SECRET not in repr(OssSettings.model_validate({"keys": KEYS}))


# --- objects as they are ----------------------------------------------------------------------------------------------


def test_what_is_known_of_an_object(endpoint: Endpoint) -> None:
    bucket = bucket_of(endpoint)
    for found in (bucket.head_object("hello.txt"), bucket.get_object("hello.txt")):
        assert found.content_length == 100
        assert found.content_type == "text/plain"
        assert found.etag == hashlib.md5(bytes(range(100))).hexdigest().upper()
        assert found.last_modified == 1_700_000_000
        assert found.object_type == "Normal"
        assert found.server_crc is None
        assert re.fullmatch(r"[0-9A-F]{24}", found.request_id)
    found = bucket.get_object_meta("hello.txt")
    assert (found.content_length, found.last_modified) == (100, 1_700_000_000)
    assert bucket.object_exists("hello.txt") is True
    assert bucket.object_exists("absent.txt") is False
    assert bucket.head_object("person.jpg").content_type == "image/jpeg"
    assert bucket.head_object("huge.jpg").content_length == 21 * 2**20
    # It is computed anew when the file changes.
    assert bucket.get_object("empty.jpg").read() == b""


def test_downloads(endpoint: Endpoint, tmp_path: Path) -> None:
    bucket = bucket_of(endpoint)
    bucket.get_object_to_file("person.jpg", str(tmp_path / "a.jpg"))
    assert (tmp_path / "a.jpg").read_bytes() == PICTURE.read_bytes()
    oss2.resumable_download(
        bucket, "person.jpg", str(tmp_path / "b.jpg"), multiget_threshold=1000, part_size=8192, num_threads=3,
        store=oss2.ResumableDownloadStore(root=str(tmp_path)),
    )  # fmt: skip
    assert (tmp_path / "b.jpg").read_bytes() == PICTURE.read_bytes()


def test_ranges_of_the_clients(endpoint: Endpoint) -> None:
    result = bucket_of(endpoint).get_object("hello.txt", byte_range=(20, 29))
    assert result.read() == bytes(range(20, 30))
    assert result.content_range == "bytes 20-29/100"
    with pytest.raises(oss2.exceptions.ServerError) as caught:
        bucket_of(endpoint).get_object("hello.txt", (500, 600), {"x-oss-range-behavior": "standard"})
    assert (caught.value.status, caught.value.code) == (416, "InvalidRange")


def test_conditions_of_the_clients(endpoint: Endpoint) -> None:
    bucket = bucket_of(endpoint)
    with pytest.raises(oss2.exceptions.NotModified):
        bucket.get_object("hello.txt", headers={"if-none-match": bucket.head_object("hello.txt").etag})
    with pytest.raises(oss2.exceptions.PreconditionFailed):
        bucket.get_object("hello.txt", headers={"if-match": "other"})


def test_headers_that_a_client_wants(endpoint: Endpoint) -> None:
    wanted = {"response-content-type": "text/x-own", "response-content-disposition": 'attachment; filename="a b.txt"'}
    found = bucket_of(endpoint).get_object("hello.txt", params=dict(wanted))
    assert found.headers["content-type"] == "text/x-own"
    assert found.headers["content-disposition"] == 'attachment; filename="a b.txt"'
    with pytest.raises(oss2.exceptions.ServerError) as caught:
        bucket_of(endpoint).get_object("hello.txt", params={"response-expires": "a\r\nSet-Cookie: b"})
    assert (caught.value.status, caught.value.code) == (400, "InvalidArgument")
    for blank in (" ", " a", "a "):  # which no server may send
        with pytest.raises(oss2.exceptions.ServerError) as caught:
            bucket_of(endpoint).get_object("hello.txt", params={"response-content-type": blank})
        assert (caught.value.status, caught.value.code) == (400, "InvalidArgument")
    response, body = endpoint.ask("/everybody/hello.txt?response-content-type=text/html")
    is_error(response, body, 400, "InvalidArgument")


def test_pages_of_other_origins(endpoint: Endpoint, open_endpoint: Endpoint) -> None:
    page = {"Origin": "https://shop.example", "Sec-Fetch-Site": "cross-site"}
    work = "person.jpg?x-oss-process=image/faces"
    for response, body in (
        open_endpoint.ask(f"/imm-demo/{work}", headers=page),
        endpoint.ask(f"/everybody/{work}", headers=page),
    ):
        assert "page of another site" in is_error(response, body, 403, "AccessDenied")["Message"]
    # A page that has a signed URL may use it, and show what it leads to.
    signed = urlsplit(bucket_of(endpoint).sign_url("GET", "person.jpg", 60, params={"x-oss-process": "image/faces"}))
    response, body = endpoint.ask(f"{signed.path}?{signed.query}", headers=page)
    assert (response.status, len(json.loads(body)["Figures"])) == (200, 4)
    signed = urlsplit(bucket_of(endpoint).sign_url("GET", "person.jpg", 60))
    response, _ = endpoint.ask(f"{signed.path}?{signed.query}", headers=page)
    assert response.headers["cross-origin-resource-policy"] == "cross-origin"
    # HTML that a signature asks for is saved, and would have no origin in the browser.
    wanted = {"response-content-type": "text/html", "response-content-disposition": "inline; filename=a.htm"}
    signed = urlsplit(bucket_of(endpoint).sign_url("GET", "person.jpg", 60, params=wanted))
    response, _ = endpoint.ask(f"{signed.path}?{signed.query}", headers=page)
    assert response.headers["content-type"] == "text/html"
    assert response.headers["content-disposition"] == "attachment; filename=a.htm"
    assert response.headers["content-security-policy"] == "sandbox"


def test_heads_have_no_body(open_endpoint: Endpoint) -> None:
    response, body = open_endpoint.ask("/imm-demo/absent.jpg", "HEAD")
    assert response.status == 404
    assert body == b""
    assert response.headers["x-oss-err"]
    assert response.headers["x-oss-ec"] == "0026-00000001"
    with pytest.raises(oss2.exceptions.NoSuchBucket):
        bucket_of(open_endpoint, bucket="absent").head_object("a")


def test_uploads_of_the_clients(endpoint: Endpoint, folder: Path) -> None:
    with pytest.raises(oss2.exceptions.ServerError) as caught:
        bucket_of(endpoint).put_object("new.jpg", b"x")
    assert (caught.value.status, caught.value.code) == (405, "MethodNotAllowed")
    with pytest.raises(oss2.exceptions.ServerError):
        bucket_of(endpoint).delete_object("person.jpg")
    assert (folder / "person.jpg").exists()
    assert not (folder / "new.jpg").exists()


@pytest.mark.parametrize(
    ("headers", "query", "status", "code"),
    [
        ({"Authorization": "Bearer x"}, "", 400, "InvalidArgument"),
        ({"Authorization": "OSS"}, "", 400, "InvalidArgument"),
        ({"Authorization": "OSS x"}, "", 400, "InvalidArgument"),
        ({"Authorization": f"OSS {KEY_ID}:AAAA"}, "", 403, "AccessDenied"),
        ({"Authorization": f"OSS {KEY_ID}:AAAA", "Date": "never"}, "", 403, "AccessDenied"),
        ({"Authorization": f"OSS {KEY_ID}:AAAA", "Date": AT}, "", 403, "RequestTimeTooSkewed"),
        ({"Authorization": "OSS4-HMAC-SHA256 Credential=x"}, "", 400, "InvalidArgument"),
        ({"Authorization": "OSS4-HMAC-SHA256 ,,,=,"}, "", 400, "InvalidArgument"),
        ({}, f"OSSAccessKeyId={KEY_ID}", 403, "AccessDenied"),
        ({}, f"OSSAccessKeyId={KEY_ID}&Expires=x&Signature=y", 403, "AccessDenied"),
        ({}, f"OSSAccessKeyId={KEY_ID}&Expires=99999999999&Signature=%ff", 403, "SignatureDoesNotMatch"),
        ({}, "OSSAccessKeyId=%ff&Expires=99999999999&Signature=%ff", 403, "InvalidAccessKeyId"),
        ({}, "x-oss-signature-version=OSS2", 400, "InvalidArgument"),
        ({}, "x-oss-signature-version=OSS4-HMAC-SHA256", 403, "AccessDenied"),
        (
            {},
            "x-oss-signature-version=OSS4-HMAC-SHA256&x-oss-credential=a&x-oss-date=b&x-oss-expires=0&x-oss-signature=d",
            400,
            "InvalidArgument",
        ),
        (
            {},
            f"x-oss-signature-version=OSS4-HMAC-SHA256&x-oss-credential={KEY_ID}/20260101/a/oss/aliyun_v4_request"
            "&x-oss-date=b&x-oss-expires=60&x-oss-signature=d",
            403,
            "AccessDenied",
        ),
        (
            {},
            f"x-oss-signature-version=OSS4-HMAC-SHA256&x-oss-credential={KEY_ID}/20260101/a/s3/aliyun_v4_request"
            "&x-oss-date=20260101T000000Z&x-oss-expires=60&x-oss-signature=d",
            400,
            "InvalidArgument",
        ),
    ],
)
def test_bad_signatures(endpoint: Endpoint, headers: dict[str, str], query: str, status: int, code: str) -> None:
    response, body = endpoint.ask(f"/imm-demo/person.jpg?{query}", headers=headers)
    is_error(response, body, status, code)
