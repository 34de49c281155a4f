"""What clients may do at the embedded broker, and who is refused what; without a network."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.mqtt_bytes import (
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    connect,
    number,
    packet,
    publish,
    subscribe,
    text,
)
from tests.support.mqtt_clients import LIMITS, LOGIN, Broker


@pytest.fixture
def broker() -> Broker:
    return Broker()


# --- what a broker does -----------------------------------------------------------------------------------------------


def test_messages_and_answers(broker: Broker) -> None:
    one, two = broker.client("one"), broker.client("two")
    assert one.sends(subscribe("a/#", qos=2, id=7)) == packet(0x90, number(7) + b"\x01")
    assert two.sends(publish("a/b", b"0")) == b""
    assert two.sends(publish("a/b", b"1", qos=1, id=9)) == packet(0x40, number(9))
    assert one.sends(PINGREQ) == publish("a/b", b"0") + publish("a/b", b"1", qos=1, id=1) + PINGRESP
    assert one.sends(packet(0x40, number(1)), packet(0xA2, number(8) + text("a/#"))) == packet(0xB0, number(8))
    two.sends(publish("a/b", b"2"))
    assert one.sends() == b""


def test_qos_2_is_passed_on_once(broker: Broker) -> None:
    one, two = broker.client("one"), broker.client("two")
    one.sends(subscribe("a", qos=1))
    message = publish("a", b"x", qos=2, id=5)
    again = bytes((message[0] | 8,)) + message[1:]
    assert two.sends(message, again) == packet(0x50, number(5)) * 2
    assert one.sends() == publish("a", b"x", qos=1)
    assert two.sends(packet(0x62, number(5)), packet(0x62, number(5))) == packet(0x70, number(5)) * 2
    two.sends(message)
    assert one.sends() == publish("a", b"x", qos=1, id=2)


def test_retained_messages(broker: Broker) -> None:
    daemon, one = broker.daemon(), broker.client("one")
    daemon.sends(publish("visaged/door/status", b"old", retain=True, qos=1))
    daemon.sends(publish("visaged/door/status", b"new", retain=True, qos=1))
    suback = packet(0x90, number(1) + b"\x01")
    assert one.sends(subscribe("visaged/#", qos=1)) == suback + publish(
        "visaged/door/status", b"new", retain=True, qos=1
    )
    daemon.sends(publish("visaged/door/status", b"newer", retain=True))
    assert one.sends() == publish("visaged/door/status", b"newer")
    daemon.sends(publish("visaged/door/status", b"", retain=True))
    one.sends()
    assert one.sends(subscribe("visaged/#", qos=1)) == suback


@pytest.mark.parametrize("signs_off", [True, False])
def test_the_last_will(broker: Broker, signs_off: bool) -> None:
    one, two = broker.client("one"), broker.client("two", will=("gone", b"two"))
    one.sends(subscribe("gone"))
    if signs_off:
        two.sends(DISCONNECT)
    else:
        two.connection.connection_lost(ConnectionResetError())
    assert one.sends() == (b"" if signs_off else publish("gone", b"two"))
    late = broker.client("late")
    assert late.sends(subscribe("gone"))[5:] == (b"" if signs_off else publish("gone", b"two", retain=True))


def test_no_session_outlives_its_connection(broker: Broker) -> None:
    for index in range(130):
        one = broker.client(f"one-{index}", clean=False)
        one.sends(subscribe("a", "b", qos=2), publish("x", qos=2))
        one.connection.connection_lost(None)
    assert len(broker.places) == 0
    assert not broker.exchange._subscriptions._root.next


# --- who may connect --------------------------------------------------------------------------------------------------


def test_connections_that_never_connect_are_closed(broker: Broker) -> None:
    sockets = [broker.socket() for _ in range(20)]
    sockets[3].sends(connect("slow")[:9])
    broker.passes(4.5)
    assert not any(one.is_over for one in sockets)
    broker.passes(1.0)
    assert all(one.is_over for one in sockets)
    assert len(broker.places) == 0


def test_the_oldest_connection_without_connect_makes_room(broker: Broker) -> None:
    sockets = [broker.socket() for _ in range(LIMITS.strangers + 10)]
    assert [one.is_over for one in sockets] == [True] * 10 + [False] * LIMITS.strangers
    broker.client()


def test_the_daemon_finds_a_place_when_all_are_taken(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(LIMITS.clients):
        broker.client(f"one-{index}")
    refused = broker.socket()
    assert refused.sends(connect("more")) == b"\x20\x02\0\x03"
    assert refused.is_over
    assert f"{LIMITS.clients} are connected" in caplog.text
    broker.daemon()
    broker.daemon("visaged-probe")
    assert broker.client("one-5").sends(PINGREQ) == PINGRESP  # takes a place over


def test_a_silent_client_makes_room_when_all_places_are_taken(broker: Broker) -> None:
    crowd = [broker.client(f"one-{index}") for index in range(LIMITS.clients)]
    broker.passes(LIMITS.silent_s - 10)
    for one in crowd[:30] + crowd[31:]:
        one.sends(PINGREQ)
    assert broker.socket().sends(connect("more")) == b"\x20\x02\0\x03"
    broker.passes(11)
    more = broker.client("more")
    assert [index for index, one in enumerate(crowd) if one.is_over] == [30]
    assert broker.socket().sends(connect("yet more")) == b"\x20\x02\0\x03"
    assert more.sends(PINGREQ) == PINGRESP


@pytest.mark.parametrize("login", [None, ("visaged", ""), ("visaged", "guess"), ("Visaged", LOGIN[1]), ("", "")])
def test_a_client_without_the_daemons_login_is_not_the_daemon(broker: Broker, login: tuple[str, str] | None) -> None:
    daemon, heard = broker.daemon("same"), broker.client("heard")
    heard.sends(subscribe("visaged/#"))
    other = broker.client("same", login=login)
    assert not daemon.is_over
    other.sends(publish("visaged/node/status", b"forged"))
    assert heard.sends() == b""
    daemon.sends(publish("visaged/node/status", b"true"))
    assert heard.sends() == publish("visaged/node/status", b"true")


def test_a_client_that_is_taken_over_again_and_again(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    before = broker.client("one")
    for _ in range(200):
        after = broker.client("one")
        assert before.is_over
        before = after
    assert len(broker.places) == 1
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (connect(version=5), b"\x20\x03\0\x84\0"),
        (connect(version=3), b"\x20\x02\0\x01"),
        (packet(0x10, text("MQIsdp") + b"\x03\x02\0\0" + text("x")), b"\x20\x02\0\x01"),
        (connect("", clean=False), b"\x20\x02\0\x02"),
        (connect("x" * 257), b"\x20\x02\0\x02"),
        (connect(will=("visaged/node/status", b"offline")), b"\x20\x02\0\x05"),
        (connect(will=("visaged", b"offline")), b"\x20\x02\0\x05"),
        (connect(will=("$SYS/x", b"offline")), b"\x20\x02\0\x05"),
        (connect(will=("a/#", b"offline")), b"\x20\x02\0\x05"),
        (connect(will=("", b"offline")), b"\x20\x02\0\x05"),
        (connect(will=("a/" * 16, b"offline")), b"\x20\x02\0\x05"),
    ],
)
def test_clients_that_are_refused_hear_why(broker: Broker, data: bytes, answer: bytes) -> None:
    one = broker.socket()
    assert one.sends(data) == answer
    assert one.is_over
    assert len(broker.places) == 0


def test_clients_without_an_id_get_one(broker: Broker) -> None:
    one, two = broker.client(""), broker.client("")
    assert one.sends(PINGREQ) == two.sends(PINGREQ) == PINGRESP


# --- what they may send -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["visaged", "visaged/", "visaged/node/status", "visaged//x", "$SYS/x", "$visaged/x"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_only_the_daemon_publishes_below_its_prefix(
    broker: Broker, caplog: pytest.LogCaptureFixture, topic: str, qos: int
) -> None:
    heard, forger, daemon = broker.client("heard"), broker.client("forger"), broker.daemon()
    heard.sends(subscribe("visaged/#", "$SYS/#", "$visaged/#"))
    answers = {0: b"", 1: packet(0x40, number(1)), 2: packet(0x50, number(1))}
    daemon.sends(publish(topic, b"true", retain=True))
    assert heard.sends() == publish(topic, b"true")
    for _ in range(20):
        assert forger.sends(publish(topic, b"forged", qos=qos, retain=True)) == answers[qos]
        assert forger.sends(publish(topic, b"", qos=qos, retain=True)) == answers[qos]
    assert heard.sends() == b""
    assert broker.client("late").sends(subscribe(topic))[5:] == publish(topic, b"true", retain=True)
    assert len(caplog.records) == 1
    assert f"dropped a message of client 'forger' at 127.0.0.1:5000 to '{topic}'" in caplog.text


@pytest.mark.parametrize("topic", ["visage/x", "visaged2/x", "/visaged/x", "other"])
def test_others_publish_elsewhere(broker: Broker, topic: str) -> None:
    heard = broker.client("heard")
    heard.sends(subscribe("#"))
    broker.client("other").sends(publish(topic, b"x"))
    assert heard.sends() == publish(topic, b"x")


@pytest.mark.parametrize(
    "data",
    [
        publish(""), publish("a/#"), publish("+"), publish("a" * 1001), publish("a/" * 16), connect(),
        packet(0x20, b"\0\0"), packet(0x90, b"\0\x01\0"), packet(0x50, number(1)), packet(0x70, number(1)),
        packet(0xD0, b""), packet(0x82, bytes(20_000)), packet(0x10, bytes(20_000))[:5], b"\x30\xff\xff\xff\x7f",
        publish("a", bytes(300_000)),
        b"\x30\xff\xff\xff\xff", b"\xf0", packet(0x30, text(b"\xff")),
    ],
)  # fmt: skip
def test_what_is_not_allowed_ends_the_connection(broker: Broker, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    one, two = broker.client("one", will=("gone", b"one")), broker.client("two")
    two.sends(subscribe("gone"))
    assert one.sends(data) == b""
    assert one.is_over
    assert two.sends() == publish("gone", b"one")
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith("the embedded MQTT broker disconnects client 'one'")


@pytest.mark.parametrize(
    "data",
    [
        PINGREQ, publish("a"), subscribe("a"), DISCONNECT, b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01", packet(0x10, bytes(20_000))[:5], b"\0",
    ],
)  # fmt: skip
def test_a_first_packet_that_is_not_connect_ends_the_connection(broker: Broker, data: bytes) -> None:
    one = broker.socket()
    assert one.sends(data) == b""
    assert one.is_over


def test_the_log_shows_no_line_ends_of_clients(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    broker.client("evil\nERROR x" + "y" * 100).sends(publish("visaged/\nERROR" + "z" * 500))
    (line,) = caplog.messages
    assert "\n" not in line
    assert len(line) < 250


def test_filters_are_counted(broker: Broker) -> None:
    one = broker.client()
    half = LIMITS.filters // 2
    for first in (0, half):
        codes = one.sends(subscribe(*(f"a/{first + index}" for index in range(half)), qos=1))[-half:]
        assert codes == b"\1" * half
        broker.passes(1.0)
    assert one.sends(subscribe("c", "d", qos=1))[-2:] == b"\x80\x80"
    assert one.sends(subscribe("a/3", "a/4", "b"))[-3:] == b"\0\0\x80"
    one.sends(packet(0xA2, number(1) + text("a/3")))
    assert one.sends(subscribe("b", "c"))[-2:] == b"\0\x80"


@pytest.mark.parametrize("text", ["", "a/#/b", "a#", "+a", "a/" * 16 + "b", "+/" * 5000 + "#", "x" * 1001])
def test_filters_that_are_not_valid_or_too_long(broker: Broker, text: str) -> None:
    assert broker.client().sends(subscribe(text, "fine"))[-2:] == b"\x80\0"


def test_retained_messages_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(replace(LIMITS, retained=10, retained_bytes=1000))
    one, daemon = broker.client("one"), broker.daemon()
    for index in range(20):
        one.sends(publish(f"a/{index}", b"x", retain=True))
        daemon.sends(publish(f"visaged/{index}", b"x", retain=True))
    assert len(broker.exchange.retained) == 30
    assert "did not retain a message of client 'one'" in caplog.text
    one.sends(publish("a/3", b"", retain=True), publish("a/3", b"", retain=True), publish("b", b"x", retain=True))
    assert broker.exchange.retained["b"].payload == b"x"
    one.sends(publish("b", bytes(2000), retain=True), publish("c", bytes(900), retain=True))
    assert broker.exchange.retained["b"].payload == b"x"
    for topic in ("b", *(f"a/{index}" for index in range(20))):
        one.sends(publish(topic, b"", retain=True))
    assert (broker.exchange._foreign, broker.exchange._foreign_bytes) == ({}, 0)


def test_qos_2_messages_without_their_end_are_counted(broker: Broker) -> None:
    one = broker.client()
    one.sends(b"".join(publish("a", qos=2, id=index + 1) for index in range(LIMITS.unreleased)))
    broker.passes(1.0)
    assert not one.is_over
    one.sends(publish("a", qos=2, id=500))
    assert one.is_over


def test_packets_that_come_byte_by_byte_have_a_deadline(broker: Broker) -> None:
    one = broker.client()
    data = publish("a", bytes(1000))
    for byte in data[:58]:
        one.sends(bytes((byte,)))
        broker.passes(0.5)
    assert not one.is_over
    broker.passes(2.0)
    assert one.is_over


@pytest.mark.parametrize("keepalive_s", [0, 10])
def test_keepalive(broker: Broker, keepalive_s: int) -> None:
    one = broker.client(keepalive_s=keepalive_s)
    broker.passes(14.0)
    one.sends(PINGREQ)
    broker.passes(14.5)
    assert not one.is_over
    broker.passes(1.0)
    assert one.is_over == bool(keepalive_s)
