"""The daemon as a process, with keys, TLS and a log: what it answers, and what it never writes down."""

from __future__ import annotations

import os
import re
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from PIL import Image

from tests.integration.pictures import encoded
from tests.support.access_server import bearer, is_problem
from tests.support.broker import free_port
from tests.support.certificates import Certificates
from tests.support.process import ManagedProcess
from tests.support.waiting import until
from visaged.daemon.http.keys import hash_key, make_key

VISAGED = Path(sys.executable).with_name("visaged")
START_S = 60.0
KEY = make_key()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture(scope="module")
def daemon(folder: Path, demo_clip: Path) -> Iterator[tuple[ManagedProcess, httpx.Client]]:
    certificates = Certificates.create(folder / "tls")
    pair = certificates.server
    config = folder / "visaged.yaml"
    document = {
        "node": "tester",
        "http": {
            "host": "0.0.0.0",
            "port": 0,
            "keys": [{"name": "shop", "sha256": hash_key(KEY.encode()), "max_at_once": 2}],
            "tls": {"certificate": str(pair.certificate), "key": str(pair.key)},
        },
        "mqtt": {"port": free_port()},
        "cameras": [{"name": "secret-door", "url": str(demo_clip), "loop": True, "fps": 1}],
        "log": {"level": "debug", "file": str(folder / "log")},
    }
    config.write_text(yaml.safe_dump(document))
    process = ManagedProcess([str(VISAGED), "run", "--config", str(config)], env={**os.environ, "NO_COLOR": "1"})
    try:
        found = re.search(r"https://\S+(?=/docs)", process.wait_for_line("/docs", START_S))
        assert found is not None
        url = f"https://localhost:{urlsplit(found[0]).port}"
        context = ssl.create_default_context(cafile=str(certificates.ca))
        with httpx.Client(base_url=url, verify=context, timeout=START_S, trust_env=False) as client:
            until(lambda: client.get("/readyz").status_code == 200, START_S)
            yield process, client
    finally:
        process.stop()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/cameras", "/docs", "/openapi.json"])
def test_head_takes_a_key_where_get_does(daemon: tuple[ManagedProcess, httpx.Client], path: str) -> None:
    _, client = daemon
    assert client.head(path).status_code == client.get(path).status_code
    response = client.head(path, headers=bearer(KEY))
    assert (response.status_code, response.content) == (200, b"")


def test_a_picture_takes_a_key(daemon: tuple[ManagedProcess, httpx.Client]) -> None:
    _, client = daemon
    body = encoded(Image.new("RGB", (64, 48), (90, 120, 90)))
    is_problem(client.post("/v1/faces", content=body), 401, "key-missing")
    is_problem(client.post("/v1/faces", content=body, headers=bearer(make_key())), 401, "key-wrong")
    response = client.post("/v1/faces", content=body, headers=bearer(KEY))
    assert response.status_code == 200
    assert response.json()["faces"] == []


def test_who_has_no_key_learns_no_names(daemon: tuple[ManagedProcess, httpx.Client]) -> None:
    _, client = daemon
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.get("/healthz").json() == {"status": "ok"}
    assert "secret-door" in client.get("/readyz", headers=bearer(KEY)).text
    for path in ("/v1/cameras", "/metrics"):
        is_problem(client.get(path), 401, "key-missing")
        assert "secret-door" in client.get(path, headers=bearer(KEY)).text
    assert "secret-door" not in client.get("/docs").text + client.get("/openapi.json").text


def test_requests_are_in_the_metrics_and_no_key_in_the_log(
    daemon: tuple[ManagedProcess, httpx.Client], folder: Path
) -> None:
    process, client = daemon
    wrong = make_key()
    client.get("/v1/cameras", headers={**bearer(KEY), "X-Request-ID": "first"})
    client.get("/v1/cameras", params={"key": KEY}, headers={"X-API-Key": wrong, "X-Request-ID": "second"})
    metrics = client.get("/metrics", headers=bearer(KEY)).text
    assert 'visaged_http_requests_total{key="shop",status="200"}' in metrics
    assert 'visaged_http_refused_total{cause="wrong",key="-"}' in metrics
    log = folder / "log"
    until(lambda: "request second" in log.read_text(), START_S)
    text = log.read_text() + "\n".join(process.lines)
    assert re.search(r"GET /v1/cameras 200 \d+\.\d ms, key shop, .* request first", text)
    assert re.search(r"GET /v1/cameras 401 \d+\.\d ms, key -, .* request second", text)
    for secret in (KEY, wrong, hash_key(KEY.encode())):
        assert secret not in text + metrics
