"""Pages of other sites in the browser of somebody who uses visaged: they read nothing here, and have nothing done."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Start
from tests.support.browser import HOSTS, Browsing
from tests.support.http_server import WebServer, serves, web_server
from tests.support.program import RunningDaemon
from tests.support.requirements import CHROMIUM, require
from tests.support.waiting import until
from visaged.daemon.http.keys import hash_key, make_key

VICTIM, ATTACKER = make_key(), make_key()
PATIENCE_S = 60.0
EMPTY = b"<!doctype html><html lang='en'><title>other</title><body></body>"

# Every function is given the daemon's URL and what it is to ask for, and returns what came of it.
PIECES = """([urls, kinds]) => Promise.all(urls.flatMap(url => kinds.map(kind => new Promise(done => {
  const it = document.createElement(kind);
  it.onload = () => done(`${kind} loaded`);
  it.onerror = () => done(`${kind} refused`);
  if (kind === "link") { it.rel = "stylesheet"; it.href = url; }
  else if (kind === "object") it.data = url;
  else it.src = url;
  if (kind === "video") it.onloadeddata = it.onload;
  document.body.append(it);
}))))"""
FRAME = """url => {
  const frame = document.createElement("iframe");
  frame.src = url;
  document.body.append(frame);
}"""
FETCH = """requests => Promise.all(requests.map(async ([url, options]) => {
  try { const answer = await fetch(url, options); return `${answer.type} ${answer.status} ${await answer.text()}`; }
  catch (error) { return error.name; }
}))"""
STREAM = """url => new Promise(done => {
  const stream = new EventSource(url, {withCredentials: true});
  stream.onopen = () => done("opened");
  stream.onerror = () => { stream.close(); done("refused"); };
  for (const kind of ["face", "camera", "message"]) stream.addEventListener(kind, event => done(event.data));
})"""
SOCKET = """url => new Promise(done => {
  const socket = new WebSocket(url.replace("http", "ws"));
  socket.onopen = () => done("opened");
  socket.onerror = () => done("refused");
})"""
FORM = """forms => Promise.all(forms.map(([url, type, fields], index) => {
  const form = document.createElement("form"), frame = document.createElement("iframe");
  frame.name = form.target = `answer${index}`;
  Object.assign(form, {method: "post", action: url, enctype: type});
  for (const [name, value] of fields) {
    const input = document.createElement("input");
    Object.assign(input, {type: "hidden", name, value});
    form.append(input);
  }
  const answered = new Promise(done => { frame.onload = () => done("answered"); });
  document.body.append(frame, form);
  form.submit();
  return answered;
}))"""

# A file that a tab can show, whose content security policy lets scripts ask the daemon, as the page's does.
QUIET = "/page/css/base.css"


def posts(document: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    """The options of a request by a script."""
    return {"method": "POST", "body": json.dumps(document), "headers": {"Content-Type": kind}}


@dataclass
class Target:
    """A daemon with a camera and what it saw, and what its log says of requests that the test did not send."""

    daemon: RunningDaemon
    has_keys: bool
    picture: str
    seen: int = 0
    cookies: list[Any] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        """What would show something, or take work."""
        camera = "/v1/cameras/door"
        return [
            f"{camera}/snapshot.jpg", f"{camera}/live.mjpeg", self.picture, "/v1/live", "/v1/cameras", "/v1/session",
            "/v1/events", "/v1/node", "/v1/statistics", "/metrics",
        ]  # fmt: skip

    def asked(self) -> list[tuple[str, str, int]]:
        """Return method, path and status of the requests since the last call, the test's own left out."""
        mark = f"test-{self.seen}"
        self.daemon.client.get("/v1/node", headers={"X-Request-ID": mark})
        self.daemon.process.wait_for_line(f"request {mark}", PATIENCE_S, start=self.seen)
        lines = self.daemon.process.lines
        new, self.seen = lines[self.seen :], len(lines)
        found = [re.search(r"([A-Z]+) (/\S*) (\d+|none) [\d.]+ ms.* request (\S+)", line) for line in new]
        return [
            (one[1], one[2], 0 if one[3] == "none" else int(one[3]))
            for one in found
            if one and not one[4].startswith("test-")
        ]

    def nothing_was_done(self, *statuses: int) -> list[tuple[str, str, int]]:
        """Check that each request since the last call was refused; return them."""
        asked = self.asked()
        allowed = statuses or (401, 403, 405, 421)
        assert not [one for one in asked if one[2] not in allowed and re.match("/(v1|metrics)", one[1])], asked
        return asked

    def login(self, page: Page) -> None:
        """Have the victim log in, and go elsewhere; from the second time on with the cookies of the first."""
        page.context.add_cookies(self.cookies)
        page.goto(self.daemon.url + QUIET)
        if self.has_keys and not self.cookies:
            assert page.evaluate(FETCH, [["/v1/session", posts({"key": VICTIM})]]) == ["basic 204 "]
            self.cookies = [dict(cookie) for cookie in page.context.cookies()]
        (cameras,) = page.evaluate(FETCH, [["/v1/cameras", {}]])
        assert cameras.startswith('basic 200 {"cameras":[{"camera":"door"')
        page.goto("about:blank")
        self.asked()


@pytest.fixture(scope="module", params=["with keys", "without keys"])
def target(request: pytest.FixtureRequest, start_shared: Start, demo_clip: Path) -> Target:
    require(CHROMIUM)
    keys = [
        {"name": "victim", "sha256": hash_key(VICTIM.encode()), "role": "admin"},
        {"name": "attacker", "sha256": hash_key(ATTACKER.encode())},
    ]
    has_keys = request.param == "with keys"
    document: dict[str, Any] = {
        "cameras": [{"name": "door", "url": str(demo_clip), "loop": True, "fps": 2}],
        "history": {"pictures": True},
        "http": {"keys": keys} if has_keys else {},
        "inference": {"workers": 1},
    }
    headers = {"X-Request-ID": "test-own"} | ({"X-API-Key": VICTIM} if has_keys else {})
    daemon = start_shared(document, headers=headers)
    pictures: list[str] = []

    def has_picture() -> bool:
        events = daemon.client.get("/v1/events").json()["events"]
        pictures.extend(f"/v1/events/{event['id']}/best.jpg" for event in events if event["picture"])
        return bool(pictures)

    until(has_picture, PATIENCE_S)
    return Target(daemon, has_keys, pictures[0])


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[WebServer]:
    with web_server(serves(EMPTY)) as server:
        yield server


@pytest.fixture(params=[f"evil.{HOSTS}", "127.0.0.1"])
def hostile(request: pytest.FixtureRequest, browsing: Browsing, target: Target, elsewhere: WebServer) -> Page:
    """A page of another origin, in the browser of somebody who is logged in: of another site, or of another port."""
    browsing.expect("")  # the browser says much about what it refuses to such a page
    page = browsing.page()
    target.login(page)
    page.goto(f"http://{request.param}:{elsewhere.port}/")
    return page


def test_it_embeds_nothing(target: Target, hostile: Page) -> None:
    kinds = ["img", "script", "link", "video", "object"]
    urls = [target.daemon.url + path for path in target.paths]
    came = hostile.evaluate(PIECES, [urls, kinds])
    assert came == [f"{kind} refused" for _ in urls for kind in kinds]
    assert len(target.nothing_was_done()) >= len(urls)
    for path in ("/", "/docs", "/page/index.html", "/v1/cameras/door/live.mjpeg"):
        with hostile.expect_event("framenavigated", lambda frame: frame.url == "chrome-error://chromewebdata/"):
            hostile.evaluate(FRAME, target.daemon.url + path)
    target.nothing_was_done()


def test_it_reads_nothing(target: Target, hostile: Page) -> None:
    requests = [
        [target.daemon.url + path, {"mode": mode, "credentials": credentials}]
        for path in target.paths
        for mode in ("cors", "no-cors")
        for credentials in ("include", "omit")
    ]
    assert set(hostile.evaluate(FETCH, requests)) == {"TypeError"}
    assert hostile.evaluate(STREAM, f"{target.daemon.url}/v1/events/stream") == "refused"
    assert hostile.evaluate(SOCKET, f"{target.daemon.url}/v1/live") == "refused"
    assert len(target.nothing_was_done()) >= len(requests)
    assert "visaged" not in hostile.evaluate("document.cookie")


def test_it_changes_nothing(target: Target, hostile: Page) -> None:
    url = target.daemon.url
    event = target.picture.rpartition("/")[0]
    requests = [
        [url + path, {"method": method, "credentials": "include"} | options]
        for method, path in (
            ("POST", "/v1/reload"), ("POST", "/v1/faces"), ("POST", "/v1/cameras"), ("DELETE", "/v1/cameras/door"),
            ("DELETE", "/v1/events"), ("DELETE", event), ("DELETE", "/v1/session?all=true"),
            ("PATCH", "/v1/cameras/door"),
        )
        for options in (
            {"mode": "no-cors", "body": "{}"},
            {"mode": "cors", "body": "{}", "headers": {"Content-Type": "application/json"}},
            {"mode": "cors"},
        )
    ]  # fmt: skip
    assert set(hostile.evaluate(FETCH, requests)) == {"TypeError"}
    forms = [
        [url + path, kind, [['{"name": "evil", "url": "', '/dev/null"}']]]
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
        for path in ("/v1/reload", "/v1/cameras", "/v1/faces", "/v1/events?_method=DELETE")
    ]
    assert set(hostile.evaluate(FORM, forms)) == {"answered"}
    assert hostile.evaluate("url => navigator.sendBeacon(url, 'x')", f"{url}/v1/reload")
    refused = 401 if target.has_keys else 403
    assert {("POST", "/v1/reload", refused), ("POST", "/v1/faces", refused)} <= set(target.nothing_was_done())
    assert target.daemon.cameras() == ["door"]
    assert target.daemon.client.get(target.picture).status_code == 200


def test_it_logs_nobody_in_or_out(target: Target, hostile: Page) -> None:
    url = f"{target.daemon.url}/v1/session"
    requests = [
        [url, posts({"key": ATTACKER}, kind) | {"mode": mode, "credentials": "include"}]
        for kind in ("application/json", "text/plain")
        for mode in ("cors", "no-cors")
    ]
    assert set(hostile.evaluate(FETCH, requests)) == {"TypeError"}
    # So many that they would use up the logins that the victim may try, if they counted.
    forms = [[url, "text/plain", [['{"key": "' + ATTACKER + '", "', '": ""}']]]] * 15
    assert set(hostile.evaluate(FORM, forms)) == {"answered"}
    target.nothing_was_done()
    hostile.goto(target.daemon.url + QUIET)
    (state,) = hostile.evaluate(FETCH, [["/v1/session", {}]])
    assert json.loads(state.removeprefix("basic 200 "))["name"] == ("victim" if target.has_keys else None)
    (login,) = hostile.evaluate(FETCH, [["/v1/session", posts({"key": make_key()})]])
    assert "key-wrong" in login if target.has_keys else "no-keys" in login  # and not that there were too many


def test_it_keeps_no_hold_of_a_window(target: Target, hostile: Page) -> None:
    for path in ("/", "/docs", "/v1/cameras/door/live.mjpeg"):
        with hostile.expect_popup() as opening:
            hostile.evaluate("url => { window.opened = window.open(url); }", target.daemon.url + path)
        hostile.wait_for_function("window.opened.closed")  # as far as that page can see
        assert opening.value.evaluate("window.opener") is None
        opening.value.close()
    # The page asked for its own data, as it does when somebody follows a link to it.
    assert ("GET", "/v1/cameras/door/live.mjpeg", 403 if not target.has_keys else 401) in target.asked()


def test_a_name_that_is_made_to_lead_here_shows_nothing(target: Target, browsing: Browsing) -> None:
    browsing.expect("")
    page = browsing.page()
    target.login(page)
    url = target.daemon.url.replace("127.0.0.1", f"rebound.{HOSTS}")
    # The page comes from elsewhere, and then its name and port lead to the daemon.
    target.daemon.end()
    with web_server(serves(EMPTY), port=int(url.rpartition(":")[2])):
        page.goto(f"{url}/")
    target.daemon.start()
    target.seen = 0
    paths = [*target.paths, "/", "/docs", "/healthz", "/readyz", "/openapi.json"]
    requests = [[path, {"credentials": "include"}] for path in paths]
    requests += [["/v1/session", posts({"key": ATTACKER})], ["/v1/faces", {"method": "POST", "body": "x"}]]
    for (path, _), answer in zip(requests, page.evaluate(FETCH, requests), strict=True):
        # Where a key is needed, its absence is noticed first.
        needs_key = target.has_keys and re.match(r"/(v1/(?!session)|metrics)", str(path))
        kind = (
            '401 {"type":"urn:visaged:problem:key-missing"'
            if needs_key
            else '421 {"type":"urn:visaged:problem:unknown-host"'
        )
        assert answer.startswith(f"basic {kind}"), (path, answer)
        assert "door" not in answer.replace(str(path), "")
    target.nothing_was_done()


def test_a_script_on_the_page_itself_sees_no_cookie(target: Target, browsing: Browsing) -> None:
    page = browsing.page()
    target.login(page)
    page.goto(target.daemon.url + QUIET)
    cookies = page.context.cookies()
    port = target.daemon.url.rpartition(":")[2]
    assert [cookie["name"] for cookie in cookies] == ([f"visaged_session_{port}"] if target.has_keys else [])
    assert all(cookie["httpOnly"] and cookie["sameSite"] == "Strict" for cookie in cookies)
    assert page.evaluate("document.cookie") == ""
