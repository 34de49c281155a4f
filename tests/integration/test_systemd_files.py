"""The files for systemd: they are valid, the sandbox is tight, and installing them leaves alone what is the user's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.requirements import SYSTEMD, needs
from visaged.daemon.app import STOP_S
from visaged.daemon.cli.main import EXIT_CONFIGURATION
from visaged.daemon.settings import load

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "systemd" / "visaged.service"
MOST_EXPOSURE = 20  # tenths


def installed(folder: Path, *, prefix: str = "/opt/visaged", step: str = "service") -> Path:
    """Run a step of the installation below a folder, and return that."""
    environment = {"PATH": os.environ["PATH"], "DESTDIR": str(folder), "PREFIX": prefix}
    subprocess.run([str(ROOT / "systemd" / "install.sh"), step], env=environment, check=True, capture_output=True)
    return folder


def analyze(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin"},
    )
    return done.returncode, done.stdout + done.stderr


@needs(SYSTEMD)
@pytest.mark.parametrize("drop_in", [None, "devices", "credentials", "memory"])
def test_the_unit_is_valid(tmp_path: Path, drop_in: str | None) -> None:
    root = installed(tmp_path)
    for program in ("/opt/visaged/bin/visaged", "/bin/sh", "/usr/bin/env"):
        (root / program[1:]).parent.mkdir(parents=True, exist_ok=True)
        (root / program[1:]).touch(0o755)
    for target in ("network-online", "time-sync", "basic", "sysinit", "shutdown", "multi-user"):
        unit = root / "usr/lib/systemd/system" / f"{target}.target"
        unit.parent.mkdir(parents=True, exist_ok=True)
        unit.write_text("[Unit]\nDescription=here for the test\n")
    if drop_in is not None:
        folder = root / "etc/systemd/system/visaged.service.d"
        folder.mkdir(parents=True)
        text = (ROOT / "systemd/visaged.service.d" / f"{drop_in}.conf.example").read_text()
        (folder / f"{drop_in}.conf").write_text(re.sub(r"^#(?=[A-Z])", "", text, flags=re.MULTILINE))
    code, said = analyze("verify", f"--root={root}", "--man=no", "visaged.service")
    assert (code, said) == (0, "")


@needs(SYSTEMD)
def test_the_sandbox_is_tight() -> None:
    code, said = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSURE}", "--no-pager", str(SERVICE))
    assert code == 0, said
    assert "Overall exposure level for visaged.service" in said


def test_the_unit_agrees_with_the_program() -> None:
    text = SERVICE.read_text()
    assert f"RestartPreventExitStatus={EXIT_CONFIGURATION}\n" in text
    # What a Debian without any optional package has.
    started = re.findall(r"^Exec\w+=(\S+)", text, re.MULTILINE)
    assert set(started) == {"/opt/visaged/bin/visaged", "/usr/bin/env", "/bin/sh"}
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)s$", text, re.MULTILINE)
    assert int(stop_s) > STOP_S


def test_installing_again_replaces_the_unit_and_leaves_the_configuration_alone(tmp_path: Path) -> None:
    root = installed(tmp_path, prefix="/srv/faces")
    unit = root / "usr/local/lib/systemd/system/visaged.service"
    config = root / "etc/visaged/visaged.yaml"
    assert "ExecStart=/srv/faces/bin/visaged run --config /etc/visaged/visaged.yaml\n" in unit.read_text()
    assert "/opt/visaged" not in unit.read_text()
    assert load(config).cameras == []
    assert config.stat().st_mode & 0o777 == 0o640
    assert (root / "etc/visaged").stat().st_mode & 0o777 == 0o750
    assert (root / "etc/visaged/credentials").stat().st_mode & 0o777 == 0o700
    config.write_text("cameras: []  # mine\n")
    unit.write_text("old")
    installed(tmp_path, prefix="/srv/faces")
    assert config.read_text() == "cameras: []  # mine\n"
    assert "ExecStart=" in unit.read_text()

    program = root / "srv/faces"
    program.mkdir(parents=True)
    (program / "pyvenv.cfg").touch()
    installed(tmp_path, prefix="/srv/faces", step="uninstall")
    assert not unit.exists()
    assert not program.exists()
    assert config.exists()
    assert not list((root / "usr/local/lib/sysusers.d").iterdir())
    installed(tmp_path, prefix="/srv/faces", step="uninstall")


@pytest.mark.parametrize(
    "prefix", ["/", "/usr", "/opt", "visaged", "/opt/my folder", "/opt/a|b", "/opt/../usr", "/opt/", "/home/me/visaged"]
)
def test_a_prefix_that_would_harm_is_refused(tmp_path: Path, prefix: str) -> None:
    environment = {"PATH": os.environ["PATH"], "DESTDIR": str(tmp_path), "PREFIX": prefix}
    for step in ("install", "service", "uninstall"):
        done = subprocess.run(
            [str(ROOT / "systemd" / "install.sh"), step], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert f"PREFIX={prefix}: " in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "opt/other").mkdir(parents=True)
    (tmp_path / "opt/other/file").touch()
    environment = {"PATH": os.environ["PATH"], "DESTDIR": str(tmp_path), "PREFIX": "/opt/other"}
    done = subprocess.run(
        [str(ROOT / "systemd" / "install.sh"), "install"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "is there and is no virtual environment; set PREFIX to a folder of its own" in done.stderr
    installed(tmp_path, prefix="/opt/other", step="uninstall")
    assert (tmp_path / "opt/other/file").exists()


def install(folder: Path, python: Path, destination: str) -> str:
    """Try to install with an interpreter; return what is said about it."""
    environment = {"PATH": os.environ["PATH"], "DESTDIR": destination, "PREFIX": "/opt/visaged", "PYTHON": str(python)}
    script = str(ROOT / "systemd" / "install.sh")
    done = subprocess.run(
        [script, "install"], env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert not (folder / "out").exists()
    return done.stderr


def test_an_interpreter_that_the_service_cannot_see_is_refused(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text(
        '#!/bin/sh\n[ "$1" = -c ] && case $2 in *realpath*) echo /root/.pyenv/bin/python3.12 ;; esac\nexit 0\n'
    )
    python.chmod(0o755)
    said = install(tmp_path, python, str(tmp_path / "out"))
    assert "the service cannot see /root/.pyenv/bin/python3.12, which" in said
    assert said.endswith("take the system's: make install PYTHON=/usr/bin/python3\n")


def test_an_interpreter_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = install(tmp_path, tmp_path / "none", str(tmp_path / "out"))
    assert said == f"there is no {tmp_path}/none; on Debian and Ubuntu: apt install python3-venv\n"


def test_the_script_is_plain_shell() -> None:
    shell = shutil.which("dash") or "sh"
    subprocess.run([shell, "-n", str(ROOT / "systemd" / "install.sh")], check=True)
