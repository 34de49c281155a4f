"""The log: one line a record, without credentials, and no trouble of its own for whoever logs."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from visaged.daemon.http.request_log import request_id
from visaged.daemon.logs.settings import LogSettings
from visaged.daemon.logs.setup import ProcessLog
from visaged.pipelines.runtime.metrics import Metrics

log = logging.getLogger("visaged.test")


class Counts:
    """The counters of a log."""

    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry())

    @property
    def errors(self) -> float:
        return self._value("visaged_log_write_errors_total")

    def dropped(self, destination: str) -> float:
        return self._value("visaged_log_lines_dropped_total", destination=destination)

    def _value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@contextlib.contextmanager
def configured(settings: LogSettings) -> Iterator[Counts]:
    """The process's log set up as by the daemon; everything is written and put back at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for handler in handlers:  # else `ProcessLog` would close pytest's
        root.removeHandler(handler)
    counts = Counts()
    process_log = ProcessLog(counts.metrics)
    try:
        process_log.configure(settings)
        yield counts
    finally:
        assert process_log.close(30.0)
        for handler in handlers:
            root.addHandler(handler)
        root.setLevel(level)


def test_lines_go_to_stderr_and_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "visaged.log"
    with configured(LogSettings(file=file)) as counts:
        log.info("camera %s came", "door")
        log.debug("not wanted")
    for text in (capsys.readouterr().err, file.read_text()):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    visaged.test: camera door came\n", text)
    assert counts.errors == 0


def test_credentials_are_taken_out(capsys: pytest.CaptureFixture[str]) -> None:
    with configured(LogSettings()):
        log.info("opening %s", "rtsp://admin:hunter2@cam/1?token=hunter2")
        try:
            raise OSError("https://u:hunter2@h/x failed")
        except OSError:
            log.exception("trouble")
    text = capsys.readouterr().err
    assert "hunter2" not in text
    assert "rtsp://***@cam/1?token=***" in text


def test_a_line_says_which_request_it_belongs_to(capsys: pytest.CaptureFixture[str]) -> None:
    with configured(LogSettings()):
        token = request_id.set("abc-1")
        log.warning("the picture was refused")
        log.warning("GET /v1/faces 200, request abc-1")
        request_id.reset(token)
        log.warning("nobody asked")
    texts = [line.partition("visaged.test: ")[2] for line in capsys.readouterr().err.splitlines()]
    assert texts == ["the picture was refused (request abc-1)", "GET /v1/faces 200, request abc-1", "nobody asked"]


def test_levels(capsys: pytest.CaptureFixture[str]) -> None:
    with configured(LogSettings(level="error")):
        log.warning("quiet")
        log.error("loud")
    text = capsys.readouterr().err
    assert "quiet" not in text
    assert "loud" in text


def test_files_are_rotated(tmp_path: Path) -> None:
    file = tmp_path / "visaged.log"
    with configured(LogSettings(file=file, max_mb=0.001, keep=2)):
        for number in range(200):
            log.info("line %d", number)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["visaged.log", "visaged.log.1", "visaged.log.2"]
    assert file.read_text().splitlines()[-1].endswith("line 199")
    assert all(path.stat().st_size < 1100 for path in tmp_path.iterdir())


def test_without_old_files_the_file_begins_anew_when_it_is_full(tmp_path: Path) -> None:
    file = tmp_path / "visaged.log"
    with configured(LogSettings(file=file, max_mb=0.001, keep=0)):
        for number in range(200):
            log.info("line %d", number)
    assert [path.name for path in tmp_path.iterdir()] == ["visaged.log"]
    assert 0 < file.stat().st_size < 1100
    assert file.read_text().splitlines()[-1].endswith("line 199")


def test_control_characters_do_not_reach_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with configured(LogSettings()):
        log.info("camera %s\n\tcame", "\x1b[2J\x07\r\x9b1m\x00")
    assert capsys.readouterr().err.endswith("camera \\x1b[2J\\x07\\x0d\\x9b1m\\x00\n\tcame\n")


def test_warnings_of_python_are_lines_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    with configured(LogSettings()), warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)  # what `catch_warnings` has put back
        logging.captureWarnings(True)
        warnings.warn("rtsp://u:hunter2@cam/1 is old", DeprecationWarning, stacklevel=1)
    text = capsys.readouterr().err
    assert "WARNING py.warnings: " in text
    assert "hunter2" not in text


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"), configured(LogSettings(file=tmp_path / "absent" / "log")):
        pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full (Linux)")
def test_a_full_disk_is_counted_and_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with configured(LogSettings(file=Path("/dev/full"))) as counts:
        for number in range(50):
            log.info("line %d", number)
    lines = capsys.readouterr().err.splitlines()
    assert counts.errors >= 50
    assert sum("No space left" in line for line in lines) == 1
    assert sum(" line " in line for line in lines) == 50


def test_a_closed_stderr_harms_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    file = tmp_path / "visaged.log"
    monkeypatch.setattr(sys, "stderr", Closed())
    with configured(LogSettings(file=file)) as counts:
        log.info("into the file alone")
    assert counts.errors == 1
    assert file.read_text().endswith("into the file alone\n")


def test_an_unread_stderr_costs_the_file_nothing_and_what_it_misses_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    class Unread(io.StringIO):
        def write(self, text: str) -> int:
            assert go_on.wait(30.0)
            return super().write(text)

    stderr = Unread()
    monkeypatch.setattr(sys, "stderr", stderr)
    with configured(LogSettings(file=tmp_path / "log")) as counts:
        log.info("first")
        while "first" not in (tmp_path / "log").read_text():
            time.sleep(0.01)
        for number in range(500):
            log.info("%d %s", number, "x" * 10_000)
        dropped = counts.dropped("stderr")
        go_on.set()
    assert 50 < dropped < 150
    missing = f"{dropped:.0f} log lines are missing here: they were dropped, because stderr took no more"
    assert stderr.getvalue().endswith(f"WARNING visaged.daemon.logs.queued: {missing}\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full (Linux)")
def test_a_full_disk_and_a_closed_stderr_together_harm_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as closed:
        monkeypatch.setattr(sys, "stderr", closed)
        with configured(LogSettings(file=Path("/dev/full"))) as counts:
            log.info("nowhere")
        assert counts.errors == 3  # the line at both, and the report of the full disk
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), closed.fileno())  # so that it can be closed without an error
