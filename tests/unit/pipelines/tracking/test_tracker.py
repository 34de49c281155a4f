"""The tracker on synthetic paths: birth, gap, growth, decay, death, crossing, and what must not break it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from visaged.models.types import Detections
from visaged.pipelines.tracking.association import assign, buffered_iou
from visaged.pipelines.tracking.kalman import BoxFilters, MotionConfig
from visaged.pipelines.tracking.tracker import Tracker, TrackerConfig, TrackerUpdate

FRAME_S = 0.1
Face = tuple[float, float, float] | tuple[float, float, float, float]  # centre x, y, size, confidence (0.9)


def faces(*seen: Face) -> Detections:
    """Return square faces."""
    boxes = [(x - s / 2, y - s / 2, x + s / 2, y + s / 2) for x, y, s, *_ in seen]
    confidences = [face[3] if len(face) == 4 else 0.9 for face in seen]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(confidences, np.float32),
        np.zeros((len(seen), 5, 2), np.float32),
    )


def play(tracker: Tracker, frames: Sequence[Sequence[Face]], start_s: float = 0.0) -> list[TrackerUpdate]:
    """Feed frames at a fixed rate."""
    return [tracker.update(faces(*seen), start_s + n * FRAME_S) for n, seen in enumerate(frames)]


def settled(*seen: Face, config: TrackerConfig | None = None) -> Tracker:
    """Return a tracker that knows these faces, standing still; its last frame was at 0.4 s, numbers as given."""
    tracker = Tracker(config)
    updates = play(tracker, [seen] * 5)
    assert updates[-1].assignments == list(range(1, len(seen) + 1))
    return tracker


def test_birth_is_confirmed_by_the_second_hit() -> None:
    first, second, third = play(Tracker(), [[(100, 100, 40)]] * 3)
    assert first == TrackerUpdate([None], [], [])
    assert second == TrackerUpdate([1], [1], [])
    assert third == TrackerUpdate([1], [], [])


@pytest.mark.parametrize("hits", [1, 3, 5])
def test_confirm_hits(hits: int) -> None:
    updates = play(Tracker(TrackerConfig(confirm_hits=hits)), [[(100, 100, 40)]] * 6)
    assert [u.assignments[0] for u in updates] == [None] * (hits - 1) + [1] * (7 - hits)
    assert [u.began for u in updates].index([1]) == hits - 1


def test_two_hits_far_apart_confirm_at_low_rates() -> None:
    tracker = Tracker(TrackerConfig(confirm_hits=5, confirm_s=1.0))
    assert tracker.update(faces((100, 100, 40)), 0.0).began == []
    assert tracker.update(faces((100, 100, 40)), 1.0).began == [1]


def test_hits_without_confidence_do_not_confirm() -> None:
    tracker = Tracker(TrackerConfig(confirm_confidence=0.8))
    assert not any(u.began for u in play(tracker, [[(100, 100, 40, 0.7)]] * 10))
    assert tracker.update(faces((100, 100, 40, 0.85)), 1.0).began == [1]


def test_false_alarm_never_gets_a_number() -> None:
    updates = play(Tracker(), [[(100, 100, 40)], *([[]] * 9), [(100, 100, 40)]])
    assert not any(u.began or u.ended for u in updates)


def test_gap_keeps_the_number() -> None:
    tracker = settled((100, 100, 40))
    assert tracker.update(faces(), 0.5) == TrackerUpdate([], [], [])
    assert tracker.update(faces((100, 100, 40)), 1.9).assignments == [1]


def test_gap_of_a_moving_face() -> None:
    path: list[list[Face]] = [[(100 + 8 * n, 100, 40)] for n in range(20)]
    path[12:16] = [[]] * 4
    updates = play(Tracker(), path)
    assert {i for u in updates[1:] for i in u.assignments} == {1}


def test_death_is_told_once_and_after_the_lifetime() -> None:
    tracker = settled((100, 100, 40))
    times = [0.5 + 0.25 * n for n in range(12)]
    ended = [tracker.update(faces(), t).ended for t in times]
    assert [t for t, ids in zip(times, ended, strict=True) if ids] == [2.5]  # last seen at 0.4 s, lost_s is 2
    assert [i for ids in ended for i in ids] == [1]


@pytest.mark.parametrize("rate", [1.04, 1 / 1.04])
def test_growth_and_decay(rate: float) -> None:
    updates = play(Tracker(), [[(200, 200, 60 * rate**n)] for n in range(30)])
    assert {i for u in updates[1:] for i in u.assignments} == {1}


def test_crossing_faces_keep_their_numbers() -> None:
    frames: list[list[Face]] = [[(100 + 10 * n, 200, 50), (500 - 10 * n, 215, 50)] for n in range(41)]
    updates = play(Tracker(), frames)
    assert all(u.assignments == [1, 2] for u in updates[1:])


def test_occluded_face_comes_out_with_its_number() -> None:
    frames: list[list[Face]] = []
    for n in range(41):
        behind, before = 100 + 10 * n, 500 - 10 * n
        hidden = abs(behind - before) < 50
        frames.append([(before, 205, 60)] if hidden else [(before, 205, 60), (behind, 200, 45)])
    updates = play(Tracker(), frames)
    assert {u.assignments[0] for u in updates[1:]} == {1}
    assert {i for u in updates[1:] for i in u.assignments[1:]} == {2}


def test_doubtful_detection_continues_a_track() -> None:
    tracker = settled((100, 100, 40))
    assert tracker.update(faces((102, 100, 40, 0.4)), 0.5).assignments == [1]
    assert tracker.update(faces(), 2.45).ended == []  # seen at 0.5 s, not at 0.4 s


def test_confident_detection_is_served_before_a_doubtful_one() -> None:
    tracker = settled((100, 100, 40))
    assert tracker.update(faces((100, 100, 40, 0.4), (106, 100, 40, 0.9)), 0.5).assignments == [None, 1]


def test_doubtful_detections_start_nothing() -> None:
    updates = play(Tracker(), [[(100, 100, 40, 0.45), (300, 100, 40, 0.55)]] * 20)
    assert all(u == TrackerUpdate([None, None], [], []) for u in updates)


def test_below_low_confidence_is_ignored() -> None:
    tracker = settled((100, 100, 40))
    assert tracker.update(faces((100, 100, 40, 0.2)), 0.5).assignments == [None]


def test_somebody_else_far_away_gets_another_number() -> None:
    tracker = settled((100, 100, 40))
    updates = play(tracker, [[(700, 400, 40)]] * 2, start_s=0.5)
    assert updates[-1] == TrackerUpdate([2], [2], [])


def test_face_of_another_size_in_the_same_place_is_somebody_else() -> None:
    tracker = settled((100, 100, 30))
    updates = play(tracker, [[(100, 100, 120)]] * 2, start_s=0.5)
    assert updates[-1].assignments == [2]


@pytest.mark.parametrize("fps", [1, 2, 5, 10, 30])
def test_same_person_at_any_rate(fps: int) -> None:
    tracker = Tracker()
    updates = [
        tracker.update(faces((300 + 60 * math.sin(0.5 * n / fps), 200, 60)), n / fps) for n in range(12 * fps + 1)
    ]
    assert {i for u in updates[1:] for i in u.assignments} == {1}


def test_variable_intervals() -> None:
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.choice((0.033, 0.1, 0.4, 0.9), 80))
    tracker = Tracker()
    updates = [tracker.update(faces((50 + 25 * t, 200, 50), (900 - 25 * t, 205, 50)), t) for t in times]
    assert all(u.assignments == [1, 2] for u in updates[1:])


@pytest.mark.parametrize("fps", [1, 0.5, 0.25, 0.1, 1 / 60])
@pytest.mark.parametrize("uneven", [0.0, 0.2])
def test_a_still_face_keeps_its_number_at_any_rate(fps: float, uneven: float) -> None:
    rng = np.random.default_rng(5)
    tracker = Tracker()
    times = (np.arange(40) + rng.uniform(-uneven, uneven, 40)) / fps
    updates = [tracker.update(faces((100 + rng.normal(), 100 + rng.normal(), 40)), time_s) for time_s in times]
    assert [n for update in updates for n in update.began] == [1]
    assert all(update.assignments == [1] for update in updates[2:])


@pytest.mark.parametrize("fps", [1, 0.5, 0.25, 0.1])
def test_one_missed_frame_is_no_end_at_a_low_rate_and_three_are(fps: float) -> None:
    tracker = Tracker()
    shown = [1, 1, 1, 1, 0, 1, 1, 0, 0, 0]
    updates = [tracker.update(faces((100, 100, 40)) if n else faces(), i / fps) for i, n in enumerate(shown)]
    assert [u.ended for u in updates] == [[]] * 9 + [[1]]
    assert [n for update in updates for n in update.began] == [1]


@pytest.mark.parametrize("fps", [5, 0.5, 0.1])
def test_a_known_rate_counts_from_the_first_frame_on(fps: float) -> None:
    tracker = Tracker(interval_s=1 / fps)
    assert tracker.lost_s == max(2.0, 2.5 / fps)
    assert tracker.update(faces((100, 100, 40)), 0.0).began == []
    assert tracker.update(faces((100, 100, 40)), 1 / fps).began == [1]
    for n in range(2, 20):  # what waited for the connection comes in a burst, and is not the rate
        assert tracker.update(faces((100, 100, 40)), 1 / fps + n / 100).ended == []
    assert tracker.lost_s == max(2.0, 2.5 / fps)


def test_frames_that_become_rare_and_frequent_again() -> None:
    """As when the machine is overloaded for a while."""
    tracker, now_s, began = Tracker(), 0.0, []
    for interval_s in (0.2,) * 20 + (4.0,) * 10 + (0.2,) * 40:
        now_s += interval_s
        began += tracker.update(faces((100, 100, 40)), now_s).began
    assert began in ([1], [1, 2]), "at most the first long gap ends the track"
    assert tracker.lost_s == TrackerConfig().lost_s


def test_frames_of_which_only_some_are_far_apart() -> None:
    tracker, now_s, began = Tracker(), 0.0, []
    for index in range(100):
        now_s += 3.0 if index % 4 == 0 else 0.2
        began += tracker.update(faces((100, 100, 40)), now_s).began
    assert len(began) <= 2


def test_one_stall_makes_no_track_live_longer() -> None:
    tracker = settled((100, 100, 40))
    assert tracker.update(faces(), 30.0).ended == [1]
    assert tracker.lost_s == TrackerConfig().lost_s


def test_equal_times_are_harmless() -> None:
    tracker = settled((100, 100, 40))
    for _ in range(50):
        assert tracker.update(faces((100, 100, 40)), 0.4).assignments == [1]


def test_jump_forward_ends_all_and_starts_afresh() -> None:
    tracker = settled((100, 100, 40))
    assert tracker.update(faces((100, 100, 40)), 1e9) == TrackerUpdate([None], [], [1])
    assert tracker.update(faces((100, 100, 40)), 1e9 + 0.1) == TrackerUpdate([2], [2], [])


def test_small_step_back_keeps_the_tracks() -> None:
    tracker = settled((100, 100, 40))
    assert tracker.update(faces((100, 100, 40)), 0.1) == TrackerUpdate([1], [], [])
    assert tracker.update(faces(), 0.2).ended == []
    assert tracker.update(faces(), 2.0).ended == []
    assert tracker.update(faces(), 2.2).ended == [1]  # lifetimes go on from the new time


def test_large_step_back_ends_all() -> None:
    tracker = Tracker()
    play(tracker, [[(100, 100, 40)]] * 3, start_s=1000.0)
    assert tracker.update(faces((100, 100, 40)), 0.0) == TrackerUpdate([None], [], [1])
    assert tracker.update(faces((100, 100, 40)), 0.1) == TrackerUpdate([2], [2], [])


@pytest.mark.parametrize("time_s", [math.nan, math.inf, -math.inf])
def test_time_must_be_finite(time_s: float) -> None:
    tracker = settled((100, 100, 40))
    with pytest.raises(ValueError, match="finite"):
        tracker.update(faces(), time_s)
    assert tracker.update(faces((100, 100, 40)), 0.5).assignments == [1]


def test_reset_ends_all_and_numbering_goes_on() -> None:
    tracker = settled((100, 100, 40), (300, 100, 40))
    assert tracker.reset() == [1, 2]
    assert tracker.reset() == []
    assert play(tracker, [[(100, 100, 40)]] * 2)[-1] == TrackerUpdate([3], [3], [])


def test_trackers_count_apart() -> None:
    one, other = settled((100, 100, 40)), settled((100, 100, 40))
    one.reset()
    assert other.update(faces((100, 100, 40)), 0.5).assignments == [1]


def test_no_detections_at_all() -> None:
    assert all(u == TrackerUpdate([], [], []) for u in play(Tracker(), [[]] * 5))


def test_broken_boxes_are_ignored() -> None:
    tracker = settled((100, 100, 40))
    good = faces((100, 100, 40))
    nan, inf = math.nan, math.inf
    broken = [(nan,) * 4, (-inf, 0, inf, 9), (inf, 0, inf, 9), (9, 9, 9, 9), (90, 90, 40, 40), (80, 80, 80.5, 120)]
    boxes = np.concatenate((np.array(broken, np.float32), good.boxes, good.boxes))
    confidences = np.array([0.9] * len(broken) + [nan, 0.9], np.float32)
    detections = Detections(boxes, confidences, np.zeros((len(boxes), 5, 2), np.float32))
    for n in range(5):
        expected: list[int | None] = [None] * (len(broken) + 1)
        assert tracker.update(detections, 0.5 + n / 10) == TrackerUpdate([*expected, 1], [], [])


def test_input_is_left_as_it_is() -> None:
    tracker, detections = settled((100, 100, 40)), faces((103, 101, 41), (300, 100, 40, 0.4))
    boxes, confidences = detections.boxes.copy(), detections.confidences.copy()
    tracker.update(detections, 0.5)
    assert np.array_equal(detections.boxes, boxes)
    assert np.array_equal(detections.confidences, confidences)


def test_events_and_numbers_are_consistent_in_a_storm() -> None:
    rng = np.random.default_rng(7)
    tracker, alive, begun, now_s = Tracker(), set[int](), list[int](), 0.0
    for _ in range(600):
        now_s += rng.choice((0.03, 0.2, 0.5, 3.0, -0.1, -30.0), p=(0.4, 0.3, 0.2, 0.04, 0.05, 0.01))
        count = rng.integers(0, 12)
        seen = [(*rng.uniform(0, 400, 2), rng.uniform(20, 80), rng.uniform(0.2, 1)) for _ in range(count)]
        update = tracker.update(faces(*seen), now_s)
        given = [i for i in update.assignments if i is not None]
        assert len(update.assignments) == count
        assert len(set(given)) == len(given)
        assert set(update.ended) <= alive
        alive = (alive - set(update.ended)) | set(update.began)
        assert set(update.began) <= set(given) <= alive
        begun += update.began
    assert begun == list(range(1, len(begun) + 1))
    assert sorted(tracker.reset()) == sorted(alive)


def test_filter_stays_bounded_over_any_gap() -> None:
    motion = MotionConfig()
    filters = BoxFilters(motion)
    filters.append(np.array([[100.0, 100, 140, 140]]))
    row = np.array([0])
    for n in range(1, 10):
        filters.predict(0.1)
        filters.correct(row, np.array([[100.0, 100, 140, 140]]) + 4 * n, np.ones(1))
    filters.predict(1e6)
    box = filters.boxes(row)[0]
    assert np.isfinite(box).all()
    assert abs(box[0] - 136) < 2 * 40 * motion.speed_sizes_per_s * motion.memory_s
    assert 30 < box[2] - box[0] < 50
    assert np.isfinite(filters.centre_deviations(row)).all()


def test_filter_does_not_depend_on_how_a_gap_is_cut() -> None:
    whole, cut = BoxFilters(MotionConfig()), BoxFilters(MotionConfig())
    for filters in (whole, cut):
        filters.append(np.array([[100.0, 100, 140, 150]]))
    whole.predict(1.0)
    for _ in range(10):
        cut.predict(0.1)
    row = np.array([0])
    assert whole.centre_deviations(row) == pytest.approx(cut.centre_deviations(row), rel=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"low_confidence": 0.7},
        {"new_confidence": 0.4},
        {"high_confidence": math.nan},
        {"confirm_hits": 0},
        {"lost_s": 0.0},
        {"lost_s": math.inf},
        {"tentative_s": -1.0},
        {"min_similarity": math.nan},
    ],
)
def test_senseless_configuration_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        TrackerConfig.model_validate(changes)


def test_senseless_motion_is_refused() -> None:
    with pytest.raises(ValueError, match="memory_s"):
        MotionConfig(memory_s=0.0)


def test_buffered_iou() -> None:
    one, near = np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 15, 10], [15, 0, 25, 10], [0, 0, 10, 10]])
    assert buffered_iou(one, near, np.zeros(1)) == pytest.approx(np.array([[1 / 3, 0, 1]]))
    # Enlarged by half a side: [-5, 15] against [10, 30], 20 high: 100 of 700.
    assert buffered_iou(one, near, np.full(1, 0.5))[0, 1] == pytest.approx(100 / 700)


def test_assignment_is_the_best_of_all() -> None:
    rng = np.random.default_rng(3)
    for _ in range(1500):
        height, width = rng.integers(0, 6, 2)
        scores = rng.normal(rng.choice((-1, 0, 1)), 1, (height, width))
        if rng.random() < 0.3:
            scores = np.round(2 * scores) / 2  # ties
        rows, columns = assign(scores)
        assert len(set(rows.tolist())) == len(set(columns.tolist())) == len(rows)
        assert (scores[rows, columns] > 0).all()
        gains = np.maximum(scores if height <= width else scores.T, 0)
        pairings = itertools.permutations(range(max(gains.shape)), len(gains))
        best = max(gains[range(len(gains)), list(chosen)].sum() for chosen in pairings)
        assert scores[rows, columns].sum() == pytest.approx(best)


def test_assignment_of_a_dense_crowd_beats_greedy() -> None:
    scores = np.array([[10.0, 9, 0], [9, 1, 0], [0, 8, 7.5]])
    rows, columns = assign(scores)
    assert dict(zip(rows.tolist(), columns.tolist(), strict=True)) == {0: 1, 1: 0, 2: 2}
