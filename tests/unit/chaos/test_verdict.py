"""What the chaos run calls lost, out of order or without an end: planted faults are found, a clean run passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.chaos.record import Event
from tests.chaos.verdict import judge

FIRST, SECOND = 1000, 2000


def event(seq: int, kind: str, track: int = 1, **fields: object) -> Event:
    whole = Event(
        at_s=100.0 + seq,
        connection=1,
        opened_s=100.0,
        epoch=FIRST,
        camera="door",
        seq=seq,
        kind=kind,
        track=track,
        reason="lost" if kind == "end" else None,
        replayed=False,
        age_s=0.1,
        newest=FIRST,
    )
    return replace(whole, **fields)  # type: ignore[arg-type]


CLEAN = [event(1, "begin"), event(2, "update"), event(3, "begin", 2), event(4, "end"), event(5, "end", 2)]


def complaints(events: Sequence[Event], runs: Sequence[int] = (FIRST,), **seen: tuple[float, float]) -> dict[str, int]:
    """Kinds of complaints with their numbers; `seen` is by the track's number, as in `t7`."""
    tracks = {(FIRST, "door", int(name[1:])): times for name, times in seen.items()}
    return {kind: len(cases) for kind, cases in judge(events, tracks, runs).complaints().items() if cases}


def test_a_clean_run_has_no_complaints() -> None:
    assert complaints(CLEAN, t1=(0, 3), t2=(1, 5)) == {}
    verdict = judge(CLEAN, {}, (FIRST,))
    assert (verdict.numbered, verdict.received, verdict.duplicates, verdict.tracks) == (5, 5, 0, 2)


def test_a_gap_is_a_loss_that_is_named() -> None:
    verdict = judge([CLEAN[0], *CLEAN[2:]], {}, (FIRST,))
    assert verdict.numbered == 5
    assert verdict.received == 4
    assert verdict.lost == ["1000 door seq 2"]


def test_each_camera_and_run_counts_for_itself() -> None:
    other = [replace(one, camera="yard") for one in CLEAN]
    later = [replace(one, epoch=SECOND, newest=SECOND) for one in CLEAN]
    assert complaints(CLEAN + other + later, (FIRST, SECOND)) == {}


@pytest.mark.parametrize("track", [1, 2])
def test_a_track_without_an_end_is_found(track: int) -> None:
    events = [event(1, "begin"), event(2, "begin", 2), event(3, "end", 3 - track)]
    assert complaints(events) == {"tracks without an end": 1}


def test_a_track_ends_once_and_last() -> None:
    twice = [event(1, "begin"), event(2, "end"), event(3, "end")]
    revived = [event(1, "begin"), event(2, "end"), event(3, "update")]
    unborn = [event(1, "update"), event(2, "end")]
    for events in (twice, revived, unborn):
        assert complaints(events) == {"tracks with odd events": 1}


def test_an_end_after_a_restart_belongs_to_the_old_run() -> None:
    end = event(2, "end", reason="restart", newest=SECOND, connection=2)
    assert complaints([event(1, "begin"), end], (FIRST, SECOND)) == {}


def test_repetitions_are_counted_and_do_not_disturb_the_order() -> None:
    again = [replace(one, connection=2, replayed=True) for one in CLEAN[1:3]]
    verdict = judge(CLEAN[:3] + again + CLEAN[3:], {}, (FIRST,))
    assert verdict.duplicates == 2
    assert not any(verdict.complaints().values())


def test_a_first_delivery_after_a_later_event_is_out_of_order() -> None:
    assert complaints([CLEAN[1], CLEAN[0], *CLEAN[2:]]) == {"events out of order within a camera": 1}


def test_an_old_run_after_a_new_one_is_out_of_order() -> None:
    later = [replace(one, epoch=SECOND, newest=SECOND) for one in CLEAN]
    late = replace(event(6, "begin", 3), newest=SECOND, replayed=True)
    found = complaints([*CLEAN, *later, late], (FIRST, SECOND))
    assert found == {"events out of order within a camera": 1, "tracks without an end": 1}


def test_a_number_that_is_used_twice_is_found() -> None:
    assert complaints([*CLEAN, event(5, "end", 9)]) == {"numbers used twice": 1}


def test_replays_say_so_and_nothing_else_does() -> None:
    again = replace(CLEAN[-1], connection=2)
    assert complaints([*CLEAN, again]) == {"wrong replayed flags": 1}
    assert complaints([replace(one, newest=SECOND) for one in CLEAN], (FIRST, SECOND)) == {"wrong replayed flags": 5}
    waited = replace(CLEAN[2], opened_s=CLEAN[2].at_s, replayed=True)
    assert complaints([*CLEAN[:2], waited, *CLEAN[3:]]) == {}
    # Captured seconds after the connection was accepted: it did not wait for it.
    late = [replace(one, at_s=110.0, replayed=one.seq == 3) for one in CLEAN]
    assert complaints(late) == {"wrong replayed flags": 1}


def test_a_track_that_frames_showed_for_long_was_told() -> None:
    assert complaints(CLEAN, t7=(10, 10.2)) == {}
    assert complaints(CLEAN, t7=(10, 11)) == {"tracks in faces that no event told": 1}


def test_the_epoch_grows() -> None:
    assert complaints(CLEAN, (SECOND, FIRST)) == {"runs whose epoch did not grow": 1}
