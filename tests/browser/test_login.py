"""Logging in to the page and out again, and what axe finds wrong with its views."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Start
from tests.support.browser import Browsing, axe_faults
from tests.support.program import RunningDaemon
from tests.support.requirements import CHROMIUM, require
from visaged.daemon.http.keys import hash_key, make_key

KEY = make_key()
# Browsers write a line for every answer that is an error, and an ended session's is one.
REFUSED = r"console: Failed to load resource: the server responded with a status of 401"


@pytest.fixture(scope="module")
def daemon(start_shared: Start, demo_clip: Path) -> RunningDaemon:
    require(CHROMIUM)
    document = {
        "cameras": [{"name": "door", "url": str(demo_clip), "loop": True, "fps": 2}],
        "http": {"keys": [{"name": "owner", "sha256": hash_key(KEY.encode()), "role": "admin"}]},
        "inference": {"workers": 1},
    }
    return start_shared(document, headers={"X-API-Key": KEY})


def login(page: Page, key: str) -> None:
    page.get_by_label("key").fill(key)
    page.keyboard.press("Enter")


def test_login_restart_and_logout(daemon: RunningDaemon, browsing: Browsing) -> None:
    browsing.expect(REFUSED, "net::ERR_", "answered 503")
    page = browsing.page(daemon.url)
    login(page, make_key())
    expect(page.get_by_text("mistyped")).to_be_visible()
    login(page, KEY)
    expect(page.get_by_text("door").first).to_be_visible()
    assert axe_faults(page) == []
    daemon.restart()
    page.reload()
    expect(page.get_by_text("door").first).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("key")).to_be_visible()
    page.reload()
    expect(page.get_by_label("key")).to_be_visible()


def test_a_session_that_ended_elsewhere_leads_to_the_login(daemon: RunningDaemon, browsing: Browsing) -> None:
    browsing.expect(REFUSED, "net::ERR_")
    page = browsing.page(daemon.url)
    login(page, KEY)
    expect(page.get_by_text("door").first).to_be_visible()
    assert daemon.client.delete("/v1/session", params={"all": "true"}).status_code == 204
    expect(page.get_by_label("key")).to_be_visible(timeout=60_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_axe_finds_nothing_serious(daemon: RunningDaemon, browsing: Browsing, width: int, scheme: str) -> None:
    browsing.expect(REFUSED)
    page = browsing.page(daemon.url, viewport={"width": width, "height": 800}, color_scheme=scheme)
    expect(page.get_by_label("key")).to_be_visible()
    assert axe_faults(page) == []
    login(page, KEY)
    expect(page.get_by_text("door").first).to_be_visible()
    assert axe_faults(page) == []
    page.goto(f"{daemon.url}/#/camera/door")
    expect(page.get_by_role("heading", name="door").first).to_be_visible()
    assert axe_faults(page) == []
