"""Changes of a running daemon's configuration, with a daemon that only notes what it is to run with."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import yaml

from visaged.daemon.config.document import ConfigProblem, SettingsError
from visaged.daemon.management.configuration import Configuration
from visaged.daemon.management.manager import CameraExists, EditedByHand, Manager, NoSuchCamera, NotKept
from visaged.daemon.settings import Settings
from visaged.pipelines.cameras import Changes
from visaged.pipelines.runtime.metrics import Metrics

SECRET = "s3cr3t-hunter2"
DOOR = {"name": "door", "url": "rtsp://h/1", "fps": 5, "attributes": {"emotion": False}}


class Daemon:
    """Notes the settings that it is to run with; the work that it is given is done by `work`."""

    def __init__(self) -> None:
        self.applied: list[Settings] = []
        self.calls: list[Callable[[], None]] = []
        self.failure: Exception | None = None

    def apply(self, settings: Settings) -> Changes:
        if self.failure is not None:
            raise self.failure
        self.applied.append(settings)
        return Changes(kept=tuple(camera.name for camera in settings.cameras))

    def work(self) -> None:
        while self.calls:
            self.calls.pop(0)()


class Bench:
    """A manager with its daemon and files."""

    def __init__(self, folder: Path, is_kept: bool = True, **document: Any) -> None:
        self.folder, self.state = folder, folder / "state"
        self.kept = self.state / "cameras.yaml"
        self.daemon, self.metrics, self.now = Daemon(), Metrics(), 1000.0
        self.write(**document)
        self.start(is_kept)

    def write(self, **document: Any) -> None:
        base = {"node": "tester", "state_dir": str(self.state), "cameras": [DOOR]}
        (self.folder / "visaged.yaml").write_text(yaml.safe_dump(base | document))

    def start(self, is_kept: bool = True) -> None:
        of_file = Configuration.of_file(self.folder / "visaged.yaml")
        self.configuration = of_file if is_kept else Configuration(of_file._read_document, is_kept=False)
        self.configuration.load()
        call = self.daemon.calls.append
        self.manager = Manager(self.configuration, self.daemon.apply, call, self.metrics, lambda: self.now)

    def done(self, future: Future[Any]) -> Any:
        self.daemon.work()
        return future.result(0)

    def cameras(self) -> dict[str, float | None]:
        return {camera.name: camera.fps for camera in self.configuration.current.settings.cameras}

    def value(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"visaged_config_last_reload_{name}")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def errors(bench: Bench, future: Future[Any]) -> dict[str, str]:
    before = bench.cameras(), len(bench.daemon.applied), bench.kept.exists() and bench.kept.read_text()
    with pytest.raises(SettingsError) as caught:
        bench.done(future)
    assert SECRET not in str(caught.value)
    assert before == (bench.cameras(), len(bench.daemon.applied), bench.kept.exists() and bench.kept.read_text())
    return {problem.path: problem.text for problem in caught.value.problems}


def test_cameras_come_change_and_go_and_survive_a_restart(bench: Bench) -> None:
    assert bench.done(bench.manager.add({"name": "yard", "url": "rtsp://h/2", "fps": None})) == "yard"
    bench.done(bench.manager.change("door", {"fps": 2, "attributes": {"age": False}}))
    assert bench.cameras() == {"door": 2, "yard": None}
    bench.start()
    assert bench.cameras() == {"door": 2, "yard": None}
    door = bench.manager.camera("door")
    assert door is not None
    assert door.attributes == {"emotion": False, "age": False}
    bench.done(bench.manager.remove("door"))
    bench.done(bench.manager.change("yard", {"fps": None, "read_timeout_s": 3}))  # null: the default again
    bench.start()
    assert bench.cameras() == {"yard": 5}
    bench.done(bench.manager.remove("yard"))
    assert yaml.safe_load(bench.kept.read_text()) == {"cameras": {"door": None}}


def test_a_change_back_leaves_no_trace(bench: Bench) -> None:
    bench.done(bench.manager.change("door", {"attributes": None}))
    bench.done(bench.manager.change("door", {"attributes": {"emotion": False}}))
    assert yaml.safe_load(bench.kept.read_text()) == {"cameras": {}}


def test_a_mapping_that_was_taken_away_does_not_come_back(bench: Bench) -> None:
    bench.done(bench.manager.change("door", {"attributes": None}))
    bench.done(bench.manager.change("door", {"attributes": {"age": False}}))
    door = bench.manager.camera("door")
    assert door is not None
    assert door.attributes == {"age": False}


def test_a_removed_camera_of_the_configuration_can_be_added_again(bench: Bench) -> None:
    bench.done(bench.manager.remove("door"))
    with pytest.raises(NoSuchCamera):
        bench.done(bench.manager.change("door", {"fps": 1}))
    text = errors(bench, bench.manager.add({"name": "door", "url": "rtsp://h/9", "fps": None}))["fps"]
    assert "cannot be null" in text
    bench.done(bench.manager.add({"name": "door", "url": "rtsp://h/9"}))
    door = bench.manager.camera("door")
    assert door is not None
    assert (door.url, door.fps, door.attributes) == ("rtsp://h/9", 5, {})


def test_what_is_there_cannot_be_added_and_what_is_not_cannot_be_changed(bench: Bench) -> None:
    with pytest.raises(CameraExists):
        bench.done(bench.manager.add(DOOR))
    for future in (bench.manager.change("yard", {}), bench.manager.remove("yard")):
        with pytest.raises(NoSuchCamera):
            bench.done(future)
    assert not bench.kept.exists()


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"name": "yard"}, "url"),
        ({"url": "rtsp://h/1"}, "name"),
        ({"name": "a/b", "url": "rtsp://h/1"}, "name"),
        ({"name": 3, "url": "rtsp://h/1"}, "name"),
        ({"name": "tester", "url": "rtsp://h/1"}, "name"),
        ({"name": "yard", "url": f"ftp://u:{SECRET}@h"}, "url"),
        ({"name": "yard", "url": "/absent.mp4"}, "url"),
        ({"name": "yard", "url": "rtsp://h/1", "password": SECRET}, ""),
        ({"name": "yard", "url": "rtsp://h/1", "username": "u", "password": [SECRET]}, "password"),
        ({"name": "yard", "url": "rtsp://h/1", "attributes": {"colour": True}}, "attributes.colour"),
        ({"name": "yard", "url": "rtsp://h/1", "fps": True}, "fps"),
        ({"name": "yard", "url": "rtsp://h/1", "fps": float("inf")}, "fps"),
        ({"name": "yard", "url": "rtsp://h/1", "colour": SECRET}, "colour"),
    ],
)
def test_a_wrong_camera_is_refused_by_its_keys(bench: Bench, document: dict[str, Any], path: str) -> None:
    assert set(errors(bench, bench.manager.add(document))) == {path}


def test_a_camera_keeps_its_name(bench: Bench) -> None:
    for name in ("yard", None, 3):
        assert set(errors(bench, bench.manager.change("door", {"name": name}))) == {"name"}
    bench.done(bench.manager.change("door", {"name": "door", "fps": 1}))
    assert bench.cameras() == {"door": 1}


@pytest.mark.parametrize("url", ["rtsps://cam/1", f"rtsps://u:{SECRET}@cam/1"])
def test_a_password_is_sent_to_no_holder_of_another_certificate_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("VISAGED_TEST_PASSWORD", SECRET)
    login = {} if "@" in url else {"username": "u", "password_env": "VISAGED_TEST_PASSWORD"}
    bench = Bench(tmp_path, cameras=[DOOR | {"url": url} | login])
    anew = {"url": url} if "@" in url else {"password_env": "VISAGED_TEST_PASSWORD"}
    refused = errors(bench, bench.manager.change("door", {"tls": {"verify": False}}))
    assert "other certificates" in refused["tls"]
    bench.done(bench.manager.change("door", {"tls": {"verify": False}} | anew))
    bench.done(bench.manager.change("door", {"fps": 1}))
    bench.done(bench.manager.change("door", {"tls": {"verify": True}}))


def test_a_password_is_sent_to_no_other_host_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAGED_TEST_PASSWORD", SECRET)
    bench = Bench(tmp_path, cameras=[DOOR | {"username": "u", "password_env": "VISAGED_TEST_PASSWORD"}])
    for url in ("rtsp://evil/1", "rtsp://h:8554/1", "rtsp://h@evil/1", "rtsp:/\\evil/1", "http://h.evil/1"):
        assert set(errors(bench, bench.manager.change("door", {"url": url}))) == {"url"}
    for patch in (
        {"url": "rtsp://H/2"},
        {"url": "rtsp://other/1", "password_env": "VISAGED_TEST_PASSWORD"},
        {"url": "rtsp://another/1", "password_env": None, "username": None},
        {"url": "rtsp://third/1"},
    ):
        bench.done(bench.manager.change("door", patch))
        door = bench.manager.camera("door")
        assert door is not None
        assert door.url == patch["url"]


def test_another_camera_s_lost_file_is_no_reason_to_refuse(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.touch()
    bench = Bench(tmp_path, cameras=[{"name": "film", "url": str(clip)}])
    clip.unlink()
    bench.done(bench.manager.add(DOOR))
    assert set(bench.cameras()) == {"film", "door"}


def test_without_a_state_folder_changes_last_as_long_as_the_daemon(tmp_path: Path) -> None:
    bench = Bench(tmp_path, is_kept=False)
    bench.done(bench.manager.add({"name": "yard", "url": "rtsp://h/2"}))
    assert (bench.manager.is_kept("yard"), bench.manager.is_kept("door")) == (False, True)
    bench.done(bench.manager.reload())
    assert set(bench.cameras()) == {"door", "yard"}
    assert not bench.state.exists()


@pytest.mark.parametrize(("number", "is_full"), [(errno.ENOSPC, True), (errno.EROFS, False)])
def test_what_cannot_be_written_is_not_done(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int, is_full: bool
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(NotKept, match="nothing was changed") as caught:
        bench.done(bench.manager.change("door", {"fps": 1}))
    assert caught.value.is_full is is_full
    assert str(bench.kept) in str(caught.value)
    assert (bench.cameras(), bench.daemon.applied) == ({"door": 5}, [])


def test_a_state_folder_that_cannot_be_is_said(bench: Bench) -> None:
    bench.state.touch()
    with pytest.raises(EditedByHand, match=r"state_dir: .* is or lies in a file; name a folder"):
        bench.done(bench.manager.remove("door"))
    assert (bench.cameras(), bench.daemon.applied) == ({"door": 5}, [])


def test_what_the_daemon_refuses_is_not_kept(bench: Bench) -> None:
    bench.done(bench.manager.change("door", {"fps": 3}))
    bench.daemon.failure = SettingsError([ConfigProblem("cameras[0]", "no password")])
    assert errors(bench, bench.manager.change("door", {"fps": 1})) == {"cameras[0]": "no password"}
    bench.daemon.failure = RuntimeError("no thread")
    with pytest.raises(RuntimeError):
        bench.done(bench.manager.change("door", {"fps": 1}))
    assert yaml.safe_load(bench.kept.read_text()) == {"cameras": {"door": {"fps": 3}}}
    bench.daemon.failure = None
    bench.done(bench.manager.change("door", {"fps": 1}))  # it goes on


def test_an_edit_by_hand_is_not_overwritten(bench: Bench) -> None:
    bench.done(bench.manager.change("door", {"fps": 3}))
    for text in ("cameras: {door: {fps: 4}}", "cameras: ["):
        bench.kept.write_text(text)
        with pytest.raises(EditedByHand, match=r"cameras\.yaml"):
            bench.done(bench.manager.change("door", {"fps": 1}))
        assert bench.kept.read_text() == text
    bench.kept.write_text("cameras: {door: {fps: 4}}")
    bench.done(bench.manager.reload())
    assert bench.cameras() == {"door": 4}
    bench.done(bench.manager.change("door", {"fps": 1}))


def test_a_reload_says_what_it_did(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    assert (bench.value("successful"), bench.value("success_timestamp_seconds")) == (1, 1000)
    bench.now = 2000.0
    bench.write(http={"port": 1234}, cameras=[DOOR | {"fps": 1}], log={"level": "error"})
    level = logging.getLogger().level
    try:
        with caplog.at_level(logging.INFO):
            done = bench.done(bench.manager.reload())
            assert logging.getLogger().level == logging.ERROR
    finally:
        logging.getLogger().setLevel(level)
    assert done.changes == Changes(kept=("door",))
    assert done.needs_restart == ("http.port",)
    assert bench.daemon.applied[-1].cameras[0].fps == 1
    assert bench.daemon.applied[-1].http.port == 8080
    assert (bench.value("successful"), bench.value("success_timestamp_seconds")) == (1, 2000)


def test_a_bad_reload_changes_nothing_and_says_every_problem(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.now = 2000.0
    bench.write(http={"port": -1}, cameras=[DOOR | {"url": f"ftp://u:{SECRET}@h", "password": SECRET}], colour=1)
    assert set(errors(bench, bench.manager.reload())) == {"http.port", "cameras[0].url", "colour"}
    assert (bench.value("successful"), bench.value("success_timestamp_seconds")) == (0, 1000)
    texts = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(texts) == 4
    assert sum(text.startswith("not reloaded: ") for text in texts) == 3
    assert SECRET not in caplog.text
    bench.write()
    bench.done(bench.manager.reload())
    assert bench.value("successful") == 1


def test_changes_are_made_one_after_another(bench: Bench) -> None:
    futures = [bench.manager.add({"name": "yard", "url": "rtsp://h/2"}) for _ in range(3)]
    assert not any(future.done() for future in futures)
    bench.daemon.work()
    assert futures[0].result(0) == "yard"
    assert all(isinstance(future.exception(0), CameraExists) for future in futures[1:])


def test_what_nobody_waits_for_any_more_is_not_done(bench: Bench) -> None:
    future = bench.manager.remove("door")
    assert future.cancel()
    bench.daemon.work()
    assert bench.cameras() == {"door": 5}
