"""The page's files: what they may hold, and how they are answered. What the page does is tested in a browser."""

from __future__ import annotations

import asyncio
import gzip
import posixpath
import re
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from visaged.daemon.api.page import install_page, read_files, version_of
from visaged.daemon.http.problems import install

FILES = read_files()
CODE = {path: file.plain.decode() for path, file in FILES.items() if path.endswith(".js")}
MOST_BYTES = 150_000
# What turns text into markup or code, or loads from elsewhere.
FORBIDDEN = (
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "document.write",
    "DOMParser",
    "eval(",
    "new Function",
    "//cdn",
)


Get = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def get() -> Get:
    """Asks the page's paths."""
    app = FastAPI()
    install(app)
    install_page(app)

    def get(path: str, **headers: str) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
                return await client.get(path, headers={name.replace("_", "-"): text for name, text in headers.items()})

        return asyncio.run(send())

    return get


def test_the_page_is_small() -> None:
    assert sum(len(file.plain) for file in FILES.values()) < MOST_BYTES
    assert sum(len(file.packed) for file in FILES.values()) < MOST_BYTES / 2


@pytest.mark.parametrize("path", CODE)
def test_no_code_makes_markup_of_text(path: str) -> None:
    assert not [word for word in FORBIDDEN if word in CODE[path]]


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path, file in FILES.items():
        text = file.plain.decode().replace("http://www.w3.org/", "").replace("rtsp://192.0.2.10", "")
        assert "://" not in text, path


def test_all_modules_are_one_file_in_which_each_stands_once_after_what_it_imports(get: Get) -> None:
    (path,) = re.findall(r'<script src="([^"]+)" type="module">', get("/").text)
    text = get(f"/{path}").text
    order = re.findall(r"^// (js/.+)$", text, re.MULTILINE)
    assert sorted(order) == sorted(set(CODE) - {"js/theme.js"})
    assert not re.search(r"^(import|export)\b", text, re.MULTILINE)
    for module, code in CODE.items():
        for names, name in re.findall(r'^import \{ (.+) \} from "(.+)";$', code, re.MULTILINE):
            other = posixpath.normpath(posixpath.join(module, "..", name))
            assert order.index(other) < order.index(module)
            exported = set(
                re.findall(r"^export (?:async )?(?:class|function\*?|const) (\w+)", CODE[other], re.MULTILINE)
            )
            assert {one.split(" as ")[0] for one in names.split(", ")} <= exported


def test_every_file_is_used_and_every_used_file_is_there() -> None:
    index = FILES["index.html"].plain.decode()
    used = {"index.html", *re.findall(r'(?:link rel="(?:icon|stylesheet)" href|src)="page/([^"]+)"', index)}
    for path, text in CODE.items():
        for found in re.findall(r'from "(\.[^"]+)"', text):
            parts = path.split("/")[:-1]
            for step in found.split("/"):
                parts = parts[:-1] if step == ".." else parts if step == "." else [*parts, step]
            used.add("/".join(parts))
    assert used == set(FILES)


def test_a_file_is_answered_with_its_type_and_the_pages_policy(get: Get) -> None:
    answer = get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy)
    assert not any("unsafe" in part for part in policy)
    assert get("/page/js/main.js").headers["content-type"].startswith("text/javascript")
    assert get("/page/css/base.css").headers["content-type"].startswith("text/css")
    assert get("/favicon.ico").headers["content-type"] == "image/svg+xml"


def test_a_browser_that_has_a_file_gets_it_once(get: Get) -> None:
    first = get("/page/js/main.js", Accept_Encoding="gzip")
    assert first.headers["content-encoding"] == "gzip"
    assert first.content == FILES["js/main.js"].plain
    tag = first.headers["etag"]
    again = get("/page/js/main.js", If_None_Match=tag, Accept_Encoding="gzip")
    assert (again.status_code, again.content) == (304, b"")
    plain = get("/page/js/main.js", If_None_Match=tag, Accept_Encoding="identity")
    assert (plain.status_code, plain.content) == (200, FILES["js/main.js"].plain)
    assert "content-encoding" not in plain.headers
    refused = get("/page/js/main.js", Accept_Encoding="gzip;q=0, identity")
    assert "content-encoding" not in refused.headers


def test_the_page_names_files_that_are_kept_for_ever(get: Get) -> None:
    index = get("/")
    assert index.headers["cache-control"] == "no-cache"
    named = re.findall(r'(?:href|src)="(page/[^"]+)"', index.text)
    assert named
    for path in named:
        answer = get(f"/{path}")
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert get("/page/js/main.js").headers["cache-control"] == "no-cache"
    assert get("/page/0123456789abcdef/js/main.js").status_code == 404


def test_the_version_changes_with_any_file() -> None:
    changed = {**FILES, "js/main.js": FILES["js/state.js"]}
    assert version_of(FILES) != version_of(changed) != version_of({})


def test_what_is_sent_packed_is_the_same() -> None:
    assert all(gzip.decompress(file.packed) == file.plain for file in FILES.values())


@pytest.mark.parametrize(
    "path",
    ["", "js", "js/", "none.js", "../v1.py", "%2e%2e/settings.py", "js//main.js", "/etc/passwd", "index.html%00"],
)
def test_there_is_nothing_but_the_files(get: Get, path: str) -> None:
    answer = get(f"/page/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_one_style_sheet_is_asked_for_in_place_of_all(get: Get) -> None:
    (path,) = re.findall(r'<link rel="stylesheet" href="([^"]+)">', get("/").text)
    sheets = re.findall(r'href="page/(css/[^"]+)"', FILES["index.html"].plain.decode())
    assert get(f"/{path}").text == "".join(FILES[name].plain.decode() for name in sheets)
    assert {name for name in FILES if name.endswith(".css")} == set(sheets)
