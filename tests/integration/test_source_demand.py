"""A live camera whose frames are not all wanted."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from tests.support import media
from tests.support.sources import SourceRun
from tests.support.ts_camera import ts_camera
from visaged.pipelines.source.demand import FULL, Demand


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 6 s of video with a key frame every 1.5 s."""
    path = tmp_path_factory.mktemp("demand") / "clip.mp4"
    return media.write_video(path, size=(160, 90), seconds=6, gop=38)


def steps_of(run: SourceRun, begin: int, end: int) -> list[float]:
    """Return the seconds between the frames of a run."""
    positions = [frame.position_s or 0.0 for frame in run.frames[begin:end]]
    return [b - a for a, b in itertools.pairwise(positions)]


def test_key_frames_alone_then_the_first_part_of_each_group_then_all(clip: Path) -> None:
    demand = Demand("key_frames")
    with ts_camera(clip) as url:
        # So short a timeout that a camera without pictures for the time from key frame to key frame would be given up.
        run = SourceRun(url, fps=5.0, read_timeout_s=0.5, arguments={"demand": lambda: demand})
        with run:
            run.wait_for_frames(3)
            assert steps_of(run, 0, 3) == pytest.approx([1.52, 1.52], abs=0.01)
            assert run.received == len(run.frames), "nothing else was decoded"
            demand = Demand(fps=2.5)
            count = len(run.frames)
            run.wait_for_frames(count + 13)
            steps = steps_of(run, count + 1, count + 13)
            pauses = [step for step in steps if step > 0.7]
            assert 2 <= len(pauses) <= 4, "nothing is decoded in the rest of a group"
            assert [step for step in steps if step <= 0.7] == pytest.approx([0.2] * (11 - len(pauses)), abs=0.041)
            demand = FULL
            count = len(run.frames)
            run.wait_for_frames(count + 7)
            assert steps_of(run, count + 2, count + 7) == pytest.approx([0.2] * 4, abs=0.041)
    assert run.damaged == 0


def test_a_camera_that_is_far_behind_decodes_nothing_and_goes_on_at_a_key_frame(clip: Path) -> None:
    demand = FULL
    with ts_camera(clip) as url:
        run = SourceRun(url, fps=None, arguments={"demand": lambda: demand})
        with run:
            run.wait_for_frames(5)
            demand = Demand("none")
            received = wait_until_quiet(run)
            demand = FULL
            run.wait_for_frames(received + 5)
        first = run.frames[received].position_s or 0.0
    assert first / 1.52 == pytest.approx(round(first / 1.52), abs=0.03)
    assert run.damaged == 0


def wait_until_quiet(run: SourceRun, seconds: float = 0.5) -> int:
    """Return the number of frames once no more have come for a while."""
    count = -1
    while count != len(run.frames):
        count = len(run.frames)
        time.sleep(seconds)
    return count


def test_a_recording_is_analysed_whole(clip: Path) -> None:
    run = SourceRun(clip, pace="fast", arguments={"demand": lambda: Demand("key_frames", 1.0)}).checked()
    assert len(run.frames) == 150


def test_a_file_that_loops_as_a_camera_keeps_its_pace(clip: Path) -> None:
    run = SourceRun(clip, loop=True, arguments={"demand": lambda: Demand("key_frames")})
    with run:
        run.wait_for_frames(4)
    arrived = [frame.arrived_s for frame in run.frames[:4]]
    assert [b - a for a, b in itertools.pairwise(arrived)] == pytest.approx([1.52, 1.52, 1.52], abs=0.4)
