"""The embedded broker under attack, and what /readyz says of it."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.support.broker import free_port
from tests.support.embedded_broker import HOST, PATIENCE_S, Apart, Embedded, broker_apart, subscriber
from tests.support.mqtt_bytes import CONNACK, connect, publish, subscribe
from tests.support.waiting import until
from visaged.daemon.app import Daemon
from visaged.daemon.broker.probe import BrokerProbe
from visaged.daemon.settings import parse

HUNG_UP = (ConnectionResetError, BrokenPipeError)


@pytest.fixture
def apart() -> Iterator[Apart]:
    with broker_apart() as one:
        yield one


def socket_to(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), PATIENCE_S)


def client(stack: contextlib.ExitStack, port: int, first: bytes, then: bytes = b"") -> socket.socket:
    """A client that sent CONNECT and something after it, and heard the answer to the first."""
    one = stack.enter_context(socket_to(port))
    one.sendall(first)
    assert len(one.recv(4, socket.MSG_WAITALL)) == 4
    with contextlib.suppress(*HUNG_UP):
        one.sendall(then)
    return one


def lets_in(port: int) -> bool:
    """Whether the broker accepts one more client."""
    with socket_to(port) as one:
        one.sendall(connect("newcomer"))
        return one.recv(4, socket.MSG_WAITALL) == CONNACK


def hears_the_end(one: socket.socket) -> None:
    """Reads until the broker hangs up."""
    with contextlib.suppress(ConnectionResetError):
        while one.recv(65536):
            pass


def test_attacks_leave_the_broker_well(apart: Apart) -> None:
    """Together: silent sockets, sessions to be kept, filters, retained messages, large packets, floods, forgeries."""
    before_mb = apart.resident_mb()
    with contextlib.ExitStack() as stack:
        forger = client(stack, apart.port, connect("forger"))
        for index in range(2):
            filters = b"".join(subscribe(*(f"f/{index}/{n}/{m}" for n in range(100)), qos=1) for m in range(6))
            client(stack, apart.port, connect(f"filters-{index}"), filters)
        keeper = client(stack, apart.port, connect("keeper"))
        keeper.sendall(b"".join(publish(f"k/{n}", bytes(1000), retain=True) for n in range(2000)))
        large = client(stack, apart.port, connect("large"), b"\x30\x80\x80\x80\x64" + bytes(1_000_000))
        hears_the_end(large)
        for index in range(130):
            with contextlib.suppress(*HUNG_UP), socket_to(apart.port) as one:
                one.sendall(connect(f"kept-{index}", clean=False) + subscribe("#", qos=2) + publish("x", qos=2) * 50)
        pinging = client(stack, apart.port, connect("pinging"))
        pinging.settimeout(0.1)
        with contextlib.suppress(TimeoutError, *HUNG_UP):
            pinging.sendall(b"\xc0\x00" * 2_000_000)  # and reads no answer
        for _ in range(100):
            stack.enter_context(socket_to(apart.port))
        for index in range(40):
            client(stack, apart.port, connect(f"deaf-{index}"), subscribe("d/#"))
        for index in range(10):
            forger.sendall(
                publish("visaged/node/status", b"forged", retain=True) + publish(f"d/{index}", bytes(200_000))
            )
        # Clients that have gone keep their places until the broker had the time to read what they sent.
        until(lambda: lets_in(apart.port), PATIENCE_S)
        with subscriber(apart.port, "visaged/#") as other:
            other._client.subscribe("here", 1)
            other.publish("here", b"I am", retain=False)
            assert other.wait_for(lambda message: message.topic == "here").payload == b"I am"
            assert [message.topic for message in other.messages] == ["here"]
        assert apart.resident_mb() - before_mb < 120
    assert not any("Traceback" in line for line in apart.process.lines)


@contextlib.contextmanager
def probing(port: int, login: tuple[str, str]) -> Iterator[BrokerProbe]:
    """A probe that tries again at once, and soon has enough of waiting."""
    probe = BrokerProbe((HOST, port), login, every_s=0.05, timeout_s=0.5)
    stopping = threading.Event()
    thread = threading.Thread(target=probe.run, args=(stopping,))
    thread.start()
    try:
        yield probe
    finally:
        stopping.set()
        thread.join(PATIENCE_S)


def test_the_probe_says_whether_messages_are_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    embedded = Embedded()
    with probing(embedded.port, embedded.broker.login) as probe, subscriber(embedded.port, "#") as heard:
        until(lambda: probe.health.works is True, PATIENCE_S)
        assert not caplog.records
        publish_, embedded.broker._exchange.publish = embedded.broker._exchange.publish, lambda *_: 1  # type: ignore[method-assign]
        until(lambda: probe.health.works is False, PATIENCE_S)
        assert probe.health.error == "it did not answer within 0.5 s"
        embedded.broker._exchange.publish = publish_  # type: ignore[method-assign]
        until(lambda: probe.health.works is True, PATIENCE_S)
        embedded.stop()
        until(lambda: probe.health.works is False, PATIENCE_S)
        assert "refused" in probe.health.error
        assert not heard.messages
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(lines) == 2
    assert all(line.startswith("the embedded MQTT broker does not work: ") for line in lines)


@pytest.mark.parametrize(
    ("says", "error"),
    [
        (b"", "it did not answer within 0.5 s"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a PUBACK packet has flags"),
        (b"\x20\x02\0\x05", "it refused the probe's connection"),
        (CONNACK + b"\x90\x03\0\x01\x80", "it refused the probe's subscription"),
        (CONNACK + b"\x90\x03\0\x01\0" + publish("x", b"other"), "it passed on another message than the probe's"),
        (CONNACK + b"\xd0\0", "it sent PINGRESP instead of SUBACK"),
        (None, "it closed the probe's connection"),
    ],
)
def test_the_probe_does_not_trust_what_listens_there(says: bytes | None, error: str) -> None:
    with socket.create_server((HOST, 0)) as odd, probing(odd.getsockname()[1], ("name", "word")) as probe:
        connection = odd.accept()[0]
        with connection:
            connection.settimeout(PATIENCE_S)
            connection.recv(1000)
            if says is None:
                connection.shutdown(socket.SHUT_WR)
            else:
                connection.sendall(says)
            until(lambda: probe.health.works is False, PATIENCE_S)
        assert error in probe.health.error


def test_readyz_is_about_the_embedded_broker_too() -> None:
    port = free_port()
    daemon = Daemon(parse({"node": "tester", "http": {"port": 0}, "mqtt": {"embedded": True, "port": port}}), "test")
    broker = daemon.delivery._broker
    assert broker is not None
    broker.probe._every_s, broker.probe._timeout_s = 0.05, 0.5
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        with httpx.Client(base_url=daemon.web.http_address, timeout=PATIENCE_S, trust_env=False) as asking:
            until(lambda: asking.get("/readyz").status_code == 200, PATIENCE_S)
            assert asking.get("/readyz").json()["mqtt"] == {
                "broker": f"{HOST}:{port}",
                "connected": True,
                "error": None,
                "embedded": {"works": True, "error": None},
            }
            with subscriber(port, "visaged/#") as heard:
                heard.publish("visaged/tester/status", b"forged", retain=True)
                heard.publish("visaged/tester/status", b"", retain=True)
                with subscriber(port, "visaged/tester/status") as late:
                    assert late.wait_for(lambda message: True).json()["state"] == "online"
            with contextlib.ExitStack() as stack:
                for index in range(64):
                    client(stack, port, connect(f"one-{index}"))
                for _ in range(50):
                    stack.enter_context(socket_to(port))
                before = broker.probe.health
                until(lambda: broker.probe.health is not before, PATIENCE_S)
                assert asking.get("/readyz").status_code == 200
            publish_, broker._exchange.publish = broker._exchange.publish, lambda *_: 1  # type: ignore[method-assign]
            until(lambda: asking.get("/readyz").status_code == 503, PATIENCE_S)
            document = asking.get("/readyz").json()
            assert document["status"] == "not ready"
            assert document["mqtt"]["embedded"] == {"works": False, "error": "it did not answer within 0.5 s"}
            broker._exchange.publish = publish_  # type: ignore[method-assign]
            until(lambda: asking.get("/readyz").status_code == 200, PATIENCE_S)
    finally:
        daemon.stop()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
