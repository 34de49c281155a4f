"""The kit's paths over HTTP with the real networks: good pictures, bad ones, URLs, browsers, and too many at once."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import io
import json
import logging
import random
import socket
import struct
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image

from tests.integration.pictures import cut, encoded
from tests.support.http_server import redirects, serves, web_server
from tests.support.s3_server import REGION, S3Server
from tests.support.waiting import until
from visaged.daemon.api.aws_kit.answer import model_version
from visaged.daemon.api.aws_kit.app import guarded, install_kit
from visaged.daemon.api.aws_kit.settings import KitSettings
from visaged.daemon.api.pictures import Pictures
from visaged.daemon.fetch.fetcher import Fetcher
from visaged.daemon.fetch.settings import FetchSettings
from visaged.daemon.http import problems
from visaged.daemon.http.keys import hash_key, make_key
from visaged.daemon.http.settings import HttpSettings
from visaged.daemon.settings import ModelSettings
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.manifest import WEIGHTS, Manifest
from visaged.models.search import Scales
from visaged.models.session import SessionConfig
from visaged.pipelines.attributes import AnalyzerReader, AttributeReader, NoReader
from visaged.pipelines.batcher import Batcher
from visaged.pipelines.images.analyze import PictureAnalyzer
from visaged.pipelines.inference import Inference
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker

ANSWER_S = 60.0
DETECT = "/face_detection"
PROBLEM = "application/problem+json"
ILLEGAL = "`parameter `{}` illegal"
DEMO_PICTURE = Path(__file__).parents[2] / "daemon" / "demo" / "picture.jpg"


class Networks:
    """The bundled networks, loaded once."""

    def __init__(self) -> None:
        manifest, config = Manifest(WEIGHTS / "manifest.yaml"), SessionConfig("cpu")
        detector, analyzer = manifest.default_detector(on_gpu=False), ModelSettings().analyzer
        assert analyzer is not None
        self.detector = Detector.load(manifest, detector.name, config)
        self.analyzer = Analyzer.load(manifest, analyzer, config)
        versions = detector.version, manifest.analyzer(analyzer).version
        self.version = model_version(*versions)


class Server:
    """The kit's paths on a port of loopback, served in a thread."""

    def __init__(
        self,
        networks: Networks,
        http: HttpSettings,
        fetch: FetchSettings,
        kit: KitSettings,
        off: frozenset[str] = frozenset(),
        has_analyzer: bool = True,
    ) -> None:
        metrics = Metrics()
        self.batcher = Batcher(1, 0.0, http.max_waiting)
        reader: AttributeReader = AnalyzerReader(networks.analyzer, metrics) if has_analyzer else NoReader()
        self.deaths: list[str] = []
        inference = Inference(self.batcher, networks.detector, reader, metrics)
        self._worker = Worker("inference", inference.run, lambda name, error: self.deaths.append(name))
        detector, enabled = networks.detector, frozenset(reader.heads) - off
        scales = Scales(640, 1280)
        analyzer = PictureAnalyzer(self.batcher, reader, scales, http.max_pixels, http.deadline_s)
        self.pictures = pictures = Pictures(http, analyzer, reader.heads, metrics, detector.floor)
        # These answers take no notice of the smallest confidences.
        pictures.configure(enabled, detector.face_threshold, dict.fromkeys(reader.heads, 1.0))
        fetcher = Fetcher(fetch)

        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            yield
            await fetcher.close()

        self.app = FastAPI(lifespan=lifespan)
        problems.install(self.app)
        install_kit(self.app, pictures, fetcher, kit, networks.version)
        outer = guarded(self.app, http, kit, metrics)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._server = uvicorn.Server(uvicorn.Config(outer, log_config=None, access_log=False, http="h11"))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve(sockets=[self._listener])))
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=ANSWER_S, trust_env=False)

    def __enter__(self) -> Server:
        self._worker.start()
        self._thread.start()
        until(lambda: self._server.started, ANSWER_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join(ANSWER_S)
        self._worker.stop()
        assert self._worker.join(ANSWER_S)
        self._listener.close()
        assert not self._thread.is_alive()
        assert self.deaths == []

    def post(self, body: Any, path: str = DETECT, **headers: str) -> httpx.Response:
        """Send bytes as they are, and anything else as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(path, content=content, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def see(self, data: bytes) -> httpx.Response:
        return self.post({"img": base64.b64encode(data).decode()})


@pytest.fixture(scope="module")
def networks() -> Networks:
    return Networks()


@pytest.fixture(scope="module")
def make(networks: Networks) -> Callable[..., Server]:
    def server(
        http: dict[str, Any] | None = None,
        fetch: dict[str, Any] | None = None,
        kit: dict[str, Any] | None = None,
        **more: Any,
    ) -> Server:
        settings = HttpSettings(**(http or {})), FetchSettings(**(fetch or {})), KitSettings(**(kit or {}))
        return Server(networks, *settings, **more)

    return server


@pytest.fixture(scope="module")
def server(make: Callable[..., Server]) -> Iterator[Server]:
    with make() as running:
        yield running


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    return DEMO_PICTURE.read_bytes()


@pytest.fixture(scope="module")
def demo() -> Image.Image:
    with Image.open(DEMO_PICTURE) as picture:
        return picture.convert("RGB")


@pytest.fixture(scope="module")
def dot() -> dict[str, str]:
    return {"img": base64.b64encode(encoded(Image.new("RGB", (8, 8)), "png")).decode()}


def says(response: httpx.Response, status: int, text: str, cause: str) -> None:
    """Check a refusal in the kit's form: the status, the whole text or how it begins (with `...`), the cause."""
    assert (response.status_code, response.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    if text.endswith("..."):
        assert response.text.startswith(text[:-3])
        assert len(response.text) > len(text)
    else:
        assert response.text == text
    assert response.headers["x-visaged-problem"].partition(";")[0] == cause


def is_problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
    document: dict[str, Any] = response.json()
    assert (document["type"], document["status"]) == (f"urn:visaged:problem:{kind}", status)
    return document


def boxes(response: httpx.Response) -> np.ndarray[Any, Any]:
    """The boxes of an answer, (N, 4) left, top, right, bottom as fractions, left to right."""
    assert response.status_code == 200, response.text
    found = [face["BoundingBox"] for face in response.json()["Faces"]]
    rows = [[b["Left"], b["Top"], b["Left"] + b["Width"], b["Top"] + b["Height"]] for b in found]
    return np.array(sorted(rows)).reshape(-1, 4)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_the_answer(server: Server, networks: Networks, jpeg: bytes, demo: Image.Image) -> None:
    response = server.see(jpeg)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    answer = response.json()
    assert list(answer) == ["Faces", "FaceModelVersion"]
    assert answer["FaceModelVersion"] == networks.version
    assert len(answer["Faces"]) >= 3
    confidences = [face["Confidence"] for face in answer["Faces"]]
    assert confidences == sorted(confidences, reverse=True)
    assert all(0.5 < one <= 1 for one in confidences)
    api = server.client.get("/openapi.json").json()
    schema = api["paths"][DETECT]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator(schema).validate(answer)
    for face in answer["Faces"]:
        assert list(face) == ["BoundingBox", "Confidence", "landmark_106", "gender", "age"]
        assert list(face["BoundingBox"]) == ["Width", "Height", "Left", "Top"]
        assert all(0 <= value <= 1 for value in face["BoundingBox"].values())
        assert face["gender"] in ("male", "female")
        assert type(face["age"]) is int
        assert 0 <= face["age"] <= 110
        # The fractions and the pixels speak of one face.
        points = np.array([[point["x"], point["y"]] for point in face["landmark_106"]]) / demo.size
        box = face["BoundingBox"]
        inside = (points > [box["Left"] - 0.02, box["Top"] - 0.02]) & (
            points < [box["Left"] + box["Width"] + 0.02, box["Top"] + box["Height"] + 0.02]
        )
        assert inside.mean() > 0.9


def test_points_are_numbered_as_the_kit_does(server: Server, networks: Networks, jpeg: bytes) -> None:
    for face in server.see(jpeg).json()["Faces"]:
        x, y = np.array([[point["x"], point["y"]] for point in face["landmark_106"]]).T
        outline = [1, *range(9, 17), *range(2, 9), 0, *range(24, 17, -1), *range(32, 24, -1), 17]
        size = x[17] - x[1]
        assert size > 30
        # From point to point along the outline is never far, and it falls to the chin and rises again.
        steps = np.hypot(np.diff(x[outline]), np.diff(y[outline]))
        assert steps.max() < size / 5
        assert outline[int(np.argmax(y[outline]))] in (0, 8, 24, 7, 23)
        brows, eyes, bridge = (43, 101), (35, 93), [72, 73, 74, 86]
        assert (y[list(brows)] < y[list(eyes)]).all()  # side by side: a head may be tilted
        assert (np.diff(y[bridge]) > 0).all()
        for left, right in ((43, 101), (50, 102), (35, 93), (39, 89), (34, 88), (75, 81), (77, 83), (52, 61), (65, 69)):
            assert x[left] < x[right]
        for upper, lower in ((49, 45), (104, 99), (40, 33), (94, 87), (86, 80), (80, 71), (71, 53)):
            assert y[upper] <= y[lower]
        for inner, outer in (
            ((34, 38), (35, 41, 40, 42, 39, 37, 33, 36)),
            ((88, 92), (93, 96, 94, 95, 89, 90, 87, 91)),
        ):
            for point in inner:
                assert x[list(outer)].min() <= x[point] <= x[list(outer)].max()
                assert y[list(outer)].min() <= y[point] <= y[list(outer)].max()


@pytest.mark.parametrize("stage", ["", "/prod", "/v1", "/a%20b"])
@pytest.mark.parametrize("name", ["face_detection", "face-detection"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_every_path(server: Server, dot: dict[str, str], stage: str, name: str, slash: str) -> None:
    response = server.post(dot, f"{stage}/{name}{slash}")
    assert response.status_code == 200
    assert response.json()["Faces"] == []


@pytest.mark.parametrize("path", ["/face_detections", "/a/b/face_detection", "//face_detection"])
def test_other_paths(server: Server, path: str) -> None:
    assert server.client.post(path, content=b"{}").status_code == 404


@pytest.mark.parametrize(
    "kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x", ""]
)
def test_the_type_of_the_body_does_not_matter(server: Server, dot: dict[str, str], kind: str) -> None:
    assert server.post(dot, content_type=kind).status_code == 200


@pytest.mark.parametrize("kind", ["jpeg", "png", "bmp", "webp"])
def test_every_format(server: Server, demo: Image.Image, jpeg: bytes, kind: str) -> None:
    np.testing.assert_allclose(boxes(server.see(encoded(demo, kind))), boxes(server.see(jpeg)), atol=0.01)


def test_base64_as_clients_send_it(server: Server, jpeg: bytes) -> None:
    plain = base64.b64encode(jpeg).decode()
    expected = server.post({"img": plain}).json()
    assert expected["Faces"]
    for text in (
        f"data:image/jpeg;base64,{plain}",
        plain.replace("+", "-").replace("/", "_").rstrip("="),
        base64.encodebytes(jpeg).decode(),
    ):
        assert server.post({"img": text}).json() == expected


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "I;16", "CMYK"])
def test_every_mode(server: Server, demo: Image.Image, jpeg: bytes, mode: str) -> None:
    if mode == "I;16":
        body = encoded(Image.fromarray((np.asarray(demo.convert("L")).astype(np.uint16) << 8) + 7), "png")
    else:
        body = encoded(demo.convert(mode), "jpeg" if mode == "CMYK" else "png")
    found = boxes(server.see(body))
    for box in boxes(server.see(jpeg)):
        assert np.abs(found - box).max(1).min() < 0.02


def test_of_an_animation_the_first_picture_counts(server: Server, demo: Image.Image) -> None:
    file = io.BytesIO()
    blank = Image.new("RGB", demo.size)
    demo.save(file, "PNG", save_all=True, append_images=[blank, blank], duration=100)
    assert len(boxes(server.see(file.getvalue()))) >= 3


STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
def test_coordinates_are_those_of_the_picture_as_it_is_stored(
    server: Server, demo: Image.Image, orientation: int
) -> None:
    upright = boxes(server.see(encoded(demo, "jpeg")))
    stored = demo.transpose(STORED[orientation])
    response = server.see(encoded(stored, "jpeg", orientation))
    left, top, right, bottom = upright.T
    turned = {
        2: (1 - right, top, 1 - left, bottom),
        3: (1 - right, 1 - bottom, 1 - left, 1 - top),
        6: (top, 1 - right, bottom, 1 - left),
        8: (1 - bottom, left, 1 - top, right),
    }[orientation]
    np.testing.assert_allclose(boxes(response), sorted(np.stack(turned, 1).tolist()), atol=0.01)
    for face in response.json()["Faces"]:
        points = np.array([[point["x"], point["y"]] for point in face["landmark_106"]]) / stored.size
        box = face["BoundingBox"]
        middle = [box["Left"] + box["Width"] / 2, box["Top"] + box["Height"] / 2]
        np.testing.assert_allclose(points.mean(0), middle, atol=0.05)


def test_upright_coordinates_on_request(make: Callable[..., Server], demo: Image.Image) -> None:
    with make(kit={"upright": True}) as other:
        stored = encoded(demo.transpose(STORED[6]), "jpeg", 6)
        np.testing.assert_allclose(boxes(other.see(stored)), boxes(other.see(encoded(demo, "jpeg"))), atol=0.01)


def test_large_pictures_lose_nothing(server: Server, demo: Image.Image) -> None:
    large = server.see(encoded(demo.resize((4096, 2304), Image.Resampling.BICUBIC), "jpeg"))
    np.testing.assert_allclose(boxes(large), boxes(server.see(encoded(demo, "jpeg"))), atol=0.01)
    widest = max(point["x"] for face in large.json()["Faces"] for point in face["landmark_106"])
    assert widest > 2000  # pixels of the whole picture


def test_what_is_off_is_absent(make: Callable[..., Server], jpeg: bytes) -> None:
    with make(off=frozenset({"age", "landmarks_106"})) as other:
        for face in other.see(jpeg).json()["Faces"]:
            assert list(face) == ["BoundingBox", "Confidence", "gender"]
    with make(has_analyzer=False) as other:
        faces = other.see(jpeg).json()["Faces"]
    for face in faces:
        assert list(face) == ["BoundingBox", "Confidence"]
    least = (faces[0]["Confidence"] + faces[-1]["Confidence"]) / 2
    with make(has_analyzer=False, kit={"min_confidence": least}) as other:
        surer = other.see(jpeg).json()["Faces"]
    assert surer == [face for face in faces if face["Confidence"] >= least]
    assert 1 <= len(surer) < len(faces)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text", "cause"),
    [
        (b"", "invalid param", "invalid-body"),
        (b"\xff\xd8\xff", "invalid param", "invalid-body"),
        (b'{"img": "\xff"}', "invalid param", "invalid-body"),
        (b'{"img": NaN}', "invalid param", "invalid-body"),
        (b"[" * 200_000, "invalid param", "invalid-body"),
        (b'{"img":' * 100_000, "invalid param", "invalid-body"),
        (5, "invalid param", "invalid-body"),
        (None, "invalid param", "invalid-body"),
        ([{"img": ""}], "invalid param", "invalid-body"),
        ({"url": "a", "img": "b"}, "`url` and `img` cannot be used at the same time", "url-and-img"),
        ({}, ILLEGAL.format("img"), "no-picture"),
        ({"img": 5}, ILLEGAL.format("img"), "no-picture"),
        ({"img": {"img": ""}}, ILLEGAL.format("img"), "no-picture"),
        ({"img": "%%%"}, ILLEGAL.format("img"), "invalid-base64"),
        ({"img": ""}, ILLEGAL.format("img"), "picture-empty"),
        ({"url": 5}, ILLEGAL.format("url"), "fetch-bad-url"),
        ({"url": "http://a.example/b.jpg"}, ILLEGAL.format("url") + ": ...", "fetch-disabled"),
        ({"url": "s3://bucket/b.jpg"}, ILLEGAL.format("url") + ": ...", "fetch-disabled"),
    ],
)
def test_words_of_the_kit(server: Server, body: Any, text: str, cause: str) -> None:
    says(server.post(body), 400, text, cause)
    document = server.post(body, accept=PROBLEM)
    is_problem(document, 403 if cause == "fetch-disabled" else 400, cause)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jpg", b"x" * 100)
    return file.getvalue()


def gif() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, "GIF")
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        zipped(),
        gif(),
        bytes(999),
    ],
    ids=["text", "pdf", "svg", "zip", "gif", "zeros"],
)
def test_what_is_no_picture(server: Server, data: bytes) -> None:
    says(server.see(data), 400, ILLEGAL.format("img"), "picture-unsupported")
    coded = {"img": base64.b64encode(data).decode()}
    is_problem(server.post(coded, accept=PROBLEM), 415, "picture-unsupported")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_pictures_that_were_cut_short(server: Server, jpeg: bytes, share: float) -> None:
    cut_short = jpeg[: int(len(jpeg) * share)]
    says(server.see(cut_short), 400, ILLEGAL.format("img"), "picture-damaged")
    coded = {"img": base64.b64encode(cut_short).decode()}
    is_problem(server.post(coded, accept=PROBLEM), 422, "picture-damaged")


def test_the_longest_side(server: Server, make: Callable[..., Server]) -> None:
    for size in ((4096, 3), (3, 4096)):
        assert server.see(encoded(Image.new("RGB", size), "png")).json()["Faces"] == []
    for size in ((4097, 3), (3, 4097)):
        body = encoded(Image.new("RGB", size), "png")
        response = server.see(body)
        says(response, 400, ILLEGAL.format("img") + ": ...", "picture-too-large")
        assert "4097" in response.text
        assert "at most 4096 a side" in response.text
        coded = {"img": base64.b64encode(body).decode()}
        is_problem(server.post(coded, accept=PROBLEM), 413, "picture-too-large")
    with make(kit={"max_side": 5000}) as other:
        assert other.see(encoded(Image.new("RGB", (4097, 3)), "png")).status_code == 200


def test_bombs_are_refused_by_their_header(server: Server) -> None:
    small = encoded(Image.new("1", (20_000, 20_000)), "png")
    began = time.monotonic()
    says(server.see(small), 400, ILLEGAL.format("img") + ": ...", "picture-too-large")
    jpeg = encoded(Image.new("RGB", (8, 8)))
    at = jpeg.index(b"\xff\xc0") + 5
    says(
        server.see(jpeg[:at] + struct.pack(">HH", 65_000, 65_000) + jpeg[at + 4 :]),
        400,
        ILLEGAL.format("img") + ": ...",
        "picture-too-large",
    )
    assert time.monotonic() - began < 10


def test_bodies_that_are_too_large(make: Callable[..., Server], jpeg: bytes) -> None:
    largest = len(jpeg) + 10_000
    with make(http={"max_body_mb": largest / 1e6}) as other:
        assert other.see(jpeg + bytes(10_000)).status_code == 200
        says(other.see(jpeg + bytes(10_001)), 400, ILLEGAL.format("img") + ": ...", "picture-too-large")
        response = other.see(jpeg + bytes(100_000))
        text = f"invalid param: the picture is larger than {largest / 1e6:.4g} MB (http.max_body_mb)"
        says(response, 413, text, "body-too-large")
        chunks = (b"x" * 10_000 for _ in range(100))
        says(other.client.post(DETECT, content=chunks), 413, "invalid param: ...", "body-too-large")
        is_problem(other.post(b"x" * 1_000_000, accept=PROBLEM), 413, "body-too-large")


def test_the_largest_body_is_taken(server: Server, jpeg: bytes) -> None:
    data = jpeg + bytes(20_000_000 - len(jpeg))
    assert len(boxes(server.see(data))) >= 3
    assert server.see(data + b"x").status_code == 400


def test_random_bodies(server: Server, dot: dict[str, str]) -> None:
    draw = random.Random(8)
    whole = json.dumps(dot).encode()
    for _ in range(100):
        broken = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        assert server.post(bytes(broken)).status_code in (200, 400)


def test_a_body_that_ends_too_early(server: Server, dot: dict[str, str]) -> None:
    with socket.create_connection(("127.0.0.1", server.port), ANSWER_S) as connection:
        connection.sendall(f"POST {DETECT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{{".encode())
    assert server.post(dot).status_code == 200


def test_too_many_at_once(make: Callable[..., Server], dot: dict[str, str]) -> None:
    with make(http={"max_waiting": 1}) as other:
        with other.pictures.place():
            response = other.post(dot)
            says(response, 503, "too many pictures are waiting; try again", "overloaded")
            assert response.headers["retry-after"] == "1"
            is_problem(other.post(dot, accept=PROBLEM), 503, "overloaded")
        assert other.post(dot).status_code == 200


def test_no_answer_within_the_deadline(
    make: Callable[..., Server], dot: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, detect = threading.Event(), Detector.detect

    def slow(self: Detector, images: Any) -> Any:
        go_on.wait(ANSWER_S)
        return detect(self, images)

    with make(http={"deadline_s": 0.2}) as other:
        monkeypatch.setattr(Detector, "detect", slow)
        response = other.post(dot)
        go_on.set()
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")


def test_errors_of_our_own(
    make: Callable[..., Server], dot: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError("secret inner workings")

    with make() as other, caplog.at_level(logging.CRITICAL):
        with monkeypatch.context() as patch:
            patch.setattr(Detector, "detect", broken)
            says(other.post(dot), 500, "the picture could not be analysed", "inference-failed")
        with monkeypatch.context() as patch:
            patch.setattr("visaged.daemon.api.aws_kit.app.answer_document", broken)
            says(other.post(dot), 500, "an error of the server; its log says more", "internal")
            is_problem(other.post(dot, accept=PROBLEM), 500, "internal")
        assert other.post(dot).status_code == 200


# --- URLs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def remote(make: Callable[..., Server], jpeg: bytes) -> Iterator[tuple[Server, str]]:
    """A server that fetches from another one, and the other's address."""
    wide = encoded(Image.new("RGB", (4097, 9)), "png")
    answers = {
        "/a.jpg": serves(jpeg),
        "/moved": redirects("/a.jpg"),
        "/round": redirects("/round"),
        "/text": serves(b"hello"),
        "/empty": serves(b""),
        "/cut": serves(jpeg[: len(jpeg) // 2]),
        "/wide.png": serves(wide),
        "/large": serves(bytes(2_000_000)),
        "/broken": lambda visit: visit.answer("500 Internal Server Error"),
        "/slow": lambda visit: visit.stopping.wait(5),
    }
    with web_server(answers) as web:
        allow = [f"127.0.0.1:{web.port}"]
        with make(fetch={"enabled": True, "allow": allow, "max_mb": 1, "timeout_s": 1.0}) as server:
            yield server, f"http://127.0.0.1:{web.port}"


def test_a_picture_by_its_url(remote: tuple[Server, str], jpeg: bytes) -> None:
    server, address = remote
    expected = server.see(jpeg).json()
    assert expected["Faces"]
    for path in ("/a.jpg", "/moved", "/a.jpg?x=1&y=2#z"):
        assert server.post({"url": f" {address}{path}\n"}).json() == expected


@pytest.mark.parametrize(
    ("path", "status", "text", "cause"),
    [
        ("/nothing", 400, "", "fetch-not-found"),
        ("/broken", 400, "", "fetch-status"),
        ("/round", 400, "", "fetch-redirects"),
        ("/text", 400, "", "picture-unsupported"),
        ("/empty", 400, "", "picture-empty"),
        ("/cut", 400, "", "picture-damaged"),
        ("/wide.png", 400, ": ...", "picture-too-large"),
        ("/large", 400, ": ...", "fetch-too-large"),
    ],
)
def test_urls_without_a_picture(remote: tuple[Server, str], path: str, status: int, text: str, cause: str) -> None:
    server, address = remote
    says(server.post({"url": address + path}), status, ILLEGAL.format("url") + text, cause)
    other = {
        "fetch-too-large": 413,
        "picture-too-large": 413,
        "picture-unsupported": 415,
        "picture-empty": 400,
        "picture-damaged": 422,
    }.get(cause, 502)
    is_problem(server.post({"url": address + path}, accept=PROBLEM), other, cause)


def test_a_url_that_takes_too_long(remote: tuple[Server, str]) -> None:
    server, address = remote
    response = server.post({"url": f"{address}/slow"})
    assert (response.status_code, response.headers["content-type"]) == (504, "text/plain; charset=utf-8")
    assert response.headers["x-visaged-problem"].startswith("fetch-timeout;")
    assert response.text.startswith("what the URL names was not fetched within")


@pytest.mark.parametrize(
    ("url", "text", "cause"),
    [
        ("", "", "fetch-bad-url"),
        ("hello", "", "fetch-bad-url"),
        ("ftp://127.0.0.1/a.jpg", "", "fetch-bad-url"),
        ("file:///etc/passwd", "", "fetch-bad-url"),
        ("data:image/png;base64,Zm9v", "", "fetch-bad-url"),
        ("http://", "", "fetch-bad-url"),
        ("http://127.0.0.1:1/a.jpg", ": ...", "fetch-forbidden"),
        ("http://169.254.169.254/latest/meta-data/", ": ...", "fetch-forbidden"),
        ("s3://bucket/a.jpg", ": ...", "fetch-disabled"),
    ],
)
def test_urls_that_are_not_fetched(remote: tuple[Server, str], url: str, text: str, cause: str) -> None:
    server, _ = remote
    says(server.post({"url": url}), 400, ILLEGAL.format("url") + text, cause)


def test_a_picture_from_object_storage(make: Callable[..., Server], jpeg: bytes) -> None:
    with S3Server() as store:
        store.make_bucket("pictures")
        store.put("pictures", "some folder/图.jpg", jpeg)
        s3 = {
            "endpoint": store.endpoint,
            "region": REGION,
            "access_key_id": store.reader.id,
            "secret_access_key": store.reader.secret,
        }
        with make(fetch={"enabled": True, "s3": s3}) as server:
            response = server.post({"url": "s3://pictures/some folder/图.jpg"})
            assert response.json() == server.see(jpeg).json()
            url = {"url": "s3://pictures/nothing.jpg"}
            says(server.post(url), 400, ILLEGAL.format("url"), "fetch-not-found")


def test_a_host_that_is_not_there(make: Callable[..., Server]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with make(fetch={"enabled": True, "allow": [f"127.0.0.1:{port}"]}) as server:
        url = {"url": f"http://127.0.0.1:{port}/a.jpg"}
        says(server.post(url), 400, ILLEGAL.format("url"), "fetch-unreachable")
        is_problem(server.post(url, accept=PROBLEM), 502, "fetch-unreachable")


# --- browsers and other clients ---------------------------------------------------------------------------------------


def test_a_page_of_another_site(make: Callable[..., Server], server: Server, dot: dict[str, str]) -> None:
    page = {"origin": "https://a.example", "sec_fetch_site": "cross-site"}
    asks = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    for refused in (server.post(dot, **page), server.client.options(DETECT, headers=asks)):
        assert not [name for name in refused.headers if name.startswith("access-control-")]
    says(server.post(dot, **page), 403, "the Sec-Fetch-Site header shows a page of another site...", "foreign-page")
    with make(kit={"origins": ["https://a.example"]}) as other:
        for path in (DETECT, "/prod/face-detection/"):
            assert other.client.options(path, headers=asks).headers["access-control-allow-methods"] == "POST"
            answer = other.post(dot, path, **page)
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://a.example")
            assert "Retry-After" in answer.headers["access-control-expose-headers"]


def test_keys(make: Callable[..., Server], dot: dict[str, str]) -> None:
    key = make_key()
    with make(http={"keys": [{"name": "shop", "sha256": hash_key(key.encode())}]}) as other:
        assert other.client.options(DETECT).status_code == 204  # browsers send no key with it
        response = other.post(dot)
        assert response.status_code == 401
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert "X-API-Key" in response.text
        assert other.post(dot, accept=PROBLEM).json()["status"] == 401
        assert other.post(dot, x_api_key=key).status_code == 200
        assert other.post(dot, authorization=f"Bearer {key}").status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "BREW"])
def test_other_methods(server: Server, method: str) -> None:
    response = server.client.request(method, DETECT)
    assert response.status_code == 405
    assert response.headers["allow"] == "OPTIONS, POST"
    if method != "HEAD":
        assert response.text == f"{method} is not possible here; use POST"
        is_problem(server.client.request(method, DETECT, headers={"accept": PROBLEM}), 405, "method-not-allowed")


def test_connections_are_kept(server: Server, dot: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_S)
    connection.auto_open = 0
    with contextlib.closing(connection):
        connection.connect()
        for body, status in ((json.dumps(dot), 200), ("{}", 400), ("", 400), (json.dumps(dot), 200)):
            connection.request("POST", DETECT, body)
            response = connection.getresponse()
            assert response.status == status
            response.read()


def test_many_clients_at_once(server: Server, demo_clip: Path) -> None:
    jpeg = encoded(cut(demo_clip, 5.0))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.see(jpeg), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json() == answers[0].json() for answer in answers)


def test_openapi(server: Server) -> None:
    api = server.client.get("/openapi.json").json()
    assert list(api["paths"]) == ["/face_detection", "/face-detection"]
    for path in api["paths"].values():
        (method,) = path
        assert method == "post"
        body = path["post"]["requestBody"]["content"]["application/json"]
        for example in body["examples"].values():
            jsonschema.Draft202012Validator(body["schema"]).validate(example["value"])
            assert server.post(example["value"]).json()["Faces"] == []
        for status, answer in path["post"]["responses"].items():
            kinds = {"application/json"} if status == "200" else {PROBLEM, "text/plain"}
            assert set(answer["content"]) == kinds
    ids = [path["post"]["operationId"] for path in api["paths"].values()]
    assert len(set(ids)) == len(ids)
