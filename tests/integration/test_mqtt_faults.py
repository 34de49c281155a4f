"""The MQTT output against brokers that hang up on messages, limit them, refuse them, or do not want this client."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.support.broker import MosquittoBroker
from tests.support.messages import event, result, status
from tests.support.mqtt_output import IMPATIENT, PATIENCE_S, Running, Start, cut, starting, wait_for_node
from tests.support.odd_brokers import ClosingBroker, Publish
from tests.support.requirements import MOSQUITTO, require
from tests.support.subscriber import Subscriber
from tests.support.waiting import until
from visaged.pipelines.outputs.mqtt.times import Times


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts outputs; they end with the test."""
    with starting() as make:
        yield make


@pytest.fixture
def heard(broker: MosquittoBroker) -> Iterator[Subscriber]:
    """Hears everything on `broker`."""
    with Subscriber(broker) as subscriber:
        yield subscriber


class Traffic:
    """Two cameras that go on producing frames, and an event with every second frame."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        for number in itertools.count(1):
            if self._over.wait(0.05):
                return
            for camera in ("door", "yard"):
                self._running.publisher.submit(result(camera, events=[event(number, camera)] if number % 2 else []))

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


def about(caplog: pytest.LogCaptureFixture, *words: str) -> list[str]:
    return [line for line in caplog.messages if all(word in line for word in words)]


def lost(running: Running, kind: str, cause: str) -> float:
    return running.lost().get((kind, cause), 0.0)


@pytest.mark.parametrize(
    ("denied", "faces_qos"), [("/events", 0), ("/faces", 0), ("/faces", 1), ("door/events", 1), ("door/faces", 0)]
)
def test_topics_that_a_broker_hangs_up_on_are_set_aside(
    start: Start, caplog: pytest.LogCaptureFixture, denied: str, faces_qos: int
) -> None:
    with ClosingBroker(lambda publish: publish.topic.endswith(denied)) as broker:
        running = start(broker.port, times=IMPATIENT, faces_qos=faces_qos)
        running.publisher.submit_status(status())
        kind = denied.rpartition("/")[2]
        others = {"v/door/events", "v/door/faces", "v/yard/events", "v/yard/faces"} - {"v/" + denied}
        others = {topic for topic in others if not topic.endswith(denied)}
        with Traffic(running):
            until(lambda: lost(running, kind, "hung_up") > 20, PATIENCE_S)
            broker.taken.clear()
            connects = len(broker.connects)
            until(lambda: all(broker.count(topic) > 20 for topic in others), PATIENCE_S)
        assert len(broker.connects) <= connects + 1
        assert broker.count(denied) == 0
        assert len(broker.refused) < 30
        for topic in broker.refusals():
            assert len(about(caplog, f"messages to {topic} make the MQTT broker hang up", "bytes")) == 1


def test_one_large_event_among_many_is_set_aside(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    with ClosingBroker(lambda publish: publish.size > 20_000) as broker:
        running = start(broker.port, times=IMPATIENT)
        running.connected()
        broker.holds.set()
        for number in range(1, 41):
            running.publisher.submit_event(event(number, reason="x" * 30_000 if number == 7 else None))  # type: ignore[arg-type]
        broker.holds.clear()
        until(lambda: lost(running, "events", "hung_up") == 1, PATIENCE_S)
        until(lambda: running.count("waiting", kind="events") == 0, PATIENCE_S)
        seen = [orjson.loads(p.payload)["track_id"] for p in broker.taken if p.topic == "v/door/events"]
        assert list(dict.fromkeys(seen)) == [number for number in range(1, 41) if number != 7]
        assert running.count("acknowledged_total", kind="events") >= 39
        assert len(about(caplog, "messages to v/door/events make the MQTT broker hang up")) == 1


@pytest.mark.parametrize("faces_qos", [0, 1])
def test_crowded_frames_that_are_too_large_cost_themselves_alone(start: Start, faces_qos: int) -> None:
    with ClosingBroker(lambda publish: publish.size > 20_000) as broker:
        running = start(broker.port, times=IMPATIENT, faces_qos=faces_qos)
        running.connected()
        for number in itertools.count():
            time.sleep(0.05)
            running.publisher.submit(result(faces=40 if number % 3 == 0 else 1, has_points=True))
            if lost(running, "faces", "hung_up") > 10:
                break
            assert number < 1000
        broker.taken.clear()
        connects = len(broker.connects)
        for _ in range(200):
            running.publisher.submit(result(faces=1, has_points=True))
            running.publisher.submit(result(faces=40, has_points=True))
            time.sleep(0.05)
            if broker.count("/faces") >= 20:
                break
        assert broker.count("/faces") >= 20
        assert len(broker.connects) <= connects + 1


@pytest.mark.parametrize("denied", ["node/status", "door/status", "/status", "RETAINED"])
def test_state_that_a_broker_hangs_up_on_starves_nothing(start: Start, denied: str) -> None:
    def hangs_up(publish: Publish) -> bool:
        return publish.retain if denied == "RETAINED" else publish.topic.endswith(denied)

    with ClosingBroker(hangs_up) as broker:
        running = start(broker.port, times=IMPATIENT)
        running.publisher.submit_status(status())
        with Traffic(running):
            until(lambda: broker.count("/events") > 20 and broker.count("/faces") > 20, PATIENCE_S * 2)
        assert lost(running, "status", "hung_up") >= 1
        assert lost(running, "events", "hung_up") == 0


def test_a_last_will_that_is_not_allowed_starves_nothing(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    with ClosingBroker(accepts=lambda connect: b"v/node/status" not in connect) as broker:
        running = start(broker.port, times=IMPATIENT)
        running.connected()
        running.publisher.submit_event(event())
        running.settled(1)
        assert len(about(caplog, "only without a last will", "v/node/status")) == 1
        assert len(broker.connects) < 8


def test_a_broker_that_closes_every_connection_costs_no_event_and_is_tried_less_and_less(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    with ClosingBroker(closes_at_once=True) as broker:
        running = start(broker.port, times=Times(reconnect_s=0.25), reconnect_most_s=1)
        running.publisher.submit_event(event())
        until(lambda: len(broker.connects) == 4, PATIENCE_S)
        began_s = time.monotonic()
        until(lambda: len(broker.connects) == 6, PATIENCE_S)
        assert time.monotonic() - began_s > 1.5  # not four a second
        assert len(about(caplog, "another client may use the client id", "visaged-node", "mqtt.client_id")) == 1
        assert len(about(caplog, "was lost: it was closed")) == 1
        broker.closes_at_once = False
        running.settled(1)
    assert running.lost() == {}


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_two_clients_of_one_id_are_recognized(
    broker: MosquittoBroker, start: Start, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    # With pauses that grow, one of them is connected for long enough to send.
    one, two = (start(broker.port, protocol=protocol, client_id="twin", reconnect_most_s=8) for _ in range(2))
    until(lambda: len(about(caplog, 'client id "twin"', "mqtt.client_id")) >= 2, PATIENCE_S)
    for each in (one, two):
        each.publisher.submit_event(event())
        until(lambda each=each: each.count("acknowledged_total", kind="events") == 1, PATIENCE_S)  # type: ignore[misc]
        assert each.lost() == {}


def test_a_session_that_is_taken_over_is_logged_as_such(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    goodbye = bytes([0xE0, 2, 0x8E, 0])
    with ClosingBroker(version=5, goodbye=goodbye, closes_at_once=True) as broker:
        running = start(broker.port, times=IMPATIENT, protocol="5")
        until(lambda: len(broker.connects) >= 4, PATIENCE_S)
        assert len(about(caplog, 'another client with the client id "visaged-node"', "mqtt.client_id")) == 1
        assert not about(caplog, "did not accept")
        running.publisher.submit_event(event())
        broker.closes_at_once = False
        running.settled(1)


@pytest.mark.parametrize("version", [4, 5])
def test_the_size_of_a_packet_is_known_before_it_is_sent(start: Start, version: int) -> None:
    with ClosingBroker(version=version) as broker:
        running = start(broker.port, times=IMPATIENT, protocol="5" if version == 5 else "3.1.1")
        until(lambda: broker.count("/status") == 1, PATIENCE_S)
        expected = []
        for qos, length in itertools.product((0, 1), (0, 100, 118, 119, 120, 121, 122, 123, 124, 16_370, 16_380)):
            running.link.send("v/t", b"x" * length, qos)
            expected.append(running.link.packet_bytes("v/t", b"x" * length, qos))
        until(lambda: broker.count("v/t") == len(expected), PATIENCE_S)
        assert [publish.size for publish in broker.taken if publish.topic == "v/t"] == expected


def test_limits_of_an_mqtt_5_broker_are_kept(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    receive_maximum = b"\x21\x00\x03"
    maximum_packet_size = b"\x27" + (8000).to_bytes(4, "big")
    with ClosingBroker(
        lambda publish: publish.size > 8000, version=5, properties=receive_maximum + maximum_packet_size
    ) as broker:
        running = start(broker.port, times=IMPATIENT, protocol="5", faces_qos=1)
        running.connected()
        broker.holds.set()
        for number in range(1, 31):
            large = number % 10 == 0
            running.publisher.submit(result(faces=20 if large else 1, events=[event(number)], has_points=True))
        until(lambda: running.count("waiting", kind="events") == 30, PATIENCE_S)
        until(lambda: broker.most_unacknowledged == 3, PATIENCE_S)
        broker.holds.clear()
        cut(running)
        running.connected()
        until(lambda: running.count("waiting", kind="events") == 0, PATIENCE_S)
        for number in range(31, 41):
            running.publisher.submit(result(faces=20, has_points=True))
            running.publisher.submit_event(event(number))
        running.settled(40)
        until(lambda: lost(running, "faces", "too_large") >= 10, PATIENCE_S)
        assert broker.most_unacknowledged <= 3
        assert broker.refused == []
        assert len(about(caplog, "messages to v/door/faces", "Maximum Packet Size of 8000 bytes")) == 1
        largest = max(publish.size for publish in broker.taken)
        assert largest <= 8000


def test_a_broker_without_retain_and_qos_gets_neither(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    properties = b"\x24\x00\x25\x00"  # Maximum QoS 0, Retain Available 0
    with ClosingBroker(lambda p: p.qos > 0 or p.retain, version=5, properties=properties) as broker:
        running = start(broker.port, times=IMPATIENT, protocol="5", faces_qos=1)
        running.publisher.submit_status(status())
        running.publisher.submit(result(events=[event(1), event(2)]))
        until(lambda: broker.count("/events") == 2 and broker.count("door/status") == 1, PATIENCE_S)
        until(lambda: running.count("waiting", kind="events") == 0, PATIENCE_S)
        assert broker.refused == []
        assert len(about(caplog, "QoS 0 only")) == 1


@pytest.mark.parametrize(("reason", "code"), [("Packet too large", 0x95), ("Not authorized", 0x87)])
def test_a_disconnect_with_a_reason_that_blames_a_message(start: Start, reason: str, code: int) -> None:
    goodbye = bytes([0xE0, 2, code, 0])
    with ClosingBroker(lambda p: p.topic.endswith("/events"), version=5, goodbye=goodbye) as broker:
        running = start(broker.port, times=IMPATIENT, protocol="5")
        with Traffic(running):
            until(lambda: lost(running, "events", "hung_up") > 5, PATIENCE_S)
            until(lambda: broker.count("/faces") > 20, PATIENCE_S)


@pytest.mark.parametrize("code", [0x8B, 0x98])
def test_a_disconnect_with_a_reason_of_the_brokers_own_costs_no_message(start: Start, code: int) -> None:
    fewer = itertools.count()
    with ClosingBroker(
        lambda p: p.topic.endswith("/events") and next(fewer) < 5, version=5, goodbye=bytes([0xE0, 2, code, 0])
    ) as broker:
        running = start(broker.port, times=IMPATIENT, protocol="5")
        running.publisher.submit_event(event())
        until(lambda: running.count("acknowledged_total", kind="events") == 1, PATIENCE_S)
        assert running.lost() == {}
        assert len(broker.refused) == 5


def test_refused_messages_are_logged_once_by_topic_and_counted_by_reason(
    tmp_path: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    require(MOSQUITTO)
    caplog.set_level(logging.WARNING)
    rules = tmp_path / "acl"
    rules.write_text("topic write v/node/status\ntopic write v/yard/#\n")
    with MosquittoBroker(tmp_path, extra_config=[f"acl_file {rules}"]) as broker:
        running = start(broker.port, protocol="5", faces_qos=1)
        running.connected()
        running.publisher.submit_status(status())
        for number in range(1, 11):
            running.publisher.submit(result(events=[event(number), event(number, "yard")]))
        reasons = {("faces", "not_authorized"): 10, ("events", "not_authorized"): 10, ("status", "not_authorized"): 1}
        until(lambda: {k: n for k, n in running.lost().items() if k[0] != "presence"} == reasons, PATIENCE_S)
        until(lambda: running.count("acknowledged_total", kind="events") == 10, PATIENCE_S)
    for topic in ("v/door/faces", "v/door/events", "v/door/status", "v/door/presence"):
        assert len(about(caplog, f"messages to {topic} are refused by the MQTT broker: Not authorized")) == 1


def test_the_status_of_a_removed_camera_is_cleared(broker: MosquittoBroker, heard: Subscriber, start: Start) -> None:
    running = start(broker.port)
    wait_for_node(heard, "online")
    running.publisher.submit_status(status())
    running.publisher.submit_status(status("yard"))
    heard.wait_for(lambda m: m.topic == "v/door/status" and m.payload != b"", PATIENCE_S)
    running.publisher.forget("door")
    heard.wait_for(lambda m: m.topic == "v/door/status" and m.payload == b"", PATIENCE_S)
    heard.wait_for(lambda m: m.topic == "v/door/presence" and m.payload == b"", PATIENCE_S)
    cut(running)
    until(lambda: running.count("reconnects_total") == 1, PATIENCE_S)
    running.publisher.submit_event(event())
    running.settled(1)
    with Subscriber(broker) as late:
        late.publish("v/end", b"")
        late.wait_for(lambda m: m.topic == "v/end", PATIENCE_S)
        assert sorted(m.topic for m in late.messages[:-1]) == ["v/node/status", "v/yard/presence", "v/yard/status"]
    assert running.output._state.keys() == {"v/yard/status", "v/yard/presence"}


def test_a_camera_removed_while_the_broker_is_away_is_cleared_later(tmp_path: Path, start: Start) -> None:
    require(MOSQUITTO)
    with MosquittoBroker(tmp_path, is_persistent=True) as broker:
        running = start(broker.port)
        running.publisher.submit_status(status())
        with Subscriber(broker) as heard:
            heard.wait_for(lambda m: m.topic == "v/door/status", PATIENCE_S)
        broker.save()
        broker.kill()
        running.disconnected()
        running.publisher.forget("door")
        broker.start()
        until(lambda: "v/door/status" not in running.output._state, PATIENCE_S)
        with Subscriber(broker) as late:
            late.publish("v/end", b"")
            late.wait_for(lambda m: m.topic == "v/end", PATIENCE_S)
            assert "v/door/status" not in {m.topic for m in late.messages}
