"""How long a source waits for a picture while data comes."""

from __future__ import annotations

import pytest

from visaged.pipelines.source.errors import SourceError
from visaged.pipelines.source.times.waiting import MOST_KEY_FRAME_S, PictureWatch


def watch() -> tuple[PictureWatch, list[str]]:
    said: list[str] = []
    return PictureWatch(20.0, 1000.0, said.append), said


def test_it_waits_for_the_first_key_frame_and_says_so_once() -> None:
    w, said = watch()
    for second in range(1, 75):
        w.packet(False, 1000.0 + second)
        w.check(1000.0 + second)
        assert w.waits_for_key_frame
    assert len(said) == 1
    assert "key frame" in said[0]
    w.packet(True, 1075.0)
    w.check(1076.0)
    w.picture(1077.0)
    w.check(1090.0)
    assert not w.waits_for_key_frame


def test_short_waits_are_not_worth_a_word() -> None:
    w, said = watch()
    for tenth in range(20):
        w.packet(False, 1000.0 + tenth / 10)
        w.check(1000.0 + tenth / 10)
    w.packet(True, 1002.0)
    w.picture(1002.0)
    assert said == []


def test_a_stream_without_key_frames_is_given_up_in_the_end() -> None:
    w, said = watch()
    for second in range(1, round(MOST_KEY_FRAME_S) + 1):
        w.packet(False, 1000.0 + second)
        w.check(1000.0 + second)
    w.packet(False, 1301.0)
    with pytest.raises(SourceError, match="no key frame in 300 s"):
        w.check(1301.0)
    assert len(said) == 1


def test_key_frames_that_never_become_a_picture_are_a_fault() -> None:
    w, _ = watch()
    w.packet(True, 1001.0)
    w.check(1020.0)
    with pytest.raises(SourceError, match="no picture in 20 s"):
        w.check(1022.0)


@pytest.mark.parametrize("begun", [False, True])
def test_sound_alone_is_not_waited_for(begun: bool) -> None:
    w, said = watch()
    w.check(1019.0)
    w.packet(begun, 1019.0)
    w.check(1030.0)
    with pytest.raises(SourceError, match="no picture"):
        w.check(1040.0)
    assert len(said) == (0 if begun else 1)


def test_pictures_that_stop_are_a_fault() -> None:
    w, said = watch()
    w.packet(True, 1001.0)
    w.picture(1001.0)
    for second in range(2, 22):
        w.packet(False, 1000.0 + second)
        w.check(1000.0 + second)
    with pytest.raises(SourceError, match="no picture in 20 s"):
        w.check(1022.0)
    assert said == []
