"""The devices for Home Assistant: against its documented form, and their templates against messages."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import jinja2.sandbox
import pytest
from jsonschema import Draft202012Validator

from tests.support.messages import event, status
from tests.unit.fakes import Clock
from visaged.pipelines.outputs.home_assistant.devices import Site
from visaged.pipelines.outputs.home_assistant.discovery import Discovery
from visaged.pipelines.outputs.messages import Composer, Message
from visaged.pipelines.records import AttributeValue, CameraPresence
from visaged.pipelines.schemas import schema

SITE = Site("visaged", "shop", "1.2.3", has_snapshots=True)
NAMES = ("a.b", "a_b", "a-b", "a", "b", "a.b.", "1", "A", "x" * 64)


def templates(document: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {
        name: {key: text for key, text in component.items() if key.endswith("template")}
        for name, component in document["components"].items()
    }


CAMERA = templates(SITE.camera_device("door"))
NODE = templates(SITE.node_device())


def render(template: str, message: Message | bytes) -> str:
    """Renders a template as Home Assistant does: in a sandbox, where the message is `value` and `value_json`."""
    body = message if isinstance(message, bytes) else message.encode(message.captured_s + 0.05, replayed=False)
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    values = {"value": body.decode(), "value_json": json.loads(body)}
    return environment.from_string(template).render(values).strip()


@pytest.fixture
def composer() -> Composer:
    return Composer("shop", 1, Clock())


@pytest.mark.parametrize("site", [SITE, replace(SITE, has_snapshots=False), replace(SITE, prefix="a/b", node="n.1")])
def test_devices_are_as_documented(site: Site) -> None:
    validator = Draft202012Validator(schema("discovery"))
    for device in (site.node_device(), *map(site.camera_device, NAMES)):
        validator.validate(device)
        (id,) = device["device"]["identifiers"]
        assert re.fullmatch("[a-zA-Z0-9_-]+", id), "a level of a topic of discovery"
        for name, component in device["components"].items():
            assert component.get("unique_id", f"{id}_{name}") == f"{id}_{name}"


def test_a_snapshot_is_there_only_where_they_are_published() -> None:
    assert SITE.camera_device("door")["components"]["snapshot"]["image_topic"] == "visaged/door/snapshot"
    without = replace(SITE, has_snapshots=False).camera_device("door")
    assert without["components"]["snapshot"] == {"platform": "image"}, "which removes what an earlier run had"


def test_ids_differ_between_cameras_and_nodes_and_not_between_runs() -> None:
    sites = [SITE, replace(SITE, node="shop_a"), replace(SITE, node="shop.a"), replace(SITE, prefix="other")]
    ids = [id for site in sites for id in (site.node_id, *map(site.camera_id, NAMES))]
    assert len(set(ids)) == len(ids)
    newer = replace(SITE, version="2.0.0", has_snapshots=False)
    assert (newer.node_id, newer.camera_id("door")) == (SITE.node_id, SITE.camera_id("door"))
    assert SITE.camera_id("door") == "visaged_shop_door_6728b7dc"


def test_cameras_are_reached_through_their_node() -> None:
    node, camera = SITE.node_device(), SITE.camera_device("door")
    assert camera["device"]["via_device"] == node["device"]["identifiers"][0]
    assert camera["device"]["name"] == "door"
    assert [one["topic"] for one in camera["availability"]] == ["visaged/shop/status"]
    assert "availability" not in node, "else nothing would say that it is offline"


def test_the_node_is_online_or_not(composer: Composer) -> None:
    online = composer.node_status("online", 1.5, "1.2.3", None)
    will = composer.node_status("offline", 1.5, "1.2.3", "connection lost")
    available = SITE.camera_device("door")["availability"][0]["value_template"]
    assert [render(available, body) for body in (online, will)] == ["online", "offline"]
    assert [render(NODE["connectivity"]["value_template"], body) for body in (online, will)] == ["ON", "OFF"]
    attributes = json.loads(render(NODE["connectivity"]["json_attributes_template"], will))
    assert attributes == {"since": "1970-01-01T00:00:01.500Z", "reason": "connection lost"}
    assert render(NODE["version"]["value_template"], online) == "1.2.3"
    assert render(NODE["started"]["value_template"], online) == "1970-01-01T00:00:01.500Z"


@pytest.mark.parametrize(("faces", "present"), [(0, "OFF"), (1, "ON"), (12, "ON")])
def test_faces_are_there_or_not(composer: Composer, faces: int, present: str) -> None:
    message = composer.presence(CameraPresence("door", faces, 1.0))
    assert render(CAMERA["face"]["value_template"], message) == present
    assert render(CAMERA["faces"]["value_template"], message) == str(faces)


def test_a_camera_streams_or_has_a_problem(composer: Composer) -> None:
    streaming = composer.status(status())
    trying = composer.status(replace(status(), state="connecting", error="waits for a first picture"))
    broken = composer.status(replace(status(), state="waiting", error='it said "no" <401>', cause="unauthorized"))
    messages = (streaming, trying, broken)
    assert [render(CAMERA["connectivity"]["value_template"], m) for m in messages] == ["ON", "OFF", "OFF"]
    assert [render(CAMERA["problem"]["value_template"], m) for m in messages] == ["OFF", "OFF", "ON"]
    problem = json.loads(render(CAMERA["problem"]["json_attributes_template"], broken))
    assert problem == {"error": 'it said "no" <401>', "cause": "unauthorized"}
    stream = json.loads(render(CAMERA["connectivity"]["json_attributes_template"], streaming))
    assert (stream["state"], stream["codec"], stream["source"]) == ("streaming", "h264", "rtsp://camera/stream")


def test_an_event_has_its_attributes(composer: Composer) -> None:
    seen = event(3, kind="end", reason="lost")
    values = {"age": AttributeValue(31.234, 0.5, deviation=4.0), "gender": AttributeValue("female", 0.9)}
    message = composer.event(replace(seen, face=replace(seen.face, attributes=values)))
    told = json.loads(render(CAMERA["event"]["value_template"], message))
    assert (told["event_type"], told["reason"], told["track_id"]) == ("end", "lost", 3)
    assert (told["age"], told["gender"]) == (31.2, "female")
    assert "emotion" not in told, "what is switched off or unsure is absent"
    assert json.loads(render(CAMERA["event"]["value_template"], composer.event(event())))["event_type"] == "begin"


@pytest.mark.parametrize(("age_s", "replayed", "is_told"), [(0.1, False, True), (5, True, True), (600, True, False)])
def test_what_had_to_wait_for_minutes_is_no_event_any_more(
    composer: Composer, age_s: float, replayed: bool, is_told: bool
) -> None:
    message = composer.event(event())
    body = message.encode(message.captured_s + age_s, replayed)
    assert bool(render(CAMERA["event"]["value_template"], body)) is is_told


def test_discovery_is_told_once_and_taken_back() -> None:
    discovery = Discovery("homeassistant", SITE)
    (topic,) = discovery.announce("door")
    assert topic == "homeassistant/device/visaged_shop_door_6728b7dc/config"
    assert discovery.has(topic)
    assert discovery.announce("door") == {}
    assert discovery.retract("door") == {topic: b""}
    assert discovery.announce("door").keys() == {topic}
    assert discovery.topics(["door"]) == {topic, *discovery.node()}
    assert not discovery.has("homeassistant/status")
    assert discovery.birth_topic == "homeassistant/status"


def test_switched_off_it_tells_nothing() -> None:
    discovery = Discovery(None, SITE)
    assert discovery.node() == discovery.announce("door") == discovery.retract("door") == {}
    assert discovery.topics(["door"]) == set()
    assert discovery.birth_topic is None
    assert not discovery.has("homeassistant/device/visaged_shop/config")
