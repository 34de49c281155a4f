"""The number of a run, which grows whatever the clock says."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from visaged.daemon.management.state import next_epoch

NOW = 1_763_712_000.123
IN_1986 = 504_921_600.0


@pytest.fixture(autouse=True)
def _all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def test_it_is_the_clock_in_milliseconds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "made" / "state"
    assert next_epoch(folder, NOW) == 1_763_712_000_123
    assert next_epoch(folder, NOW + 5) == 1_763_712_005_123
    assert stat.S_IMODE(os.stat(folder / "epoch").st_mode) == 0o600
    assert os.listdir(folder) == ["epoch"]
    assert next_epoch(None, NOW) == 1_763_712_000_123
    assert not caplog.messages


def test_it_grows_though_the_clock_went_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = next_epoch(tmp_path, NOW)
    assert not caplog.messages
    assert [next_epoch(tmp_path, now) for now in (NOW, IN_1986, IN_1986 + 1, 0.0, -5.0)] == [
        first + n for n in (1, 2, 3, 4, 5)
    ]
    assert "the clock of this machine is behind that of its last run by 1258790400 s" in caplog.text
    assert next_epoch(tmp_path, NOW + 1) == first + 1000


@pytest.mark.parametrize("text", ["", "x", "-5", "1e9", "9" * 15, "9" * 5000, "12 13", "\x00"])
def test_a_damaged_file_is_named_and_costs_nothing_else(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "epoch").write_text(text)
    assert next_epoch(tmp_path, NOW) == int(NOW * 1000)
    assert f"cannot be kept in {tmp_path}/epoch: it holds no number" in caplog.text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert next_epoch(tmp_path / "file" / "state", NOW) == int(NOW * 1000)
    assert "Not a directory; if the clock goes back, consumers may take new messages for old ones" in caplog.text


def test_the_last_number_counts_though_the_new_one_cannot_be_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next_epoch(tmp_path, NOW)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert next_epoch(tmp_path, IN_1986) == first + 1
    assert "No space left on device" in caplog.text
    assert os.listdir(tmp_path) == ["epoch"]
