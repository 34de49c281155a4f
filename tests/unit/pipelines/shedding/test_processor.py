"""How many cores there are for this process, and what is used of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from visaged.pipelines.shedding import processor
from visaged.pipelines.shedding.processor import Usage, cores_allowed


def group(root: Path, path: str, files: dict[str, str]) -> None:
    (root / path).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / path / name).write_text(text, encoding="ascii")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 cores whose control groups are in a folder; `membership` says in which one this process is."""
    monkeypatch.setattr(processor, "_GROUPS", tmp_path)
    monkeypatch.setattr(processor, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    return tmp_path


def test_the_least_limit_of_the_groups_around_the_process_counts(groups: Path) -> None:
    (groups / "membership").write_text("0::/system.slice/visaged.service\n", encoding="ascii")
    group(groups, "system.slice/visaged.service", {"cpu.max": "max 100000\n"})
    assert cores_allowed() == 64
    group(groups, "system.slice/visaged.service", {"cpu.max": "250000 100000\n"})
    assert cores_allowed() == 2.5
    group(groups, "system.slice", {"cpu.max": "150000 100000\n"})
    assert cores_allowed() == 1.5


def test_in_a_container_the_root_counts_whatever_path_the_host_has(groups: Path) -> None:
    (groups / "membership").write_text("0::/docker/0123abcd\n", encoding="ascii")
    group(groups, "", {"cpu.max": "200000 100000\n"})
    assert cores_allowed() == 2


def test_the_old_kind_of_groups_is_known_too(groups: Path) -> None:
    (groups / "membership").write_text("5:memory:/a\n4:cpu,cpuacct:/a\n", encoding="ascii")
    group(groups, "cpu/a", {"cpu.cfs_quota_us": "300000\n", "cpu.cfs_period_us": "100000\n"})
    assert cores_allowed() == 3
    group(groups, "cpu/a", {"cpu.cfs_quota_us": "-1\n"})
    assert cores_allowed() == 64


@pytest.mark.parametrize("text", ["", "max\n", "x y\n", "1 0\n"])
def test_what_cannot_be_read_limits_nothing(groups: Path, text: str) -> None:
    assert cores_allowed() == 64
    (groups / "membership").write_text("0::/a\nnonsense\n", encoding="ascii")
    group(groups, "a", {"cpu.max": text})
    assert cores_allowed() == 64


def test_what_this_process_uses_is_a_part_of_what_it_may_use() -> None:
    now_s, spent_s = 10.0, 3.0
    usage = Usage(2.5, lambda: now_s, lambda: spent_s)
    now_s, spent_s = 12.0, 4.0
    own, machine = usage.look()
    assert own == pytest.approx(0.2)
    assert 0 <= machine <= 1
    assert usage.look()[0] == 0, "no time has passed"
