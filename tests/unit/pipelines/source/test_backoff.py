"""How long a camera that does not answer is left alone."""

from __future__ import annotations

import pytest

from visaged.pipelines.source.camera import Backoff


def test_waits_double_up_to_the_most() -> None:
    backoff = Backoff(first_s=0.5, most_s=30.0, jitter=0.0)
    assert [backoff.next_s() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_success_begins_anew() -> None:
    backoff = Backoff(first_s=0.5, jitter=0.0)
    for _ in range(5):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 0.5


@pytest.mark.parametrize(("drawn", "factor"), [(0.0, 1.0), (0.5, 0.85), (1.0, 0.7)])
def test_chance_shortens_by_no_more_than_the_jitter(drawn: float, factor: float) -> None:
    backoff = Backoff(first_s=2.0, most_s=30.0, jitter=0.3, draw=lambda: drawn)
    assert [backoff.next_s() for _ in range(2)] == pytest.approx([2 * factor, 4 * factor])


def test_a_camera_that_is_away_for_years_overflows_nothing() -> None:
    backoff = Backoff()
    waits = [backoff.next_s() for _ in range(5000)]
    assert max(waits) <= 30
    assert min(waits[10:]) >= 30 * 0.7


def test_many_cameras_do_not_come_back_at_once() -> None:
    waits = {round(Backoff().next_s(), 6) for _ in range(50)}
    assert len(waits) > 25
    assert all(0.35 <= wait <= 0.5 for wait in waits)
