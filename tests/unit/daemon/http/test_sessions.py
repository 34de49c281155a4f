"""Logging in to the page with a key: sessions, their cookie, their file, and what they open."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Message

from visaged.daemon.api.aws_kit.app import guarded
from visaged.daemon.api.aws_kit.settings import KitSettings
from visaged.daemon.api.session import install_session
from visaged.daemon.http import problems
from visaged.daemon.http.access import holder_of, is_unknown
from visaged.daemon.http.browsers.headers import PRIVATE, SafeHeaders
from visaged.daemon.http.keys import Keyring, hash_key, make_key
from visaged.daemon.http.sessions.attempts import BURST, PER_SECOND, Attempts
from visaged.daemon.http.sessions.sessions import LIFE_S, MOST_EACH, Sessions
from visaged.daemon.http.settings import HttpSettings
from visaged.daemon.management.permission import check_may_change
from visaged.pipelines.runtime.metrics import Metrics

READER, ADMIN, OTHER = make_key(), make_key(), make_key()
DAY_S = 86_400
EVIL = "http://evil.example"


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def keys(*more: tuple[str, str, str], **limits: Any) -> list[dict[str, Any]]:
    named = [("reader", READER, "reader"), ("admin", ADMIN, "admin"), *more]
    return [{"name": name, "sha256": hash_key(key.encode()), "role": role} | limits for name, key, role in named]


class House:
    """The API's guards and sessions before a small application, without a network."""

    def __init__(self, folder: Path | None = None, clock: Clock | None = None, **http: Any) -> None:
        self.clock, self.metrics = clock or Clock(), Metrics()
        settings = HttpSettings.model_validate({"keys": keys()} | http)
        self.sessions = Sessions(Keyring(settings.keys), folder, self.clock)
        self.streaming = asyncio.Event()
        app = self._application(settings)
        install_session(app, self.sessions, self.metrics, Attempts(self.clock))
        inner = guarded(app, settings, KitSettings(), self.metrics, self.sessions)
        self.app: ASGIApp = SafeHeaders(inner, PRIVATE)

    def browser(self, url: str = "http://127.0.0.1:8080") -> httpx.AsyncClient:
        """Return a client that keeps cookies, as a browser for one page does."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=url)

    def refused(self, cause: str) -> float:
        labels = {"key": "-", "cause": cause}
        return self.metrics.registry.get_sample_value("visaged_http_refused_total", labels) or 0.0

    def _application(self, settings: HttpSettings) -> FastAPI:
        app = FastAPI(docs_url=None)
        problems.install(app)

        async def name(request: Request) -> Response:
            holder = holder_of(request)
            return Response(f"{holder and holder.name}, {'unknown' if is_unknown(request) else 'known'}")

        async def change(request: Request) -> Response:
            check_may_change(request, settings)
            return Response("changed")

        async def stream() -> Response:
            async def pieces() -> Any:
                while True:
                    yield b"piece"
                    self.streaming.set()
                    await asyncio.sleep(0)

            return StreamingResponse(pieces())

        for path in ("/v1/cameras", "/metrics", "/readyz", "/", "/page/a.js", "/favicon.ico"):
            app.add_api_route(path, name)
        for path in ("/face_detection", "/v1/face_detection", "/v1/faces"):
            app.add_api_route(path, name, methods=["POST"])
        app.add_api_route("/v1/cameras", change, methods=["POST", "DELETE"])
        app.add_api_route("/v1/live", stream)
        return app


async def login(browser: httpx.AsyncClient, key: str = READER, **headers: str) -> httpx.Response:
    return await browser.post("/v1/session", json={"key": key}, headers=headers)


def is_problem(response: httpx.Response, status: int, kind: str) -> str:
    assert (response.status_code, response.json()["type"]) == (status, f"urn:visaged:problem:{kind}")
    return str(response.json()["detail"])


def run(test: Callable[[House, httpx.AsyncClient], Awaitable[None]], house: House | None = None) -> House:
    async def opened() -> House:
        there = house or House()
        async with there.browser() as browser:
            await test(there, browser)
        await there.sessions.kept()
        return there

    return asyncio.run(opened())


def test_a_session_stands_for_its_key_until_the_logout() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        nobody = {"required": True, "name": None, "role": None}
        assert (await browser.get("/v1/session")).json() == nobody
        is_problem(await browser.get("/v1/cameras"), 401, "key-missing")
        answer = await login(browser, ADMIN)
        assert (answer.status_code, answer.content) == (204, b"")
        for path in ("/v1/cameras", "/metrics", "/readyz"):
            assert (await browser.get(path)).text == "admin, known"
        assert (await browser.get("/v1/session")).json() == {"required": True, "name": "admin", "role": "admin"}
        assert (await browser.delete("/v1/session")).status_code == 204
        assert not browser.cookies
        is_problem(await browser.get("/v1/cameras"), 401, "key-missing")
        assert (await browser.get("/v1/session")).json() == nobody
        assert (await browser.delete("/v1/session")).status_code == 204

    run(test)


def test_the_cookie_is_for_this_server_s_own_page_and_no_script() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        (cookie,) = (await login(browser)).headers.get_list("set-cookie")
        token = r"[A-Za-z0-9_-]{43}"
        assert re.fullmatch(
            rf"visaged_session_8080={token}; Path=/; Max-Age={LIFE_S}; HttpOnly; SameSite=Strict", cookie
        )
        for url, origin in (("https://faces.example", None), ("http://faces.example", "https://faces.example")):
            async with house.browser(url) as behind_proxy:
                headers = {"origin": origin, "sec-fetch-site": "same-origin"} if origin else {}
                (cookie,) = (await login(behind_proxy, **headers)).headers.get_list("set-cookie")
                assert re.fullmatch(rf"__Host-visaged_session={token}; .*SameSite=Strict; Secure", cookie)
                found = await behind_proxy.get("/v1/cameras", headers={"cookie": cookie.partition(";")[0]})
                assert found.text == "reader, known"
        async with house.browser("https://faces.example") as tls:  # as it could be planted over plain HTTP
            planted = cookie.partition(";")[0].removeprefix("__Host-")
            is_problem(await tls.get("/v1/cameras", headers={"cookie": planted}), 401, "key-missing")

    run(test, House(hosts=["faces.example"]))


def test_daemons_on_one_host_do_not_take_each_others_sessions() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        await login(browser)
        await browser.post("http://127.0.0.1:9000/v1/session", json={"key": ADMIN})
        assert sorted(browser.cookies) == ["visaged_session_8080", "visaged_session_9000"]
        assert (await browser.get("/v1/cameras")).text == "reader, known"
        assert (await browser.get("http://127.0.0.1:9000/v1/cameras")).text == "admin, known"

    run(test)


def test_wrong_keys_say_why_and_let_nobody_in() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        assert "mistyped or cut short" in is_problem(await login(browser, OTHER), 401, "key-wrong")
        for body, status, kind in (
            ({"key": ""}, 401, "key-wrong"),
            ({"key": "ключ"}, 401, "key-wrong"),
            ({"key": 5}, 400, "invalid-login"),
            ({}, 400, "invalid-login"),
            ({"key": READER, "more": 1}, 400, "invalid-login"),
            (["key"], 400, "malformed-json"),
            ({"key": "x" * 70_000}, 413, "body-too-large"),
        ):
            house.clock.now += 100
            is_problem(await browser.post("/v1/session", json=body), status, kind)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"):
            house.clock.now += 100
            refused = await browser.post("/v1/session", content=b'{"key": "a"}', headers={"content-type": kind})
            is_problem(refused, 415, "unsupported-media-type")
        assert not browser.cookies
        assert len(house.sessions) == 0
        assert house.refused("login") == 3

    run(test)


def test_who_has_no_keys_needs_no_login() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        assert (await browser.get("/v1/session")).json() == {"required": False, "name": None, "role": None}
        assert "nobody has to log in" in is_problem(await login(browser), 409, "no-keys")
        assert (await browser.delete("/v1/session")).status_code == 204

    run(test, House(keys=[]))


def test_no_key_and_no_token_is_in_the_log(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        await login(browser, OTHER)
        await login(browser, READER)
        (token,) = browser.cookies.values()
        await browser.delete("/v1/session", params={"all": "true"})
        house.clock.now += 1
        await browser.get("/v1/cameras", headers={"cookie": f"visaged_session_8080={token}"})
        for secret in (OTHER, READER, token, hash_key(token.encode())):
            assert secret not in caplog.text

    with caplog.at_level(logging.DEBUG, "visaged"):
        run(test, House(tmp_path))
    assert "127.0.0.1 logged in with key reader" in caplog.text
    assert "a login of 127.0.0.1 was refused: key-wrong" in caplog.text
    assert "127.0.0.1 ended all 1 sessions of key reader" in caplog.text


def test_logins_of_an_address_are_limited() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        for _ in range(BURST):
            is_problem(await login(browser, OTHER), 401, "key-wrong")
        answer = await login(browser, OTHER)
        assert "from your address; try again in 5 s" in is_problem(answer, 429, "login-too-fast")
        assert answer.headers["retry-after"] == str(round(1 / PER_SECOND)) == "5"
        for _ in range(BURST):  # others at this address, say behind the same proxy, keep nobody out who has a key
            assert (await login(browser, READER)).status_code == 204
        is_problem(await login(browser, OTHER), 429, "login-too-fast")
        assert "with your key" in is_problem(await login(browser, READER), 429, "login-too-fast")
        assert (await login(browser, ADMIN)).status_code == 204
        house.clock.now += 5
        is_problem(await login(browser, OTHER), 401, "key-wrong")
        assert (await login(browser, READER)).status_code == 204

    run(test)


def test_addresses_count_for_themselves_and_are_forgotten() -> None:
    attempts = Attempts(Clock())
    for _ in range(BURST):
        assert attempts.count("2001:db8::1") == 0
    assert attempts.count("2001:db8::2") > 0  # a machine has a whole network of 64 bits
    assert attempts.count("2001:db8:0:1::1") == 0
    for number in range(1000):
        attempts.count(f"10.0.{number // 250}.{number % 250}")
    assert attempts.count("2001:db8::1") == 0


# --- how long it lasts ------------------------------------------------------------------------------------------------


def test_a_session_ends_some_time_after_its_last_use() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        await login(browser)
        told = 0
        for _ in range(100):
            house.clock.now += DAY_S / 2 + 1
            answer = await browser.get("/v1/cameras")
            assert answer.text == "reader, known"
            told += "set-cookie" in answer.headers
        assert told == 50  # once a day the browser is told the new end
        house.clock.now += LIFE_S + 1
        (old,) = browser.cookies.values()
        cookie = {"cookie": f"visaged_session_8080={old}"}
        assert "log in again" in is_problem(await browser.get("/v1/cameras", headers=cookie), 401, "session-ended")
        assert (await browser.get("/v1/session", headers=cookie)).json()["name"] is None
        assert house.refused("session") == 1

    run(test)


def test_a_session_over_https_stays_one_behind_a_proxy_that_ends_tls() -> None:
    async def test(house: House, _: httpx.AsyncClient) -> None:
        async with house.browser("http://faces.example") as behind_proxy:
            answer = await login(behind_proxy, origin="https://faces.example", **{"sec-fetch-site": "same-origin"})
            cookie = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
            house.clock.now += 2 * DAY_S
            renewed = (await behind_proxy.get("/v1/cameras", headers=cookie)).headers["set-cookie"]
            assert renewed.startswith(cookie["cookie"] + "; ")
            assert renewed.endswith("; Secure")

    run(test, House(hosts=["faces.example"]))


def test_all_sessions_of_a_key_end_together() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        async with house.browser() as phone, house.browser() as admin:
            for one, key in ((browser, READER), (phone, READER), (admin, ADMIN)):
                await login(one, key)
            assert (await phone.delete("/v1/session?all=true")).status_code == 204
            is_problem(await browser.get("/v1/cameras"), 401, "session-ended")
            assert (await admin.get("/v1/cameras")).text == "admin, known"
            await login(browser)
            assert (await phone.delete("/v1/session?all=true", headers={"x-api-key": READER})).status_code == 204
            is_problem(await browser.get("/v1/cameras"), 401, "session-ended")
            is_problem(await phone.delete("/v1/session?all=perhaps"), 400, "invalid-parameter")

    run(test)


def test_answers_under_way_end_with_the_session() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        await login(browser)
        ((name, token),) = browser.cookies.items()
        headers = [(b"host", b"127.0.0.1:8080"), (b"cookie", f"{name}={token}".encode())]
        scope = {"type": "http", "method": "GET", "scheme": "http", "path": "/v1/live", "headers": headers}
        scope |= {"query_string": b"", "root_path": "", "asgi": {"spec_version": "2.3"}}
        never, answer = asyncio.Event(), []

        async def receive() -> Message:
            await never.wait()
            raise AssertionError

        async def send(message: Message) -> None:
            answer.append(message)

        live = asyncio.create_task(house.app(scope, receive, send))
        await house.streaming.wait()
        await browser.delete("/v1/session")
        await asyncio.wait_for(live, 20)
        assert answer[0]["status"] == 200
        assert answer[-1]["more_body"]  # the server cuts off an answer whose last part does not come

    run(test)


def test_a_new_login_ends_the_old_one_and_their_number_is_bounded() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        await login(browser)
        await login(browser)
        assert len(house.sessions) == 1
        async with house.browser() as admin:
            await login(admin, ADMIN)
            for _ in range(3 * MOST_EACH):
                house.clock.now += 10
                async with house.browser() as other:
                    assert (await login(other)).status_code == 204
            assert len(house.sessions) == MOST_EACH + 1
            assert (await admin.get("/v1/cameras")).text == "admin, known"  # one key's sessions do not end another's
        is_problem(await browser.get("/v1/cameras"), 401, "session-ended")

    run(test)


# --- over a restart ---------------------------------------------------------------------------------------------------


def begun(folder: Path) -> str:
    """Log in, end the server, and return the cookie."""
    cookie = ""

    async def test(house: House, browser: httpx.AsyncClient) -> None:
        nonlocal cookie
        await login(browser)
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())

    run(test, House(folder))
    return cookie


def name_of(cookie: str, house: House) -> str | None:
    name = None

    async def test(house: House, browser: httpx.AsyncClient) -> None:
        nonlocal name
        name = (await browser.get("/v1/session", headers={"cookie": cookie})).json()["name"]

    run(test, house)
    return name


def test_a_restart_logs_nobody_out_and_the_file_lets_nobody_in(tmp_path: Path) -> None:
    cookie = begun(tmp_path)
    path = tmp_path / "sessions.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert cookie.partition("=")[2] not in text
    assert hash_key(READER.encode()) not in text
    assert json.loads(text)["sessions"][0]["key"] == "reader"
    assert name_of(cookie, House(tmp_path)) == "reader"
    (sha256,) = re.findall(r'"sha256": "(\w+)"', text)
    assert name_of(f"visaged_session_8080={sha256[:43]}", House(tmp_path)) is None
    old = Clock()
    old.now += LIFE_S + 2 * DAY_S
    assert name_of(cookie, House(tmp_path, old)) is None


def test_a_logout_outlives_a_restart(tmp_path: Path) -> None:
    cookie = begun(tmp_path)

    async def test(house: House, browser: httpx.AsyncClient) -> None:
        await browser.delete("/v1/session", headers={"cookie": cookie})

    run(test, House(tmp_path))
    assert name_of(cookie, House(tmp_path)) is None


@pytest.mark.parametrize(
    "changed",
    [
        keys()[1:],
        [{"name": "reader", "sha256": hash_key(OTHER.encode())}],
        [],
    ],
    ids=["removed", "another of its name", "no keys"],
)
def test_a_session_ends_with_its_key(tmp_path: Path, changed: list[dict[str, Any]]) -> None:
    assert name_of(begun(tmp_path), House(tmp_path, keys=changed)) is None


def test_a_session_goes_on_with_its_key_s_new_name_and_role(tmp_path: Path) -> None:
    renamed = [{"name": "shop", "sha256": hash_key(READER.encode()), "role": "admin"}]
    assert name_of(begun(tmp_path), House(tmp_path, keys=renamed)) == "shop"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"sessions": 5}', '{"sessions": [{}]}', "\0" * 500, "[" * 100_000,
     '{"sessions": [{"sha256": 5, "key": "reader", "fingerprint": "a", "used_at": 1}]}',
     '{"sessions": [{"sha256": "a", "key": "reader", "fingerprint": "a", "used_at": 1}]}',
     *(json.dumps({"sessions": [{"sha256": "0" * 64, "key": "reader", "fingerprint": "1" * 64, "used_at": "AT"}]})
       .replace('"AT"', at) for at in ("1e999", "1e300", "-1e300", "9" * 400))],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_a_damaged_file_logs_everybody_out(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    cookie = begun(tmp_path)
    (tmp_path / "sessions.json").write_text(text)
    assert name_of(cookie, House(tmp_path)) is None
    assert "sessions.json cannot be read: it is damaged; whoever was logged in has to log in again" in caplog.text
    assert name_of(begun(tmp_path), House(tmp_path)) == "reader"


def test_a_folder_that_cannot_be_written_keeps_nobody_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cookie = begun(tmp_path / "file" / "state")
    assert cookie
    assert "logins and logouts cannot be kept in the state folder: Not a directory" in caplog.text
    os.mkdir(tmp_path / "sessions.json")
    assert name_of(cookie, House(tmp_path)) is None
    assert "cannot be read: Is a directory" in caplog.text


# --- what it opens, and what pages of other sites can do with it ------------------------------------------------------


def test_a_session_has_its_key_s_role_and_limits() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        await login(browser, READER)
        assert "role reader" in is_problem(await browser.post("/v1/cameras"), 403, "forbidden")
        await login(browser, ADMIN)
        assert (await browser.post("/v1/cameras")).text == "changed"
        assert (await browser.delete("/v1/cameras")).text == "changed"
        assert (await browser.get("/v1/cameras")).status_code == 200
        is_problem(await browser.get("/v1/cameras", headers={"x-api-key": ADMIN}), 429, "too-fast")
        is_problem(await browser.get("/v1/cameras"), 429, "too-fast")

    run(test, House(keys=keys(max_per_second=0.001, burst=3)))


def test_a_key_that_is_sent_counts_before_the_session() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        await login(browser, READER)
        assert (await browser.get("/v1/cameras", headers={"x-api-key": ADMIN})).text == "admin, known"
        is_problem(await browser.get("/v1/cameras", headers={"x-api-key": OTHER}), 401, "key-wrong")

    run(test)


def test_the_cloud_apis_know_no_session() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        await login(browser, ADMIN)
        for path in ("/face_detection", "/prod/face-detection/", "/v1/face_detection"):
            assert (await browser.post(path)).status_code == 401
        assert (await browser.post("/v1/faces")).text == "admin, known"

    run(test)


@pytest.mark.parametrize("path", ["/", "/page/a.js", "/favicon.ico"])
def test_the_page_itself_is_open(path: str) -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        assert (await browser.get(path)).text == "None, unknown"
        assert (await browser.get(path, headers={"sec-fetch-site": "cross-site"})).status_code == 200
        is_problem(await browser.get("/pages"), 401, "key-missing")
        is_problem(await browser.get(path, headers={"host": "evil.example"}), 421, "unknown-host")

    run(test)


FOREIGN: list[dict[str, str]] = [
    {"origin": EVIL},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:9000", "sec-fetch-site": "same-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_has_no_use_of_a_session(headers: dict[str, str]) -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        await login(browser, ADMIN)
        # Browsers would not send the cookie with most of these.
        for method in ("GET", "HEAD", "POST", "DELETE"):
            assert (await browser.request(method, "/v1/cameras", headers=headers)).status_code == 401
        assert (await browser.get("/readyz", headers=headers)).text == "None, unknown"
        is_problem(await browser.get("/v1/session", headers=headers), 403, "foreign-page")
        is_problem(await browser.delete("/v1/session", headers=headers), 403, "foreign-page")
        assert (await browser.get("/v1/cameras")).text == "admin, known"
        assert house.refused("page") == 2

    run(test)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_logs_nobody_in(headers: dict[str, str]) -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        for _ in range(3 * BURST):  # these do not count as attempts of the user
            is_problem(await login(browser, READER, **headers), 403, "foreign-page")
        assert not browser.cookies
        assert (await login(browser, READER)).status_code == 204

    run(test)


def test_a_name_that_is_not_this_server_s_has_no_use_of_a_session() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        await login(browser, ADMIN)
        for method in ("GET", "POST", "DELETE"):
            for path in ("/v1/cameras", "/v1/session"):
                headers = {"host": "evil.example:8080"}
                is_problem(await browser.request(method, path, headers=headers), 421, "unknown-host")
        is_problem(await login(browser, READER, host="evil.example"), 421, "unknown-host")

    run(test)


def test_cookies_that_differ_are_none() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        await login(browser)
        (token,) = browser.cookies.values()
        browser.cookies.clear()
        mine = f"visaged_session_8080={token}"
        for cookies, status in (
            (f"a=b; {mine}", 200),
            (f"{mine};{mine}", 200),
            (f"visaged_session_8080=planted; {mine}", 401),
            (f"visaged_session={token}", 401),
            (f"visaged_session_8080={token}A", 401),
            ("visaged_session_8080=", 401),
            ("visaged_session_8080", 401),
            (";;==;\xff", 401),
        ):
            headers = {"cookie": cookies.encode("latin-1")}
            assert (await browser.get("/v1/cameras", headers=headers)).status_code == status, cookies

    run(test)


def test_answers_that_may_tell_of_people_stay_in_no_cache() -> None:
    async def test(house: House, browser: httpx.AsyncClient) -> None:
        for path in ("/v1/session", "/v1/cameras", "/metrics", "/absent"):
            headers = (await browser.get(path)).headers
            assert headers["cache-control"] == "no-store"
            assert headers["cross-origin-opener-policy"] == "same-origin"

    run(test)
