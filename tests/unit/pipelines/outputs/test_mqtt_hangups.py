"""Which message made the broker hang up."""

from __future__ import annotations

from tests.unit.fakes import Clock
from visaged.pipelines.outputs.mqtt.hangups import STRIKES, HangUps
from visaged.pipelines.outputs.mqtt.ledger import Ledger, Sent
from visaged.pipelines.outputs.mqtt.reports import Lost

LOST = Lost(0.0, 1.0, unexplained=True)


def sent(topic: str = "t", size: int = 100, qos: int = 1, sent_s: float = 1000.0) -> Sent:
    return Sent("events", topic, size, qos, sent_s)


def test_one_message_is_set_aside_after_several_hang_ups() -> None:
    hangups = HangUps(Clock())
    for _ in range(STRIKES - 1):
        assert hangups.lost(LOST, [sent()]) is None
        assert not hangups.refuses("events", "t", 100)
    assert hangups.lost(LOST, [sent()]) is not None
    assert hangups.refuses("events", "t", 100)
    assert hangups.refuses("events", "t", 101)
    assert hangups.refuses("events", "t", 95)
    assert not hangups.refuses("events", "t", 80)
    assert not hangups.refuses("events", "u", 100)


def test_several_suspects_are_no_strike_but_call_for_care() -> None:
    clock = Clock()
    hangups = HangUps(clock)
    for _ in range(10):
        assert hangups.lost(LOST, [sent(), sent("u")]) is None
    hangups.opened()
    assert hangups.careful
    hangups.passed(sent())
    assert hangups.careful
    hangups.passed(sent("u"))
    assert not hangups.careful


def test_care_ends_after_a_while_when_a_suspected_topic_is_silent() -> None:
    clock = Clock()
    hangups = HangUps(clock)
    hangups.lost(LOST, [sent(), sent("u")])
    hangups.opened()
    clock.advance(60)
    assert not hangups.careful


def test_a_message_that_passes_clears_the_strikes_of_its_size_and_less() -> None:
    hangups = HangUps(Clock())
    for _ in range(20):
        assert hangups.lost(LOST, [sent(size=100)]) is None
        hangups.passed(sent(size=100))
    assert not hangups.refuses("events", "t", 100)


def test_large_messages_between_small_ones_that_pass_are_found_by_their_size() -> None:
    hangups = HangUps(Clock())
    for size in (5000, 4000, 6000):
        assert not hangups.refuses("events", "t", size)
        hangups.lost(LOST, [sent(size=size)])
        hangups.passed(sent(size=100))
    assert hangups.refuses("events", "t", 4000)
    assert hangups.refuses("events", "t", 3990)
    assert not hangups.refuses("events", "t", 3500)
    # Smaller ones passed, so a smaller one that is hung up on needs as many strikes again.
    hangups.passed(sent(size=200))
    assert hangups.lost(LOST, [sent(size=3000)]) is None
    assert not hangups.refuses("events", "t", 3000)


def test_a_topic_on_which_nothing_passes_is_set_aside_as_a_whole() -> None:
    hangups = HangUps(Clock())
    for _ in range(STRIKES):
        hangups.lost(LOST, [sent(size=100)])
    assert not hangups.refuses("events", "t", 50)
    assert hangups.lost(LOST, [sent(size=50)]) is not None
    assert hangups.refuses("events", "t", 1)
    assert not hangups.careful


def test_a_size_that_has_passed_is_never_set_aside() -> None:
    hangups = HangUps(Clock())
    for _ in range(STRIKES):
        hangups.lost(LOST, [sent(size=1000)])
        hangups.passed(sent(size=990))
    assert hangups.refuses("events", "t", 1000)
    assert not hangups.refuses("events", "t", 990)


def block(hangups: HangUps, topic: str) -> None:
    for _ in range(STRIKES):
        hangups.lost(LOST, [sent(topic, size=100)])
    hangups.lost(LOST, [sent(topic, size=50)])
    assert hangups.refuses("events", topic, 1)


def test_two_topics_stand_for_all_of_their_kind() -> None:
    clock = Clock()
    hangups = HangUps(clock)
    block(hangups, "t")
    assert not hangups.refuses("events", "v", 1)
    block(hangups, "u")
    assert hangups.refuses("events", "v", 1)
    assert not hangups.refuses("faces", "f", 1)
    clock.advance(601)
    assert not hangups.refuses("events", "v", 1)


def test_topics_of_a_kind_that_has_passed_stand_for_themselves_alone() -> None:
    hangups = HangUps(Clock())
    hangups.passed(sent("w"))
    block(hangups, "t")
    block(hangups, "u")
    assert not hangups.refuses("events", "v", 1)


def test_what_is_set_aside_is_tried_again_later_and_needs_one_hang_up_then() -> None:
    clock = Clock()
    hangups = HangUps(clock)
    for _ in range(STRIKES):
        hangups.lost(LOST, [sent()])
    clock.advance(601)
    assert not hangups.refuses("events", "t", 100)
    hangups.lost(LOST, [sent()])
    assert hangups.refuses("events", "t", 100)
    clock.advance(601)
    assert not hangups.refuses("events", "t", 100)
    hangups.passed(sent())
    hangups.lost(LOST, [sent()])
    assert not hangups.refuses("events", "t", 100)


def test_ends_with_a_reason_blame_no_message() -> None:
    hangups = HangUps(Clock())
    for _ in range(20):
        assert hangups.lost(Lost(0.0, 1.0, unexplained=False), [sent()]) is None
    assert not hangups.refuses("events", "t", 100)
    assert not hangups.without_reason


def test_short_connections_without_a_suspect_are_noticed() -> None:
    hangups = HangUps(Clock())
    for lived_s, noticed in ((1, False), (1, False), (60, False), (1, False), (2, False), (1, True), (60, False)):
        hangups.lost(Lost(0.0, lived_s, unexplained=True), [])
        assert hangups.without_reason == noticed


def test_a_broker_that_hangs_up_at_once_blames_no_message_and_is_treated_with_care() -> None:
    hangups = HangUps(Clock())
    for _ in range(10):
        assert hangups.lost(Lost(0.0, 0.01, unexplained=True), [sent()]) is None
        hangups.opened()
        assert hangups.careful
        hangups.lost(Lost(0.0, 0.01, unexplained=True), [])
        assert hangups.careful
    assert not hangups.refuses("events", "t", 100)


def test_an_acknowledgement_clears_what_went_before_it() -> None:
    ledger = Ledger()
    for number, qos in ((1, 0), (2, 1), (3, 0), (4, 1), (5, 0)):
        ledger.add(number, sent(f"t{number}", qos=qos))
    assert (ledger.in_flight, ledger.in_doubt) == (2, 5)
    assert ledger.settle(1)[1] == []  # written, which says nothing of what the broker thinks of it
    ledger.settle(3)
    message, passed = ledger.settle(2)
    assert message is not None
    assert [one.topic for one in passed] == ["t1", "t2"]
    assert [one.topic for one in ledger.suspects(1000.0)] == ["t3", "t4", "t5"]
    assert (ledger.in_flight, ledger.in_doubt) == (1, 3)
    assert ledger.settle(2) == (None, [])
    assert [one.topic for one in ledger.clear()] == ["t4", "t5"]
    assert (ledger.in_flight, ledger.in_doubt) == (0, 0)


def test_what_was_sent_long_before_or_after_the_hang_up_did_not_cause_it() -> None:
    ledger = Ledger()
    for number, (qos, at_s) in enumerate([(1, 990.0), (0, 995.0), (0, 999.5), (1, 999.0), (1, 1000.5)]):
        ledger.add(number, sent(f"t{number}", qos=qos, sent_s=at_s))
    ledger.settle(1)
    ledger.settle(2)
    assert [one.topic for one in ledger.suspects(1000.0)] == ["t2", "t3"]
    assert [one.topic for one in ledger.expire(1000.0)] == ["t1"]
