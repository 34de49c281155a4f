"""The page with a real daemon: cameras with their pictures, what happens, one camera, and a picture of one's own."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Start
from tests.support.browser import Browsing
from tests.support.program import RunningDaemon
from tests.support.waiting import until

DEMO = Path(__file__).parents[2] / "daemon" / "demo"
PICTURE = DEMO / "person.jpg"
NOBODY = "rtsp://127.0.0.1:9/none"

# Pictures differ from frame to frame, if only by the noise of the codec.
MOVES = """selector => {
  const look = () => document.querySelector(selector)?.toDataURL("image/jpeg", 0.2);
  window.firstLook ??= look();
  return window.firstLook && look() !== window.firstLook;
}"""
DROP = """([bytes, name]) => {
  const data = Uint8Array.from(atob(bytes), character => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([data], name, {type: "image/jpeg"}));
  document.querySelector(".drop").dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));
}"""
HIDE = """hidden => {
  Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""
# Boxes as shares of the picture on the display.
BOXES = """selector => {
  const shown = document.querySelector(`${selector} canvas`).getBoundingClientRect();
  return [...document.querySelectorAll(`${selector} .line`)].map(line => {
    const box = line.getBoundingClientRect();
    return [(box.left - shown.left) / shown.width, (box.top - shown.top) / shown.height,
            (box.right - shown.left) / shown.width, (box.bottom - shown.top) / shown.height];
  });
}"""


@pytest.fixture(scope="module")
def daemon(start_shared: Start) -> RunningDaemon:
    """One with a camera that shows the demo clip, and one that does not answer."""
    demo = {"name": "entrance", "url": str(DEMO / "demo.mp4"), "loop": True, "fps": 5}
    return start_shared(
        {
            "cameras": [demo, {"name": "yard", "url": NOBODY}],
            "history": {"pictures": True},
            "inference": {"update_s": 1},
        }
    )


@pytest.fixture
def page(daemon: RunningDaemon, browsing: Browsing) -> Iterator[Page]:
    page = browsing.page(daemon.url)
    yield page
    page.close()


def test_the_grid_shows_moving_pictures_with_boxes(page: Page) -> None:
    tile = page.locator(".tile", has_text="entrance")
    expect(tile.locator(".badge")).to_have_text("live")
    expect(tile.locator(".boxes .line").first).to_be_attached()
    page.wait_for_function(MOVES, arg=".tile:not(.trouble) canvas")
    expect(tile).to_contain_text("fps")
    expect(page.locator("#state")).to_contain_text("2 cameras, 1 in trouble")


def test_a_broken_camera_comes_first_and_says_why_and_when_it_is_tried_again(page: Page) -> None:
    tile = page.locator(".tile").first
    expect(tile.locator("h3")).to_have_text("yard")
    expect(tile).to_contain_text("refused the connection")
    expect(tile).to_contain_text("Since ")
    expect(tile).to_contain_text("tried")


def test_an_event_appears_by_itself_with_its_picture(page: Page, daemon: RunningDaemon) -> None:
    page.locator(".event").first.wait_for()
    page.evaluate("window.notReloaded = true")
    key = "[...document.querySelectorAll('.event')].length"
    before = page.evaluate(key)
    page.wait_for_function(f"before => {key} > before", arg=before)
    assert page.evaluate("window.notReloaded")
    expect(page.locator(".event img").first).to_be_visible()
    page.wait_for_function("() => [...document.querySelectorAll('.event img')].some(one => one.naturalWidth > 0)")


def test_an_event_opens_and_is_deleted(page: Page, daemon: RunningDaemon) -> None:
    row = page.locator(".event").last
    row.locator("summary").press("Enter")
    expect(row.locator(".inside")).to_contain_text("sure it is a face")
    event = row.locator("[data-event]").get_attribute("data-event")
    rows = page.locator(f"[data-event='{event}']")
    row.get_by_role("button", name="Delete").click()
    page.locator("dialog").get_by_role("button", name="Delete").click()
    expect(rows).to_have_count(0)
    until(lambda: daemon.client.get(f"/v1/events/{event}").status_code == 404, 20)


def test_filters_show_what_the_api_would(page: Page, daemon: RunningDaemon) -> None:
    page.locator(".event").first.wait_for()
    with page.expect_response("**/v1/events?*") as asked:
        page.get_by_label("Faces", exact=True).select_option("emotion:happy")
    found = asked.value.json()["events"]
    assert "attribute=emotion%3Ahappy" in asked.value.url
    assert all(event["face"]["attributes"]["emotion"]["value"] == "happy" for event in found)
    for words in page.locator(".what").all_text_contents():
        assert "happy" in words
    page.get_by_label("Camera", exact=True).select_option("yard")
    expect(page.locator(".happened")).to_contain_text("Nothing that happened fits these filters.")


def test_a_camera_is_shown_large_with_what_is_thought_of_its_faces(page: Page, daemon: RunningDaemon) -> None:
    page.locator(".tile a", has_text="entrance").click()
    expect(page).to_have_url(daemon.url + "/#/camera/entrance")
    card = page.locator(".face").first
    expect(card).to_contain_text("Face ")
    expect(page.locator(".face .emotions li")).not_to_have_count(0)
    expect(page.locator(".timing")).to_contain_text("inference")
    page.get_by_label("Points on faces").select_option("5")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.large .dots')].some(one => one.getAttribute('d').includes('M'))"
    )
    page.locator("summary", has_text="For programs").click()
    expect(page.locator(".programs")).to_contain_text("mosquitto_sub -h 127.0.0.1 -p")
    expect(page.locator(".programs")).to_contain_text("-t 'visaged/entrance/faces'")
    expect(page.locator(".json")).to_contain_text('"camera": "entrance"')
    page.keyboard.press("Escape")
    expect(page.locator(".home")).to_be_visible()


def test_a_broken_camera_says_in_its_own_view_why(page: Page, daemon: RunningDaemon) -> None:
    page.goto(daemon.url + "/#/camera/yard")
    expect(page.locator(".camera")).to_contain_text("refused the connection")
    expect(page.locator(".camera")).to_contain_text("No face yet")


def test_a_dropped_picture_is_drawn_with_boxes_where_the_faces_are(page: Page, daemon: RunningDaemon) -> None:
    data = PICTURE.read_bytes()
    answer = daemon.client.post("/v1/faces?landmarks=106", content=data).json()
    page.locator(".tile").first.wait_for()
    page.evaluate(DROP, [base64.b64encode(data).decode(), "me.jpg"])
    expect(page.locator(".large .line")).to_have_count(len(answer["faces"]))
    expect(page.locator("h2", has_text="me.jpg")).to_be_visible()
    width, height = answer["image"]["width"], answer["image"]["height"]
    for drawn, face in zip(page.evaluate(BOXES, ".large"), answer["faces"], strict=True):
        left, top, right, bottom = face["box"]
        assert drawn == pytest.approx([left / width, top / height, right / width, bottom / height], abs=0.01)
    expect(page.locator(".face").first).to_contain_text("Age: about")
    page.get_by_label("Points on faces").select_option("106")
    dots: str = page.locator(".large .dots").first.get_attribute("d") or ""
    assert dots.count("M") == 106


def test_a_file_that_is_no_picture_is_refused_in_words(page: Page, browsing: Browsing) -> None:
    browsing.expect("status of 415")
    page.locator("input[type=file]").set_input_files(files=[_file("notes.txt", b"no picture")])
    expect(page.locator(".large")).to_contain_text("no JPEG, PNG, BMP or WebP")


@pytest.mark.parametrize("width", [320, 768, 2560])
def test_nothing_is_wider_than_the_window(page: Page, daemon: RunningDaemon, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for view in ("#/", "#/camera/entrance", "#/camera/yard", "#/picture"):
        page.goto(f"{daemon.url}/{view}")
        page.locator("section:visible").first.wait_for()
        for details in page.locator("details:visible:not([open]) > summary").all()[:3]:
            details.click()
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, view


def test_a_hidden_page_holds_no_connection(page: Page, daemon: RunningDaemon) -> None:
    page.locator(".boxes .line").first.wait_for(state="attached")
    assert daemon.metric("live_viewers") >= 2
    page.evaluate(HIDE, True)
    until(lambda: daemon.metric("live_viewers") == 0, 20)
    page.evaluate(HIDE, False)
    until(lambda: daemon.metric("live_viewers") == 2, 20)


def _file(name: str, data: bytes) -> Any:
    return {"name": name, "mimeType": "text/plain", "buffer": data}
