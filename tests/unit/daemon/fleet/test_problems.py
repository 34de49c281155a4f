"""What keeps a fleet from running with a configuration."""

from __future__ import annotations

from typing import Any

import pytest

from visaged.daemon.fleet.problems import fleet_problems

URL = "rtsp://camera/1"


def problems(camera: dict[str, Any] | None = None, fleet: dict[str, Any] | None = None, **more: Any) -> list[str]:
    cameras = [{"name": "quay", "url": URL, "fleet": camera or {}}]
    return [str(one) for one in fleet_problems({"cameras": cameras, "fleet": fleet or {}, **more})]


LISTED = {"only_listed": True, "nodes": {"a": {"site": "harbour", "capacity": 1}, "b": {"capacity": 4}}}


@pytest.mark.parametrize(
    ("camera", "fleet"),
    [
        ({}, {}),
        ({"weight": 50}, {}),
        ({"nodes": ["elsewhere"]}, {}),
        ({"nodes": ["a", "elsewhere"]}, LISTED),
        ({"site": "harbour"}, LISTED),
        ({"weight": 4}, LISTED),
        ({"weight": 4, "nodes": ["elsewhere"]}, {**LISTED, "only_listed": False}),
    ],
)
def test_a_camera_that_some_node_may_hold(camera: dict[str, Any], fleet: dict[str, Any]) -> None:
    assert problems(camera, fleet) == []


@pytest.mark.parametrize(
    ("camera", "fleet", "said"),
    [
        ({"nodes": ["elsewhere"]}, LISTED, "none of its nodes (elsewhere) is listed under fleet.nodes"),
        ({"site": "hill"}, LISTED, "none of the nodes that may hold it has the site hill"),
        ({"site": "hill"}, {}, "none of the nodes that may hold it has the site hill"),
        ({"site": "harbour", "nodes": ["b"]}, LISTED, "has the site harbour"),
        ({"weight": 5}, LISTED, "has the capacity for its weight of 5"),
        ({"weight": 2, "site": "harbour"}, LISTED, "has the capacity for its weight of 2"),
    ],
)
def test_a_camera_that_no_node_may_hold(camera: dict[str, Any], fleet: dict[str, Any], said: str) -> None:
    found = problems(camera, fleet)
    assert len(found) == 1
    assert found[0].startswith("cameras[0].fleet: camera quay fits no node: ")
    assert said in found[0]


def test_an_embedded_broker_is_refused_once() -> None:
    assert [one.partition(":")[0] for one in problems(fleet=LISTED, mqtt={"embedded": True})] == ["mqtt.embedded"]
    nodes = {"a": {"settings": {"mqtt": {"embedded": True}}}}
    assert problems(fleet={"nodes": nodes})[0].startswith("fleet.nodes.a.settings.mqtt.embedded: ")


def test_what_is_wrong_with_a_nodes_own_settings_names_the_node() -> None:
    nodes = {"a": {"settings": {"http": {"port": "many"}}}, "b": {"settings": {"http": {"port": 8081}}}}
    found = problems(fleet={"nodes": nodes})
    assert len(found) == 1
    assert found[0].startswith("fleet.nodes.a.settings: http.port: ")


def test_what_is_wrong_on_one_machine_too_is_told_as_there() -> None:
    assert problems(htpp={}) == [
        "htpp: is not a known key; look for a spelling mistake (`visaged schema` lists all keys)"
    ]
