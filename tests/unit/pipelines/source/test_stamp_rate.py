"""Streams whose stamps run at another rate than real time, and those that only look like it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest

from visaged.pipelines.source.times.timeline import Sampler, Timeline

START = 5_000.0
Delay = Callable[[float], float]
RATES = [0.5, 0.7, 0.84, 0.96, 0.99, 1.01, 1.04, 1.19, 1.5, 2.0]


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame: when it really was captured and when it came, seconds from the start; its age as told and as it is;
    its corrected stamp; the rate at its time, and whether that may be reported."""

    at: float
    arrival: float
    age: float
    true_age: float
    capture: float
    real: float
    rate: float
    settled: bool


def seen(
    times: Iterable[float],
    stamp: Callable[[float], float],
    delay: Delay = lambda time: 0.0,
    timeline: Timeline | None = None,
) -> Iterator[Seen]:
    """Let frames that were captured at `times` come in order, each `delay` late, with the stamps that `stamp` gives."""
    timeline, arrival, last = timeline or Timeline(), -math.inf, -math.inf
    for time in times:
        arrival = max(arrival, time + delay(time))
        capture = timeline.capture(stamp(time), START + arrival) - START
        assert last <= capture <= arrival + 1e-6
        last = capture
        yield Seen(
            time, arrival, arrival - capture, arrival - time, capture,
            timeline.real(stamp(time)), timeline.stamp_rate, timeline.stamp_rate_settled,
        )  # fmt: skip


def at(fps: float, seconds: float) -> list[float]:
    return [index / fps for index in range(round(fps * seconds))]


def running(rate: float) -> Callable[[float], float]:
    return lambda time: 95_443.7 + time * rate


def jitter(mean_s: float, seed: int = 1) -> Delay:
    rng = random.Random(seed)
    return lambda time: rng.expovariate(1 / mean_s)


def bursts(every_s: float, pause_s: float = 0.5) -> Delay:
    """A camera that holds frames back at every key frame and then sends them at once."""
    return lambda time: pause_s - time % every_s if time % every_s < pause_s else 0.0


def stall(begin_s: float, seconds: float, catch_up: float = 0.0) -> Delay:
    """Held up once; after it the stream gains `catch_up` seconds a second on real time."""
    return lambda time: max(0.0, seconds - (time - begin_s) * catch_up) if time >= begin_s else 0.0


def both(one: Delay, other: Delay) -> Delay:
    return lambda time: one(time) + other(time)


NETWORKS = {"smooth": lambda: lambda time: 0.0, "jitter": lambda: jitter(0.02), "bursts": lambda: bursts(1.0),
            "rare bursts": lambda: both(bursts(4.0), jitter(0.01))}  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("rate", RATES)
def test_ages_stay_true_and_captures_run_with_real_time(rate: float, network: str) -> None:
    frames = list(seen(at(25, 120), running(rate), NETWORKS[network]()))
    # What is still unknown in the first seconds makes nobody old: 0.84 stays below 0.2 s even then.
    most = max(0.2, (1 / rate - 1))
    assert all(frame.age - frame.true_age < most for frame in frames)
    late = [frame for frame in frames if frame.at > 12]
    assert all(abs(frame.age - frame.true_age) < 0.1 for frame in late)
    assert late[-1].capture - late[0].capture == pytest.approx(late[-1].at - late[0].at, abs=0.1)
    assert late[-1].rate == pytest.approx(rate, rel=0.002)
    assert late[-1].settled


@pytest.mark.parametrize("network", ["smooth", "jitter"])
@pytest.mark.parametrize("rate", [0.84, 0.5, 0.96])
def test_motion_is_smooth_once_the_rate_is_known(rate: float, network: str) -> None:
    captures = [f.capture for f in seen(at(25, 90), running(rate), NETWORKS[network]()) if f.at > 45]
    assert all(abs(b - a - 0.04) < 0.015 for a, b in pairwise(captures))


@pytest.mark.parametrize("rate", RATES)
def test_five_frames_a_second_are_five_a_second_of_real_time(rate: float) -> None:
    sampler, kept, refused, wrong = Sampler(5), 0, 0, 0
    timeline = Timeline()
    stamp = running(rate)
    for time in at(25, 72):
        no = sampler.certainly_not(timeline.real(stamp(time)))
        timeline.capture(stamp(time), START + time)
        wanted = sampler.keep(timeline.real(stamp(time)))
        wrong += no and wanted
        if time >= 12:
            kept += wanted
            refused += no
    assert kept == pytest.approx(300, abs=6)
    assert refused > 0.95 * (1500 - kept)
    assert wrong <= 2  # only where the estimate of the rate changes between a packet and its frame


@pytest.mark.parametrize("fps", [0.5, 1, 5, 12.5, 60])
def test_any_frame_rate(fps: float) -> None:
    frames = list(seen(at(fps, 180), running(0.9), jitter(0.01)))
    assert max(frame.age for frame in frames if frame.at > 20) < 0.2
    assert frames[-1].rate == pytest.approx(0.9, rel=0.005)


def test_variable_frame_rates() -> None:
    rng = random.Random(3)
    times, time = [], 0.0
    while time < 120:
        times.append(time)
        time += rng.choice([0.04, 0.04, 0.1, 0.5, 1.5])
    honest = list(seen(times, running(1.0), jitter(0.02)))
    assert {frame.rate for frame in honest} == {1.0}
    frames = list(seen(times, running(0.84), jitter(0.02)))
    assert max(frame.age - frame.true_age for frame in frames if frame.at > 15) < 0.1


def test_a_rate_that_changes_is_followed_within_seconds() -> None:
    def stamp(time: float) -> float:
        return time if time < 100 else 100 + (time - 100) * 0.84

    frames = list(seen(at(25, 240), stamp, jitter(0.01)))
    assert all(frame.rate == 1.0 for frame in frames if frame.at < 100)
    assert max(frame.age for frame in frames if frame.at > 110) < 0.25
    assert frames[-1].rate == pytest.approx(0.84, rel=0.01)


@pytest.mark.parametrize("rate", [0.84, 1.19])
def test_a_rate_that_is_put_right_is_seen(rate: float) -> None:
    def stamp(time: float) -> float:
        return time * rate if time < 100 else 100 * rate + (time - 100)

    frames = list(seen(at(25, 200), stamp, jitter(0.01)))
    assert {frame.rate for frame in frames if frame.at > 125} == {1.0}
    assert max(frame.age for frame in frames if frame.at > 125) < 0.2


def test_a_clip_that_loops_at_a_wrong_rate() -> None:
    """Stamps that fall back every ten seconds, as a looping demo does; the rate is known across them."""
    frames = list(seen(at(25, 120), lambda time: time % 10 * 0.84))
    assert max(frame.age for frame in frames if frame.at > 8) < 0.2
    assert frames[-1].rate == pytest.approx(0.84, rel=0.01)


# --- What only looks like a rate --------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [8.0, 20.0, 100.0])
@pytest.mark.parametrize("hold", [0.5, 3.5, 20.0])
def test_a_stream_that_goes_on_late_is_late_and_no_slow_clock(hold: float, begin: float) -> None:
    frames = list(seen(at(25, begin + 60), running(1.0), both(stall(begin, hold), jitter(0.01))))
    assert {frame.rate for frame in frames} == {1.0}
    late = [frame for frame in frames if frame.at > begin]
    assert all(frame.age == pytest.approx(frame.true_age, abs=0.12) for frame in late)


@pytest.mark.parametrize("catch_up", [0.02, 0.05, 0.2, 0.5, 1.0, 9.0])
@pytest.mark.parametrize("hold", [1.0, 3.5, 10.0])
def test_a_stream_that_catches_up_is_no_fast_clock(hold: float, catch_up: float) -> None:
    delay = both(stall(30.0, hold, catch_up), jitter(0.01))
    frames = list(seen(at(25, 120), running(1.0), delay))
    assert not any(frame.settled and abs(frame.rate - 1) > 0.01 for frame in frames)
    assert all(frame.age == pytest.approx(frame.true_age, abs=0.15) for frame in frames if frame.at > 10)


@pytest.mark.parametrize("speed", [1.5, 2.0, 5.0])
def test_a_backlog_at_the_start_is_no_fast_clock(speed: float) -> None:
    """Four seconds of old frames, sent faster than real time until the stream is live."""
    delay = stall(0.0, 4.0, speed - 1.0)
    frames = list(seen(at(25, 60), running(1.0), delay))
    assert {frame.rate for frame in frames} == {1.0}


def test_a_recording_that_is_sent_as_fast_as_it_goes_has_no_rate() -> None:
    frames = list(seen([time / 20 for time in at(25, 600)], running(20.0)))
    assert {frame.rate for frame in frames} == {1.0}


def test_segments_that_come_at_once_have_no_rate() -> None:
    """HLS: six seconds of video every six seconds."""
    frames = list(seen(at(25, 120), running(1.0), lambda time: 6.0 - time % 6.0))
    assert {frame.rate for frame in frames} == {1.0}


@pytest.mark.parametrize("seed", range(20))
def test_a_bad_network_has_no_rate(seed: int) -> None:
    """Stalls of up to three seconds every ten or so, each caught up with, over jitter of 50 ms."""
    rng = random.Random(seed)
    events: list[Delay] = [jitter(0.05, seed)]
    time = 0.0
    while time < 180:
        time += rng.uniform(3, 17)
        events.append(stall(time, rng.uniform(0.1, 3), rng.choice([0.3, 1.0, 5.0])))
    frames = list(seen(at(25, 180), running(1.0), lambda time: max(event(time) for event in events)))
    assert not any(frame.settled and abs(frame.rate - 1) > 0.01 for frame in frames)
    assert all(frame.age - frame.true_age < 0.2 for frame in frames)


def test_a_file_is_not_judged_by_how_fast_it_is_read() -> None:
    frames = list(seen(at(25, 60), running(0.84), timeline=Timeline(live=False)))
    assert {frame.rate for frame in frames} == {1.0}


# --- Hours ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("ppm", "hours"), [(100, 8), (-100, 8), (800, 3), (-800, 3), (1500, 3), (-1500, 3)])
def test_drift_over_hours_does_not_add_up_to_age(ppm: float, hours: float) -> None:
    """100 ppm are 2.9 s in eight hours."""
    delay = both(bursts(30.0, 2.0), jitter(0.02))
    frames = seen(at(2, hours * 3600), running(1.0 - ppm * 1e-6), delay)
    assert max(abs(frame.age - frame.true_age) for frame in frames if frame.at > 600) < 0.15
