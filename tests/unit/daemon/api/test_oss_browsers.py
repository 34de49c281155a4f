"""What a browser may do with objects and errors of the OSS endpoint, whose buckets may hold files of strangers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from visaged.daemon.api.aliyun_oss.app import OssApp
from visaged.daemon.api.aliyun_oss.bucket import content_type
from visaged.daemon.api.aliyun_oss.objects import is_harmless
from visaged.daemon.api.aliyun_oss.settings import OssSettings
from visaged.daemon.api.pictures import Pictures
from visaged.daemon.http.settings import HttpSettings
from visaged.models.search import Scales
from visaged.pipelines.attributes import NoReader
from visaged.pipelines.batcher import Batcher
from visaged.pipelines.images.analyze import PictureAnalyzer
from visaged.pipelines.runtime.metrics import Metrics

KEYS = [{"name": "demo", "access_key_id": "AK1", "access_key_secret": "a-secret"}]
SCRIPT = b"<script xmlns='http://www.w3.org/1999/xhtml'>alert(document.domain)</script>"
NAMES = ["a.jpg", "a.html", "a.svg", "a.xml", "a", "with <b> & 'quotes'.jpg"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).write_bytes(SCRIPT)
    return tmp_path


def endpoint(folder: Path, **settings: Any) -> OssApp:
    buckets = [{"name": "photos", "folder": str(folder), "public_read": True, "domains": ["photos.example"]}]
    http = HttpSettings()
    analyzer = PictureAnalyzer(Batcher(1, 0.0, 16), NoReader(), Scales(640), http.max_pixels, http.deadline_s)
    pictures = Pictures(http, analyzer, {}, Metrics())
    return OssApp(pictures, OssSettings.model_validate({"buckets": buckets} | settings), Metrics(), "test")


def ask(app: OssApp, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8081") as client:
            return await client.request(method, path, headers={n.replace("_", "-"): v for n, v in headers.items()})

    return asyncio.run(send())


def is_safe(response: httpx.Response) -> None:
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"] == "sandbox"
    assert response.headers["cross-origin-resource-policy"] == "same-origin"
    is_saved = response.headers.get("content-disposition", "").partition(";")[0] == "attachment"
    assert is_saved or response.headers["content-type"] in (
        "image/jpeg", "application/octet-stream", "application/xml", "application/json",
    )  # fmt: skip


@pytest.mark.parametrize("keys", [[], KEYS], ids=["without keys", "with keys"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_objects_and_errors_run_no_script(folder: Path, method: str, keys: list[Any]) -> None:
    app = endpoint(folder, keys=keys)
    for name in [*NAMES, "absent<script>.html"]:
        response = ask(app, f"/photos/{name}", method)
        is_safe(response)
        assert response.status_code == (200 if name in NAMES else 404)
        if response.status_code == 200:
            is_safe(ask(app, f"/photos/{name}", method, range="bytes=0-3"))
            again = ask(app, f"/photos/{name}", method, if_none_match=response.headers["etag"])
            assert (again.status_code, again.headers["content-security-policy"]) == (304, "sandbox")
    assert b"<script>" not in ask(app, "/photos/absent<script>.html").content


@pytest.mark.parametrize(
    "override",
    ["content-type=text/html", "content-disposition=inline", "content-encoding=gzip", "content-language=en",
     "cache-control=no-store", "expires=0"],
)  # fmt: skip
def test_nobody_without_a_verified_signature_chooses_headers(folder: Path, override: str) -> None:
    for keys in ([], KEYS):
        app = endpoint(folder, keys=keys)
        for method in ("GET", "HEAD"):
            response = ask(app, f"/photos/a.jpg?response-{override}", method)
            assert response.status_code == 400
            is_safe(response)
    # Without keys, any signature would do for a program; for headers none does.
    signed = f"/photos/a.jpg?response-{override}&OSSAccessKeyId=any&Expires=9999999999&Signature=any"
    assert "oss.keys" in ask(endpoint(folder), signed).text
    assert ask(endpoint(folder), signed.replace("response-", "x-")).status_code == 200


@pytest.mark.parametrize(
    ("keys", "embedding", "policy"), [([], None, "same-origin"), (KEYS, None, "same-origin"),
    (KEYS, "cross-origin", "cross-origin"), ([], "same-site", "same-site")],
)  # fmt: skip
def test_which_pages_may_show_objects(folder: Path, keys: list[Any], embedding: str | None, policy: str) -> None:
    response = ask(endpoint(folder, keys=keys, embedding=embedding), "/photos/a.jpg", sec_fetch_site="cross-site")
    assert (response.status_code, response.headers["cross-origin-resource-policy"]) == (200, policy)


@pytest.mark.parametrize(
    ("kind", "harmless"),
    [
        ("image/jpeg", True), ("IMAGE/PNG", True), ("image/webp", True), ("video/mp4", True), ("audio/mpeg", True),
        ("text/plain", True), ("text/plain; charset=utf-8", True), ("text/plain;charset=\"UTF-8\"", True),
        ("application/json", True), ("application/octet-stream", True),
        ("text/html", False), ("TEXT/HTML", False), ("text/html;charset=utf-7", False), ("image/svg+xml", False),
        ("image/SVG+XML", False), ("image/svg", False), ("image/x+xml", False), ("application/xhtml+xml", False),
        ("application/xml", False), ("text/xml", False), ("text/xsl", False), ("text/css", False), ("", False),
        ("text/javascript", False), ("application/pdf", False), ("multipart/x-mixed-replace;boundary=x", False),
        ("application/x-shockwave-flash", False), ("image/png, text/html", False), ("image/png,text/html", False),
        ("image/png; charset=x, text/html", False), (" text/plain", False), ("image/png\ttext/html", False),
        ("text/html, image/png", False), ("message/rfc822", False), ("unknown/unknown", False), ("*/*", False),
    ],
)  # fmt: skip
def test_types_that_a_browser_may_show(kind: str, harmless: bool) -> None:
    assert is_harmless(kind) is harmless


@pytest.mark.parametrize(
    "key", ["a.html", "a.HTM", "a.svg", "a.svgz", "a.xhtml", "a.xml", "a.xsl", "a.js", "a.mht", "a.html.gz", "a.eml"]
)
def test_names_of_what_may_hold_scripts(key: str) -> None:
    kind = content_type(key)
    assert kind == "application/octet-stream" or not is_harmless(kind)


FOREIGN = [
    {"sec_fetch_site": "cross-site", "sec_fetch_dest": "image"}, {"sec_fetch_site": "same-site"},
    {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:8080"},
]  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_pages_of_other_origins_have_nothing_processed(folder: Path, headers: dict[str, str]) -> None:
    for keys in ([], KEYS):
        app = endpoint(folder, keys=keys)
        for process in ("imm/detectface", "imm%2Fdetecface", "image/faces"):
            response = ask(app, f"/photos/a.jpg?x-oss-process={process}", **headers)
            assert (response.status_code, "header shows a page" in response.text) == (403, True)
            is_safe(response)
            own = ask(app, f"/photos/absent.jpg?x-oss-process={process}", sec_fetch_site="same-origin")
            assert own.status_code == 404


def test_names_that_a_page_made_lead_here(folder: Path) -> None:
    for keys in ([], KEYS):
        app = endpoint(folder, keys=keys, endpoints=["oss.lan"])
        for host in ("evil.example", "photos.evil.example:8081", "localhost.evil.example", "xoss.lan"):
            response = ask(app, "/photos/a.jpg", host=host)
            assert (response.status_code, "oss.endpoints" in response.text) == (403, True)
            is_safe(response)
        for host in ("127.0.0.1", "[::1]:8081", "LOCALHOST.:8081", "a.localhost", "OSS.lan", ""):
            assert ask(app, "/photos/a.jpg", host=host).status_code == 200
        for host in ("photos.oss.lan", "photos.example:80"):
            assert ask(app, "/a.jpg", host=host).status_code == 200
