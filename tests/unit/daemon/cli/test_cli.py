"""The command line as a program: what it prints, where to, and its exit codes."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from tests.support import requirements
from tests.support.messages import NAMES
from visaged.daemon.cli.main import Schema, _configuration, _free_port, _spare_collector, app, version_string
from visaged.daemon.config.document import SettingsError
from visaged.models.session import nvidia_driver_present

VISAGED = Path(sys.executable).with_name("visaged")
EXAMPLE = Path(__file__).parents[4] / "configs" / "visaged.yaml"
SECRET = "s3cr3t-hunter2"
TIMEOUT_S = 120.0


def invoke(*arguments: str | Path) -> Result:
    """The command within this process, which saves a second each."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def visaged(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as its user has it."""
    return subprocess.run(
        [VISAGED, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env=os.environ | {"PYTHONWARNINGS": "error", "NO_COLOR": "1", "TERMINAL_WIDTH": "200", **environment},
    )


def config(folder: Path, document: object) -> Path:
    path = folder / "visaged.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.slow
def test_version() -> None:
    done = visaged("version")
    assert (done.returncode, done.stdout, done.stderr) == (0, version_string() + "\n", "")


def test_help_tells_the_exit_codes() -> None:
    done = invoke("--help")
    assert done.exit_code == 0
    for word in ("run", "check", "schema", "version", "Exit codes", "wrong usage"):
        assert word in done.stdout
    assert invoke("run", "--help").exit_code == 0


@pytest.mark.parametrize("arguments", [["fly"], ["run", "--colour"], ["check"], ["schema", "nothing"]])
def test_wrong_usage(arguments: list[str]) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_module_is_the_command_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "visaged.daemon", "version"],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.stdout == version_string() + "\n"


def test_every_schema_is_one() -> None:
    assert {name.value for name in Schema} == {"config", "discovery", "asyncapi", *NAMES}
    for name in ("config", "faces"):  # the other messages' schemas are read as the second is
        done = invoke("schema", name)
        assert done.exit_code == 0
        document = json.loads(done.stdout)
        assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        jsonschema.Draft202012Validator.check_schema(document)
    assert invoke("schema").stdout == invoke("schema", "config").stdout
    assert json.loads(invoke("schema", "asyncapi").stdout)["asyncapi"] == "3.0.0"


def test_the_schema_says_what_the_checks_say() -> None:
    text = invoke("schema").stdout
    assert str(Path.home()) not in text or Path.home() == Path("/")
    assert str(Path(__file__).parents[4]) not in text  # nothing of this machine's paths
    schema = json.loads(text)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({})
    camera = {"name": "a", "url": "rtsp://h/1"}
    assert validator.is_valid({"cameras": [camera], "tracker": {"lost_s": 3, "motion": {"memory_s": 1}}})
    for wrong in (
        {"camera": []},
        {"cameras": [{**camera, "frames": 3}]},
        {"cameras": [{**camera, "name": "a b"}]},
        {"cameras": [{"name": "a"}]},
        {"tracker": {"lost_seconds": 3}},
        {"tracker": {"motion": {"speed": 3}}},
        {"http": {"port": 65536}},
        {"mqtt": {"protocol": "4"}},
    ):
        assert not validator.is_valid(wrong), wrong


@pytest.mark.skipif(not EXAMPLE.exists(), reason="there is no configs/visaged.yaml")
def test_the_example_fits_the_schema() -> None:
    schema = json.loads(invoke("schema").stdout)
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(EXAMPLE.read_text()))


@pytest.mark.slow
def test_check_of_a_good_file(tmp_path: Path) -> None:
    path = config(tmp_path, {"cameras": [{"name": "door", "url": f"rtsp://u:{SECRET}@camera.example/1"}]})
    done = visaged("check", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}: no problems\n", "")


def test_check_prints_every_problem_with_its_path(tmp_path: Path) -> None:
    camera = {"name": "a", "url": "rtsp://h/1"}
    path = config(
        tmp_path,
        {
            "http": {"port": -1},
            "cameras": [camera, {**camera, "name": "b", "url": f"ftp://u:{SECRET}@h/1", "password": SECRET}],
            "mqtt": {"username": "u", "password": [SECRET]},
            "colour": 1,
        },
    )
    done = invoke("check", path)
    assert done.exit_code == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert {line.partition(": ")[0] for line in lines} == {"http.port", "cameras[1].url", "mqtt.password", "colour"}
    assert SECRET not in done.stderr


@pytest.mark.slow
def test_check_looks_at_the_world_too(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        {
            "cameras": [{"name": "a", "url": str(tmp_path / "absent.mp4")}],
            "mqtt": {"username": "u", "password_env": "VISAGED_TEST_PASSWORD"},
            "models": {"detector": "other"},
        },
    )
    done = visaged("check", path)
    assert done.returncode == 2
    assert "cameras[0].url: " in done.stderr
    assert "mqtt: environment variable VISAGED_TEST_PASSWORD" in done.stderr
    assert "models.detector: " in done.stderr
    mended = visaged("check", path, VISAGED_TEST_PASSWORD=SECRET)
    assert "VISAGED_TEST_PASSWORD" not in mended.stderr
    assert SECRET not in mended.stderr + mended.stdout


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("text", [None, "a: [", "http: {port: -1}"])
def test_configurations_that_cannot_be_used(tmp_path: Path, command: str, text: str | None) -> None:
    path = tmp_path / "visaged.yaml"
    if text is not None:
        path.write_text(text)
    done = invoke(*(["check", path] if command == "check" else ["run", "--config", path]))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert ("http.port: " if text == "http: {port: -1}" else str(path)) in done.stderr


@pytest.mark.parametrize(
    ("camera", "text"),
    [
        (f"ftp://u:{SECRET}@h/1", "'ftp' is not supported"),
        (f"door=gopher://u:{SECRET}@h/1", "'gopher' is not supported"),
        ("rtsp://", "names no host"),
        ("sftp://h/1", "possible are rtsp, "),
        ("/absent/clip.mp4", "does not exist"),
        ("", "is empty"),
    ],
)
def test_cameras_of_the_command_line_are_checked(camera: str, text: str) -> None:
    done = invoke("run", "--camera", camera)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("cameras[0].url: ")
    assert text in done.stderr
    assert SECRET not in done.stderr


def test_the_command_line_goes_over_the_file(tmp_path: Path, demo_clip: Path) -> None:
    path = config(
        tmp_path,
        {
            "cameras": [{"name": "old", "url": "gopher://h/1"}],
            "inference": {"workers": 3},
            "mqtt": {"username": "u", "password": SECRET},
        },
    )
    settings = _configuration(path, [f"door={demo_clip}"], require_gpu=True).load()
    assert [(camera.name, camera.url) for camera in settings.cameras] == [("door", str(demo_clip))]
    assert (settings.inference.workers, settings.inference.require_gpu) == (3, True)
    assert settings.mqtt.login() == ("u", SECRET)
    with pytest.raises(SettingsError, match="gopher"):
        _configuration(path, [], require_gpu=False).load()


@pytest.mark.parametrize("inference", [None, 3, [1]])
def test_the_command_line_mends_no_wrong_document(tmp_path: Path, inference: object) -> None:
    with pytest.raises(SettingsError, match="inference"):
        _configuration(config(tmp_path, {"inference": inference}), [], require_gpu=True).load()


def test_without_a_file_there_is_the_demo_or_the_cameras_of_the_command_line(demo_clip: Path) -> None:
    assert [camera.name for camera in _configuration(None, [], False).load().cameras] == ["demo"]
    assert [camera.name for camera in _configuration(None, [str(demo_clip)], False).load().cameras] == ["camera1"]
    assert _configuration(None, [], True).load().inference.require_gpu


def test_pictures_are_kept_unasked_of_the_demo_alone(demo_clip: Path) -> None:
    for cameras, kept in (([], True), ([str(demo_clip)], False)):
        settings = _configuration(None, cameras, False).load()
        assert (settings.history.pictures, settings.mqtt.snapshots) == (kept, kept)


@pytest.mark.parametrize("name", ["2026-11-26T09:30:00.mp4", "door=1.mp4", "rtsp:1.mp4", "50%.mp4"])
def test_a_file_that_exists_is_a_camera_of_the_command_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    for text, camera in ((name, "camera1"), (f"porch={name}", "porch")):
        (settings,) = _configuration(None, [text], require_gpu=False).load().cameras
        assert (settings.name, settings.is_file) == (camera, True)
        assert settings.address.path == Path(name)


def test_two_cameras_of_one_name_on_the_command_line(demo_clip: Path) -> None:
    done = invoke("run", "--camera", f"a={demo_clip}", "--camera", f"a={demo_clip}")
    assert done.exit_code == 2
    assert "more than one is named a" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("what", ["http", "mqtt"])
def test_a_port_that_is_taken(tmp_path: Path, what: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        document = {"http": {"port": 0}, "mqtt": {"embedded": True, "port": port}}
        if what == "http":
            document = {"http": {"port": port}}
        done = visaged("run", "--config", config(tmp_path, document))
    assert done.returncode == 3
    assert f"127.0.0.1:{port}" in done.stderr
    assert "visaged cannot start: " in done.stderr
    assert "Traceback" not in done.stderr


def test_connections_that_linger_do_not_take_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = listener.accept()
            accepted.close()  # who closes first keeps the connection in TIME_WAIT
            assert client.recv(1) == b""
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("127.0.0.1", port))
    assert _free_port("127.0.0.1", port) == port


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert _free_port("127.0.0.1", port) != port


def test_a_network_that_is_damaged_after_the_check_is_an_exit_code(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text("models: []")
    done = invoke("run", "--config", config(tmp_path, {"models": {"manifest": str(manifest)}}))
    assert done.exit_code == 2
    assert "there is no detector in" in done.stderr


@pytest.mark.slow
def test_a_log_file_that_cannot_be_opened(tmp_path: Path) -> None:
    path = config(tmp_path, {"http": {"port": 0}, "log": {"file": str(tmp_path / "absent" / "log")}})
    done = visaged("run", "--config", path)
    assert done.returncode == 2
    assert "log.file: there is no folder" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a folder in which not even root makes a file")
def test_a_log_file_in_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    path = config(tmp_path, {"http": {"port": 0}, "log": {"file": "/proc/visaged.log"}})
    done = visaged("run", "--config", path)
    assert done.returncode == 3
    assert "log.file /proc/visaged.log cannot be opened: " in done.stderr
    assert "; name a file in a folder that visaged may write to" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(nvidia_driver_present(), reason="this machine has a GPU")
@pytest.mark.parametrize("how", ["option", "file"])
def test_a_gpu_that_is_required_and_not_there(tmp_path: Path, how: str) -> None:
    document = {"http": {"port": 0}} | ({} if how == "option" else {"inference": {"require_gpu": True}})
    option = ["--require-gpu"] if how == "option" else []
    done = visaged("run", "--config", config(tmp_path, document), *option)
    assert done.returncode == 3
    assert "GPU" in done.stderr
    assert "NVIDIA driver" in done.stderr


@requirements.needs(requirements.NVIDIA_GPU)
def test_a_gpu_that_is_required_and_there(tmp_path: Path, demo_clip: Path) -> None:
    document = {"http": {"port": 0}, "mqtt": {"port": 1}, "cameras": [{"name": "a", "url": str(demo_clip)}]}
    done = visaged("run", "--config", config(tmp_path, document), "--require-gpu", "--once")
    assert done.returncode == 0
    assert "runs on cuda" in done.stderr


def test_a_full_garbage_collection_does_not_look_at_the_programs_own_objects() -> None:
    before = len(gc.get_objects())
    _spare_collector()
    try:
        assert len(gc.get_objects()) < before / 100
    finally:
        gc.unfreeze()
