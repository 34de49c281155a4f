"""The embedded broker with real clients: paho, and sockets that misbehave."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from tests.support.embedded_broker import HOST, PATIENCE_S, Apart, Embedded, broker_apart, subscriber
from tests.support.messages import event, valid
from tests.support.waiting import until
from visaged.daemon.broker.embedded import EmbeddedBroker
from visaged.daemon.broker.limits import Limits
from visaged.pipelines.outputs.messages import Composer
from visaged.pipelines.outputs.mqtt.config import PublisherConfig
from visaged.pipelines.outputs.mqtt.output import MqttOutput
from visaged.pipelines.outputs.outbox import MemoryOutbox
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker


@pytest.fixture
def embedded() -> Iterator[Embedded]:
    one = Embedded()
    yield one
    one.stop()
    assert not one.deaths


@pytest.fixture
def apart() -> Iterator[Apart]:
    with broker_apart() as one:
        yield one


class Deaf:
    """A subscriber that never reads what it subscribed to."""

    def __init__(self, port: int, qos: int, keepalive_s: int = 0) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect((HOST, port))
        self._socket.sendall(packet(0x10, text("MQTT") + struct.pack("!BBH", 4, 2, keepalive_s) + text("deaf")))
        assert self._read(4) == b"\x20\x02\x00\x00"
        self._socket.sendall(packet(0x82, struct.pack("!H", 1) + text("#") + bytes([qos])))
        assert self._read(5)[0] == 0x90

    def _read(self, count: int) -> bytes:
        return self._socket.recv(count, socket.MSG_WAITALL)

    def hears_the_end(self) -> None:
        """Reads until the broker hangs up."""
        try:
            while self._socket.recv(65536):
                pass
        except ConnectionResetError:
            pass

    def __enter__(self) -> Deaf:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()


def packet(kind: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([kind, len(body)]) + body


def text(value: str) -> bytes:
    return struct.pack("!H", len(value)) + value.encode()


def test_publisher_and_subscribers(embedded: Embedded) -> None:
    composer, metrics = Composer("node", 1), Metrics(CollectorRegistry())
    config = PublisherConfig(port=embedded.port, prefix="v")
    outbox, login = MemoryOutbox(1000, 1_000_000), embedded.broker.login
    publisher = MqttOutput(config, composer, metrics, "1.2.3", outbox, login)
    worker = Worker("publisher", publisher.run, lambda name, error: None)
    with subscriber(embedded.port, "v/#") as heard:
        worker.start()
        online = heard.wait_for(lambda m: m.topic == "v/node/status", PATIENCE_S)
        assert valid(online)["state"] == "online"
        for number in range(1, 101):
            publisher.offer(composer.event(event(number)))
        told = heard.wait_for_all(lambda seen: sum(m.topic.endswith("events") for m in seen) == 100, PATIENCE_S)
        assert [valid(m)["seq"] for m in told if m.topic.endswith("events")] == list(range(1, 101))
        with subscriber(embedded.port, "v/+/status") as late:
            kept = late.wait_for(lambda m: m.topic == "v/node/status", PATIENCE_S)
            assert kept.is_retained
            assert valid(kept)["state"] == "online"
        heard.clear()
        # A connection that breaks: the last will, and then the return.
        publisher._link._client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        will = heard.wait_for(lambda m: m.topic == "v/node/status" and valid(m)["state"] == "offline", PATIENCE_S)
        assert valid(will)["reason"] == "connection lost"
        heard.wait_for(lambda m: m.topic == "v/node/status" and valid(m)["state"] == "online", PATIENCE_S)
        publisher.drain(time.monotonic() + PATIENCE_S)
        worker.stop()
        assert worker.join(PATIENCE_S)
        heard.wait_for(lambda m: valid(m).get("reason") == "shutdown", PATIENCE_S)
        with subscriber(embedded.port, "v/+/status") as late:
            kept = late.wait_for(lambda m: m.topic == "v/node/status", PATIENCE_S)
            assert valid(kept)["reason"] == "shutdown"


def test_taken_port_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        broker = EmbeddedBroker(HOST, port, "v")
        broker.run(threading.Event())
    assert broker.ready.is_set()
    assert f"cannot listen on {HOST}:{port}: Address already in use; set mqtt.port to a free one" in str(broker.failure)
    assert not caplog.records


def test_stops_quickly_whoever_is_connected(caplog: pytest.LogCaptureFixture) -> None:
    embedded = Embedded()
    silent = socket.create_connection((HOST, embedded.port))  # has not even said that it speaks MQTT
    reading = (subscriber(embedded.port, "a/#"), subscriber(embedded.port, "a/#"))
    with silent, reading[0], reading[1] as sender, Deaf(embedded.port, qos=1):
        for _ in range(100):
            sender.publish("a/b", bytes(100_000))
        assert embedded.stop() < 2.0
    assert not embedded.deaths
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert all("'deaf'" in line and "too slow" in line for line in lines), lines


def test_five_subscribers_for_a_while(apart: Apart) -> None:
    """5 s of 400 messages a second; its memory settles, and nobody misses anything."""
    heard = [subscriber(apart.port, "v/#", qos=n % 2) for n in range(5)]
    sender = subscriber(apart.port, "none")
    for one in (*heard, sender):
        one.start()
    marks = []
    try:
        pause = threading.Event()
        began_s = time.monotonic()
        for number in range(2000):
            sender._client.publish("v/a", struct.pack("!I", number) + bytes(2000), qos=1)
            pause.wait(max(0.0, began_s + number / 400 - time.monotonic()))
            if number in (500, 1999):
                marks.append(apart.resident_mb())
        for one in heard:
            told = one.wait_for_all(lambda seen: len(seen) >= 2000, PATIENCE_S)
            assert [struct.unpack("!I", m.payload[:4])[0] for m in told] == list(range(2000))
    finally:
        for one in (*heard, sender):
            one.stop()
    assert marks[1] - marks[0] < 4.0, marks


@pytest.mark.parametrize("qos", [0, 1])
def test_subscriber_that_never_reads_is_disconnected(caplog: pytest.LogCaptureFixture, qos: int) -> None:
    says = "which does not read" if qos == 0 else "which acknowledges no messages"
    embedded = Embedded(Limits(unread_s=1.0, unacknowledged_s=1.0))
    with Deaf(embedded.port, qos=qos) as deaf, subscriber(embedded.port, "a/#") as heard:
        sent = 0
        while not any(says in line for line in caplog.messages):
            assert sent < 3000
            heard.publish("a/b", struct.pack("!I", sent) + bytes(20_000))
            sent += 1
        told = heard.wait_for_all(lambda seen: len(seen) >= sent, PATIENCE_S)
        assert [struct.unpack("!I", m.payload[:4])[0] for m in told] == list(range(sent))
        deaf.hears_the_end()
        # Nothing of it is left that would wait, or turn in circles.
        heard.publish("a/b", b"end")
        cpu_s = time.process_time()
        threading.Event().wait(1.0)
        assert time.process_time() - cpu_s < 0.5
        assert len([line for line in caplog.messages if says in line]) == 1
    embedded.stop()
    assert not embedded.deaths


def test_memory_with_a_subscriber_that_never_reads(apart: Apart) -> None:
    with Deaf(apart.port, qos=0) as deaf, subscriber(apart.port, "none") as sender:
        before_mb = apart.resident_mb()
        for _ in range(8000):
            sender._client.publish("a/b", bytes(20_000), qos=1)
        sender.publish("a/b", b"end")
        assert apart.resident_mb() - before_mb < 60
        apart.process.wait_for_line("which does not read", PATIENCE_S)
        deaf.hears_the_end()


def test_clients_that_come_and_go_leave_nothing(embedded: Embedded) -> None:
    for number in range(20):
        client = subscriber(embedded.port, f"t/{number}")
        client.start()
        if number % 2:
            client._client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        client.stop()
        with socket.create_connection((HOST, embedded.port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    until(lambda: len(embedded.broker._places) == 0, PATIENCE_S)
    assert not embedded.broker._exchange._subscriptions._root.next
