"""The log: one line a record, without credentials, and no trouble of its own for whoever logs."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from visaged.daemon import logs
from visaged.daemon.http.request_log import request_id
from visaged.daemon.settings import LogSettings

log = logging.getLogger("visaged.test")


class Count:
    def __init__(self) -> None:
        self.value = 0

    def __call__(self) -> None:
        self.value += 1


@contextlib.contextmanager
def configured(settings: LogSettings) -> Iterator[Count]:
    """The process's log set up as by the daemon; everything is put back at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for handler in handlers:  # else `configure` would close pytest's
        root.removeHandler(handler)
    errors = Count()
    try:
        logs.configure(settings, errors)
        yield errors
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
            with contextlib.suppress(OSError):
                handler.close()
        for handler in handlers:
            root.addHandler(handler)
        root.setLevel(level)


def test_lines_go_to_stderr_and_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "visaged.log"
    with configured(LogSettings(file=file)) as errors:
        log.info("camera %s came", "door")
        log.debug("not wanted")
    for text in (capsys.readouterr().err, file.read_text()):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    visaged.test: camera door came\n", text)
    assert errors.value == 0


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


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"), configured(LogSettings(file=tmp_path / "absent" / "log")):
        pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full (Linux)")
def test_a_full_disk_is_counted_and_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with configured(LogSettings(file=Path("/dev/full"))) as errors:
        for number in range(50):
            log.info("line %d", number)
    lines = capsys.readouterr().err.splitlines()
    assert errors.value >= 50
    assert sum("No space left" in line for line in lines) == 1
    assert sum(" line " in line for line in lines) == 50


def test_a_closed_stderr_harms_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    file = tmp_path / "visaged.log"
    monkeypatch.setattr(sys, "stderr", Closed())
    with configured(LogSettings(file=file)) as errors:
        log.info("into the file alone")
    assert errors.value == 1
    assert file.read_text().endswith("into the file alone\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full (Linux)")
def test_a_full_disk_and_a_closed_stderr_together_harm_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as closed:
        monkeypatch.setattr(sys, "stderr", closed)
        with configured(LogSettings(file=Path("/dev/full"))) as errors:
            log.info("nowhere")
        assert errors.value == 2
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), closed.fileno())  # so that it can be closed without an error
