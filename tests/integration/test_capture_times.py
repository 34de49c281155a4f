"""Capture times of cameras whose stamps or clocks are not right, over the network.

What these tests compare takes some twenty seconds to show. So the cameras run at the same time, each with a name.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

import pytest

from tests.support import media
from tests.support.rtsp import RtspServer
from tests.support.sources import SourceRun
from tests.support.ts_camera import ts_camera
from visaged.pipelines.records import Frame

pytestmark = pytest.mark.timed

RATES = {"slow": 0.84, "fast": 1.5}


class Warnings(logging.Handler):
    """Keeps the texts of warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def of(self, camera: str, part: str) -> list[str]:
        """Return the warnings about a camera that contain a text."""
        return [text for text in self.texts if text.startswith(f"camera {camera}:") and part in text]


@contextlib.contextmanager
def warnings() -> Iterator[Warnings]:
    handler, logger = Warnings(), logging.getLogger("visaged")
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[Frame]], Warnings]:
    """The frames of three cameras by name, and what was logged: `slow` and `fast` stamps, and `held` up once."""
    clip = media.write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", size=(320, 180), seconds=4)
    with contextlib.ExitStack() as stack:
        logged = stack.enter_context(warnings())
        runs: dict[str, SourceRun] = {}
        for name, factor in RATES.items():
            url = stack.enter_context(ts_camera(clip, factor=factor))
            runs[name] = stack.enter_context(SourceRun(url, name=name, fps=5))
        url = stack.enter_context(ts_camera(clip, at=12.0, hold=2.0))
        held = runs["held"] = stack.enter_context(SourceRun(url, name="held", fps=5))
        for name in RATES:
            frames = runs[name].frames
            runs[name].wait_for(lambda frames=frames: frames and frames[-1].arrived_s - frames[0].arrived_s > 22)
        held.wait_for(lambda: held.frames and (held.frames[-1].position_s or 0.0) > 22.0)
        return {name: list(run.frames) for name, run in runs.items()}, logged


def ages(frames: list[Frame]) -> list[float]:
    return [frame.ready_s - frame.captured_s for frame in frames]


@pytest.mark.parametrize("name", RATES)
def test_stamps_at_a_wrong_rate(streams: tuple[dict[str, list[Frame]], Warnings], name: str) -> None:
    frames, factor = streams[0][name], RATES[name]
    settled = [frame for frame in frames if frame.arrived_s - frames[0].arrived_s > 12]
    assert min(ages(frames)) >= 0.0
    assert max(ages(frames)) < 0.3 * max(1.0, 1 / factor)
    assert sorted(ages(settled))[len(settled) * 9 // 10] < 0.2
    real_s = settled[-1].arrived_s - settled[0].arrived_s
    assert len(settled) == pytest.approx(5 * real_s, rel=0.1)
    assert settled[-1].motion_s - settled[0].motion_s == pytest.approx(real_s, abs=0.2)
    assert settled[-1].captured_at - settled[0].captured_at == pytest.approx(real_s, abs=0.2)
    (warning,) = streams[1].of(name, "time stamps")
    assert f"run at {factor:.2f} of real time" in warning


def test_a_stream_that_goes_on_late_stays_late_and_is_no_slow_clock(
    streams: tuple[dict[str, list[Frame]], Warnings],
) -> None:
    assert ages(streams[0]["held"])[-1] == pytest.approx(2.0, abs=0.3)
    assert not streams[1].of("held", "time stamps")


def test_a_cameras_wrong_clock(rtsp_server: RtspServer) -> None:
    wrong = {"far": (-30.0, "behind"), "slow": (-2.0, "behind"), "fast": (2.0, "ahead of")}
    with contextlib.ExitStack() as stack:
        logged = stack.enter_context(warnings())
        runs = {
            name: stack.enter_context(
                SourceRun(
                    rtsp_server.url("/normal"),
                    name=name,
                    arguments={"wall": lambda wrong_s=wrong_s: time.time() - wrong_s},
                )
            )
            for name, (wrong_s, _) in wrong.items()
        }
        for name, (_, way) in wrong.items():
            frames = runs[name].wait_for_frames(120)[80:]
            assert {frame.clock for frame in frames} == {"arrival"}
            assert max(ages(frames)) < 1.0
            (warning,) = logged.of(name, "its clock")
            assert f"s {way} this machine's" in warning
