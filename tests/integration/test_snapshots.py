"""Pictures with events on MQTT: raw, not kept, and nobody else's loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.conftest import BrokerFactory
from tests.support.broker import MosquittoBroker
from tests.support.messages import event
from tests.support.mqtt_output import EPOCH, PATIENCE_S, Start, starting
from tests.support.requirements import MOSQUITTO, needs
from tests.support.subscriber import Subscriber
from tests.support.waiting import until
from visaged.pipelines.outputs.messages import Composer, Message


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts outputs that end with the test."""
    with starting() as make:
        yield make


def snapshot(camera: str = "door", size: int = 20_000) -> Message:
    told = Composer("node", EPOCH).event(event(camera=camera))
    return replace(told, kind="snapshot", body=b"\xff\xd8" + bytes(size))


@needs(MOSQUITTO)
def test_a_snapshot_is_the_picture_alone_and_is_not_retained(start: Start, broker: MosquittoBroker) -> None:
    with Subscriber(broker, "v/+/snapshot") as subscriber:
        running = start(broker.port)
        running.connected()
        running.output.offer(snapshot())
        message = subscriber.wait_for(lambda message: True, PATIENCE_S)
        assert (message.topic, message.qos, message.is_retained) == ("v/door/snapshot", 0, False)
        assert message.payload == snapshot().body
    until(lambda: running.count("published_total", kind="snapshot") == 1, PATIENCE_S)
    assert running.lost() == {}
    with Subscriber(broker, "v/#") as later:
        later.wait_for(lambda message: message.topic == "v/node/status", PATIENCE_S)
        assert not [message for message in later.messages if message.topic.endswith("/snapshot")]


@needs(MOSQUITTO)
def test_snapshots_are_not_kept_while_the_broker_is_away_and_events_are(start: Start, broker: MosquittoBroker) -> None:
    running = start(broker.port)
    running.connected()
    broker.kill()
    running.disconnected()
    for _ in range(3):
        running.output.offer(snapshot())
    running.publisher.submit_event(event())
    until(lambda: running.lost() == {("snapshot", "offline"): 3}, PATIENCE_S)
    broker.start()
    running.settled(1)
    assert running.count("published_total", kind="snapshot") == 0


@needs(MOSQUITTO)
def test_a_snapshot_beyond_the_packet_limit_is_set_aside_and_smaller_ones_pass(
    start: Start, make_broker: BrokerFactory
) -> None:
    broker = make_broker(extra_config=["max_packet_size 10000"])
    with Subscriber(broker, "v/+/snapshot") as subscriber:
        running = start(broker.port, protocol="5")
        running.connected()
        running.output.offer(snapshot())
        running.output.offer(snapshot(size=5000))
        assert len(subscriber.wait_for(lambda message: True, PATIENCE_S).payload) == 5002
    assert running.lost() == {("snapshot", "too_large"): 1}
