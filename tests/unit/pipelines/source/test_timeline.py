"""When frames were captured, and which are looked at."""

from __future__ import annotations

import itertools
import random
from itertools import pairwise

import numpy as np
import pytest

from visaged.pipelines.source.times.timeline import Sampler, Timeline


def kept(fps: float | None, stamps: list[float]) -> list[float]:
    sampler = Sampler(fps)
    return [stamp for stamp in stamps if sampler.keep(stamp)]


def at(fps: float, seconds: float, start: float = 0.0) -> list[float]:
    return [start + index / fps for index in range(round(fps * seconds))]


# --- Sampler ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "fps", "share"),
    [(25, 10, 10), (25, 5, 5), (12, 10, 10), (5, 10, 5), (30, 7, 7), (29.97, 5, 5), (25, 25, 25), (10, 10, 10),
     (25, 1, 1), (25, 0.5, 0.5), (60, 24, 24)],
)  # fmt: skip
@pytest.mark.parametrize("start", [0.0, 0.013, 95_443.7])
def test_as_many_are_kept_as_asked_for_on_average(rate: float, fps: float, share: float, start: float) -> None:
    seconds = 60
    assert len(kept(fps, at(rate, seconds, start))) == pytest.approx(share * seconds, abs=1.5)


def test_stamps_that_are_rounded_to_milliseconds_do_not_matter() -> None:
    stamps = [round(stamp, 3) for stamp in at(29.97, 60)]
    assert len(kept(10, stamps)) == pytest.approx(600, abs=1.5)
    assert len(kept(29.97, stamps)) == len(stamps)


def test_frames_are_evenly_chosen() -> None:
    chosen = kept(10, at(25, 10))
    gaps = [b - a for a, b in pairwise(chosen)]
    assert min(gaps) > 0.079
    assert max(gaps) < 0.121
    assert kept(5, at(25, 2)) == pytest.approx([index / 5 for index in range(10)])


def test_none_keeps_all() -> None:
    stamps = [0.0, 0.001, 5.0, 3.0, 3.0]
    assert kept(None, stamps) == stamps
    assert not Sampler(None).certainly_not(0.0)


def test_the_first_frame_is_kept() -> None:
    for start in (-7.0, 0.0, 1e6):
        assert Sampler(0.1).keep(start)
        assert not Sampler(0.1).certainly_not(start)


def test_a_variable_rate_is_followed() -> None:
    stamps = at(25, 2) + at(4, 2, 2.0) + at(12.5, 2, 4.0)
    chosen = kept(5, stamps)
    assert len([s for s in chosen if s < 2]) == 10
    assert [s for s in chosen if 2 <= s < 4] == at(4, 2, 2.0)
    assert len([s for s in chosen if s >= 4]) == pytest.approx(10, abs=1)


def test_a_gap_is_not_made_up_for() -> None:
    chosen = kept(5, at(25, 2) + at(25, 2, 60.0))
    assert chosen[10] == 60.0
    assert len(chosen) == 20


@pytest.mark.parametrize("back_to", [0.0, 5.0, 9.0])
def test_a_clock_that_is_set_back_starts_anew(back_to: float) -> None:
    sampler = Sampler(5)
    assert len([s for s in at(25, 2, 10.0) if sampler.keep(s)]) == 10
    again = [s for s in at(25, 2, back_to) if sampler.keep(s)]
    assert again[0] == back_to
    assert len(again) == 10


def decode_order(stamps: list[float], b_frames: int) -> list[tuple[float, list[float]]]:
    """Return packets as (stamp, stamps of the frames that come out with it): P-frames come before their B-frames."""
    packets: list[tuple[float, list[float]]] = [(stamps[0], [stamps[0]])]
    for start in range(1, len(stamps), b_frames + 1):
        group = stamps[start : start + b_frames + 1]
        reference, others = group[-1], group[:-1]
        # The decoder holds a reference back until the next packet shows that nothing is to be shown before it.
        packets.append((reference, [] if others else [reference]))
        packets += [(stamp, [stamp] + ([reference] if stamp == others[-1] else [])) for stamp in others]
    return packets


def test_a_changed_rate_is_even_at_once() -> None:
    sampler = Sampler(5)
    stamps = [index / 25 for index in range(500)]
    rates = {0: 5.0, 125: 2.0, 250: None, 300: 0.5, 400: 10.0}
    kept: dict[int, list[float]] = {begin: [] for begin in rates}
    for index, stamp in enumerate(stamps):
        if index in rates:
            begin = index
            sampler.set_fps(rates[index])
        if sampler.keep(stamp):
            kept[begin].append(stamp)
    assert [len(kept[begin]) for begin in rates] == [25, 10, 50, 2, pytest.approx(40, abs=1)]
    for begin, rate in rates.items():
        steps = [b - a for a, b in itertools.pairwise(kept[begin])]
        assert steps == pytest.approx([1 / (rate or 25)] * len(steps), abs=0.041), rate


@pytest.mark.parametrize("seed", range(150))
def test_certainly_not_never_contradicts_keep(seed: int) -> None:
    """Whatever `certainly_not` says of a packet, `keep` says of its frame, on streams of any kind."""
    rng = random.Random(seed)
    fps = rng.choice([0.2, 1, 3, 5, 7.5, 10, 25, 40])
    rate = rng.choice([2, 5, 12, 12.5, 25, 29.97, 60])
    b_frames = rng.choice([0, 0, 1, 2, 3])
    sampler, refused, asked = Sampler(fps), 0, 0
    stamp = rng.choice([0.0, 0.37, 95_443.0])
    for _ in range(6):  # stretches between two jumps of the clock
        stamps = []
        for _ in range(rng.randint(1, 80)):
            stamps.append(round(stamp * 90_000) / 90_000)
            stamp += rng.choice([1, 1, 1, rng.uniform(0.3, 3)]) / rate + (2.0 if rng.random() < 0.02 else 0.0)
        no: set[float] = set()
        for packet, frames in decode_order(stamps, b_frames):
            asked += 1
            if sampler.certainly_not(packet):
                no.add(packet)
                refused += 1
            for frame in frames:
                assert not (sampler.keep(frame) and frame in no)
        # Set back, or ahead.
        stamp += rng.choice([-1, 1]) * rng.uniform(1 / fps + 3, 40)
    assert asked > 5
    if rate > 4 * fps and asked > 100:
        assert refused > asked / 4  # it is of use


@pytest.mark.parametrize("fps", [1, 5, 10])
def test_what_is_not_even_decoded_changes_nothing(fps: float) -> None:
    stamps = at(25, 20, 3.3)
    sampler = Sampler(fps)
    chosen = [stamp for stamp in stamps if not sampler.certainly_not(stamp) and sampler.keep(stamp)]
    assert chosen == kept(fps, stamps)
    assert sum(Sampler(fps).certainly_not(stamp) for stamp in stamps) == 0  # nothing is certain before the first frame


# --- Timeline ---------------------------------------------------------------------------------------------------------

START = 5_000.0


def played(timeline: Timeline, stamps: list[float], arrivals: list[float]) -> list[float]:
    captures = [timeline.capture(stamp, arrival) for stamp, arrival in zip(stamps, arrivals, strict=True)]
    for capture, arrival in zip(captures, arrivals, strict=True):
        assert capture <= arrival
    assert captures == sorted(captures)
    return captures


def test_a_smooth_stream_is_captured_when_it_arrives() -> None:
    stamps = at(25, 10)
    captures = played(Timeline(), stamps, [START + stamp for stamp in stamps])
    assert captures == pytest.approx([START + stamp for stamp in stamps])


def test_bursts_are_smoothed() -> None:
    """A camera that pauses 400 ms at every key frame and then sends all at once."""
    stamps = at(25, 20)
    held = [stamp + (0.4 - stamp % 1.0 if stamp % 1.0 < 0.4 else 0.0) for stamp in stamps]
    captures = played(Timeline(), stamps, [START + arrival for arrival in held])
    steps = [b - a for a, b in pairwise(captures[30:])]
    assert min(steps) > 0.039
    assert max(steps) < 0.041
    ages = [START + arrival - capture for arrival, capture in zip(held[30:], captures[30:], strict=True)]
    assert max(ages) == pytest.approx(0.4, abs=0.01)
    assert min(ages) == pytest.approx(0.0, abs=0.01)


def test_jitter_of_the_network_is_smoothed() -> None:
    rng = random.Random(1)
    stamps = at(25, 60)
    captures = played(Timeline(), stamps, sorted(START + stamp + rng.expovariate(1 / 0.02) for stamp in stamps))
    steps = [b - a for a, b in pairwise(captures[500:])]
    assert max(abs(step - 0.04) for step in steps) < 0.005


def test_frames_without_stamps_are_captured_when_they_arrive() -> None:
    timeline = Timeline()
    assert [timeline.capture(None, START + s) for s in (0.0, 0.3, 0.31)] == [START, START + 0.3, START + 0.31]
    assert timeline.jumps == 0


def test_frames_without_stamps_among_others_keep_the_order() -> None:
    timeline = Timeline()
    first = timeline.capture(0.0, START)
    second = timeline.capture(None, START + 0.5)
    third = timeline.capture(0.08, START + 0.51)
    assert first <= second <= third <= START + 0.51


@pytest.mark.parametrize("jump", [3600.0, 6.0, -6.0, -3600.0, -4.0, -2.0, -0.5])
def test_a_jump_of_the_stamps_starts_the_line_anew(jump: float) -> None:
    """The camera restarted, was set to another time, or a file (however short) looped."""
    timeline = Timeline()
    stamps = at(25, 8)
    played(timeline, stamps, [START + stamp for stamp in stamps])
    after = at(25, 8, 8.0)
    captures = played(timeline, [stamp + jump for stamp in after], [START + stamp for stamp in after])
    assert captures == pytest.approx([START + stamp for stamp in after], abs=0.01)
    assert timeline.jumps == 1


@pytest.mark.parametrize("length", [0.5, 1.5, 3.0, 7.0])
def test_a_file_that_loops_for_long_has_no_age(length: float) -> None:
    timeline = Timeline()
    stamps = at(25, length) * 40
    arrivals = [START + index / 25 for index in range(len(stamps))]
    captures = played(timeline, stamps, arrivals)
    assert max(arrival - capture for arrival, capture in zip(arrivals, captures, strict=True)) < 0.01


def test_stamps_that_skip_ahead_a_little_are_believed() -> None:
    timeline = Timeline()
    stamps = at(25, 4) + at(25, 4, 7.0)
    arrivals = [START + index / 25 for index in range(len(stamps))]
    captures = played(timeline, stamps, arrivals)
    assert arrivals[-1] - captures[-1] < 0.01


def test_a_stream_that_paused_for_long_starts_anew() -> None:
    timeline = Timeline()
    stamps = at(25, 4)
    played(timeline, stamps, [START + stamp for stamp in stamps])
    more = at(25, 4, 4.0)
    captures = played(timeline, more, [START + 60 + stamp for stamp in more])
    assert captures[0] == START + 64
    assert timeline.jumps == 1


def test_small_steps_back_are_no_jumps() -> None:
    timeline = Timeline()
    stamps = [0.0, 0.04, 0.03, 0.08, 0.12, 0.12, 0.16]
    played(timeline, stamps, [START + index / 25 for index in range(len(stamps))])
    assert timeline.jumps == 0


@pytest.mark.parametrize("drift", [200e-6, -200e-6])
def test_clocks_that_drift_apart_do_not_add_up_to_age(drift: float) -> None:
    """An hour and more at 200 parts in a million is 0.7 s."""
    rng = random.Random(2)
    timeline = Timeline()
    stamps = at(5, 2 * 3600)
    arrivals = [START + stamp * (1 + drift) + rng.uniform(0, 0.02) for stamp in stamps]
    captures = played(timeline, stamps, arrivals)
    assert timeline.jumps == 0
    assert max(arrival - capture for arrival, capture in zip(arrivals, captures, strict=True)) < 0.06


@pytest.mark.parametrize("seed", range(30))
def test_captures_are_in_order_and_never_in_the_future_whatever_comes(seed: int) -> None:
    rng = random.Random(seed)
    timeline, stamp, arrival = Timeline(), 0.0, START
    stamps, arrivals = [], []
    for _ in range(500):
        stamp += rng.choice([0.04, 0.04, 0.2, -0.04, rng.uniform(-100, 100)])
        arrival += rng.choice([0.0, 0.04, 0.2, rng.uniform(0, 40)])
        stamps.append(stamp)
        arrivals.append(arrival)
    played(timeline, stamps, arrivals)


# --- the scene's clock ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held_at_s", [0.0, 1.0, 5.0, 20.0])
def test_a_stall_is_no_time_of_the_scene(held_at_s: float) -> None:
    """However young the stream is: the frames that come late were captured one after another all the same."""
    timeline = Timeline()
    times = []
    for n in range(200):
        stamp = n / 5
        timeline.capture(stamp, 1000.0 + stamp + (3.5 if stamp > held_at_s else 0.0))
        times.append(timeline.scene_s)
    assert times[0] == 1000.0
    np.testing.assert_allclose(np.diff(times), 0.2, atol=1e-9)


def test_stamps_that_jump_cost_the_scene_what_passed_meanwhile() -> None:
    timeline = Timeline()
    times = []
    for stamp, arrival in (
        (0.0, 10.0),
        (0.2, 10.2),
        (900.0, 11.2),
        (900.2, 11.4),
        (3.0, 12.4),
        (None, 12.9),
        (3.4, 13.0),
    ):
        timeline.capture(stamp, arrival)
        times.append(timeline.scene_s)
    np.testing.assert_allclose(np.diff(times), [0.2, 1.0, 0.2, 1.0, 0.5, 0.4])


def test_the_scene_never_steps_back() -> None:
    timeline = Timeline()
    times = []
    for stamp, arrival in ((0.0, 1.0), (0.2, 1.2), (0.15, 1.3), (0.4, 1.2)):
        timeline.capture(stamp, arrival)
        times.append(timeline.scene_s)
    assert times == sorted(times)


@pytest.mark.parametrize("factor", [0.5, 0.84, 1.5])
def test_the_scene_runs_with_real_time_once_the_rate_is_known(factor: float) -> None:
    timeline = Timeline()
    times = {}
    for n in range(25 * 60):
        timeline.capture(n / 25 * factor, 1000.0 + n / 25)
        times[n] = timeline.scene_s
    assert times[25 * 60 - 1] - times[25 * 30] == pytest.approx(30.0, rel=0.02)


def test_a_packet_is_late_by_what_it_comes_after_the_fastest_ones() -> None:
    timeline = Timeline()
    assert timeline.late_s(0.0, 50.0) == 0, "nothing is known"
    for index in range(50):
        timeline.capture(index / 25, 50 + index / 25)
    assert timeline.late_s(2.0, 52.0) == pytest.approx(0.0, abs=0.01)
    assert timeline.late_s(2.0, 55.0) == pytest.approx(3.0, abs=0.01)
    assert timeline.late_s(9.0, 52.0) == 0, "no packet comes too early"
