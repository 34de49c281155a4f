"""The configuration of a node."""

from __future__ import annotations

import pytest

from visaged.daemon.config.document import SettingsError
from visaged.daemon.fleet.node.documents import node_document, usable

FLEET = {"name": "campus", "nodes": {"north": {"site": "hill", "settings": {"http": {"port": 1}, "log": None}}}}


def test_a_nodes_own_settings_lie_over_those_of_the_fleet() -> None:
    document = {"http": {"port": 2, "host": "::1"}, "log": {"level": "debug"}, "fleet": FLEET}
    north = node_document(document, "north")
    assert north == {"http": {"port": 1, "host": "::1"}, "fleet": FLEET, "node": "north"}
    assert node_document(document, "south") == document | {"node": "south"}


@pytest.mark.parametrize("fleet", [None, [], {"nodes": None}, {"nodes": {"north": None}}, {"nodes": {"north": 3}}])
def test_a_fleet_that_is_not_one_is_left_to_the_check_of_the_settings(fleet: object) -> None:
    assert node_document({"fleet": fleet}, "north") == {"fleet": fleet, "node": "north"}


def test_an_embedded_broker_is_refused_wherever_it_is_asked_for() -> None:
    own = {"nodes": {"north": {"settings": {"mqtt": {"embedded": True}}}}}
    assert "mqtt" not in node_document({"fleet": own}, "south")
    for document, node in (({"mqtt": {"embedded": True}}, "south"), ({"fleet": own}, "north")):
        with pytest.raises(SettingsError, match=r"mqtt\.embedded: the nodes of a fleet need one broker for all"):
            node_document(document, node)


def test_cameras_that_cannot_run_here_do_not_keep_the_others_from_it() -> None:
    cameras = [
        {"name": "door", "url": "rtsp://door"},
        {"name": "vault", "url": "rtsp://vault", "username": "me", "password_file": "/no/such/file"},
        {"name": "shed", "url": "nonsense://x"},
        {"url": "rtsp://nameless"},
        {"name": "attic", "url": "rtsp://attic", "attributes": {"shoe_size": True}},
    ]
    document, problems = usable({"node": "north", "cameras": cameras})
    assert [camera["name"] for camera in document["cameras"]] == ["door"]
    assert problems.keys() == {"vault", "shed", "cameras[3]", "attic"} or problems.keys() == {
        "vault", "shed", "cameras[1]", "cameras[2]", "attic"
    }  # fmt: skip
    assert "/no/such/file" in problems["vault"]


def test_other_problems_are_left_to_the_check_of_the_settings() -> None:
    document = {"node": "north", "http": {"port": "many"}, "cameras": []}
    assert usable(document) == (document, {})
