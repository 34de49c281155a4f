"""Messages that wait for an acknowledgement."""

from __future__ import annotations

from visaged.pipelines.outputs.messages import Message
from visaged.pipelines.outputs.outbox import Envelope, MemoryOutbox


def message(number: int, size: int = 1) -> Message:
    return Message("events", "door", number, 1, b"x" * size, float(number), float(number))


def box(most: int, count: int = 0, most_bytes: int = 1000) -> MemoryOutbox:
    made = MemoryOutbox(most, most_bytes)
    for number in range(count):
        assert made.put(message(number)) == []
    return made


def numbers(envelopes: list[Envelope]) -> list[int]:
    return [envelope.message.seq for envelope in envelopes]


def test_first_in_first_out_and_each_once() -> None:
    outbox = box(10, 4)
    assert numbers(outbox.pending(3)) == [0, 1, 2]
    assert numbers(outbox.pending(3)) == [3]
    assert outbox.pending(3) == []
    assert len(outbox) == 4


def test_ids_grow() -> None:
    outbox = box(10, 3)
    ids = [envelope.id for envelope in outbox.pending(3)]
    assert ids == sorted(set(ids))


def test_the_oldest_is_lost_first() -> None:
    outbox = box(2, 2)
    assert [lost.seq for number in (2, 3, 4) for lost in outbox.put(message(number))] == [0, 1, 2]
    assert len(outbox) == 2
    assert numbers(outbox.pending(9)) == [3, 4]


def test_what_is_on_its_way_is_kept_until_it_is_acknowledged() -> None:
    outbox = box(2, 1)
    (sent,) = outbox.pending(1)
    lost = [one.seq for number in (1, 2, 3) for one in outbox.put(message(number))]
    assert lost == [1]  # not the one on its way
    assert len(outbox) == 3
    outbox.ack(sent.id)
    assert len(outbox) == 2


def test_a_retry_returns_what_has_no_acknowledgement_in_order_and_as_replayed() -> None:
    outbox = box(10, 4)
    sent = outbox.pending(3)
    assert not any(envelope.replayed for envelope in sent)
    outbox.ack(sent[1].id)
    outbox.retry()
    outbox.put(message(4))
    again = outbox.pending(9)
    assert numbers(again) == [0, 2, 3, 4]
    assert [envelope.replayed for envelope in again] == [True, True, True, False]
    assert again[0].id == sent[0].id
    assert len(outbox) == 4


def test_a_retry_loses_nothing_when_the_outbox_is_full() -> None:
    outbox = box(2, 2)
    outbox.pending(2)
    for number in (2, 3):
        assert outbox.put(message(number)) == []
    outbox.retry()
    assert len(outbox) == 4
    assert [lost.seq for lost in outbox.put(message(4))] == [0]  # from then on it does not grow


def test_bytes_are_bounded_too() -> None:
    outbox = box(10, most_bytes=10)
    assert outbox.put(message(0, 4)) == []
    assert outbox.put(message(1, 4)) == []
    assert [lost.seq for lost in outbox.put(message(2, 8))] == [0, 1]
    assert [lost.seq for lost in outbox.put(message(3, 20))] == [2]  # one that is too large by itself is kept, alone
    assert numbers(outbox.pending(9)) == [3]
    assert outbox.put(message(4, 10)) == []
    outbox.retry()
    assert [lost.seq for lost in outbox.put(message(5, 1))] == [3, 4]


def test_an_empty_outbox() -> None:
    outbox = box(1)
    assert len(outbox) == 0
    assert outbox.pending(5) == []
    outbox.retry()
    outbox.ack(7)
    assert len(outbox) == 0
    assert not outbox.durable
    outbox.close()
