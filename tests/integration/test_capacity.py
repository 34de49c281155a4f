"""How many cameras a node is to carry: measured once, remembered, and measured anew when something has changed."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from visaged.daemon.bench.capacity import FILE, CapacityError, measured_capacity, usual
from visaged.daemon.settings import Settings

SHORT_S = 1.5


def settings(**document: Any) -> Settings:
    return Settings.model_validate({"state_dir": None, "models": {"analyzer": None}} | document)


def camera(index: int, **options: Any) -> dict[str, Any]:
    return {"name": f"camera{index}", "url": "rtsp://user:secret@192.0.2.1/", **options}


def broken_off(told: Settings, folder: Path, version: str = "1") -> str:
    """Ask for the capacity, and break it off if it is measured."""
    stopping = threading.Event()
    stopping.set()
    try:
        return str(measured_capacity(told, folder, version, stopping))
    except CapacityError as error:
        return str(error)


def test_it_is_measured_once_and_remembered_until_something_changes(tmp_path: Path) -> None:
    told = settings(cameras=[camera(1)])
    capacity = measured_capacity(told, tmp_path, "1", seconds=SHORT_S)
    kept = json.loads((tmp_path / FILE).read_bytes())
    assert 0 < capacity == kept["capacity"] < kept["carried"]
    assert kept["provider"] == "cpu"
    assert "secret" not in (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(json.dumps(kept | {"low": None}))  # other programs may have been busy
    assert broken_off(told, tmp_path) == str(capacity)
    for other, version in (
        (told, "2"),
        (settings(cameras=[camera(1, fps=10)]), "1"),
        (settings(inference={"long_side": 960}), "1"),
    ):
        assert "broken off" in broken_off(other, tmp_path, version)
    (tmp_path / FILE).write_text(json.dumps(kept | {"low": "other programs took 1.5 of 2 cores"}))
    assert "broken off" in broken_off(told, tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"capacity": 3}', "\0"])
def test_a_damaged_file_is_measured_anew(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_text(content)
    with caplog.at_level(logging.WARNING):
        assert "broken off" in broken_off(settings(), tmp_path)
    assert "measured anew" in caplog.text


def test_what_cannot_be_measured_says_why(tmp_path: Path) -> None:
    with pytest.raises(CapacityError, match="there is no detector named 'no-such'"):
        measured_capacity(settings(models={"detector": "no-such", "analyzer": None}), tmp_path, "1")


def test_the_usual_camera_is_that_of_most() -> None:
    assert usual(settings()) == {"fps": 5.0, "hardware": "off"}
    cameras = [camera(1, fps=2), camera(2, fps=10, hardware="vaapi"), camera(3, fps=10, hardware="vaapi")]
    assert usual(settings(cameras=cameras)) == {"fps": 10, "hardware": "vaapi"}
    assert usual(settings(cameras=[camera(1, fps=None)]))["fps"] is None
