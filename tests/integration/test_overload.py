"""More cameras than this machine can analyse: a real daemon, a large canvas, cameras with and without faces, a file.

Which cameras are reduced and when, and that nothing flaps, is tested with computed loads in `tests/unit`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DEMO_CLIP
from tests.support import media
from tests.support.broker import free_port
from tests.support.program import RunningDaemon
from tests.support.waiting import until

pytestmark = pytest.mark.timed

PATIENCE_S = 120.0
FACES = ("face0", "face1")
EMPTY = tuple(f"empty{i}" for i in range(6 * (os.cpu_count() or 1)))


@pytest.fixture
def overloaded(tmp_path: Path) -> Iterator[RunningDaemon]:
    """A daemon with much more to do than there are cores for: every frame of six cameras for each, at 1280 px."""
    empty = media.write_video(tmp_path / "empty.mp4", size=(640, 360), seconds=8, gop=50)
    film = media.write_video(tmp_path / "film.mp4", size=(320, 180), seconds=2, gop=50)
    cameras: list[dict[str, Any]] = [{"name": name, "url": str(DEMO_CLIP), "loop": True, "fps": 5} for name in FACES]
    cameras += [{"name": name, "url": str(empty), "loop": True, "fps": None} for name in EMPTY]
    cameras.append({"name": "film", "url": str(film), "fps": None})
    document = {
        "cameras": cameras,
        "mqtt": {"embedded": True, "port": free_port()},
        "inference": {"provider": "cpu", "long_side": 1280},
        "models": {"analyzer": None},
    }
    with RunningDaemon(tmp_path, document) as daemon:
        yield daemon
        daemon.end()


def test_cameras_without_a_face_go_first_and_a_recording_is_analysed_whole(overloaded: RunningDaemon) -> None:
    daemon = overloaded

    def cameras() -> dict[str, dict[str, Any]]:
        return {camera["camera"]: camera for camera in daemon.client.get("/v1/cameras").json()["cameras"]}

    def the_empty_make_way() -> bool:
        now = cameras()
        return all(now[name]["reduced"] == "overload" for name in EMPTY)

    until(the_empty_make_way, PATIENCE_S)
    until(lambda: "more cameras than this machine can analyse" in daemon.text, PATIENCE_S)
    until(lambda: daemon.metric("cameras_reduced", to="key_frames") >= len(EMPTY), PATIENCE_S)
    until(lambda: daemon.state_of("film") == "ended", PATIENCE_S)
    assert cameras()["film"]["reduced"] is None
    assert daemon.metric("camera_reduced", camera="film") == 0
    until(lambda: daemon.metric("frames_analysed_total", camera="film") == 50, PATIENCE_S)
    assert daemon.metric("frames_dropped_total", camera="film") == 0
    # The least that is left of a camera is its key frames.
    before = {name: daemon.metric("frames_received_total", camera=name) for name in EMPTY}
    time.sleep(5.0)
    for name in EMPTY:
        assert 1 <= daemon.metric("frames_received_total", camera=name) - before[name] <= 6
    assert daemon.text.count("more cameras than") == 1
