"""The HTTP API of a running daemon: good pictures, bad ones, many at once, and what it tells of itself."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import random
import re
import socket
import string
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import jsonschema
import numpy as np
import pytest
import yaml
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.pictures import cut, encoded
from tests.support import access_server
from tests.support.bitmaps import RLE4, RLE8, bitmap, run_lengths
from tests.support.broker import free_port
from tests.support.process import ManagedProcess
from tests.support.waiting import until
from visaged.daemon.app import Daemon
from visaged.daemon.http import uploads
from visaged.daemon.settings import parse
from visaged.models.detector import Detector
from visaged.models.manifest import Manifest
from visaged.pipelines.images import analyze
from visaged.pipelines.images.decode import load

VISAGED = Path(sys.executable).with_name("visaged")
START_S = 60.0
ANSWER_S = 60.0
FACES = "/v1/faces"
PROBLEM = "application/problem+json"

Post = Callable[..., httpx.Response]


class Server:
    """A daemon as a process, with one camera and a broker that is not there."""

    def __init__(self, folder: Path, clip: Path) -> None:
        config = folder / "visaged.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "node": "tester",
                    "http": {"port": 0},
                    "mqtt": {"port": free_port()},
                    "cameras": [{"name": "door", "url": str(clip), "loop": True, "fps": 1}],
                }
            )
        )
        self.process = ManagedProcess(
            [str(VISAGED), "run", "--config", str(config)],
            # When a client goes away in the middle, uvicorn may leave its transport to the garbage collector.
            env=os.environ | {"PYTHONWARNINGS": "error,ignore::ResourceWarning"},
        )
        line = self.process.wait_for_line("/docs", START_S)
        found = re.search(r"http://\S+(?=/docs)", line)
        assert found is not None
        self.url = found[0]
        self.host, self.port = "127.0.0.1", urlsplit(self.url).port or 0
        self.client = httpx.Client(base_url=self.url, timeout=ANSWER_S, trust_env=False)
        until(lambda: self.client.get("/readyz").status_code == 200, START_S)

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024

    def raw(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), ANSWER_S)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, demo_clip: Path) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("http"), demo_clip)
    try:
        yield running
        assert running.process.is_running
        # None of the bad requests was worth a traceback.
        lines = running.process.lines
        bad = [index for index, line in enumerate(lines) if "Traceback" in line or " ERROR " in line]
        assert not bad, "\n".join(lines[max(0, bad[0] - 5) : bad[0] + 60])
    finally:
        running.client.close()
        running.process.stop()


@pytest.fixture(scope="module")
def picture(demo_clip: Path) -> Image.Image:
    return cut(demo_clip, 5.0)


@pytest.fixture(scope="module")
def jpeg(picture: Image.Image) -> bytes:
    return encoded(picture)


@pytest.fixture(scope="module")
def small_jpeg() -> bytes:
    return encoded(Image.new("RGB", (64, 48), (90, 120, 90)))


@pytest.fixture
def post(server: Server) -> Post:
    def send(body: bytes, headers: dict[str, str] | None = None, **query: str) -> httpx.Response:
        return server.client.post(FACES, content=body, headers=headers, params=query)

    return send


@contextlib.contextmanager
def daemon(**document: Any) -> Iterator[tuple[Daemon, httpx.Client]]:
    """A daemon in this process, without cameras."""
    settings = parse({"http": {"port": 0} | document.pop("http", {}), "mqtt": {"port": free_port()}, **document})
    running = Daemon(settings, "test")
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        with httpx.Client(base_url=running.web.http_address, timeout=ANSWER_S, trust_env=False) as client:
            until(lambda: client.get("/healthz").status_code == 200, START_S)
            yield running, client
    finally:
        running.stop()
        thread.join(START_S)
    assert not thread.is_alive()


def is_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document, checked."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    document: dict[str, Any] = response.json()
    assert document["type"].startswith("urn:visaged:problem:")
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document


def overlap(first: list[float], second: list[float]) -> float:
    a, b = np.array(first), np.array(second)
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


@pytest.mark.parametrize("kind", ["jpeg", "png", "bmp", "webp"])
@pytest.mark.parametrize("how", ["raw", "typed", "multipart"])
def test_faces_of_every_kind_of_file(server: Server, picture: Image.Image, kind: str, how: str) -> None:
    body = encoded(picture, kind)
    if how == "multipart":
        response = server.client.post(FACES, files={"file": ("a", body)}, data={"note": "x"})
    else:
        response = server.client.post(
            FACES, content=body, headers={"content-type": f"image/{kind}"} if how == "typed" else {}
        )
    assert response.status_code == 200
    answer = response.json()
    assert answer["image"] == {"width": picture.width, "height": picture.height}
    assert answer["faces"]
    api = server.client.get("/openapi.json").json()
    schema = api["paths"][FACES]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(answer)


def test_faces_are_read_and_ordered(post: Post, jpeg: bytes) -> None:
    faces = post(jpeg).json()["faces"]
    confidences = [face["confidence"] for face in faces]
    assert confidences == sorted(confidences, reverse=True)
    for face in faces:
        x1, y1, x2, y2 = face["box"]
        assert x1 < x2
        assert y1 < y2
        assert len(face["landmarks_5"]) == 5
        assert "landmarks_106" not in face
        assert "track_id" not in face
        assert {"age", "gender", "emotion", "head_pose", "blur"} <= set(face["attributes"])


@pytest.mark.parametrize("kind", [RLE8, RLE4])
def test_run_length_encoded_bitmaps_show_their_faces(post: Post, picture: Image.Image, kind: int) -> None:
    # As ImageMagick does, rows are encoded with their padding.
    small = picture.resize((637, 358)).quantize(256 if kind == RLE8 else 16)
    palette = np.array(small.getpalette(), np.uint8).reshape(-1, 3)[:, ::-1]
    indices = np.pad(np.asarray(small), ((0, 0), (0, 3)), "edge")
    bits = 8 if kind == RLE8 else 4
    response = post(bitmap(small.size, bits, run_lengths(indices, kind == RLE4), kind, palette))
    assert response.status_code == 200, response.text
    assert response.json()["image"] == {"width": 637, "height": 358}
    assert response.json()["faces"]


def test_the_confidence_wanted(post: Post, jpeg: bytes) -> None:
    everything = post(jpeg, min_confidence="0.2").json()["faces"]
    usual = post(jpeg).json()["faces"]
    assert len(everything) >= len(usual) >= 1
    bound = usual[0]["confidence"]
    assert all(face["confidence"] >= 0.9 for face in post(jpeg, min_confidence="0.9").json()["faces"])
    assert post(jpeg, min_confidence="1").json()["faces"] == [] or bound == 1


def test_confidences_below_the_detector_s_floor_are_answered_from_the_floor_up(
    server: Server, post: Post, jpeg: bytes
) -> None:
    at_the_floor = post(jpeg, min_confidence="0.35")
    for least in ("0.02", "0", "0.2"):
        response = post(jpeg, min_confidence=least)
        assert response.status_code == 200
        assert response.json() == at_the_floor.json()
    parameters = server.client.get("/openapi.json").json()["paths"][FACES]["post"]["parameters"]
    text = next(one["description"] for one in parameters if one["name"] == "min_confidence")
    assert "nothing below 0.35 (tracker.low_confidence in the configuration)" in text


def test_all_landmarks(server: Server, post: Post, jpeg: bytes) -> None:
    for face in post(jpeg, landmarks="106", attributes="").json()["faces"]:
        assert len(face["landmarks_106"]) == 106
        assert face["attributes"] == {}
        points, box = np.array(face["landmarks_106"]), face["box"]
        inside = (points >= np.array(box[:2]) - 20) & (points <= np.array(box[2:]) + 20)
        assert inside.mean() > 0.9


def test_the_attributes_wanted(post: Post, jpeg: bytes) -> None:
    faces = post(jpeg, attributes="age,gender").json()["faces"]
    assert faces
    assert all(set(face["attributes"]) == {"age", "gender"} for face in faces)
    assert all(face["attributes"] == {} for face in post(jpeg, attributes="").json()["faces"])
    spaced = post(jpeg, attributes=" gender , ,age").json()["faces"]
    assert all(set(face["attributes"]) == {"age", "gender"} for face in spaced)


@pytest.mark.parametrize(
    "query",
    [
        {"attributes": "age,shoe_size"},
        {"attributes": "landmarks_106"},
        {"landmarks": "68"},
        {"landmarks": ""},
        {"min_confidence": "-0.1"},
        {"min_confidence": "1.1"},
        {"min_confidence": "nan"},
        {"min_confidence": "high"},
    ],
)
def test_wrong_parameters(post: Post, jpeg: bytes, query: dict[str, str]) -> None:
    document = is_problem(post(jpeg, **query), 400)
    assert document["type"] == "urn:visaged:problem:invalid-parameter"
    assert next(iter(query)) in document["detail"]


def test_random_parameters_are_answered_or_refused(post: Post, small_jpeg: bytes) -> None:
    draw = random.Random(4)
    names = ["min_confidence", "landmarks", "attributes", "x", "", "min_confidence[]"]
    pieces = [
        "0.5",
        "1e999",
        "-0",
        "106",
        "5",
        "age",
        ",",
        "%",
        "\x00",
        "é",
        "\ud7ff",
        "'",
        " ",
        "null",
        "0x1",
        "9" * 400,
    ]
    for _ in range(40):
        query = {draw.choice(names): "".join(draw.choices(pieces, k=draw.randint(0, 3))) for _ in range(2)}
        response = post(small_jpeg, **query)
        if response.status_code != 200:
            is_problem(response, 400)


def test_random_raw_queries(server: Server, small_jpeg: bytes) -> None:
    draw = random.Random(5)
    for _ in range(30):
        query = quote("".join(draw.choices(string.printable, k=20)), safe="&=%;+")
        connection = http.client.HTTPConnection(server.host, server.port, timeout=ANSWER_S)
        with contextlib.closing(connection):
            connection.request("POST", f"{FACES}?{query}", small_jpeg)
            assert connection.getresponse().status in (200, 400)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
@pytest.mark.parametrize(
    ("orientation", "transposed"), [(6, Image.Transpose.ROTATE_90), (3, Image.Transpose.ROTATE_180)]
)
def test_orientation_is_honoured(
    post: Post, picture: Image.Image, kind: str, orientation: int, transposed: Image.Transpose
) -> None:
    upright = post(encoded(picture, kind)).json()
    turned = post(encoded(picture.transpose(transposed), kind, orientation)).json()
    assert turned["image"] == upright["image"]
    assert len(turned["faces"]) == len(upright["faces"])
    for face in upright["faces"]:
        assert max(overlap(face["box"], other["box"]) for other in turned["faces"]) > 0.8


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16", "CMYK"])
def test_pictures_of_every_mode(post: Post, picture: Image.Image, mode: str) -> None:
    if mode == "I;16":
        deep = (np.asarray(picture.convert("L")).astype(np.uint16) << 8) + 7
        body = encoded(Image.fromarray(deep), "png")
    else:
        body = encoded(picture.convert(mode), "jpeg" if mode == "CMYK" else "png")
    answer = post(body)
    assert answer.status_code == 200
    assert mode == "1" or answer.json()["faces"]


@pytest.mark.parametrize("size", [(1, 1), (2000, 1), (1, 3000), (33, 7)])
def test_odd_sizes(post: Post, size: tuple[int, int]) -> None:
    answer = post(encoded(Image.new("RGB", size), "png")).json()
    assert answer == {"image": {"width": size[0], "height": size[1]}, "faces": []}


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 400, "picture-empty"),
        (b"hello, this is text", 415, "picture-unsupported"),
        (b"\x89PNG\r\n\x1a\n", 415, "picture-unsupported"),
        (b"GIF89a" + bytes(100), 415, "picture-unsupported"),
        (b"%PDF-1.7", 415, "picture-unsupported"),
        (bytes(1000), 415, "picture-unsupported"),
    ],
)
def test_bodies_that_are_no_picture(post: Post, body: bytes, status: int, kind: str) -> None:
    assert is_problem(post(body), status)["type"] == f"urn:visaged:problem:{kind}"


@pytest.mark.parametrize("kind", ["jpeg", "png", "bmp", "webp"])
def test_truncated_pictures_are_refused(post: Post, picture: Image.Image, kind: str) -> None:
    whole = encoded(picture, kind)
    for share in (0.01, 0.3, 0.9):
        response = post(whole[: int(len(whole) * share)])
        assert response.status_code in (415, 422)
        is_problem(response, response.status_code)


def test_damaged_pictures_never_break_anything(post: Post, picture: Image.Image) -> None:
    draw = random.Random(6)
    small = picture.resize((320, 180))
    for kind in ("jpeg", "png", "bmp", "webp"):
        whole = encoded(small, kind)
        for _ in range(12):
            broken = bytearray(whole)
            for _ in range(draw.randint(1, 20)):
                broken[draw.randrange(min(len(broken), 600))] = draw.randrange(256)
            assert post(bytes(broken)).status_code in (200, 413, 415, 422)


def test_bodies_of_30_mb(server: Server, post: Post) -> None:
    body = bytes(30_000_000)
    document = is_problem(post(body), 413)
    assert document["type"] == "urn:visaged:problem:body-too-large"
    assert "20 MB" in document["detail"]
    chunked = server.client.post(FACES, content=(body[:65536] for _ in range(460)))
    assert is_problem(chunked, 413)["type"] == "urn:visaged:problem:body-too-large"
    form = server.client.post(FACES, files={"file": ("a", body)})
    assert is_problem(form, 413)["type"] == "urn:visaged:problem:body-too-large"


def test_the_largest_body_is_taken(post: Post, small_jpeg: bytes) -> None:
    assert post(small_jpeg + bytes(19_900_000)).status_code == 200


def test_pictures_of_20000_by_20000_pixels_are_refused_unseen(server: Server, post: Post) -> None:
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    before = server.memory_mb()
    began = time.monotonic()
    document = is_problem(post(file.getvalue()), 413)
    assert document["type"] == "urn:visaged:problem:picture-too-large"
    assert "20000 x 20000" in document["detail"]
    assert time.monotonic() - began < 10
    assert server.memory_mb() - before < 100


def test_large_pictures_at_once_take_bounded_memory(server: Server, post: Post) -> None:
    file = io.BytesIO()
    Image.new("RGB", (7000, 7000), (10, 20, 30)).save(file, "PNG")  # 49 megapixels in 160 kB
    status = Path(f"/proc/{server.process.pid}/status")
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: post(file.getvalue()), range(5)))
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert any(answer.status_code == 200 for answer in answers)
    peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert peak is not None
    assert int(peak[1]) / 1024 < 2000  # it was 3.5 GB when they were all taken in


def test_multipart_that_is_wrong(server: Server, small_jpeg: bytes) -> None:
    client = server.client

    def kind(response: httpx.Response) -> str:
        return str(is_problem(response, 400)["type"])

    wrong = "urn:visaged:problem:bad-multipart"
    two = [("file", ("a", small_jpeg)), ("file", ("b", small_jpeg))]
    assert kind(client.post(FACES, files=two)) == wrong
    form = {"content-type": "multipart/form-data; boundary=x"}
    no_file = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n'
    assert kind(client.post(FACES, content=no_file, headers=form)) == wrong
    without = {"content-type": "multipart/form-data"}
    assert kind(client.post(FACES, content=small_jpeg, headers=without)) == wrong
    assert kind(client.post(FACES, content=b"garbage", headers=form)) == wrong
    assert kind(client.post(FACES, content=b"", headers=form)) == wrong
    assert kind(client.post(FACES, files={"file": ("a", b"")})) == "urn:visaged:problem:picture-empty"
    # The rest is taken in, or the connection would be reset and its client never see why.
    assert kind(client.post(FACES, data={"file": "a" * 15_000_000}, files={"b": b""})) == wrong
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    cut_short = client.post(FACES, content=head + small_jpeg, headers=form)
    assert 400 <= cut_short.status_code < 500
    many = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\nb\r\n' % number for number in range(1000)
    )
    assert kind(client.post(FACES, content=many + b"--x--\r\n", headers=form)) == wrong
    nameless = b"--x\r\nContent-Disposition: form-data\r\n\r\nb\r\n--x--\r\n"
    assert kind(client.post(FACES, content=nameless, headers=form)) == wrong


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"])
def test_wrong_methods(server: Server, method: str) -> None:
    response = server.client.request(method, FACES)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.headers["content-type"] == PROBLEM
    if method != "HEAD":
        is_problem(response, 405)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/cameras", "/docs", "/openapi.json"])
def test_head_answers_with_the_headers_of_get_and_no_body(server: Server, path: str) -> None:
    asked = server.client.get(path)
    response = server.client.head(path)
    assert (response.status_code, response.content) == (200, b"")
    own = {"date", "x-request-id", "content-length"}
    assert response.headers.keys() == asked.headers.keys()
    for name in response.headers.keys() - own:
        assert response.headers[name] == asked.headers[name]
    # What is counted and how many frames there were changes from answer to answer.
    if path in ("/healthz", "/docs", "/openapi.json"):
        assert response.headers["content-length"] == asked.headers["content-length"]
    assert server.client.get(path).status_code == 200  # the connection is still in step


def test_head_is_no_operation_of_the_document(server: Server) -> None:
    paths = server.client.get("/openapi.json").json()["paths"]
    assert not [path for path, operations in paths.items() if "head" in operations]


def test_head_and_options_crash_nothing(server: Server) -> None:
    for path in ("/", "/healthz", "/readyz", "/metrics", "/v1/cameras", "/docs", "/openapi.json"):
        for method in ("HEAD", "OPTIONS"):
            assert server.client.request(method, path).status_code < 500


@pytest.mark.parametrize("path", ["/v2/faces", "/v1/faces/1", "/%00", "/..%2f..%2fetc/passwd", "/v1//faces"])
def test_unknown_paths(server: Server, path: str) -> None:
    is_problem(server.client.get(path), 404)


def test_requests_that_are_no_http(server: Server) -> None:
    for garbage in (
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"\r\n" * 99,
    ):
        with server.raw() as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    assert server.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /v1/cameras HTTP/1.1\r\nHost: localhost", 200),
        ("GET /v1/cameras HTTP/1.0", 200),
        ("GET /v1/cameras HTTP/1.0\r\nHost: evil.example", 421),
        ("GET /v1/cameras HTTP/1.1", 400),
        ("GET /v1/cameras HTTP/1.1\r\nHost: localhost\r\nHost: evil.example", 400),
        ("GET http://evil.example/v1/cameras HTTP/1.1\r\nHost: localhost", 400),
        ("GET http://localhost/v1/cameras HTTP/1.1\r\nHost: evil.example", 400),
        ("GET /v1/cameras HTTP/1.1\r\nHost: evil.example\r\nUpgrade: websocket\r\nConnection: Upgrade", 421),
        ("GET /v1/cameras HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade", 200),
        ("GET /v1/cameras HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost", 421),
        ("POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nOrigin: null", 403),
    ],
)
def test_requests_for_other_hosts_byte_by_byte(server: Server, head: str, status: int) -> None:
    with server.raw() as connection:
        connection.sendall(f"{head}\r\n\r\n".encode())
        assert access_server.answer(connection)[0] == status


def test_connections_dropped_in_the_middle(server: Server, jpeg: bytes) -> None:
    line = f"POST {FACES} HTTP/1.1\r\nHost: localhost\r\n".encode()
    head = line + f"Content-Length: {len(jpeg)}\r\n\r\n".encode()
    form = line + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 99999\r\n\r\n"
    for start in (
        head,
        head + jpeg[:1000],
        form + b'--x\r\nContent-Disposition: form-data; name="f"',
        head + jpeg,
    ):
        for _ in range(3):
            with server.raw() as connection:
                connection.sendall(start)
    before = outcome(server, "abandoned")
    with server.raw() as connection:
        connection.sendall(head + jpeg[:1000])
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)
    until(lambda: outcome(server, "abandoned") > before, START_S)
    # No place was lost: as many as may wait are still taken.
    with ThreadPoolExecutor(8) as pool:
        assert {r.status_code for r in pool.map(lambda _: server.client.post(FACES, content=jpeg), range(8))} == {200}


def outcome(server: Server, name: str) -> float:
    for family in text_string_to_metric_families(server.client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == "visaged_pictures_total" and sample.labels == {"outcome": name}:
                return sample.value
    return 0.0


def test_a_hundred_at_once(server: Server, jpeg: bytes) -> None:
    before = server.memory_mb()
    start = threading.Barrier(100)

    def one(_: int) -> httpx.Response:
        with httpx.Client(base_url=server.url, timeout=ANSWER_S, trust_env=False) as client:
            start.wait(ANSWER_S)
            return client.post(FACES, content=jpeg)

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(one, range(100)))
    assert {answer.status_code for answer in answers} <= {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert is_problem(answer, 503)["type"] == "urn:visaged:problem:overloaded"
            assert int(answer.headers["retry-after"]) >= 1
    good = [answer.json() for answer in answers if answer.status_code == 200]
    assert good
    assert all(answer == good[0] for answer in good)
    assert server.client.get("/healthz").status_code == 200
    assert server.client.post(FACES, content=jpeg).status_code == 200
    assert server.memory_mb() - before < 300


def test_connections_are_kept(server: Server, jpeg: bytes) -> None:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=ANSWER_S)
    connection.auto_open = 0
    with contextlib.closing(connection):
        connection.connect()
        # Errors included, but for those that are clear before the body is read.
        for method, path, body, status in (
            ("POST", FACES, jpeg, 200),
            ("GET", "/nothing", None, 404),
            ("POST", FACES, b"x", 415),
            ("POST", FACES, jpeg, 200),
            ("POST", f"{FACES}?attributes=x", jpeg, 400),
        ):
            connection.request(method, path, body)
            response = connection.getresponse()
            assert response.status == status
            response.read()
        assert response.headers["connection"] == "close"


def test_cameras(server: Server, demo_clip: Path) -> None:
    until(lambda: server.client.get("/v1/cameras").json()["cameras"][0]["state"] == "streaming", START_S)
    (camera,) = server.client.get("/v1/cameras").json()["cameras"]
    assert camera["camera"] == "door"
    assert camera["source"] == str(demo_clip)
    assert (camera["codec"], camera["width"], camera["height"]) == ("h264", 1280, 720)
    assert camera["error"] is None
    assert camera["tracks"] >= 0


def test_health_and_readiness(server: Server) -> None:
    assert server.client.get("/healthz").json() == {"status": "ok", "dead": None, "stalled": []}
    response = server.client.get("/readyz")
    assert response.status_code == 200
    document = response.json()
    assert document["status"] == "ready"
    assert document["models"]["detector"] == Manifest().default_detector(on_gpu=False).name
    assert document["mqtt"]["connected"] is False
    assert "refused" in document["mqtt"]["error"].lower()
    assert document["cameras"] == {"door": "streaming"}


def test_docs_and_openapi(server: Server) -> None:
    assert server.client.get("/docs").status_code == 200
    api = server.client.get("/openapi.json").json()
    assert api["openapi"].startswith("3.1")
    assert set(api["paths"]) >= {FACES, "/v1/cameras", "/healthz", "/readyz", "/metrics"}
    answers = api["paths"][FACES]["post"]["responses"]
    assert {"200", "400", "403", "408", "413", "415", "422", "500", "503"} == set(answers)
    schema = answers["415"]["content"][PROBLEM]["schema"]
    jsonschema.Draft202012Validator(schema).validate(server.client.post(FACES, content=b"x").json())


def test_metrics_keep_the_conventions(server: Server, small_jpeg: bytes) -> None:
    response = server.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    assert {"visaged_frames_received", "visaged_pictures", "visaged_log_write_errors"} <= set(families)
    labels = {
        "camera",
        "cause",
        "state",
        "model",
        "provider",
        "version",
        "node",
        "stage",
        "lane",
        "kind",
        "outcome",
    } | {
        "le",
        "key",
        "status",
        "listener",
        "output",
        "result",
        "operation",
        "code",
        "destination",
        "part",
        "to",
    }
    for name, family in families.items():
        assert re.fullmatch(r"(visaged|process|python)_[a-z0-9_]+", name)
        assert family.documentation
        assert not re.search(r"_(ms|milliseconds|kb|mb|kilobytes|minutes|percent|count)$", name)
        if family.type == "counter":
            assert all(sample.name == f"{name}_total" for sample in family.samples)
        else:
            assert not name.endswith("_total")
        if name.startswith("visaged_"):
            assert {label for sample in family.samples for label in sample.labels} <= labels
            assert len(family.samples) <= 80


def test_what_clients_send_makes_no_series(server: Server, small_jpeg: bytes) -> None:
    def series() -> set[str]:
        text = server.client.get("/metrics").text
        names = {line.rpartition(" ")[0] for line in text.splitlines() if line.startswith("visaged_")}
        return {name for name in names if "camera=" not in name and "kind=" not in name}  # the camera's come by time

    server.client.post(FACES, content=small_jpeg)
    server.client.post(FACES, content=b"x")
    before = series()
    for number in range(10):
        server.client.get(f"/v1/nothing{number}")
        server.client.post(FACES, content=small_jpeg, params={"attributes": f"x{number}"})
        server.client.post(FACES, content=small_jpeg, headers={"content-type": f"image/x{number}"})
    assert series() == before


def test_bodies_that_come_too_slowly(monkeypatch: pytest.MonkeyPatch, small_jpeg: bytes) -> None:
    with daemon() as (running, client):
        monkeypatch.setattr(uploads, "_BODY_SILENCE_S", 0.2)
        response = raw_post(running, [small_jpeg[:100]], len(small_jpeg))
        assert b" 408 " in response.splitlines()[0]
        assert b"urn:visaged:problem:slow-body" in response
        monkeypatch.setattr(uploads, "_BODY_SILENCE_S", 30.0)
        monkeypatch.setattr(uploads, "_BODY_MOST_S", 0.5)
        response = raw_post(running, [b"x"] * 100, 1000, pause_s=0.05)
        assert b" 408 " in response.splitlines()[0]
        assert client.get("/healthz").status_code == 200


def raw_post(running: Daemon, pieces: list[bytes], length: int, pause_s: float = 0.0) -> bytes:
    """Sends pieces of a body, never all of it, and returns all that is answered until the server closes."""
    address = urlsplit(running.web.http_address)
    with socket.create_connection((address.hostname, address.port), ANSWER_S) as connection:
        connection.sendall(f"POST {FACES} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)  # the client is slow: that is the test
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                received += piece
        return received


def test_no_room_is_503(monkeypatch: pytest.MonkeyPatch, small_jpeg: bytes) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        inside.set()
        go_on.wait(ANSWER_S)
        return load(*arguments)

    monkeypatch.setattr(analyze, "load", slow)
    with daemon(http={"max_waiting": 1}) as (_, client), ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, FACES, content=small_jpeg)
        assert inside.wait(ANSWER_S)
        refused = client.post(FACES, content=small_jpeg)
        go_on.set()
        assert is_problem(refused, 503)["type"] == "urn:visaged:problem:overloaded"
        assert refused.headers["retry-after"] == "1"
        assert first.result().status_code == 200
        assert client.post(FACES, content=small_jpeg).status_code == 200


def test_no_answer_within_the_deadline_is_503(monkeypatch: pytest.MonkeyPatch, small_jpeg: bytes) -> None:
    go_on = threading.Event()
    detect = Detector.detect

    def slow(self: Detector, images: Any) -> Any:
        go_on.wait(ANSWER_S)
        return detect(self, images)

    with daemon(http={"deadline_s": 0.3}, inference={"workers": 1}) as (_, client):
        with monkeypatch.context() as patch:
            patch.setattr(Detector, "detect", slow)
            with ThreadPoolExecutor(3) as pool:
                answers = list(pool.map(lambda _: client.post(FACES, content=small_jpeg), range(3)))
            go_on.set()
        assert {is_problem(answer, 503)["type"] for answer in answers} == {"urn:visaged:problem:overloaded"}
        until(lambda: client.post(FACES, content=small_jpeg).status_code == 200, START_S)


def test_a_picture_that_a_network_fails_on_is_500(monkeypatch: pytest.MonkeyPatch, small_jpeg: bytes) -> None:
    def broken(self: Detector, images: Any) -> Any:
        raise RuntimeError("secret inner workings")

    with daemon() as (_, client):
        with monkeypatch.context() as patch:
            patch.setattr(Detector, "detect", broken)
            document = is_problem(client.post(FACES, content=small_jpeg), 500)
        assert document["type"] == "urn:visaged:problem:inference-failed"
        assert "secret" not in json.dumps(document)
        assert client.post(FACES, content=small_jpeg).status_code == 200


def test_what_is_switched_off_is_absent(jpeg: bytes) -> None:
    with daemon(attributes={"age": False, "landmarks_106": False}) as (_, client):
        faces = client.post(FACES, content=jpeg).json()["faces"]
        assert faces
        assert all("age" not in face["attributes"] and "gender" in face["attributes"] for face in faces)
        assert "age" in is_problem(client.post(FACES, content=jpeg, params={"attributes": "age"}), 400)["detail"]
        is_problem(client.post(FACES, content=jpeg, params={"landmarks": "106"}), 400)


def test_what_is_less_sure_than_wanted_is_absent_but_from_the_cloud_apis_answers(jpeg: bytes) -> None:
    # No age is sure: its deviation never is 0.
    with daemon(min_confidence={"age": 1, "gender": 0}) as (_, client):
        faces = client.post(FACES, content=jpeg).json()["faces"]
        assert faces
        assert all("age" not in face["attributes"] and "gender" in face["attributes"] for face in faces)
        asked = client.post(FACES, content=jpeg, params={"attributes": "age"}).json()["faces"]
        assert [face["attributes"] for face in asked] == [{}] * len(faces)
        kits = client.post("/face_detection", json={"img": base64.b64encode(jpeg).decode()}).json()["Faces"]
        assert len(kits) == len(faces)
        assert all({"age", "gender"} <= face.keys() for face in kits)


def test_without_an_analyzer_there_are_faces_still(jpeg: bytes) -> None:
    with daemon(models={"analyzer": None}) as (_, client):
        faces = client.post(FACES, content=jpeg).json()["faces"]
        assert faces
        assert all(face["attributes"] == {} for face in faces)
        is_problem(client.post(FACES, content=jpeg, params={"landmarks": "106"}), 400)
        is_problem(client.post(FACES, content=jpeg, params={"attributes": "age"}), 400)


def test_readiness_waits_for_the_brokers_fate() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and never answers
        settings = parse({"http": {"port": 0}, "mqtt": {"port": silent.getsockname()[1]}})
        running = Daemon(settings, "test")
        thread = threading.Thread(target=running.run)
        thread.start()
        try:
            with httpx.Client(base_url=running.web.http_address, timeout=ANSWER_S, trust_env=False) as client:
                until(lambda: client.get("/healthz").status_code == 200, START_S)
                response = client.get("/readyz")
                assert response.status_code == 503
                assert response.json()["status"] == "not ready"
        finally:
            running.stop()
            thread.join(START_S)
    assert not thread.is_alive()
