"""All of HTTP as the daemon composes it: the demo as a client of OSS meets it, keys, TLS, pictures by URL."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import re
import socket
import ssl
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.broker import free_port
from tests.support.certificates import Authority
from tests.support.http_server import serves, web_server
from tests.support.process import ManagedProcess
from visaged.daemon.http.keys import hash_key, make_key

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import oss2

VISAGED = Path(sys.executable).with_name("visaged")
PERSON = Path(__file__).parents[2] / "daemon" / "demo" / "person.jpg"
START_S = 60.0
KEY = make_key()

Start = Callable[..., ManagedProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `visaged run` with parts of a configuration, or without any."""
    with contextlib.ExitStack() as stack:
        yield functools.partial(launch, stack, tmp_path)


def launch(stack: contextlib.ExitStack, folder: Path, document: dict[str, Any] | None = None) -> ManagedProcess:
    command = [str(VISAGED), "run"]
    if document is not None:
        config = folder / "visaged.yaml"
        base = {"mqtt": {"embedded": True, "port": free_port()}, "http": {"port": 0}}
        config.write_text(yaml.safe_dump(base | document))
        command += ["--config", str(config)]
    return stack.enter_context(ManagedProcess(command, env=os.environ | {"NO_COLOR": "1"}))


def address(process: ManagedProcess, of: str) -> str:
    found = re.search(r"https?://[^\s/]+", process.wait_for_line(f"  {of} ", START_S))
    assert found is not None
    return found[0]


def test_the_document_s_sample_works_as_printed(start: Start) -> None:
    # Other programs may have the usual port, and the demo then takes another one.
    process = start()
    endpoint = address(process, "OSS")
    # From here on it is the document's own sample, with print() for Python 3.
    access_key_id, access_key_secret, bucket_name, objectKey = "id", "secret", "imm-demo", "person.jpg"  # noqa: N806
    bucket = oss2.Bucket(oss2.Auth(access_key_id, access_key_secret), endpoint, bucket_name)
    style = "imm/detectface"
    result = bucket.get_object(objectKey, process=style)
    buf = result.read(result.content_length)
    text = json.dumps(json.loads(buf), indent=4, sort_keys=True)

    answer = json.loads(text)
    (face,) = answer["Faces"]
    assert answer["ImageUri"] == "oss://imm-demo/person.jpg"
    assert answer["success"] is True
    assert face["Gender"] == "FEMALE"
    assert sum(face["EmotionDetails"].values()) == pytest.approx(1)
    assert bucket.get_object(objectKey).read() == PERSON.read_bytes()
    # Whoever complains of an answer names its id, and the log has to know it.
    assert result.headers["x-request-id"] == result.request_id
    assert "/imm-demo/person.jpg 200" in process.wait_for_line(f"request {result.request_id}", START_S)


def test_keys_guard_everything_but_health(start: Start) -> None:
    digest = hash_key(KEY.encode())
    document = {"http": {"port": 0, "keys": [{"name": "shop", "sha256": digest, "max_at_once": 4}]}}
    with httpx.Client(base_url=address(start(document), "HTTP")) as client:
        body = {"img": base64.b64encode(PERSON.read_bytes()).decode()}
        for path in ("/v1/cameras", "/metrics"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"X-API-Key": KEY}).status_code == 200
        assert client.get("/healthz").status_code == 200
        refused = client.post("/prod/face_detection", json=body)
        assert refused.status_code == 401
        assert refused.headers["content-type"].startswith("text/plain")
        assert "access-control-allow-origin" not in refused.headers
        page = client.post("/prod/face_detection", json=body, headers={"Origin": "https://shop.example"})
        assert (page.status_code, page.headers["access-control-allow-origin"]) == (401, "*")
        answer = client.post("/prod/face_detection", json=body, headers={"X-API-Key": KEY})
        assert len(answer.json()["Faces"]) == 1
        metrics = client.get("/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
        assert 'visaged_http_requests_total{key="shop",status="200"}' in metrics
        assert KEY not in metrics


def test_a_kit_that_is_switched_off_leaves_nothing_behind(start: Start) -> None:
    key = {"name": "shop", "sha256": hash_key(KEY.encode())}
    process = start({"http": {"port": 0, "keys": [key]}, "kit": {"enabled": False}})
    with httpx.Client(base_url=address(process, "HTTP")) as client:
        assert client.post("/face_detection").headers["content-type"] == "application/problem+json"
        for method in ("OPTIONS", "GET", "POST"):
            answer = client.request(method, "/prod/face_detection", headers={"X-API-Key": KEY})
            assert answer.status_code == 404
            assert "access-control-allow-origin" not in answer.headers


def test_both_listeners_speak_tls(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue_server()
    tls = {"certificate": str(pair.certificate), "key": str(pair.key)}
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(PERSON.read_bytes())
    oss = {"enabled": True, "port": 0, "tls": tls, "buckets": [{"name": "photos", "folder": str(folder)}]}
    process = start({"http": {"port": 0, "tls": tls}, "oss": oss})
    trust = ssl.create_default_context(cafile=authority.certificate)
    http, objects = address(process, "HTTP"), address(process, "OSS")
    assert http.startswith("https://")
    assert httpx.get(f"{http}/healthz", verify=trust).status_code == 200
    found = httpx.get(f"{objects}/photos/a.jpg?x-oss-process=image/faces", verify=trust)
    assert len(found.json()["Figures"]) == 1


def test_pictures_by_url_come_from_where_the_configuration_allows(start: Start) -> None:
    with web_server(serves(PERSON.read_bytes())) as server:
        port = server.port
        process = start({"fetch": {"enabled": True, "allow": [f"127.0.0.1:{port}"]}})
        with httpx.Client(base_url=address(process, "HTTP")) as client:
            good = client.post("/face-detection/", json={"url": f"http://127.0.0.1:{port}/person.jpg"})
            assert len(good.json()["Faces"]) == 1
            bad = client.post("/face-detection/", json={"url": f"http://127.0.0.1:{free_port()}/person.jpg"})
            assert bad.status_code == 400
            assert bad.text.startswith("`parameter `url` illegal")
            metrics = client.get("/metrics").text
            assert 'visaged_fetches_total{result="ok"} 1.0' in metrics
            assert 'visaged_fetches_total{result="forbidden"} 1.0' in metrics


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"http": {"host": "0.0.0.0", "port": 0}}, "http: host 0.0.0.0 can be reached from other machines"),
        ({"oss": {"enabled": True, "host": "0.0.0.0"}}, "oss: host 0.0.0.0"),
        ({"http": {"port": 0, "allow_remote": True}}, "there is no allow_remote any more"),
        ({"oss": {"enabled": True, "buckets": [{"name": "photos", "folder": "/nowhere"}]}}, "/nowhere does not exist"),
        ({"http": {"tls": {"certificate": "/nowhere.pem", "key": "/nowhere.key"}}}, "/nowhere.pem cannot be read"),
    ],
)
def test_what_cannot_be_served_is_refused_at_the_start(start: Start, document: dict[str, Any], text: str) -> None:
    process = start(document)
    assert process.wait(START_S) == 2
    assert text in "\n".join(process.lines)


def test_a_taken_port_names_its_key(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start({"oss": {"enabled": True, "port": taken.getsockname()[1]}})
        assert process.wait(START_S) == 3
    assert "set oss.port to a free one" in "\n".join(process.lines)


def test_a_host_that_is_not_here(start: Start) -> None:
    for document in (
        {"http": {"host": "a..b", "without_keys": True}},
        {"http": {"host": "192.0.2.1", "without_keys": True}},
    ):
        process = start(document)
        process.wait_for_line("set http.host to an address of this machine", START_S)
