from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from visaged.daemon.config.document import SettingsError
from visaged.daemon.fleet.problems import fleet_problems
from visaged.daemon.fleet.records import CameraReport, Grant, Joined, NodeReport, Orders, Orphan, Revoked
from visaged.daemon.settings import parse

EXAMPLE = Path(__file__).parents[4] / "configs/fleet.yaml"
CAMERA = {"name": "quay", "url": "rtsp://192.0.2.1/1"}
SECRET = "hunter2hunter2"


def problems(fleet: dict[str, Any] | None = None, **rest: Any) -> list[str]:
    return [str(one) for one in fleet_problems({"fleet": fleet or {}} | rest)]


def test_the_example_has_every_key_and_no_problems() -> None:
    document = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert fleet_problems(document) == []
    settings = parse(document)
    assert document["fleet"].keys() == type(settings.fleet).model_fields.keys()
    assert document["cameras"][0]["fleet"].keys() == type(settings.cameras[0].fleet).model_fields.keys()
    listed = document["fleet"]["nodes"]["harbour-1"]
    assert listed.keys() == type(settings.fleet.nodes["harbour-1"]).model_fields.keys()
    assert document["http"]["fleet"] == settings.http.fleet.model_dump(exclude={"doors"})
    for key in ("lease_s", "only_listed", "default_capacity", "name"):
        assert document["fleet"][key] == type(settings.fleet).model_fields[key].default


@pytest.mark.parametrize(
    ("fleet", "where"),
    [
        ({"lease_s": 0.5}, "fleet.lease_s"),
        ({"lease_s": True}, "fleet.lease_s"),
        ({"name": "a b"}, "fleet.name"),
        ({"nodes": {"a b": {}}}, "fleet.nodes"),
        ({"nodes": {"a": {"capacity": -1}}}, "fleet.nodes.a.capacity"),
        ({"nodes": {"a": {"settings": {"node": "b"}}}}, "fleet.nodes.a.settings"),
        ({"nodes": {"a": {"settings": {"mqtt": {"prot": 1}}}}}, "fleet.nodes.a.settings: mqtt.prot"),
        ({"nodes": {"a": {"settings": {"mqtt": {"embedded": True}}}}}, "fleet.nodes.a.settings.mqtt.embedded"),
        ({"colour": 1}, "fleet.colour"),
    ],
)
def test_what_cannot_be_is_named_by_its_key(fleet: dict[str, Any], where: str) -> None:
    assert [one.partition(": ")[0] if ".settings: " not in where else one[: len(where)] for one in problems(fleet)] == [
        where
    ]


@pytest.mark.parametrize("wish", [{"weight": 0}, {"nodes": []}, {"nodes": ["a b"]}, {"site": ""}, {"sites": "a"}])
def test_a_wish_that_is_not_valid_is_refused_on_one_machine_too(wish: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"cameras\[0\]\.fleet"):
        parse({"cameras": [CAMERA | {"fleet": wish}]})


@pytest.mark.parametrize(
    ("rest", "text"),
    [
        ({"mqtt": {"embedded": True}}, "mqtt.embedded: the nodes of a fleet need one broker"),
        ({"mqtt": {"client_id": "me"}}, "mqtt.client_id: a broker closes one of two"),
        ({"state_dir": None}, "state_dir: a node keeps the number of its run"),
    ],
)
def test_what_is_for_one_machine_is_refused(rest: dict[str, Any], text: str) -> None:
    (problem,) = problems(**rest)
    assert problem.startswith(text)


def test_secrets_of_a_nodes_settings_are_not_repeated() -> None:
    for settings in (SECRET, {"mqtt": {"username": "u", "password": [SECRET]}}, {"mqtt": SECRET}):
        found = problems({"nodes": {"a": {"settings": settings}}})
        assert found
        assert SECRET not in str(found)


def test_records_travel() -> None:
    orphan = Orphan("a", 1, 2, b"{}")
    for record in (
        NodeReport("a", 1, "0.1", cameras=(CameraReport("c", 1, "streaming", True, open=(b"{}",)),)),
        Orders(1, 6.0, (Grant("c", 1, True, 1, (orphan,)),), (Revoked("d", 2, (3,)),)),
        Joined((("c", 1, 2),)),
    ):
        assert pickle.loads(pickle.dumps(record)) == record


@pytest.mark.slow
def test_the_coordinator_starts_without_what_is_heavy() -> None:
    code = (
        "import json, sys; import visaged.daemon.fleet.plan.coordinator;"
        "print(json.dumps([m for m in ('cv2', 'av', 'onnxruntime', 'numpy', 'ray', 'fastapi') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
