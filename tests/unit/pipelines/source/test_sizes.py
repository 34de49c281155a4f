"""A camera that changes its size with every frame: neither the log nor the retained status follows each change."""

from __future__ import annotations

import io
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from tests.unit import fakes
from visaged.pipelines.records import CameraStatus, Frame
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.source.camera import Camera
from visaged.pipelines.source.config import SourceConfig

FRAMES = 120


def restless(path: Path) -> Path:
    """A recording of JPEGs of which each is larger than the last, but for the second half, which are alike."""
    with path.open("wb") as file:
        for index in range(FRAMES):
            picture = io.BytesIO()
            Image.new("RGB", (160 + 2 * min(index, FRAMES // 2), 120)).save(picture, "JPEG")
            file.write(picture.getvalue())
    return path


class Lane:
    """A lane whose frames are done at once, each in half a second."""

    def __init__(self, clock: fakes.Clock) -> None:
        self.widths: list[int] = []
        self._clock = clock

    def set_policy(self, when_full: object, depth: int) -> None:
        """Do nothing: it is never full."""

    def set_live(self, live: bool) -> None:
        """Do nothing."""

    def offer(self, frame: Any, stopping: threading.Event) -> bool:
        """Take a frame; the job is the frame itself."""
        assert isinstance(frame, Frame)
        self.widths.append(frame.presentation.width)
        frame.release()
        self._clock.advance(0.5)
        return True


def test_changes_of_size_are_reported_at_a_limited_rate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = fakes.Clock()
    lane, statuses = Lane(clock), list[CameraStatus]()
    config = SourceConfig(url=str(restless(tmp_path / "restless.mjpeg")), fps=None, pace="fast")
    counters = Metrics(CollectorRegistry()).camera("door")
    job: Any = lambda frame: frame  # noqa: E731
    camera = Camera("door", config, 160, 32, lane, job, counters, statuses.append, clock=clock, wall=clock)  # type: ignore[arg-type]
    camera.run(threading.Event())
    assert len(set(lane.widths)) == FRAMES // 2 + 1
    shapes = [status.width for status in statuses if status.state == "streaming"]
    # Three at once, then every ten seconds, which are 20 frames, and no more once it rests.
    assert shapes == [160, 162, 164, 200, 240, 280]
    assert sum("streaming mjpeg" in text for text in caplog.messages) == len(shapes)
    assert statuses[-1].state == "ended"
