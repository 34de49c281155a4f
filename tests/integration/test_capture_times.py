"""Capture times of cameras whose stamps or clocks are not right, over the network."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support import media
from tests.support.rtsp import RtspServer
from tests.support.sources import SourceRun
from tests.support.ts_camera import ts_camera
from visaged.pipelines.records import Frame

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", size=(320, 180), seconds=4)


def ages(frames: list[Frame]) -> list[float]:
    return [frame.ready_s - frame.captured_s for frame in frames]


@pytest.mark.parametrize("factor", [0.84, 1.5])
def test_stamps_at_a_wrong_rate(clip: Path, factor: float, caplog: pytest.LogCaptureFixture) -> None:
    with ts_camera(clip, factor=factor) as url, SourceRun(url, fps=5) as run:
        run.wait_for(lambda: run.frames and run.frames[-1].arrived_s - run.frames[0].arrived_s > 22)
        frames = list(run.frames)
    settled = [frame for frame in frames if frame.arrived_s - frames[0].arrived_s > 12]
    assert min(ages(frames)) >= 0.0
    assert max(ages(frames)) < 0.3 * max(1.0, 1 / factor)
    assert sorted(ages(settled))[len(settled) * 9 // 10] < 0.2
    real_s = settled[-1].arrived_s - settled[0].arrived_s
    assert len(settled) == pytest.approx(5 * real_s, rel=0.1)
    assert settled[-1].motion_s - settled[0].motion_s == pytest.approx(real_s, abs=0.2)
    assert settled[-1].captured_at - settled[0].captured_at == pytest.approx(real_s, abs=0.2)
    warnings = [record.message for record in caplog.records if "time stamps" in record.message]
    assert len(warnings) == 1
    assert f"run at {factor:.2f} of real time" in warnings[0]


def test_a_stream_that_goes_on_late_stays_late_and_is_no_slow_clock(
    clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ts_camera(clip, at=12.0, hold=2.0) as url, SourceRun(url, fps=5) as run:
        run.wait_for(lambda: run.frames and (run.frames[-1].position_s or 0.0) > 22.0)
        frames = list(run.frames)
    assert ages(frames)[-1] == pytest.approx(2.0, abs=0.3)
    assert not [record for record in caplog.records if "time stamps" in record.message]


@pytest.mark.parametrize(("wrong_s", "way"), [(-30.0, "behind"), (-2.0, "behind"), (2.0, "ahead of")])
def test_a_cameras_wrong_clock(
    rtsp_server: RtspServer, wrong_s: float, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    with SourceRun(rtsp_server.url("/normal"), arguments={"wall": lambda: time.time() - wrong_s}) as run:
        frames = run.wait_for_frames(120)[80:]
    assert {frame.clock for frame in frames} == {"arrival"}
    assert max(ages(frames)) < 1.0
    warnings = [record.message for record in caplog.records if "its clock" in record.message]
    assert len(warnings) == 1
    assert f"s {way} this machine's" in warnings[0]
