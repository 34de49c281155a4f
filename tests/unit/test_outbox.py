"""Messages that wait for the broker."""

from __future__ import annotations

from visaged.pipelines.outputs.messages import Message
from visaged.pipelines.outputs.outbox import Letter, MemoryOutbox


def letter(number: int) -> Letter:
    return Letter(Message("events", "topic", b"%d" % number, float(number)), 1)


def numbers(*letters: Letter | None) -> list[int]:
    return [int(one.message.body) for one in letters if one is not None]


def outbox(most: int) -> tuple[MemoryOutbox, list[Letter]]:
    lost: list[Letter] = []
    return MemoryOutbox(most, lost.append), lost


def test_first_in_first_out() -> None:
    box, lost = outbox(10)
    for number in range(3):
        box.put(letter(number))
    assert numbers(box.take(), box.take(), box.take()) == [0, 1, 2]
    assert box.take() is None
    assert lost == []


def test_the_oldest_is_lost_first_and_told_of() -> None:
    box, lost = outbox(2)
    for number in range(5):
        box.put(letter(number))
    assert numbers(*lost) == [0, 1, 2]
    assert len(box) == 2
    assert numbers(box.take(), box.take()) == [3, 4]


def test_a_letter_on_its_way_is_kept_until_the_broker_has_it() -> None:
    box, lost = outbox(2)
    box.put(letter(0))
    sent = box.take()
    assert sent is not None
    assert len(box) == 1
    for number in (1, 2, 3):
        box.put(letter(number))
    assert numbers(*lost) == [1]  # not the one on its way
    assert len(box) == 3
    box.done(sent)
    assert len(box) == 2


def test_an_empty_outbox() -> None:
    box, lost = outbox(1)
    assert len(box) == 0
    assert box.take() is None
    assert len(box) == 0
    assert lost == []
