"""When frames are due that can be had sooner."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import pytest

from visaged.pipelines.source.times.pacing import FilePace, LeadPace, Pace, SegmentPace, Unpaced


def played(pace: Pace, frames: Iterable[tuple[float, float]], begin_s: float = 1000.0) -> list[float]:
    """Return when frames are handed on that come as (stamp, seconds when it can be had).

    A frame is read when the one before it has been handed on, and when it is there.
    """
    now_s, times = begin_s, []
    for stamp_s, there_s in frames:
        read_s = max(0.0, begin_s + there_s - now_s)
        now_s += read_s
        wait_s = pace.wait_s(stamp_s, now_s, read_s)
        assert wait_s >= 0
        now_s += wait_s
        times.append(now_s - begin_s)
    return times


def segments(
    count: int, seconds: float = 2.0, ready: int = 3, rate: float = 1.0, held: dict[int, float] | None = None
) -> Iterator[tuple[float, float]]:
    """Yield the frames of live segments, 5 a second; each can be had whole when it is complete.

    Args:
        count: Segments.
        seconds: The length of one.
        ready: How many are complete at the beginning.
        rate: Of the camera's clock.
        held: Seconds by which segments come late, by number.
    """
    for number in range(count):
        there_s = max(0.0, (number + 1 - ready) * seconds) + (held or {}).get(number, 0.0)
        for frame in range(round(seconds * 5)):
            yield (number * seconds + frame / 5) * rate, there_s


def steps(times: list[float]) -> list[float]:
    return [b - a for a, b in itertools.pairwise(times)]


def test_unpaced() -> None:
    assert played(Unpaced(), [(0, 0), (5, 0), (3, 1)]) == [0, 0, 1]


def test_a_file_plays_at_its_own_speed() -> None:
    times = played(FilePace(), [(100 + n / 5, 0) for n in range(50)])
    assert steps(times) == pytest.approx([0.2] * 49)


def test_a_file_that_fell_behind_does_not_catch_up() -> None:
    times = played(FilePace(), [(n / 5, 5.0 if n >= 10 else 0.0) for n in range(30)])
    assert times[9] == pytest.approx(1.8)
    assert times[10] == 5.0
    assert times[-1] > 5.0 + 3.8 - 1.1


def test_a_file_may_have_long_pauses_or_cuts() -> None:
    assert played(FilePace(), [(0, 0), (60, 0), (120, 0)]) == [0, 60, 120]
    times = played(FilePace(may_have_cuts=True), [(0, 0), (5, 0), (4000, 0), (4001, 0), (2, 0), (3, 0)])
    assert times == pytest.approx([0, 5, 5, 6, 6, 6])


def test_live_segments_are_spread_over_their_time() -> None:
    times = played(SegmentPace(), segments(30))
    assert steps(times) == pytest.approx([0.2] * 299)


def test_segments_that_come_late_move_the_rest_back() -> None:
    times = played(SegmentPace(), segments(30, held={10: 5.5, 11: 3.5, 12: 1.5}))
    gaps = steps(times)
    assert sum(gap > 0.21 for gap in gaps) == 1, "one pause"
    assert min(gaps) == pytest.approx(0.2), "and no burst after it"


def test_lateness_has_a_bound() -> None:
    """The network holds everything up again and again, and the segments are all there afterwards."""
    frames = list(segments(300, held=dict.fromkeys(range(20, 300, 20), 8.0)))
    times = played(SegmentPace(), frames)
    late = [time_s - stamp_s for time_s, (stamp_s, _) in zip(times, frames, strict=True)]
    assert max(late) < 3 * 2.0 + SegmentPace.MOST_LATE_S + 8.0


@pytest.mark.parametrize("rate", [0.84, 1.0001, 1.2])
def test_a_camera_whose_clock_is_wrong_is_followed(rate: float) -> None:
    frames = list(segments(200, rate=rate))
    times = played(SegmentPace(), frames)
    assert times[-1] <= max(there_s for _, there_s in frames) * max(1.0, rate) + 8.0
    assert sum(gap < 0.01 for gap in steps(times)) < len(times) / 4


@pytest.mark.parametrize("step", [-50.0, 3600.0])
def test_live_stamps_that_step_are_not_waited_for(step: float) -> None:
    frames = [(stamp + (step if stamp > 30 else 0), there) for stamp, there in segments(30)]
    assert max(steps(played(SegmentPace(), frames))) < 5.0


def test_what_a_camera_sends_is_not_delayed() -> None:
    """A burst at the beginning, stamps that run too fast, a stall: only reading takes time."""
    burst = [(n / 5, max(0.0, n / 5 - 12)) for n in range(500)]
    fast = [(n / 5 * 1.9, n / 5) for n in range(2000)]
    stalled = [(n / 5, 90.0 if 100 < n < 450 else n / 5) for n in range(1000)]
    for frames in (burst, fast, stalled):
        assert played(LeadPace(), frames) == pytest.approx([there for _, there in frames])


def test_what_cannot_be_live_is_played_at_its_own_speed() -> None:
    times = played(LeadPace(), [(n / 5, 0) for n in range(1000)])
    assert times[-1] == pytest.approx(200 - LeadPace.MOST_LEAD_S, abs=1.0)
    assert max(steps(times)) == pytest.approx(0.2, abs=0.01)


def test_a_file_that_stands_for_a_camera_catches_up_with_what_was_not_read() -> None:
    pace = FilePace(is_camera=True)
    assert pace.wait_s(0.0, 100.0, 0.0) == 0
    assert pace.wait_s(1.0, 108.0, 0.0) == 0, "its thread got no time for seven seconds"
    assert pace.wait_s(7.5, 108.1, 0.0) == 0
    assert pace.wait_s(9.0, 108.2, 0.0) == pytest.approx(0.8)
