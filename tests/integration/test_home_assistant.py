"""What is published for Home Assistant, over real brokers that come, go and refuse."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import MosquittoBroker
from tests.support.embedded_broker import Embedded, subscriber
from tests.support.messages import event, status
from tests.support.mqtt_output import IMPATIENT, PATIENCE_S, Start, cut, starting, wait_for_node
from tests.support.odd_brokers import ClosingBroker
from tests.support.requirements import MOSQUITTO, needs, require
from tests.support.subscriber import Message, Subscriber
from tests.support.waiting import until

ON = {"enabled": True}
BIRTH = "homeassistant/status"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts outputs; they end with the test."""
    with starting() as make:
        yield make


def kept(broker: MosquittoBroker) -> dict[str, Any]:
    """All that the broker retains, by topic."""
    with Subscriber(broker) as late:
        late.publish("end", b"")
        late.wait_for(lambda m: m.topic == "end", PATIENCE_S)
        return {m.topic: m.json() for m in late.messages if m.is_retained}


def names(messages: dict[str, Any]) -> list[str]:
    return sorted(m["device"]["name"] for topic, m in messages.items() if topic.endswith("/config"))


def is_config(message: Message) -> bool:
    return message.topic.endswith("/config")


def settle(start: Start, broker: MosquittoBroker, folder: Path, **options: Any) -> dict[str, Any]:
    """Runs an output until all that it has is told; returns what is retained then."""
    running = start(broker.port, folder=folder, **options)
    running.connected()
    until(lambda: not (any(running.output._inbox._news) or running.output._unsent), PATIENCE_S)
    until(lambda: not running.output._ledger.in_flight, PATIENCE_S)
    running.stop()
    return kept(broker)


@needs(MOSQUITTO)
def test_a_device_for_every_camera_and_none_for_those_that_are_gone(
    broker: MosquittoBroker, start: Start, tmp_path: Path
) -> None:
    first = settle(start, broker, tmp_path / "a", cameras=["door", "yard"], home_assistant=ON)
    assert names(first) == ["door", "visaged node", "yard"]
    assert first["v/door/presence"]["faces"] == 0
    second = settle(start, broker, tmp_path / "a", cameras=["door", "hall"], home_assistant=ON)
    assert names(second) == ["door", "hall", "visaged node"]
    assert "v/yard/presence" not in second
    assert {t: m for t, m in first.items() if "door_" in t} == {t: m for t, m in second.items() if "door_" in t}
    moved = settle(start, broker, tmp_path / "a", cameras=["door"], home_assistant=ON | {"prefix": "site/ha"})
    assert names(moved) == ["door", "visaged node"]
    assert all(topic.startswith("site/ha/device/visaged_node_") for topic in moved if topic.endswith("/config"))
    off = settle(start, broker, tmp_path / "a", cameras=["door"])
    assert names(off) == []
    assert off.keys() == {"v/node/status", "v/door/presence"}


@needs(MOSQUITTO)
def test_two_hundred_cameras_that_are_added_and_removed(broker: MosquittoBroker, start: Start, tmp_path: Path) -> None:
    running = start(broker.port, folder=tmp_path / "a", home_assistant=ON)
    cameras = [f"camera.{number}" for number in range(200)]
    for camera in cameras:
        running.publisher.submit_status(status(camera))
    with Subscriber(broker, "homeassistant/#") as heard:
        heard.wait_for_all(lambda seen: sum(map(is_config, seen)) >= 201, PATIENCE_S)
        heard.clear()
        running.publisher.submit_status(status(cameras[0], "waiting", "gone"))
        for camera in cameras[1:]:
            running.publisher.forget(camera)
        cleared = heard.wait_for_all(lambda seen: len(seen) >= 199, PATIENCE_S)
        assert {m.payload for m in cleared} == {b""}
    assert names(kept(broker)) == ["camera.0", "visaged node"]


@needs(MOSQUITTO)
def test_devices_are_told_again_when_home_assistant_starts_and_not_at_a_flood(
    broker: MosquittoBroker, start: Start
) -> None:
    running = start(broker.port, home_assistant=ON, cameras=["door"])
    running.connected()
    running.output._births._least_s = 1.0
    with Subscriber(broker, "homeassistant/#") as heard:
        heard.wait_for_all(lambda seen: sum(map(is_config, seen)) >= 2, PATIENCE_S)
        heard.clear()
        heard.publish(BIRTH, b"offline")
        for _ in range(500):
            heard.publish(BIRTH, b"online", qos=0)
        heard.wait_for_all(lambda seen: sum(map(is_config, seen)) >= 2, PATIENCE_S)
        heard.publish(BIRTH, b"online")
        heard.wait_for_all(lambda seen: sum(map(is_config, seen)) >= 4, PATIENCE_S)
        assert sum(map(is_config, heard.messages)) < 20, "not at every one of 500"


@needs(MOSQUITTO)
def test_all_is_told_again_to_a_broker_that_lost_it(tmp_path: Path, start: Start) -> None:
    with MosquittoBroker(tmp_path) as broker:
        running = start(broker.port, home_assistant=ON, cameras=["door"])
        running.publisher.submit_status(status())
        running.publisher.submit_event(event())
        until(lambda: kept(broker).get("v/door/presence", {}).get("faces") == 1, PATIENCE_S)
        broker.restart()
        until(lambda: running.count("reconnects_total") >= 1, PATIENCE_S)
        until(lambda: names(kept(broker)) == ["door", "visaged node"], PATIENCE_S)
        assert kept(broker)["v/door/presence"]["faces"] == 1


@needs(MOSQUITTO)
def test_what_a_killed_run_said_of_faces_is_corrected_before_the_node_is_online(
    broker: MosquittoBroker, start: Start
) -> None:
    with Subscriber(broker) as heard:
        heard.publish("v/door/presence", b'{"faces": 3}', retain=True)
        start(broker.port, cameras=["door"])
        wait_for_node(heard, "online")
        told = [m.topic for m in heard.messages]
        assert told == ["v/door/presence", "v/door/presence", "v/node/status"]
        assert heard.messages[1].json()["faces"] == 0


def test_a_broker_that_refuses_it_is_told_of_once(
    tmp_path: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    require(MOSQUITTO)
    caplog.set_level(logging.WARNING)
    rules = tmp_path / "acl"
    rules.write_text("topic write v/#\ntopic read x\n")
    with MosquittoBroker(tmp_path, extra_config=[f"acl_file {rules}"]) as broker:
        running = start(broker.port, protocol="5", home_assistant=ON, cameras=["door", "yard"])
        until(lambda: running.lost() == {("discovery", "not_authorized"): 3}, PATIENCE_S)
        running.publisher.submit_event(event())
        running.settled(1)
        cut(running)
        until(lambda: running.lost() == {("discovery", "not_authorized"): 6}, PATIENCE_S)
    refused = [r.getMessage() for r in caplog.records if "are refused" in r.getMessage()]
    assert len(refused) == 1
    assert "homeassistant/device/visaged_..." in refused[0]


def test_a_broker_that_hangs_up_at_the_subscription_gets_everything_else(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with ClosingBroker(refuses_subscriptions=True) as broker:
        running = start(broker.port, times=IMPATIENT, home_assistant=ON, cameras=["door"])
        running.publisher.submit_event(event())
        until(lambda: running.count("acknowledged_total", kind="events") == 1, PATIENCE_S)
        until(lambda: broker.count("/config") >= 2, PATIENCE_S)
        assert running.lost() == {}
        assert broker.subscriptions <= 6
    assert sum("subscribes to homeassistant/status" in r.getMessage() for r in caplog.records) == 1


def test_a_broker_that_hangs_up_at_devices_gets_everything_else(start: Start) -> None:
    with ClosingBroker(lambda publish: publish.topic.endswith("/config")) as broker:
        running = start(broker.port, times=IMPATIENT, home_assistant=ON, cameras=["door"])
        running.publisher.submit_status(status())
        running.publisher.submit_event(event())
        until(lambda: running.count("acknowledged_total", kind="events") == 1, PATIENCE_S)
        until(lambda: broker.count("/door/status") >= 1 and broker.count("/door/presence") >= 1, PATIENCE_S)
        assert not {kind for kind, _ in running.lost()} - {"discovery"}


def test_the_embedded_broker_lets_home_assistant_in_and_nobody_forge_devices(start: Start) -> None:
    embedded = Embedded(devices="homeassistant/device/visaged_")
    try:
        with subscriber(embedded.port, "homeassistant/#") as heard:
            running = start(embedded.port, login=embedded.broker.login, home_assistant=ON, cameras=["door"])
            running.connected()
            running.output._births._least_s = 0.1
            told = heard.wait_for_all(lambda seen: sum(map(is_config, seen)) >= 2, PATIENCE_S)
            heard.clear()
            heard.publish(told[-1].topic, b"", retain=True)
            heard.publish("homeassistant/device/other/config", b"{}", retain=True)
            heard.publish(BIRTH, b"online")
            again = heard.wait_for_all(lambda seen: sum("visaged_" in m.topic for m in seen) >= 2, PATIENCE_S)
            assert [m.topic for m in again[:2]] == ["homeassistant/device/other/config", BIRTH]
            assert all(m.payload for m in again)
    finally:
        embedded.stop()
