"""How far cameras are behind, and which of them skip."""

from __future__ import annotations

from visaged.pipelines.shedding.lags import Lags
from visaged.pipelines.shedding.load import CameraLoad


class Cameras:
    """Cameras with lags, looked at twice a second."""

    def __init__(self, **lags: float) -> None:
        self.lags = lags
        self.now_s = 100.0
        self.seen = Lags()

    def look(self, is_busy: bool = True, times: int = 1, **lags: float) -> frozenset[str]:
        self.lags |= lags
        for _ in range(times):
            self.now_s += 0.5
            self.seen.look(self.now_s, self.loads(), is_busy)
        return self.seen.skipping

    def loads(self) -> list[CameraLoad]:
        return [CameraLoad(name, lag_s=lag_s) for name, lag_s in self.lags.items()]

    def behind_s(self) -> float:
        return self.seen.behind_s(self.loads())


def test_one_camera_that_is_late_says_nothing_of_the_machine() -> None:
    cameras = Cameras(a=0.1, b=0.1, c=0.1)
    cameras.look()
    cameras.look(a=0.9)
    assert cameras.behind_s() == 0
    cameras.look(b=0.6)
    assert 0.3 < cameras.behind_s() <= 0.5
    assert Lags().behind_s([]) == 0


def test_a_camera_that_is_far_behind_skips_until_it_has_caught_up() -> None:
    cameras = Cameras(a=0.1, b=0.1)
    cameras.look()
    assert cameras.look(a=1.0) == frozenset()
    assert cameras.look(a=1.5) == {"a"}
    assert cameras.look(a=0.6) == {"a"}
    assert cameras.look(a=0.2) == frozenset()


def test_while_the_processors_have_time_nothing_is_skipped() -> None:
    cameras = Cameras(a=0.1)
    cameras.look()
    assert cameras.look(is_busy=False, a=5.0) == frozenset()


def test_cameras_that_skip_count_as_behind_until_they_are_decoded_again() -> None:
    cameras = Cameras(a=0.1, b=0.1, c=0.1)
    cameras.look()
    cameras.look(a=2.0, b=2.0)
    assert cameras.look(a=0.5, b=0.5) == {"a", "b"}
    assert cameras.behind_s() == 1.0
    cameras.look(a=0.1, b=0.1)
    assert cameras.behind_s() == 0


def test_a_stream_that_stays_late_is_taken_as_it_is() -> None:
    """Its network was held up, and it goes on late: nothing that is skipped makes it newer."""
    cameras = Cameras(a=0.1)
    cameras.look()
    assert cameras.look(a=8.0) == {"a"}
    assert cameras.look(times=13) == frozenset()
    assert cameras.behind_s() == 0
    assert cameras.look(times=100) == frozenset()


def test_a_camera_that_is_new_counts_from_its_first_lag_and_one_that_is_gone_is_forgotten() -> None:
    cameras = Cameras(a=7.0)
    assert cameras.look() == frozenset()
    assert cameras.behind_s() == 0
    cameras.look(a=9.0)
    cameras.lags.clear()
    assert cameras.look() == frozenset()
