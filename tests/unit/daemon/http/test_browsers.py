"""What web pages that a browser shows can have done by the daemon, and what browsers may do with its answers."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp

from visaged.daemon.api.aws_kit.app import guarded
from visaged.daemon.api.aws_kit.settings import KitSettings
from visaged.daemon.api.docs import install_docs
from visaged.daemon.http import problems
from visaged.daemon.http.access import KeyGuard
from visaged.daemon.http.browsers.guard import PageGuard
from visaged.daemon.http.browsers.headers import SafeHeaders
from visaged.daemon.http.browsers.hosts import KnownHosts
from visaged.daemon.http.keys import hash_key, make_key
from visaged.daemon.http.settings import HttpSettings
from visaged.pipelines.runtime.metrics import Metrics

KEY = make_key()
KEYS = [{"name": "shop", "sha256": hash_key(KEY.encode())}]
WITH_KEY = {"X-API-Key": KEY}
HERE = "127.0.0.1:8080"
EVIL = "http://evil.example"

NAMES_OF_THIS_SERVER = [
    "127.0.0.1", "127.0.0.1:8080", "127.0.0.1.", "192.168.1.5:8080", "0.0.0.0:1", "[::1]:8080", "[2001:DB8::1]:8080",
    "[::1]", "localhost", "localhost:8080", "LocalHost.:8080", "photos.localhost:8080", "",
]  # fmt: skip
NAMES_OF_OTHERS = [
    "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "127-0-0-1.evil.example",
    "evillocalhost", "127.0.0.1@evil.example", "evil.example#127.0.0.1", "127.0.0.1 evil.example", "[::1", "[::1]evil",
    "[evil.example]", "[]", "127.0.0.1:80:80", "127.0.0.1:evil", "xn--lcalhost-n5a", "localhost..", "a,127.0.0.1",
    "::1", ".", ":8080", "localhost/", "localhost\\.evil.example",
]  # fmt: skip


@functools.cache
def application() -> FastAPI:
    app = FastAPI(title="small", version="1", docs_url=None)
    problems.install(app)
    install_docs(app, with_keys=False)

    async def done(request: Request) -> Response:
        return Response("done", media_type="text/plain")

    for path in ("/v1/faces", "/v1/reload", "/face_detection", "/prod/face-detection"):
        app.add_api_route(path, done, methods=["POST"])
    for method in ("GET", "POST", "PATCH", "PUT", "DELETE"):
        app.add_api_route("/v1/cameras", done, methods=[method])
    app.add_api_route("/metrics", done)
    app.add_api_route("/healthz", done)
    return app


def ask(
    app: ASGIApp, method: str = "GET", path: str = "/v1/cameras", host: str = HERE, **headers: str
) -> httpx.Response:
    """Send a request as a client of the given headers does; `sec_fetch_site` stands for `sec-fetch-site`."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.request(method, path, headers={"host": host} | given)

    return asyncio.run(send())


def server(kit: dict[str, Any] | None = None, metrics: Metrics | None = None, **http: Any) -> ASGIApp:
    settings = HttpSettings.model_validate(http)
    kit_settings = KitSettings.model_validate(kit or {})
    return SafeHeaders(guarded(application(), settings, kit_settings, metrics or Metrics()))


def is_refused(response: httpx.Response, status: int, kind: str, says: str) -> None:
    assert response.status_code == status
    assert response.json()["type"] == f"urn:visaged:problem:{kind}"
    assert says in response.json()["detail"]


# --- names that lead here ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", NAMES_OF_THIS_SERVER)
def test_addresses_and_localhost_are_known(host: str) -> None:
    assert KnownHosts([]).know(host)
    assert ask(server(), host=host).text == "done"


@pytest.mark.parametrize("host", NAMES_OF_OTHERS)
def test_other_names_are_not(host: str) -> None:
    assert not KnownHosts([]).know(host)


@pytest.mark.parametrize("path", ["/v1/cameras", "/metrics", "/healthz", "/docs", "/openapi.json", "/absent"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_name_that_a_page_made_lead_here_shows_nothing(method: str, path: str) -> None:
    metrics = Metrics()
    response = ask(server(metrics=metrics), method, path, "rebound.evil.example:8080")
    assert response.status_code == 421
    if method != "HEAD":
        is_refused(response, 421, "unknown-host", "http.hosts")
    assert metrics.registry.get_sample_value("visaged_http_refused_total", {"key": "-", "cause": "host"}) == 1


def test_names_of_the_configuration_are_known() -> None:
    app = server(hosts=["faces.lan", "my_service", "xn--gesichter-v5a.example"])
    for host in ("faces.lan", "FACES.lan.:8080", "my_service:8080", "xn--gesichter-v5a.example"):
        assert ask(app, host=host).text == "done"
    for host in ("a.faces.lan", "faces.lan.evil.example", "lan"):
        is_refused(ask(app, host=host), 421, "unknown-host", "http.hosts")
    assert ask(server(host="faces.lan", without_keys=True), host="faces.lan:8080").text == "done"


def test_behind_a_proxy_with_a_login_names_are_checked_too() -> None:
    app = server(host="0.0.0.0", without_keys=True, hosts=["faces.example"])
    assert ask(app, host="faces.example").text == "done"
    is_refused(ask(app, host="evil.example"), 421, "unknown-host", "http.hosts")


def test_who_has_a_key_may_use_any_name_and_others_see_no_open_path_under_it() -> None:
    app = server(keys=KEYS, open_metrics=True)
    for path in ("/v1/cameras", "/metrics", "/healthz"):
        assert ask(app, path=path, host="any.example", **WITH_KEY).text == "done"
    for path in ("/metrics", "/healthz", "/docs", "/openapi.json"):
        is_refused(ask(app, path=path, host="any.example"), 421, "unknown-host", "http.hosts")
        is_refused(ask(app, path=path, host="any.example", x_api_key=make_key()), 421, "unknown-host", "http.hosts")
        assert ask(app, path=path).status_code == 200
    is_refused(ask(app, host="any.example"), 401, "key-missing", "API key")


def test_a_host_that_would_break_the_text_is_shown_without_harm() -> None:
    detail = ask(server(), host="<script>" + "a" * 5000).json()["detail"]
    assert "<" not in detail
    assert len(detail) < 400


@pytest.mark.parametrize(
    "target", [b"http://evil.example/v1/cameras", b"HTTP://127.0.0.1/v1/cameras", b"evil.example:80", b"*", b""]
)
def test_targets_that_are_no_path(target: bytes) -> None:
    scope = {
        "type": "http", "method": "GET", "path": target.decode(), "raw_path": target, "query_string": b"",
        "scheme": "http", "headers": [(b"host", b"127.0.0.1")], "server": ("127.0.0.1", 8080), "root_path": "",
    }  # fmt: skip
    assert answer_of(server(), scope) == 400


def test_several_hosts_are_none() -> None:
    scope = {
        "type": "http", "method": "GET", "path": "/v1/cameras", "raw_path": b"/v1/cameras", "query_string": b"",
        "scheme": "http", "headers": [(b"host", b"127.0.0.1"), (b"host", b"localhost")], "root_path": "",
        "server": ("127.0.0.1", 8080),
    }  # fmt: skip
    assert answer_of(server(), scope) == 421
    assert answer_of(server(), scope | {"headers": []}) == 200  # HTTP/1.0


def answer_of(app: ASGIApp, scope: dict[str, Any]) -> int:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    "name", ["https://faces.example", "faces.example:8080", "Faces.example", "m\u00fcller.example", "*.lan", "", "a b"]
)
def test_names_that_cannot_be_configured(name: str) -> None:
    with pytest.raises(ValueError, match=r"hosts[^\n]*\n[^\n]*host's name alone"):
        HttpSettings.model_validate({"hosts": [name]})


# --- requests that a page of another site causes ----------------------------------------------------------------------

FOREIGN: list[dict[str, str]] = [
    {"origin": EVIL},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "http://127.0.0.1"},
    {"origin": "http://127.0.0.1:3000"},
    {"origin": "http://localhost:8080"},
    {"origin": "https://127.0.0.1:8080"},
    {"origin": "http://127.0.0.1:8080.evil.example"},
    {"origin": "chrome-extension://abc"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"sec_fetch_site": "Cross-Site"},
    {"sec_fetch_site": "later-invention"},
    {"origin": EVIL, "sec_fetch_site": "same-origin"},
    {"origin": f"http://{HERE}", "sec_fetch_site": "cross-site"},
]
WORK = [
    ("POST", "/v1/faces"), ("POST", "/v1/reload"), ("POST", "/v1/cameras"), ("PATCH", "/v1/cameras"),
    ("PUT", "/v1/cameras"), ("DELETE", "/v1/cameras"), ("BREW", "/v1/cameras"),
]  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_has_no_work_done(headers: dict[str, str]) -> None:
    metrics = Metrics()
    app = server(metrics=metrics)
    for method, path in WORK:
        is_refused(ask(app, method, path, **headers), 403, "foreign-page", "API key")
    counted = metrics.registry.get_sample_value("visaged_http_refused_total", {"key": "-", "cause": "page"})
    assert counted == len(WORK)
    for path in ("/face_detection", "/prod/face-detection"):
        response = ask(app, "POST", path, **headers)
        assert (response.status_code, response.headers["content-type"]) == (403, "text/plain; charset=utf-8")
        assert "kit.origins" in response.text
        assert "access-control-allow-origin" not in response.headers


def test_programs_and_pages_of_this_server_have() -> None:
    app = server()
    for host in (HERE, "localhost:8080", "[::1]:8080"):
        for headers in (
            {},
            {"sec_fetch_site": "none"},
            {"sec_fetch_site": "same-origin"},
            {"origin": f"http://{host}"},
            {"origin": f"http://{host}", "sec_fetch_site": "same-origin"},
        ):
            for path in ("/v1/faces", "/v1/reload", "/v1/cameras", "/face_detection"):
                assert ask(app, "POST", path, host, **headers).text == "done"


def test_a_link_on_another_site_still_opens_what_does_no_work() -> None:
    for path in ("/docs", "/openapi.json", "/healthz"):
        assert ask(server(), path=path, sec_fetch_site="cross-site").status_code == 200
    # But not what takes work while it is shown, such as live pictures.
    for path in ("/v1/cameras", "/metrics"):
        for site in ("cross-site", "same-site"):
            response = ask(server(), path=path, sec_fetch_site=site, sec_fetch_mode="navigate")
            is_refused(response, 403, "foreign-page", "type the address")


def test_who_sends_a_key_may_be_a_page_of_another_site() -> None:
    app = server(keys=KEYS)
    assert ask(app, "POST", "/v1/faces", origin=EVIL, sec_fetch_site="cross-site", **WITH_KEY).text == "done"
    is_refused(ask(app, "POST", "/v1/faces", origin=EVIL), 401, "key-missing", "API key")


def test_a_proxy_may_end_tls_and_replace_the_host() -> None:
    app = server(host="0.0.0.0", without_keys=True, hosts=["faces.example"])

    def status(host: str, **headers: str) -> int:
        return ask(app, "POST", "/v1/faces", host, **headers).status_code

    assert status("faces.example", origin="https://faces.example") == 200
    assert status(HERE, origin="https://faces.example", sec_fetch_site="same-origin") == 200
    assert status(HERE, origin="https://faces.example") == 403
    assert status("faces.example", origin="https://faces.example:444") == 403
    assert status("faces.example", origin="ftp://faces.example") == 403
    assert status("faces.example", origin="null") == 403
    assert status(HERE, origin=EVIL, sec_fetch_site="cross-site") == 403


# --- pages that may use the kit ---------------------------------------------------------------------------------------

SHOP = "https://shop.example"
PREFLIGHT = {"access_control_request_method": "POST", "access_control_request_headers": "content-type,x-amz-meta-mine"}


@pytest.mark.parametrize("origin", [EVIL, "null", SHOP])
def test_without_keys_no_page_may_use_the_kit(origin: str) -> None:
    app = server()
    asked = ask(app, "OPTIONS", "/face_detection", origin=origin, **PREFLIGHT)
    posted = ask(app, "POST", "/face_detection", origin=origin, sec_fetch_site="cross-site")
    got = ask(app, "GET", "/face_detection", origin=origin)
    assert posted.status_code == 403
    for response in (asked, posted, got):
        assert not [name for name in response.headers if name.startswith("access-control-")]


def test_pages_that_the_configuration_names_may() -> None:
    for origins, others in (([SHOP, "http://localhost:3000"], 403), (["*"], 200)):
        app = server({"origins": origins})
        for origin, status in ((SHOP, 200), ("http://localhost:3000", 200), (EVIL, others), ("null", others)):
            asked = ask(app, "OPTIONS", "/face_detection", origin=origin, **PREFLIGHT)
            posted = ask(app, "POST", "/prod/face-detection", origin=origin, sec_fetch_site="cross-site")
            assert posted.status_code == status
            assert asked.status_code == (200 if status == 200 else 400)
            for response in (asked, posted):
                allowed = response.headers.get("access-control-allow-origin")
                assert allowed == (None if status != 200 else "*" if origins == ["*"] else origin)
        assert (
            "x-amz-meta-mine"
            in ask(app, "OPTIONS", "/face_detection", origin=SHOP, **PREFLIGHT).headers["access-control-allow-headers"]
        )
        network = {"access_control_request_private_network": "true"}
        asked = ask(app, "OPTIONS", "/face_detection", origin=SHOP, **PREFLIGHT, **network)
        assert asked.headers["access-control-allow-private-network"] == "true"
        # Such a page may use the kit alone, and no name that it made lead here.
        is_refused(ask(app, "POST", "/v1/faces", origin=SHOP), 403, "foreign-page", "API key")
        assert ask(app, "POST", "/face_detection", "evil.example", origin=SHOP).status_code == 421


def test_with_keys_pages_that_have_one_may_unless_origins_are_named() -> None:
    open_to_all = server(keys=KEYS)
    assert ask(open_to_all, "OPTIONS", "/face_detection", origin=EVIL, **PREFLIGHT).status_code == 200
    refused = ask(open_to_all, "POST", "/face_detection", origin=EVIL)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")
    assert ask(open_to_all, "POST", "/face_detection", origin=EVIL, **WITH_KEY).text == "done"
    for origins in ([], [SHOP]):
        bound = server({"origins": origins}, keys=KEYS)
        answer = ask(bound, "POST", "/face_detection", origin=EVIL, **WITH_KEY)
        assert "access-control-allow-origin" not in answer.headers
    assert ask(bound, "OPTIONS", "/face_detection", origin=SHOP, **PREFLIGHT).status_code == 200
    assert ask(bound, "OPTIONS", "/v1/faces", origin=SHOP, **PREFLIGHT).status_code == 401


@pytest.mark.parametrize(
    "origin",
    ["shop.example", "https://shop.example/", "https://shop.example:443", "http://a:80", "https://Shop.example", "null",
     "", "https://*.example", "file://", "https://user@shop.example", "http://m\u00fcller.example"],
)  # fmt: skip
def test_origins_that_cannot_be(origin: str) -> None:
    with pytest.raises(ValueError, match="no origin of a web page"):
        KitSettings.model_validate({"origins": [origin]})


@pytest.mark.parametrize("origin", ["*", "http://localhost:3000", "http://[::1]:8443", "moz-extension://a1-b2"])
def test_origins_that_can_be(origin: str) -> None:
    assert KitSettings.model_validate({"origins": [origin]}).origins == [origin]


# --- what browsers may do with answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/v1/cameras", {}), ("GET", "/metrics", {}), ("GET", "/absent", {}), ("GET", "/openapi.json", {}),
        ("GET", "/docs", {}), ("POST", "/face_detection", {}), ("POST", "/v1/faces", {"origin": EVIL}),
        ("GET", "/v1/cameras", {"host": "evil.example"}), ("GET", "/face_detection", {}), ("PUT", "/v1/faces", {}),
    ],
)  # fmt: skip
def test_every_answer_says_what_browsers_may_do_with_it(method: str, path: str, headers: dict[str, str]) -> None:
    response = ask(server(), method, path, **headers)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cross-origin-resource-policy"] == "same-origin"
    assert response.headers["referrer-policy"] == "no-referrer"
    (policy,) = response.headers.get_list("content-security-policy")
    assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy.split("; "))
    assert ("style-src 'unsafe-inline'" in policy) == (path == "/docs")


def test_the_guards_without_the_kit() -> None:
    settings = HttpSettings()
    app = KeyGuard(PageGuard(application(), settings, Metrics()), settings, Metrics())
    is_refused(ask(app, "POST", "/face_detection", origin=EVIL), 403, "foreign-page", "API key")
    assert ask(app, "POST", "/face_detection").text == "done"
