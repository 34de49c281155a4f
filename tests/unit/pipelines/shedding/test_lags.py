"""How far cameras are behind, and which of them skip."""

from __future__ import annotations

import pytest

from visaged.pipelines.shedding.lags import Lags
from visaged.pipelines.shedding.load import CameraLoad

TICK_S = 0.5


class Cameras:
    """Cameras with lags, looked at twice a second, first while the processors have time."""

    def __init__(self, **lags: float) -> None:
        self.lags = lags
        self.worked_s = 0.0
        self.now_s = 100.0
        self.seen = Lags()
        self.look(is_busy=False)

    def look(self, is_busy: bool = True, times: int = 1, worked: float = 0.5, **lags: float) -> frozenset[str]:
        self.lags |= lags
        for _ in range(times):
            self.now_s += TICK_S
            self.worked_s += worked * TICK_S
            self.seen.look(self.now_s, self.loads(), is_busy)
        return self.seen.skipping

    def loads(self) -> list[CameraLoad]:
        return [CameraLoad(name, lag_s=lag_s, worked_s=self.worked_s) for name, lag_s in self.lags.items()]

    def behind_s(self) -> float:
        return self.seen.behind_s(self.loads())


def test_one_camera_that_is_late_says_nothing_of_the_machine() -> None:
    cameras = Cameras(a=0.1, b=0.1, c=0.1)
    cameras.look(a=0.9)
    assert cameras.behind_s() == 0
    cameras.look(b=0.4)
    assert cameras.behind_s() == pytest.approx(0.15), "the mean without the last"
    assert Lags().behind_s([]) == Lags().skipped([]) == 0


def test_a_camera_that_is_far_behind_skips_until_it_has_caught_up() -> None:
    cameras = Cameras(a=0.1, b=0.1)
    assert cameras.look(a=0.4) == frozenset()
    assert cameras.look(a=0.6) == {"a"}
    assert cameras.look(a=0.3) == {"a"}
    assert cameras.look(a=0.15) == frozenset()


def test_while_the_processors_have_time_nothing_is_skipped() -> None:
    cameras = Cameras(a=0.1)
    assert cameras.look(is_busy=False, a=5.0) == frozenset()


def test_a_stream_that_is_too_much_for_its_one_thread_skips_although_other_cores_have_time() -> None:
    cameras = Cameras(a=0.1)
    cameras.look(is_busy=False, worked=0.97, a=0.3)
    assert cameras.behind_s() == pytest.approx(0.2), "that is not absorbed"
    assert cameras.look(is_busy=False, worked=0.97, a=0.55) == {"a"}


def test_what_a_network_held_up_is_worked_off_and_not_skipped() -> None:
    cameras = Cameras(a=0.1, b=0.1)
    for lag_s in (3.0, 1.8, 0.7, 0.2):
        assert cameras.look(a=lag_s, b=lag_s) == frozenset()
        assert cameras.behind_s() == pytest.approx(0.1 if lag_s == 0.2 else 0)
    assert cameras.look(a=0.55, b=0.55) == {"a", "b"}


def test_what_was_held_up_and_is_not_worked_off_is_skipped() -> None:
    cameras = Cameras(a=0.1)
    assert cameras.look(a=3.0) == frozenset()
    assert cameras.look(a=2.9) == {"a"}


def test_what_the_processors_are_too_busy_for_is_not_taken_for_usual() -> None:
    cameras = Cameras(a=0.1, b=0.1)
    cameras.look(a=0.3, b=0.3, times=100)
    assert cameras.behind_s() == pytest.approx(0.2)
    cameras.look(is_busy=False, times=20)
    assert cameras.behind_s() == 0


def test_cameras_that_skip_count_as_behind_until_a_key_frame_must_have_come() -> None:
    cameras = Cameras(a=0.1, b=0.1)
    assert cameras.look(a=0.55, b=0.55) == {"a", "b"}
    assert cameras.behind_s() == pytest.approx(0.4)
    assert cameras.look(a=0.3, b=0.3) == {"a", "b"}
    assert cameras.behind_s() == pytest.approx(0.4)
    assert cameras.look(a=0.1, b=0.1) == frozenset()
    assert cameras.behind_s() == pytest.approx(0.4)
    assert cameras.seen.skipped(cameras.loads()) == 1
    cameras.look(times=6)
    assert cameras.behind_s() == 0
    assert cameras.seen.skipped(cameras.loads()) == 0


def test_what_was_skipped_before_something_else_was_asked_of_the_cameras_does_not_count() -> None:
    cameras = Cameras(a=0.1, b=0.1)
    cameras.look(a=0.55, b=0.55)
    cameras.look(a=0.1, b=0.1)
    assert cameras.behind_s() > 0
    cameras.seen.forget_skips()
    assert cameras.behind_s() == cameras.seen.skipped(cameras.loads()) == 0


def test_a_stream_that_stays_late_is_taken_as_it_is() -> None:
    """Its network was held up, and it goes on late: nothing that is skipped makes it newer."""
    cameras = Cameras(a=0.1)
    assert cameras.look(a=8.0, times=2) == {"a"}
    assert cameras.look(times=13) == frozenset()
    assert cameras.behind_s() == 0
    assert cameras.look(times=100) == frozenset()


def test_a_camera_that_is_new_counts_from_its_first_lag_and_one_that_is_gone_is_forgotten() -> None:
    cameras = Cameras(a=7.0)
    assert cameras.look() == frozenset()
    assert cameras.look(b=0.5) == {"b"}, "it came while the processors were busy"
    cameras.look(a=9.0)
    cameras.lags.clear()
    assert cameras.look() == frozenset()
