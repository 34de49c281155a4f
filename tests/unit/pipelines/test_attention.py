"""What of a camera's detections is news."""

from __future__ import annotations

import numpy as np

from tests.unit.fakes import Clock
from visaged.models.types import Detections, FloatArray
from visaged.pipelines.attention import Attention

POSTER = np.array([[10, 10, 40, 50]], np.float32)
ELSEWHERE = np.array([[200, 10, 240, 60]], np.float32)
NOTHING = np.empty((0, 4), np.float32)


def found(boxes: FloatArray, confidence: float) -> Detections:
    count = len(boxes)
    return Detections(boxes, np.full(count, confidence, np.float32), np.zeros((count, 5, 2), np.float32))


def test_a_sure_face_is_one_everywhere_and_a_doubtful_one_where_none_is_known() -> None:
    attention = Attention(0.5)
    assert attention.judge(found(NOTHING, 0)) == "nothing"
    assert attention.judge(found(POSTER, 0.4)) == "doubtful"
    for _ in range(3):
        attention.note(POSTER + 1, 0)
    assert attention.judge(found(POSTER, 0.4)) == "nothing"
    assert attention.judge(found(ELSEWHERE, 0.4)) == "doubtful"
    assert attention.judge(found(POSTER, 0.6)) == "face"


def test_tracks_and_what_is_not_known_are_news() -> None:
    clock = Clock()
    attention = Attention(0.5, clock)
    for index in range(6):
        clock.advance(1)
        attention.note(POSTER, 0)
        assert (attention.news_s == clock()) is (index < 3), "what is found over and over is known"
    clock.advance(1)
    attention.note(NOTHING, 0)
    assert attention.news_s < clock()
    attention.note(NOTHING, 2)
    assert (attention.news_s, attention.present) == (clock(), 2)
