"""What a daemon that is a node of a fleet tells of it: `/v1/fleet`, `/v1/node`, `/readyz`, `/metrics`."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.support.broker import free_port
from tests.support.fleet_views import fleet_view
from tests.support.waiting import until
from visaged.daemon.app import Daemon
from visaged.daemon.fleet.metrics import FleetMetrics
from visaged.daemon.settings import parse


@pytest.fixture
def node() -> Iterator[tuple[FleetMetrics, httpx.Client]]:
    """A daemon that stands in a fleet, and a client of it."""
    standing = FleetMetrics("campus", lambda: 4.2, lambda: (3, 0))
    document = {"node": "node-01", "http": {"port": 0}, "mqtt": {"embedded": True, "port": free_port()}}
    settings = parse(document | {"state_dir": None, "models": {"analyzer": None}})
    daemon = Daemon(settings, "test", fleet=fleet_view, standing=standing)
    thread = threading.Thread(target=daemon.run)
    thread.start()
    with httpx.Client(base_url=daemon.web.http_address) as client:
        try:
            until(lambda: client.get("/readyz").status_code == 200, 20.0)
            yield standing, client
        finally:
            daemon.stop()
            thread.join(20.0)


def test_a_node_tells_of_its_fleet(node: tuple[FleetMetrics, httpx.Client]) -> None:
    standing, client = node
    assert client.get("/v1/node").json()["fleet"]["name"] == "campus"
    assert client.get("/v1/fleet").json()["nodes"][0]["name"] == "node-01"
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["fleet"]["state"]) == (200, "joining")  # pictures need no fleet
    standing.heard(fleet_view().summary)
    assert client.get("/readyz").json()["fleet"]["state"] == "member"
    assert client.get("/v1/node").json()["fleet"]["summary"]["cameras"] == 4
    metrics = client.get("/metrics").text
    assert 'visaged_fleet_cameras_unplaced{fleet="campus"} 1.0' in metrics
    described = client.get("/openapi.json").json()["paths"]
    assert {"/v1/fleet", "/v1/fleet/targets"} <= described.keys()
