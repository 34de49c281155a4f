"""What is told of the fleet over HTTP: fresh, old, or nothing, and that a coordinator that hangs holds nobody up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import httpx
from fastapi import FastAPI

from tests.support.fleet_views import fleet_view
from visaged.daemon.fleet.api import install_fleet
from visaged.daemon.fleet.records import FleetView
from visaged.daemon.fleet.sight import FleetSight
from visaged.daemon.http import problems


def asked(sight: FleetSight | None, *paths: str) -> list[httpx.Response]:
    """Ask for paths, one after another."""

    async def ask() -> list[httpx.Response]:
        app = FastAPI()
        problems.install(app)
        install_fleet(app, sight)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return [await client.get(path) for path in paths]

    return asyncio.run(ask())


class Coordinator:
    """Answers with a view, raises, or hangs until it is let go."""

    def __init__(self, *answers: FleetView | Exception | None) -> None:
        self.answers = list(answers)
        self.go_on = threading.Event()
        self.asked = 0

    def __call__(self) -> FleetView:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            self.go_on.wait(30)
            return fleet_view()
        if isinstance(answer, Exception):
            raise answer
        return answer


def ticking(step_s: float) -> Callable[[], float]:
    """Return a clock that goes on by a step whenever it is looked at."""
    times = iter(range(1_000_000))
    return lambda: next(times) * step_s


def test_a_daemon_without_a_fleet_says_so() -> None:
    for answer in asked(None, "/v1/fleet", "/v1/fleet/targets"):
        assert answer.status_code == 404
        assert "in no fleet" in answer.json()["detail"]


def test_a_view_names_nodes_cameras_and_what_found_no_place() -> None:
    (answer,) = asked(FleetSight(fleet_view), "/v1/fleet")
    told = answer.json()
    assert (told["fleet"], told["error"], told["matching"]) == ("campus", None, {"cameras": 3, "unplaced": 1})
    assert [one["name"] for one in told["nodes"]] == ["node-01", "node-02"]
    assert told["nodes"][0]["used"] == 2
    assert {one["node"] for one in told["cameras"]} == {"node-01", "node-02"}
    assert told["unplaced"][0]["why"].startswith("all nodes of the site harbour are full")
    assert told["summary"]["unplaced"] == 1


def test_of_many_cameras_those_that_match_are_told_up_to_a_limit() -> None:
    view = fleet_view(cameras=10_000, nodes=20, unplaced=3)
    many, node, name, bad = asked(
        FleetSight(lambda: view),
        "/v1/fleet?limit=200",
        "/v1/fleet?match=NODE-07&limit=5",
        "/v1/fleet?match=camera-00041",
        "/v1/fleet?limit=-1",
    )
    assert (len(many.json()["unplaced"]), len(many.json()["cameras"])) == (3, 200)
    assert many.json()["matching"] == {"cameras": 9_997, "unplaced": 3}
    assert ({one["node"] for one in node.json()["cameras"]}, node.json()["matching"]["cameras"]) == ({"node-07"}, 500)
    assert [one["name"] for one in name.json()["cameras"]] == ["camera-00041"]
    assert (bad.status_code, "limit" in bad.json()["detail"]) == (400, True)


def test_a_coordinator_that_fails_leaves_the_last_view_with_its_age_and_the_reason() -> None:
    coordinator = Coordinator(fleet_view(), ConnectionError("rtsp://user:secret@192.0.2.1/ is away"))
    first, second = asked(FleetSight(coordinator, ticking(2.0)), "/v1/fleet", "/v1/fleet")
    assert first.json()["error"] is None
    assert second.json()["age_s"] > first.json()["age_s"]
    assert "is away" in second.json()["error"]
    assert "secret" not in second.text
    assert second.json()["cameras"] == first.json()["cameras"]


def test_a_coordinator_that_hangs_keeps_nobody_waiting_and_is_asked_once() -> None:
    coordinator = Coordinator(fleet_view(), None)
    answers = asked(FleetSight(coordinator, ticking(2.0), wait_s=0.02), "/v1/fleet", "/v1/fleet", "/v1/fleet")
    coordinator.go_on.set()
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert "has not answered" in answers[2].json()["error"]
    assert coordinator.asked == 2


def test_before_the_first_view_it_is_to_be_asked_again() -> None:
    (answer,) = asked(FleetSight(Coordinator(RuntimeError("no cluster"))), "/v1/fleet")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert "no cluster" in answer.json()["detail"]


def test_many_who_ask_at_once_ask_the_coordinator_once() -> None:
    coordinator = Coordinator(fleet_view())
    asked(FleetSight(coordinator), "/v1/fleet", "/v1/fleet", "/v1/fleet/targets")
    assert coordinator.asked == 1


def test_prometheus_gets_the_nodes_as_targets() -> None:
    (answer,) = asked(FleetSight(fleet_view), "/v1/fleet/targets")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()[1] == {
        "targets": ["192.0.2.2:8080"],
        "labels": {"node": "node-02", "site": "harbour", "__scheme__": "http"},
    }
