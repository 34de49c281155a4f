"""Clients of the embedded broker that take more than their share; without a network."""

from __future__ import annotations

import logging
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
)
from tests.support.mqtt_clients import LIMITS, Broker


@pytest.fixture
def broker() -> Broker:
    return Broker()


def test_a_flood_of_packets_is_read_in_turns(broker: Broker) -> None:
    one, two = broker.client("one"), broker.client("two")
    heard = one.sends(PINGREQ * 20_000)
    assert 0 < len(heard) <= 2 * LIMITS.turn
    assert one.is_paused
    assert two.sends(PINGREQ) == PINGRESP
    broker.passes(0.5)
    assert len(heard) + len(one.heard) == pytest.approx(2 * LIMITS.units_per_s * 0.5, abs=4 * LIMITS.turn)
    broker.passes(0.75)
    assert not one.is_paused
    assert heard + one.sends() == PINGRESP * 20_000


def test_filters_and_subscribers_count_as_work(broker: Broker) -> None:
    crowd = [broker.client(f"one-{index}") for index in range(50)]
    for one in crowd:
        one.sends(subscribe("a"))
    sender = broker.client("sender")
    sender.sends(publish("a") * 1000)
    assert sender.is_paused
    assert len(crowd[0].sends()) < 5 * LIMITS.turn / 50 + 10
    assert not crowd[0].is_paused
    daemon = broker.daemon()
    for index in range(900):
        daemon.sends(publish(f"visaged/{index}", b"x", retain=True))
    greedy = broker.client("greedy")
    greedy.sends(subscribe("#") * 100)
    assert greedy.is_paused


def test_large_messages_count_as_work(broker: Broker) -> None:
    crowd = [broker.client(f"one-{index}") for index in range(50)]
    for one in crowd:
        one.sends(subscribe("a"))
    sender = broker.client("sender")
    sender.sends(publish("a", bytes(200_000)) * 10)
    heard = len(crowd[0].sends())
    assert heard < 2 * 200_100
    broker.passes(1.0)
    assert len(crowd[0].heard) < 200_100 * (LIMITS.units_per_s / (50 * 200_000 / 4096) + 1)


def test_the_daemons_messages_are_not_slowed_down(broker: Broker) -> None:
    heard, daemon = broker.client("heard"), broker.daemon()
    heard.sends(subscribe("visaged/#"))
    daemon.sends(publish("visaged/x") * 3000)
    assert heard.sends() == publish("visaged/x") * 3000


def test_a_client_that_reads_no_answers_is_not_read_either(broker: Broker) -> None:
    one = broker.client()
    one.is_deaf = True
    heard = one.sends(PINGREQ * 10_000)
    assert len(heard) <= 2 * LIMITS.turn
    assert one.is_paused
    broker.passes(3.0)
    one.is_deaf = False
    one.connection.resume_writing()
    broker.passes(2.0)
    assert heard + one.sends() == PINGRESP * 10_000
    one.is_deaf = True
    one.sends(PINGREQ)
    broker.passes(LIMITS.unread_s + 0.5)
    assert one.is_over


@pytest.mark.parametrize("qos", [0, 1])
def test_what_waits_for_a_subscriber_is_bounded(broker: Broker, caplog: pytest.LogCaptureFixture, qos: int) -> None:
    one, daemon = broker.client("one"), broker.daemon()
    one.sends(subscribe("visaged/#", qos=qos))
    one.is_deaf = True
    for _ in range(LIMITS.waiting + 500):
        daemon.sends(publish("visaged/x", b"small", qos=qos))
        daemon.sends(publish("visaged/y", bytes(3000), qos=qos))
    assert broker.exchange.backlog.bytes <= LIMITS.waiting_bytes
    assert "dropped a message for client 'one'" in caplog.text
    one.is_deaf = False
    one.connection.resume_writing()
    broker.settle()
    broker.passes(LIMITS.unread_s + LIMITS.unacknowledged_s + 1.0)
    assert one.is_over == bool(qos)  # it acknowledges nothing
    assert broker.exchange.backlog.bytes == 0


def test_what_waits_for_all_subscribers_is_bounded() -> None:
    limits = replace(LIMITS, waiting_bytes=10_000, waiting_share_bytes=2000, waiting_total_bytes=25_000)
    broker = Broker(limits)
    crowd = [broker.client(f"one-{index}") for index in range(10)]
    daemon = broker.daemon()
    for one in crowd:
        one.sends(subscribe("visaged/#"))
        one.is_deaf = True
    for _ in range(1000):
        daemon.sends(publish("visaged/x", bytes(100)))
    assert broker.exchange.backlog.bytes <= 25_000 + 10 * 2000
    assert all(one.connection.outgoing._waiting_bytes >= 1000 for one in crowd)
    for one in crowd:
        one.abort()
    broker.settle()
    assert broker.exchange.backlog.bytes == 0


def test_messages_wait_for_acknowledgements(broker: Broker) -> None:
    one, daemon = broker.client("one"), broker.daemon()
    one.sends(subscribe("visaged/#", qos=1))
    for _ in range(100):
        daemon.sends(publish("visaged/x", qos=1))
    heard = one.sends()
    assert heard == b"".join(publish("visaged/x", qos=1, id=index) for index in range(1, LIMITS.in_flight + 1))
    assert one.sends(packet(0x40, number(3))) == publish("visaged/x", qos=1, id=LIMITS.in_flight + 1)
    assert one.sends(packet(0x40, number(3)), packet(0x40, number(999))) == b""  # none of these is on its way
    for late in range(4, 14):  # slowly, and yet all the time
        broker.passes(LIMITS.unacknowledged_s - 2)
        one.sends(packet(0x40, number(late)))
    assert not one.is_over
    broker.passes(LIMITS.unacknowledged_s + 1)
    assert one.is_over


def test_a_client_that_was_idle_for_long_has_time_to_acknowledge(broker: Broker) -> None:
    one, daemon = broker.client("one"), broker.daemon()
    one.sends(subscribe("visaged/#", qos=1))
    broker.passes(100.0)
    for _ in range(100):
        daemon.sends(publish("visaged/x", qos=1))
    broker.passes(LIMITS.unacknowledged_s - 1)
    assert not one.is_over


def test_retained_messages_are_sent_as_the_client_takes_them(broker: Broker) -> None:
    daemon, one = broker.daemon(), broker.client("one")
    for index in range(1500):
        daemon.sends(publish(f"visaged/{index}/status", b"x", retain=True, qos=1))
    heard = one.sends(subscribe("visaged/#"), subscribe("#"), subscribe("visaged/+/status"))
    broker.passes(1.0)
    assert (heard + one.sends()).count(b"/status") == 4500
    one.is_deaf = True
    one.sends(subscribe(*["visaged/#"] * 50))
    daemon.sends(publish("visaged/7/status", b"newest", retain=True))
    one.is_deaf = False
    one.connection.resume_writing()
    broker.passes(1.0)
    heard = one.sends()
    assert heard.count(b"/7/statusnewest") == 2  # as it is now, and as it was published
    assert heard.count(b"/status") == 1501


def test_a_client_that_is_closed_while_it_does_not_read_is_cut(broker: Broker) -> None:
    one = broker.client()
    one.is_deaf = True
    one.sends(PINGREQ)
    one.is_deaf, one.connection._full_s = True, None  # the buffer is not full, only not empty
    one.sends(DISCONNECT)
    assert len(broker.places) == 1
    broker.passes(LIMITS.unread_s + 0.5)
    assert len(broker.places) == 0


def test_a_fault_in_the_broker_costs_one_client(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = broker.client("one"), broker.client("two")

    def fails(*args: object) -> int:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(broker.exchange, "publish", fails)
        with pytest.raises(ZeroDivisionError):
            one.sends(publish("a"))
    broker.settle()
    assert one.is_over
    assert two.sends(PINGREQ) == PINGRESP


def test_nothing_is_logged_of_clients_that_behave(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    one, daemon = broker.client("one", keepalive_s=5), broker.daemon()
    one.sends(subscribe("visaged/#"))
    for _ in range(20):
        daemon.sends(publish("visaged/x"))
        one.sends(PINGREQ)
        broker.passes(1.0)
    one.sends(DISCONNECT)
    assert not caplog.records


def test_a_client_that_sends_more_than_there_is_time_for_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    # Such a client may be gone for long: the end of its connection comes after all that it has sent.
    broker = Broker(replace(LIMITS, clients=4, units_per_s=2000))
    quiet, *crowd = [broker.client(f"one-{index}") for index in range(4)]
    for one in crowd:
        one.sends(packet(0x40, number(1)) * 20_000)
    broker.passes(LIMITS.behind_s - 1.0)
    assert broker.socket().sends(connect("early")) == b"\x20\x02\0\x03"
    broker.passes(2.0)
    broker.client("honest")
    assert [one.is_over for one in (quiet, *crowd)] == [False, True, False, False]
    assert "disconnects client 'one-1' at 127.0.0.1:5000, which sends more than there is time for" in caplog.text


def test_a_client_that_catches_up_is_not_behind(broker: Broker) -> None:
    one = broker.client("one")
    for _ in range(20):
        one.sends(PINGREQ * 1000)
        assert one.connection.behind_s == 0.0 or one.is_paused
        broker.passes(1.0)
        assert one.connection.behind_s == 0.0
