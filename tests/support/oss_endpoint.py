"""A running OSS endpoint with the real networks behind it, and a bucket of all sorts of files."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import uvicorn
from PIL import Image

from tests.integration.pictures import encoded
from visaged.daemon.api.aliyun_oss.app import OssApp
from visaged.daemon.api.aliyun_oss.settings import OssSettings
from visaged.daemon.api.pictures import Pictures
from visaged.daemon.http.settings import HttpSettings
from visaged.daemon.settings import ModelSettings
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.manifest import WEIGHTS, Manifest
from visaged.models.search import Scales
from visaged.models.session import SessionConfig
from visaged.pipelines.attributes import AnalyzerReader
from visaged.pipelines.batcher import Batcher
from visaged.pipelines.images.analyze import PictureAnalyzer
from visaged.pipelines.inference import Inference
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker

PICTURE = Path(__file__).parents[2] / "daemon" / "demo" / "picture.jpg"
KEY_ID, SECRET = "demo-key", "not-a-secret-of-anybody"
START_S = 60.0
ODD_KEYS = [
    "with space.jpg", "a+b.jpg", "a%2Fb.jpg", "女/人像 图片.jpg", "sub/folder/person.jpg", "q?x=1&y=#z.jpg",
    "~t'(1)!*.jpg",
]  # fmt: skip
KEYS = [{"name": "demo", "access_key_id": KEY_ID, "access_key_secret": SECRET}]


@dataclass(frozen=True)
class Network:
    """The real networks behind `Pictures`."""

    pictures: Pictures
    batcher: Batcher


@contextlib.contextmanager
def real_network() -> Iterator[Network]:
    """The detector and analyzer of the daemon, on this machine's CPU, with small limits."""
    metrics = Metrics()
    manifest = Manifest(WEIGHTS / "manifest.yaml")
    detector = Detector.load(manifest, manifest.default_detector(on_gpu=False).name, SessionConfig("cpu"), 0.2)
    reader = AnalyzerReader(Analyzer.load(manifest, str(ModelSettings().analyzer), SessionConfig("cpu")), metrics)
    batcher = Batcher(max_batch=1, max_wait_s=0.0, max_pictures=16)
    settings = HttpSettings(max_megapixels=10, max_waiting=4, deadline_s=60)
    scales = Scales(640, 1280)
    analyzer = PictureAnalyzer(batcher, reader, scales, settings.max_pixels, settings.deadline_s)
    pictures = Pictures(settings, analyzer, reader.heads, metrics, detector.floor)
    # These answers take no notice of the smallest confidences.
    pictures.configure(frozenset(reader.heads), detector.face_threshold, dict.fromkeys(reader.heads, 1.0))
    work = Inference(batcher, detector, reader, metrics)
    deaths: list[BaseException] = []
    worker = Worker("inference", work.run, lambda name, error: deaths.append(error))
    worker.start()
    yield Network(pictures, batcher)
    batcher.close()
    worker.stop()
    assert worker.join(START_S)
    assert not deaths


@dataclass
class Endpoint:
    """A running endpoint."""

    port: int
    metrics: Metrics

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, target: str, method: str = "GET", headers: dict[str, str] | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Send a request as it is written here, byte by byte."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_S)
        with contextlib.closing(connection):
            connection.request(method, target, headers=headers or {})
            response = connection.getresponse()
            return response, response.read()


@contextlib.contextmanager
def serve(pictures: Pictures, document: dict[str, Any], clock: Callable[[], float] = time.time) -> Iterator[Endpoint]:
    metrics = Metrics()
    app = OssApp(pictures, OssSettings.model_validate(document), metrics, "test", clock)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", server_header=False)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            yield Endpoint(listener.getsockname()[1], metrics)
        finally:
            server.should_exit = True
            thread.join(START_S)
            assert not thread.is_alive()


def make_folder(root: Path) -> Path:
    """A bucket's folder below `root`, with things beside it and in it that must not be served."""
    bucket = root / "bucket"
    for key in [*ODD_KEYS, "person.jpg"]:
        (bucket / key).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PICTURE, bucket / key)
    (bucket / "hello.txt").write_bytes(bytes(range(100)))
    os.utime(bucket / "hello.txt", (1_700_000_000, 1_700_000_000))
    (bucket / "empty.jpg").write_bytes(b"")
    (bucket / "text.jpg").write_text("this is no picture")
    (bucket / "cut.jpg").write_bytes(PICTURE.read_bytes()[:20000])
    (bucket / "nobody.png").write_bytes(encoded(Image.new("RGB", (640, 480), (90, 120, 90)), "png"))
    (bucket / "wide.png").write_bytes(encoded(Image.new("L", (8000, 2000)), "png"))
    with (bucket / "huge.jpg").open("wb") as file:
        file.truncate(21 * 2**20)
    with Image.open(PICTURE) as picture:
        turned = picture.transpose(Image.Transpose.ROTATE_90)
        (bucket / "turned.jpg").write_bytes(encoded(turned, orientation=6))
    (bucket / ".hidden.jpg").write_text("hidden")
    (bucket / ".git").mkdir()
    (bucket / ".git" / "config").write_text("hidden")
    (root / "secret.txt").write_text("secret")
    (root / "bucket-beside").mkdir()
    (root / "bucket-beside" / "secret.txt").write_text("secret")
    (bucket / "link.txt").symlink_to(root / "secret.txt")
    (bucket / "way.txt").symlink_to(bucket / "hello.txt")
    (bucket / "up").symlink_to(root)
    (bucket / "here").symlink_to("sub/..")
    (bucket / "loop").symlink_to(bucket / "loop")
    (bucket / "seen.txt").symlink_to(bucket / ".hidden.jpg")
    os.mkfifo(bucket / "pipe.jpg")
    return bucket


def is_error(response: http.client.HTTPResponse, body: bytes, status: int, code: str) -> dict[str, str]:
    """The elements of an error of OSS, checked."""
    assert response.status == status, body
    assert response.headers["content-type"] == "application/xml"
    root = ElementTree.fromstring(body)
    assert root.tag == "Error"
    found = {child.tag: child.text or "" for child in root}
    assert found["Code"] == code
    assert re.fullmatch(r"[0-9A-F]{24}", found["RequestId"])
    assert response.headers["x-oss-request-id"] == found["RequestId"]
    assert response.headers["x-oss-ec"] == found["EC"]
    assert found["Message"]
    assert SECRET not in body.decode()
    return found
