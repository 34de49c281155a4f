"""The page when things go wrong: the daemon dies, names try to be markup, no camera, no disk for events."""

from __future__ import annotations

import contextlib
import json
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Route, expect

from tests.browser.conftest import Start
from tests.support.browser import Browsing
from tests.support.program import RunningDaemon
from tests.support.waiting import until

DEMO = Path(__file__).parents[2] / "daemon" / "demo" / "demo.mp4"
EVIL = "<img src=x onerror='window.hacked = true'><script>window.hacked = true</script>"
LOST = "ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE"


def test_a_page_outlives_the_daemon(start: Start, browsing: Browsing) -> None:
    browsing.expect(*LOST)
    camera = {"name": "entrance", "url": str(DEMO), "loop": True, "fps": 2}
    daemon = start({"cameras": [camera], "inference": {"update_s": 1}})
    page = browsing.page(daemon.url)
    banner = page.get_by_role("alert")
    page.locator(".event").first.wait_for()
    until(lambda: bool(daemon.client.get("/v1/events?kind=update").json()["events"]), 20)  # so the first is on the disk
    expect(banner).to_be_hidden()
    daemon.kill()
    expect(banner).to_contain_text("The connection to visaged is lost. What you see is from")
    expect(banner).to_contain_text("Trying again")
    expect(page.locator("body")).to_have_class("lost")
    daemon.start()
    with contextlib.suppress(PlaywrightError):  # the page may have tried by itself meanwhile
        page.get_by_role("button", name="Try now").click(timeout=1000)
    expect(banner).to_be_hidden()
    expect(page.locator("#said")).to_have_text("Connected again")
    expect(page.locator(".tile")).to_contain_text("fps")
    # What the killed run left open has been ended by the new one, and the page says so without having been told then.
    expect(page.locator(".event", has_text="visaged was restarted").first).to_be_visible()


def test_a_camera_comes_and_goes_without_reloading(start: Start, browsing: Browsing) -> None:
    daemon = start()
    page = browsing.page(daemon.url)
    expect(page.locator(".none")).to_contain_text("No camera yet")
    expect(page.locator(".command").first).to_contain_text(f"curl -X POST {daemon.url}")
    expect(page.locator(".happened")).to_contain_text("No face was seen yet")
    expect(page.locator(".numbers")).to_contain_text("No face was seen today")
    daemon.client.post("/v1/cameras", json={"name": "entrance", "url": str(DEMO), "loop": True})
    expect(page.locator(".tile h3")).to_have_text("entrance")
    expect(page.locator(".none")).to_be_hidden()
    daemon.client.delete("/v1/cameras/entrance")
    expect(page.locator(".none")).to_be_visible()


def test_where_no_events_are_kept_those_that_come_are_shown(start: Start, browsing: Browsing) -> None:
    camera = {"name": "entrance", "url": str(DEMO), "loop": True, "fps": 5}
    daemon = start({"cameras": [camera], "history": {"keep_hours": 0}, "models": {"analyzer": None}})
    page = browsing.profile().new_page()
    page.clock.install(time=datetime.now(UTC) + timedelta(hours=1))  # the viewer's clock is wrong
    page.goto(daemon.url)
    expect(page.locator(".event").first).to_contain_text(re.compile(r"a face.*(here now|seen for)"))
    expect(page.locator(".event").first).not_to_contain_text(re.compile(r"\d (min|h)"))
    expect(page.locator(".numbers")).to_contain_text("Faces are not counted")
    expect(page.get_by_role("button", name="Delete all")).to_be_hidden()


def test_names_and_values_are_never_markup(start: Start, browsing: Browsing) -> None:
    browsing.expect("status of 404")  # there is no such camera
    daemon = start()
    page = browsing.page()
    answers = {"**/v1/cameras": _cameras(), "**/v1/events?*": _events(), "**/v1/node": _node(daemon)}
    for pattern, document in answers.items():
        page.route(pattern, partial(_answer, document))
    page.goto(daemon.url)
    expect(page.locator(".tile h3")).to_have_text(EVIL)
    expect(page.locator(".tile")).to_contain_text(f"error {EVIL}")
    expect(page.locator(".what")).to_contain_text(EVIL)
    expect(page.locator("#node")).to_have_text(EVIL)
    page.locator(".event summary").click()
    expect(page.locator(".readings")).to_contain_text(EVIL)
    page.locator(".tile a").click()
    expect(page.locator(".camera h2")).to_have_text(EVIL)
    assert not page.evaluate("'hacked' in window")
    assert page.locator("main script, main [onerror]").count() == 0


def test_where_there_is_no_seat_for_pictures_the_page_says_so(start: Start, browsing: Browsing) -> None:
    browsing.expect("status of 503", "answered 503")
    daemon = start({"cameras": [{"name": "entrance", "url": str(DEMO), "loop": True}], "live": {"max_viewers": 1}})
    page = browsing.page(daemon.url)
    said = page.locator(".tile .words", has_text="No pictures:").or_(
        page.get_by_role("alert").filter(has_text="refuses")
    )
    expect(said.first).to_be_visible()


def _answer(document: Any, route: Route) -> None:
    route.fulfill(body=json.dumps(document), content_type="application/json")


def _cameras() -> dict[str, Any]:
    camera = {"camera": EVIL, "state": "waiting", "since": "2026-11-27T00:00:00Z", "source": EVIL, "codec": None}
    more = {"width": None, "height": None, "reconnects": 0, "error": f"error {EVIL}", "cause": EVIL, "tracks": 0}
    return {"cameras": [camera | more]}


def _events() -> dict[str, Any]:
    attributes = {name: {"value": EVIL, "confidence": 0.9, "age_ms": 0} for name in ("emotion", "hat", EVIL)}
    shot = {"box": [0, 0, 9, 9], "confidence": 0.9, "landmarks_5": [], "quality": 0.5}
    event = {"epoch": 1, "seq": 1, "camera": EVIL, "event": "end", "track_id": 1, "duration_s": 1.0, "reason": EVIL}
    times = {"captured_at": "2026-11-27T00:00:00Z", "started_at": "2026-11-27T00:00:00Z"}
    face = {"face": {"track_id": 1, **shot, "attributes": attributes}, "best_shot": shot | times}
    return {"events": [event | times | face | {"id": "1-1", "picture": False}], "next": None}


def _node(daemon: RunningDaemon) -> dict[str, Any]:
    document: dict[str, Any] = daemon.client.get("/v1/node").json()
    return document | {"node": EVIL, "version": EVIL}
