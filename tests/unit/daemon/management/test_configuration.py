"""The configuration in force: a file, the state folder over it, and every problem where it is written."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from visaged.daemon.config.base import default_state_dir
from visaged.daemon.config.document import SettingsError
from visaged.daemon.management.configuration import Configuration
from visaged.daemon.management.state import StateFile
from visaged.daemon.settings import load, parse

SECRET = "s3cr3t-hunter2"
DOOR = {"name": "door", "url": "rtsp://h/1"}


class Files:
    """A configuration and its state folder."""

    def __init__(self, folder: Path) -> None:
        self.file, self.state = folder / "visaged.yaml", folder / "state"
        self.kept = self.state / "cameras.yaml"

    def configure(self, **document: Any) -> Configuration:
        self.file.write_text(yaml.safe_dump({"node": "tester", "state_dir": str(self.state)} | document))
        return Configuration.of_file(self.file)

    def keep(self, text: str) -> None:
        self.state.mkdir(exist_ok=True)
        self.kept.write_text(text)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def problems(configuration: Configuration) -> dict[str, str]:
    read = configuration.load if configuration.in_force is None else configuration.reread
    with pytest.raises(SettingsError) as caught:
        read()
    assert SECRET not in str(caught.value)
    return {problem.path: problem.text for problem in caught.value.problems}


def test_the_state_folder_goes_over_the_file(files: Files) -> None:
    files.keep("cameras:\n  door: {fps: 2}\n  yard: null\n  hall: {url: 'rtsp://h/3', fps: null}\n")
    settings = files.configure(cameras=[DOOR, {"name": "yard", "url": "rtsp://h/2"}]).load()
    assert [(camera.name, camera.fps) for camera in settings.cameras] == [("door", 2), ("hall", None)]


def test_nothing_is_written_before_there_is_something_to_keep(files: Files) -> None:
    configuration = files.configure(cameras=[DOOR])
    configuration.load()
    configuration.reread()
    assert not files.state.exists()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("cameras: [", ""),
        ("cameras: 3", "cameras"),
        ("- a", ""),
        ("cameras: {door: 3}", "cameras.door"),
        ("cameras: {'a/b': null}", "cameras.a/b"),
        ("cameras: {1: null}", "cameras.1"),
        ("camera: {}", "camera"),
        ("cameras: {door: {fps: 1}, door: {fps: 2}}", ""),
        ("\x00", ""),
    ],
)
def test_a_damaged_state_file_is_named_with_what_to_do(files: Files, text: str, path: str) -> None:
    files.keep(text)
    found = problems(files.configure(cameras=[DOOR]))
    ((where, said),) = found.items()
    assert where == (f"{files.kept}: {path}" if path else "")
    assert str(files.kept) in where + said
    assert "move it away" in said


def test_a_state_file_that_cannot_be_read_is_named(files: Files) -> None:
    files.kept.mkdir(parents=True)
    assert str(files.kept) in problems(files.configure())[""]


def test_a_problem_is_said_where_it_is_written(files: Files, tmp_path: Path) -> None:
    clip = tmp_path / "absent.mp4"
    files.keep(
        yaml.safe_dump(
            {
                "cameras": {
                    "door": None,
                    "yard": {"fps": -1},
                    "hall": {"url": f"ftp://u:{SECRET}@h/1", "password": SECRET},
                    "shed": {"landmarks_106": True},
                }
            }
        )
    )
    cameras = [DOOR, {"name": "yard", "url": "rtsp://h/2", "colour": 1}, {"name": "shed", "url": str(clip), "fps": 0}]
    found = problems(files.configure(cameras=cameras))
    assert set(found) == {
        "cameras[1].colour", f"{files.kept}: cameras.yard.fps", f"{files.kept}: cameras.hall.url", "cameras[2].fps"
    }  # fmt: skip


def test_what_is_wrong_in_the_world_is_said_where_it_is_written(files: Files) -> None:
    files.keep("cameras: {door: null, hall: {url: /absent/1.mp4}, yard: {username: u, password_env: VISAGED_ABSENT}}")
    cameras = [DOOR, {"name": "shed", "url": "/absent/2.mp4"}, {"name": "yard", "url": "rtsp://h/2"}]
    found = problems(files.configure(cameras=cameras))
    where = f"{files.kept}: cameras"
    assert set(found) == {"cameras[1].url", f"{where}.hall.url", f"{where}.yard"}


def test_a_kept_camera_with_the_node_s_name_is_said_of_the_state_file(files: Files) -> None:
    files.keep("cameras: {tester: {url: 'rtsp://h/1'}}")
    assert "node's name" in problems(files.configure())[f"{files.kept}: cameras"]
    assert "node's name" in problems(files.configure(cameras=[DOOR | {"name": "tester"}]))["cameras"]


def test_only_what_can_change_changes(files: Files) -> None:
    configuration = files.configure(cameras=[DOOR], http={"port": 8080}, inference={"workers": 1})
    configuration.load()
    files.configure(cameras=[DOOR | {"fps": 1}], http={"port": 8081}, inference={"workers": 1, "update_s": 1})
    candidate = configuration.reread()
    assert candidate.needs_restart == ("http.port",)
    assert (candidate.settings.http.port, candidate.settings.inference.update_s) == (8080, 1)
    assert candidate.settings.cameras[0].fps == 1
    configuration.accept(candidate)
    assert configuration.reread().needs_restart == ("http.port",)  # it is still so
    files.configure(cameras=[DOOR], http={"port": 8080}, inference={"workers": 1})
    assert configuration.reread().needs_restart == ()


@pytest.mark.parametrize("text", ["", "\n", "# being written\n", "---\n"])
def test_a_file_that_was_emptied_removes_no_camera(files: Files, text: str) -> None:
    """Editors and copying programs empty a file before they write it; a reload in between must change nothing."""
    configuration = files.configure(cameras=[DOOR])
    configuration.load()
    files.file.write_text(text)
    assert "cameras: []" in problems(configuration)[""]
    files.configure(cameras=[])
    assert configuration.reread().settings.cameras == []


def test_a_file_that_was_empty_may_be_so_still(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(files.state))  # of the default configuration
    files.file.touch()
    configuration = Configuration.of_file(files.file)
    configuration.load()
    assert configuration.reread().settings.cameras == []


def test_a_pipe_is_read_once(files: Files) -> None:
    """As in `--config <(generate)`; to open one that nobody writes to would hold up the daemon and its end."""
    configuration = files.configure(cameras=[DOOR])
    configuration.load()
    files.file.unlink()
    os.mkfifo(files.file)
    writer = os.open(files.file, os.O_RDWR)  # so that this test fails and does not hang where it is opened
    os.write(writer, b"cameras: []\n")
    os.close(writer)
    assert "cannot be read again" in problems(configuration)[""]


def test_what_does_not_fit_what_cannot_change_yet_is_refused(files: Files) -> None:
    configuration = files.configure(cameras=[])
    configuration.load()
    files.configure(node="other", cameras=[DOOR | {"name": "tester"}])  # fits only once the node has its new name
    assert "until visaged is restarted" in problems(configuration)["cameras"]


def test_another_state_folder_takes_a_restart(files: Files, tmp_path: Path) -> None:
    files.keep("cameras: {door: {url: 'rtsp://h/1'}}")
    configuration = files.configure()
    configuration.load()
    files.configure(state_dir=str(tmp_path / "other"))
    candidate = configuration.reread()
    assert candidate.needs_restart == ("state_dir",)
    assert [camera.name for camera in candidate.settings.cameras] == ["door"]


def test_without_a_state_folder_nothing_is_kept(files: Files) -> None:
    configuration = files.configure(state_dir=None, cameras=[DOOR])
    configuration.load()
    assert configuration.state is None


def test_what_is_stale_is_logged(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    files.keep("cameras: {gone: {fps: 1}, door: {fps: 2}, yard: null}")
    configuration = files.configure(cameras=[DOOR, {"name": "yard", "url": "rtsp://h/2"}])
    configuration.load()
    with caplog.at_level(logging.INFO):
        configuration.report()
    texts = [record.getMessage() for record in caplog.records]
    assert texts == [
        f"{files.kept} adds or changes cameras: door; removes: yard",
        f"{files.kept} changes cameras that the configuration does not have any more, without effect: gone",
    ]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "a" / "b")
    patches: dict[str, Any] = {
        "door": {"url": "rtsp://u:päss'\"#\t@h/1", "options": {"on": "off", "1": "null"}, "fps": None},
        "yard": None,
        "hall": {"password": "\ufeff\x85\u2028:- x", "fps": 0.1},
    }
    file.write(patches)
    assert file.read() == patches
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert file.path.read_text().startswith("# Written by visaged")
    assert os.listdir(file.path.parent) == ["cameras.yaml"]


def test_a_write_that_fails_leaves_the_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StateFile(tmp_path)
    file.write({"door": None})

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.write({})
    assert file.read() == {"door": None}
    assert os.listdir(tmp_path) == ["cameras.yaml"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"STATE_DIRECTORY": "/var/lib/visaged:/var/lib/other", "XDG_STATE_HOME": "/x"}, "/var/lib/visaged"),
        ({"STATE_DIRECTORY": "", "XDG_STATE_HOME": "/x"}, "/x/visaged"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/home/a"}, "/home/a/.local/state/visaged"),
        ({"HOME": "/home/a"}, "/home/a/.local/state/visaged"),
    ],
)
def test_the_default_state_folder(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str) -> None:
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_state_dir() == Path(expected)
    assert parse({}).state_dir == Path(expected)
    assert parse({"state_dir": None}).state_dir is None


def test_settings_without_a_file_can_be_changed_too() -> None:
    settings = load(Path(__file__).parents[4] / "configs" / "visaged.yaml")
    configuration = Configuration.of_settings(settings)
    patches: Any = {"archive": {"fps": 1}, "entrance": None}
    changed = configuration.with_patches(patches).settings
    assert [(camera.name, camera.fps) for camera in changed.cameras] == [("archive", 1)]
    assert changed.model_copy(update={"cameras": settings.cameras}) == settings
