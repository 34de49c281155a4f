"""The page of a node of a fleet: the whole fleet, with ways to its other nodes; nothing of it on a single machine."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.support.broker import free_port
from tests.support.browser import Browsing
from tests.support.fleet_views import fleet_view
from tests.support.waiting import until
from visaged.daemon.app import Daemon
from visaged.daemon.fleet.metrics import FleetMetrics
from visaged.daemon.fleet.records import CameraView, FleetView
from visaged.daemon.settings import parse

EVIL = "<img src=x onerror='window.hacked = true'>"


class Node:
    """A daemon that is node-01 of a fleet, of which a test sets the view."""

    def __init__(self) -> None:
        self.view = fleet_view(cameras=8, nodes=3, unplaced=2, away=1)
        self._standing = FleetMetrics("campus", lambda: 4.0, lambda: (3, 0))
        document = {"node": "node-01", "http": {"port": 0}, "mqtt": {"embedded": True, "port": free_port()}}
        settings = parse(document | {"state_dir": None, "models": {"analyzer": None}})
        self.daemon = Daemon(settings, "0.1.0", fleet=lambda: self.view, standing=self._standing)
        self.url = self.daemon.web.http_address

    def show(self, view: FleetView) -> None:
        """Have the coordinator tell another view, and wait until the daemon does: it keeps one for a second."""
        self.view = dataclasses.replace(view, coordinator=self.view.coordinator + 1)
        self._standing.heard(view.summary)
        until(lambda: httpx.get(f"{self.url}/v1/fleet").json()["coordinator"]["run"] == self.view.coordinator, 20.0)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    node = Node()
    thread = threading.Thread(target=node.daemon.run)
    thread.start()
    until(lambda: node.daemon.readiness()[0], 20.0)
    yield node
    node.daemon.stop()
    thread.join(20.0)


def fleet_page(node: Node, browsing: Browsing, view: FleetView) -> Page:
    node.show(view)
    page = browsing.page(f"{node.url}/#/fleet")
    page.locator(".fleet-body").wait_for()
    return page


def test_any_node_shows_the_fleet_and_leads_to_the_owner_of_a_camera(node: Node, browsing: Browsing) -> None:
    view = fleet_view(cameras=8, nodes=3, unplaced=2, away=1)
    moving = dataclasses.replace(view.cameras[0], warm="node-02")
    page = fleet_page(node, browsing, dataclasses.replace(view, cameras=(moving, *view.cameras[1:])))
    expect(page.locator("#state a")).to_have_text("fleet campus: 2 cameras without a node, 1 node away")
    expect(page.locator(".unplaced")).to_contain_text("all nodes of the site harbour are full")
    expect(page.locator(".unplaced")).to_contain_text("lost-00000, lost-00001")
    first = page.locator(".nodes li").first
    expect(first).to_contain_text("node-03")
    expect(first).to_contain_text("not heard of for 2 min")
    expect(page.locator(".nodes li", has_text="node-01")).to_contain_text("3 of 12")
    own, other = (page.get_by_role("link", name=name, exact=True) for name in ("camera-00000", "camera-00001"))
    expect(own).to_have_attribute("href", "#/camera/camera-00000")
    expect(other).to_have_attribute("href", "http://192.0.2.2:8080/#/camera/camera-00001")
    expect(page.locator(".where .moving")).to_contain_text("node-01 → node-02")
    page.get_by_role("button", name="3 cameras").last.click()
    expect(page.locator(".where li")).to_have_count(4)  # and the one that node-02 takes over
    page.get_by_role("link", name="← This node").click()
    expect(page.locator(".spare")).to_contain_text("No camera on this node now")


def test_ten_thousand_cameras_are_searched_and_not_all_drawn(node: Node, browsing: Browsing) -> None:
    page = fleet_page(node, browsing, fleet_view(cameras=10_000, nodes=500, unplaced=0))
    expect(page.locator(".where li")).to_have_count(200)
    expect(page.locator(".where + p")).to_have_text("These are 200 of 10,000. Find the others by their name, above.")
    expect(page.locator(".nodes li")).to_have_count(40)
    page.get_by_label("Find a camera or a node").fill("camera-07654")
    expect(page.locator(".where li")).to_have_count(1)
    expect(page.locator(".where a")).to_have_text("camera-07654")
    page.get_by_label("Find a camera or a node").fill("nowhere")
    expect(page.locator(".fleet-body")).to_contain_text("No camera has “nowhere” in its name.")


def test_what_other_nodes_tell_is_never_markup_or_a_script(node: Node, browsing: Browsing) -> None:
    view = fleet_view(cameras=2, nodes=1, unplaced=1)
    evil = dataclasses.replace(view.nodes[0], name=EVIL, url="javascript:window.hacked=true", why=EVIL)
    page = fleet_page(
        node, browsing, dataclasses.replace(view, nodes=(evil,), cameras=(CameraView(EVIL, EVIL, state=EVIL),))
    )
    expect(page.locator(".nodes h4")).to_have_text(EVIL)
    assert page.locator(".nodes a[href], .where a[href]").count() == 0
    assert not page.evaluate("'hacked' in window")


def test_on_a_single_machine_nothing_of_a_fleet_is_seen(node: Node, browsing: Browsing) -> None:
    def alone(route: Route) -> None:
        route.fulfill(body=json.dumps(route.fetch().json() | {"fleet": None}), content_type="application/json")

    page = browsing.page()
    page.route("**/v1/node", alone)
    page.goto(node.url)
    expect(page.locator(".none")).to_contain_text("No camera yet")
    assert "fleet" not in page.inner_text("body")
    expect(page.locator("#state li")).to_have_count(3)
