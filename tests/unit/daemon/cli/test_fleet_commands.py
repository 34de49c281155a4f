"""`visaged fleet` as far as it gets without a Ray cluster."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from visaged.daemon.cli.fleet.documents import FleetFile, camera_to_add
from visaged.daemon.cli.fleet.telling import changes, tell
from visaged.daemon.config.document import SettingsError
from visaged.daemon.errors import StartError
from visaged.daemon.fleet.cluster import joining
from visaged.daemon.fleet.cluster.names import coordinator_name, node_name, node_prefix
from visaged.daemon.fleet.cluster.versions import Versions
from visaged.daemon.fleet.records import CameraView, FleetSummary, FleetView, NodeView, UnplacedView

HERE = Versions("1.0", "2.60.0", "3.11.7")


def fleet(*arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command; `path` comes before all other packages."""
    environment = {**os.environ, "RAY_ADDRESS": "", "PYTHONPATH": f"{path}:{os.environ.get('PYTHONPATH', '')}"}
    argv = [sys.executable, "-m", "visaged.daemon", "fleet", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_a_configuration_is_checked(tmp_path: Path) -> None:
    config = tmp_path / "fleet.yaml"
    config.write_text(json.dumps({"cameras": [{"name": "quay", "url": "rtsp://camera/1", "fleet": {"site": "hill"}}]}))
    told = fleet("check", str(config))
    assert told.returncode == 2
    assert "camera quay fits no node: none of the nodes that may hold it has the site hill" in told.stderr
    config.write_text(json.dumps({"cameras": [{"name": "quay", "url": "rtsp://camera/1"}]}))
    told = fleet("check", str(config))
    assert (told.returncode, told.stdout) == (0, f"{config}: no problems\n")


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StartError, match=r"Ray is not installed: pip install 'visaged\[fleet\]'"):
        joining.connect("auto")


def test_an_address_where_nothing_listens_is_told_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        told = fleet("status", "--address", f"127.0.0.1:{taken.getsockname()[1]}")
    assert told.returncode == 3
    assert "cannot be reached (Connection refused): start one with `ray start --head`" in told.stderr


@pytest.mark.parametrize("address", ["head", "head:many", "ray://head:10001", ":0", ""])
def test_an_address_that_is_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(StartError, match="is no address of a Ray cluster: give HOST:PORT, such as head:6379, or auto"):
        joining.connect(address)


def test_rays_errors_become_texts_that_say_what_to_do() -> None:
    mismatch = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.50.0\n    Python: 3.12.1\n"
        "This process on node x was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    text = joining.reason("head:6379", RuntimeError(mismatch))
    assert "has Ray 2.50.0 and Python 3.12.1, and this machine Ray 2.60.0 and Python 3.11.7" in text
    refused = ConnectionError("Failed to connect to Ray cluster at head:6379")
    refused.__cause__ = RuntimeError("RPC error: InvalidAuthToken: Authentication token is missing or incorrect")
    assert "set RAY_AUTH_MODE=token" in joining.reason("head:6379", refused)
    assert "no Ray cluster runs on this machine" in joining.reason("auto", ConnectionError("Could not find any"))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (HERE, ""),
        (Versions("1.0", "2.60.0", "3.11.2"), ""),
        (Versions("1.1", "2.60.0", "3.11.7"), "visaged 1.0, and the fleet 1.1"),
        (Versions("1.0", "2.50.0", "3.12.0"), "Ray 2.60.0, and the fleet 2.50.0; Python 3.11, and the fleet 3.12"),
    ],
)
def test_versions_that_differ_are_named(other: Versions, said: str) -> None:
    text = HERE.against(other)
    assert said in text
    assert bool(text) == bool(said)


def test_a_camera_to_add(tmp_path: Path) -> None:
    document = {"cameras": [{"name": "quay", "url": "rtsp://camera/1"}]}
    assert camera_to_add("gate=rtsp://camera/2", document, {}) == {"name": "gate", "url": "rtsp://camera/2"}
    file = tmp_path / "gate.yaml"
    file.write_text("{name: gate, url: 'rtsp://camera/2', fleet: {weight: 2}}")
    assert camera_to_add(str(file), document, {"mole": None})["fleet"] == {"weight": 2}
    file.write_text("{name: gate, url: 'rtsp://camera/2', flet: {}}")
    for text, said in (
        (str(file), f"{file}.flet: is not a known key"),
        ("rtsp://camera/2", "CAMERA: give a name"),
        ("gate=rtsp://", "CAMERA.url"),
        (str(tmp_path / "none.yaml"), "No such file"),
    ):
        with pytest.raises(SettingsError) as refused:
            camera_to_add(text, document, {})
        assert said in str(refused.value)


def test_a_files_identity_names_the_machine_too(tmp_path: Path) -> None:
    assert FleetFile(tmp_path / "fleet.yaml").identity == f"{tmp_path / 'fleet.yaml'} on {socket.gethostname()}"


def test_actors_of_a_fleet_are_told_from_those_of_another() -> None:
    assert coordinator_name("a") == "visaged-a"
    assert node_name("a", "n1", "0123456789abcdef") == "visaged-a/n1/0123456789ab"
    assert not node_name("ab", "n1", "0123456789abcdef").startswith(node_prefix("a"))


VIEW = FleetView(
    "campus", 1, 2.0, 6.0, "1.0", FleetSummary(cameras=3, placed=2, active=1, unplaced=1, nodes=1, nodes_away=1),
    (NodeView("a", "", "up", 4, 2, cameras=2, seen_s=0.5), NodeView("b", state="refused", why="no [b]")),
    (CameraView("quay", "a", 7, "streaming", True), CameraView("gate", "a", 8, "connecting", False, "b")),
    (UnplacedView("mole", "no node of site hill is up"),),
)  # fmt: skip


def test_a_fleet_is_told() -> None:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(tell(VIEW))
    text = captured.get()
    for said in (
        "fleet campus: 1 node up, 1 away; 1 of 3 cameras publish, 1 without a place; 0 moves, 0 from lost nodes",
        "refused", "b: no [b]", "a -> b", "2 of 4", "0.5 s ago", "mole finds no place: no node of site hill is up",
    ):  # fmt: skip
        assert said in text


def test_changes_are_told_once() -> None:
    assert [line.plain for line in changes(None, VIEW)] == [
        "node a: up",
        "node b: refused: no [b]",
        "camera quay: on a, streaming",
        "camera gate: on a, connecting, moves to b",
        "camera mole finds no place: no node of site hill is up",
    ]
    assert list(changes(VIEW, VIEW)) == []
    after = FleetView("campus", 1, 2.0, 6.0, "1.0", FleetSummary(), (VIEW.nodes[0],), VIEW.cameras[:1])
    assert [line.plain for line in changes(VIEW, after)] == [
        "node b: gone",
        "camera gate: left the fleet",
        "camera mole: left the fleet",
    ]
