"""Building TensorRT's engines beside the daemon's work: order, failures, and what is told."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from visaged.daemon.engines import EngineBuilder
from visaged.models.engines import Task
from visaged.models.errors import ModelError


def nothing() -> None:
    pass


def fail() -> None:
    raise ModelError("finder has no TensorRT engine for 1-16 x 384 x 640 x 3: no kernel fits")


def test_one_that_fails_is_told_and_the_next_is_built(caplog: pytest.LogCaptureFixture) -> None:
    builder = EngineBuilder([Task("finder, small", fail), Task("reader", nothing)])
    with caplog.at_level(logging.INFO):
        builder.run(threading.Event())
    assert builder.document() == {"wanted": 2, "in_use": 1, "failed": 1, "building": None}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "finder has no TensorRT engine for 1-16 x 384 x 640 x 3: no kernel fits; CUDA goes on to compute that"
    ]
    assert "building TensorRT engine 2 of 2: reader" in caplog.text


def test_while_one_is_built_that_is_told() -> None:
    told: list[object] = []
    builder = EngineBuilder([Task("finder", nothing), Task("reader", lambda: told.extend(look()))])

    def look() -> list[object]:
        return [builder.document(), builder.status()]

    assert look() == [{"wanted": 2, "in_use": 0, "failed": 0, "building": None}, ""]
    builder.run(threading.Event())
    assert told == [
        {"wanted": 2, "in_use": 1, "failed": 0, "building": "reader"},
        "; TensorRT engine 2 of 2 is being built",
    ]
    assert look() == [{"wanted": 2, "in_use": 2, "failed": 0, "building": None}, ""]


def test_none_is_begun_after_the_request_to_stop() -> None:
    stopping, built = threading.Event(), list[str]()

    def last() -> None:
        built.append("first")
        stopping.set()

    EngineBuilder([Task("first", last), Task("second", lambda: built.append("second"))]).run(stopping)
    assert built == ["first"]


def test_old_engines_are_removed_once_all_are_there(tmp_path: Path) -> None:
    for number in range(60):
        folder = tmp_path / f"finder-{number}"
        folder.mkdir()
        (folder / "engine.json").write_text("{}")
    EngineBuilder([Task("finder", nothing)], tmp_path).run(threading.Event())
    assert len(list(tmp_path.iterdir())) == 48


def test_with_other_providers_there_is_nothing_to_tell() -> None:
    builder = EngineBuilder()
    builder.run(threading.Event())
    assert builder.document() is None
    assert builder.status() == ""
