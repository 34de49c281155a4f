"""The option `--camera`: URLs, and references to variables and files that hold them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from visaged.daemon.cli.cameras import camera_document, is_exposed
from visaged.daemon.cli.main import _configuration, app
from visaged.daemon.config.document import SettingsError

ROOT = Path(__file__).parents[4]
URL = "rtsp://admin:hunter2@cam/1"


def problem(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        camera_document(1, text)
    return str(caught.value)


def test_a_variable_holds_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAGED_TEST_CAMERA", f" {URL}\n")
    assert camera_document(2, "env:VISAGED_TEST_CAMERA") == {"name": "camera2", "url": URL}
    assert camera_document(1, "door=env:VISAGED_TEST_CAMERA") == {"name": "door", "url": URL}
    monkeypatch.delenv("VISAGED_TEST_CAMERA")
    assert problem("env:VISAGED_TEST_CAMERA") == (
        "cameras[0].url: environment variable VISAGED_TEST_CAMERA is not set, or empty; it should hold the camera's URL"
    )


@pytest.mark.parametrize("content", [f"{URL}\n", f"\ufeff{URL}\r\nmore\n", f"  {URL}"])
def test_a_file_holds_the_url(tmp_path: Path, content: str) -> None:
    file = tmp_path / "url"
    file.write_text(content, encoding="utf-8")
    assert camera_document(1, f"door=file:{file}") == {"name": "door", "url": URL}


@pytest.mark.parametrize(
    "content", [b"", b"v=0\no=- 0 0 IN IP4 127.0.0.1\n", b"#EXTM3U\nhttp://h/1.ts\n", b"\x00\xff" * 10, b"a" * 70_000]
)
def test_any_other_file_is_a_recording_as_before(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(content)
    assert camera_document(1, f"file:{file}") == {"name": "camera1", "url": f"file:{file}"}


def test_a_reload_reads_the_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    file = tmp_path / "url"
    file.write_text(URL)
    configuration = _configuration(None, [f"file:{file}"], False)
    assert configuration.load().cameras[0].url == URL
    file.write_text("rtsp://other/2")
    assert configuration.reread().settings.cameras[0].url == "rtsp://other/2"


def test_a_file_that_exists_by_that_name_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("env:CAMERA").touch()
    assert camera_document(1, "env:CAMERA")["url"] == "env:CAMERA"


@pytest.mark.parametrize(
    ("text", "exposed"),
    [
        (URL, True),
        (f"door={URL}", True),
        ("rtsp://cam/user=admin&password=hunter2", True),
        ("http://cam/v?psw=hunter2", True),
        ("rtsp://admin:1234#5@cam/1", True),
        ("rtsp://cam/1", False),
        ("rtsp://192.0.2.1:554/cam/realmonitor?channel=1&subtype=0", False),
        ("door=env:NAME", False),
        ("file:/x/y", False),
        ("/dev/video0", False),
        ("a@b.mp4", False),
    ],
)
def test_a_password_on_the_command_line_is_noticed(text: str, exposed: bool) -> None:
    assert is_exposed(text) is exposed


def test_a_password_on_the_command_line_gets_a_warning_that_names_the_way() -> None:
    done = CliRunner().invoke(app, ["run", "--camera", "gopher://u:hunter2@h/1"])
    assert done.exit_code == 2
    assert "give --camera env:VARIABLE or --camera file:PATH" in done.stderr
    assert "hunter2" not in done.stderr
    done = CliRunner().invoke(app, ["run", "--camera", "env:VISAGED_TEST_ABSENT"])
    assert "warning" not in done.stderr
    assert "VISAGED_TEST_ABSENT is not set" in done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("arguments", "environment", "option"),
    [
        (["CAMERA=env:DOOR"], {}, "--camera 'env:DOOR'"),
        ([], {"CAMERA": URL}, "--camera env:CAMERA"),
        ([], {}, ""),
    ],
)
def test_make_passes_references_on(arguments: list[str], environment: dict[str, str], option: str) -> None:
    command = ["make", "--dry-run", "--old-file=.venv/.run", "run", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, check=True
    )
    (line,) = (line for line in done.stdout.splitlines() if "visaged run" in line)
    assert line.partition("visaged run")[2].strip() == option
    assert "hunter2" not in done.stdout
