"""Cameras that are added, changed and removed over HTTP: who may, what is kept, and what hostile requests get."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.access_server import bearer, is_problem
from tests.support.broker import free_port
from tests.support.program import START_S, RunningDaemon
from tests.support.waiting import until
from visaged.daemon.http.keys import hash_key, make_key

MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
SECRET = "s3cr3t-hunter2"
ADMIN, READER = make_key(), make_key()
KEYS = [
    {"name": "boss", "sha256": hash_key(ADMIN.encode()), "role": "admin"},
    {"name": "shop", "sha256": hash_key(READER.encode())},
]


@pytest.fixture
def daemon(tmp_path: Path, demo_clip: Path) -> Iterator[RunningDaemon]:
    door = {"name": "door", "url": str(demo_clip), "loop": True, "fps": 1}
    with RunningDaemon(tmp_path, {"mqtt": {"port": free_port()}, "cameras": [door]}) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon without cameras whose tests change nothing for long."""
    folder = tmp_path_factory.mktemp("shared")
    with RunningDaemon(folder, {"mqtt": {"port": free_port()}}) as running:
        yield running
        assert "Traceback" not in running.text
        assert SECRET not in running.text


def test_cameras_come_change_and_go_and_survive_a_restart(daemon: RunningDaemon, demo_clip: Path) -> None:
    client = daemon.client
    yard = {"name": "yard", "url": f"http://admin:{SECRET}@127.0.0.1:{free_port()}/1", "options": {"headers": SECRET}}
    answer = client.post("/v1/cameras", json=yard)
    assert (answer.status_code, answer.headers["location"]) == (201, "/v1/cameras/yard")
    document = answer.json()
    assert (document["camera"], document["kept"], document["settings"]["fps"]) == ("yard", True, 5)
    assert document == client.get("/v1/cameras/yard").json() | {k: document[k] for k in ("state", "since", "error")} | {
        k: document[k] for k in ("cause", "reconnects", "next_try_at", "trouble_since")
    }
    assert client.head("/v1/cameras/yard").status_code == 200
    is_problem(client.post("/v1/cameras", json=yard), 409, "camera-exists")
    assert daemon.cameras() == ["door", "yard"]
    assert set(client.get("/readyz").json()["cameras"]) == {"door", "yard"}

    change = {"url": str(demo_clip), "loop": True, "options": None, "username": None}
    patched = client.patch(
        "/v1/cameras/yard", content=json.dumps(change), headers={"Content-Type": "application/merge-patch+json"}
    )
    assert patched.status_code == 200
    until(lambda: daemon.state_of("yard") == "streaming", START_S)
    assert client.patch("/v1/cameras/door", json={"fps": 2, "username": "admin", "password": SECRET}).status_code == 200
    shown = client.get("/v1/cameras/door")
    assert shown.json()["settings"] | {"fps": 2.0, "username": "***", "password": "***"} == shown.json()["settings"]
    assert SECRET in daemon.kept.read_text()
    assert stat.S_IMODE(daemon.kept.stat().st_mode) == 0o600

    daemon.restart()
    client = daemon.client
    assert "adds or changes cameras: yard, door" in daemon.text
    assert daemon.cameras() == ["door", "yard"]
    assert client.get("/v1/cameras/door").json()["settings"]["fps"] == 2
    removed = client.delete("/v1/cameras/door")
    assert (removed.status_code, removed.content) == (204, b"")
    is_problem(client.delete("/v1/cameras/door"), 404, "unknown-camera")
    assert client.delete("/v1/cameras/yard").status_code == 204
    assert daemon.cameras() == []
    assert daemon.metric("frames_received_total", camera="door") == 0
    daemon.restart()
    assert daemon.cameras() == []
    assert yaml.safe_load(daemon.kept.read_text()) == {"cameras": {"door": None}}
    texts = [answer.text, patched.text, shown.text, daemon.text, daemon.client.get("/metrics").text]
    assert not [text for text in texts if SECRET in text]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder in which nothing can be made (Linux)")
def test_what_cannot_be_kept_is_not_done(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"mqtt": {"port": free_port()}, "state_dir": "/proc/visaged"}) as daemon:
        answer = daemon.client.post("/v1/cameras", json={"name": "yard", "url": "rtsp://127.0.0.1:9/1"})
        text = is_problem(answer, 500, "not-kept")
        assert "nothing was changed" in text
        assert "/proc/visaged/cameras.yaml" in text
        assert daemon.cameras() == []


def test_without_a_state_folder_changes_hold_until_the_end(tmp_path: Path, demo_clip: Path) -> None:
    document = {"mqtt": {"port": free_port()}, "state_dir": None}
    with RunningDaemon(tmp_path, document) as daemon:
        yard = {"name": "yard", "url": "rtsp://127.0.0.1:9/1"}
        assert daemon.client.post("/v1/cameras", json=yard).json()["kept"] is False
        assert daemon.client.post("/v1/reload").status_code == 200
        assert daemon.cameras() == ["yard"]
        daemon.restart()
        assert daemon.cameras() == []


def test_cameras_of_the_command_line_are_not_kept(tmp_path: Path, demo_clip: Path) -> None:
    document = {"mqtt": {"port": free_port()}}
    with RunningDaemon(tmp_path, document, "--camera", f"clip={demo_clip}") as daemon:
        assert daemon.client.patch("/v1/cameras/clip", json={"fps": 1, "loop": True}).json()["kept"] is False
        assert daemon.client.post("/v1/cameras", json={"name": "b", "url": "rtsp://127.0.0.1:9/1"}).status_code == 201
        assert daemon.client.post("/v1/reload").json()["cameras"]["kept"] == ["clip", "b"]
        assert not daemon.kept.exists()


def test_only_admins_may_change_anything(tmp_path: Path) -> None:
    document = {"mqtt": {"port": free_port()}, "http": {"port": 0, "keys": KEYS}}
    with RunningDaemon(tmp_path, document) as daemon:
        client = daemon.client
        yard = {"name": "yard", "url": "rtsp://127.0.0.1:9/1"}

        def all_of_them(key: str) -> list[Any]:
            headers = bearer(key) if key else {}
            return [
                client.post("/v1/reload", headers=headers),
                client.post("/v1/cameras", json=yard, headers=headers),
                client.patch("/v1/cameras/yard", json={"fps": 1}, headers=headers),
                client.delete("/v1/cameras/yard", headers=headers),
            ]

        assert [answer.status_code for answer in all_of_them("")] == [401] * 4
        for answer in all_of_them(READER):
            assert "role: admin" in is_problem(answer, 403, "forbidden")
        assert client.get("/v1/cameras/yard", headers=bearer(READER)).status_code == 404
        shed = yard | {"name": "shed", "username": "u", "password_env": "HOME"}
        assert client.post("/v1/cameras", json=shed, headers=bearer(ADMIN)).status_code == 201
        assert [answer.status_code for answer in all_of_them(ADMIN)] == [200, 201, 200, 204]


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"Host": "evil.example"}, 421, "unknown-host"),
        ({"Host": "192.0.2.1"}, 403, "forbidden"),
        ({"Origin": "http://evil.example"}, 403, "foreign-page"),
        ({"Origin": "null"}, 403, "foreign-page"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "foreign-page"),
        ({"X-Forwarded-For": "192.0.2.1"}, 403, "forbidden"),
    ],
)
def test_a_page_in_the_owner_s_browser_can_change_nothing(
    shared: RunningDaemon, headers: dict[str, str], status: int, kind: str
) -> None:
    client = shared.client
    yard = {"name": "yard", "url": "rtsp://127.0.0.1:9/1"}
    for answer in (
        client.post("/v1/reload", headers=headers),
        client.post("/v1/cameras", json=yard, headers=headers),
        client.patch("/v1/cameras/yard", json={}, headers=headers),
        client.delete("/v1/cameras/yard", headers=headers),
    ):
        is_problem(answer, status, kind)
    asked = client.options(
        "/v1/cameras", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert "access-control-allow-origin" not in asked.headers
    assert shared.cameras() == []


@pytest.mark.parametrize("key", ["password_file", "password_env"])
def test_without_keys_no_file_and_no_variable_is_read_for_a_password(shared: RunningDaemon, key: str) -> None:
    yard = {"name": "yard", "url": "rtsp://127.0.0.1:9/1", "username": "u", key: "HOME"}
    assert key in is_problem(shared.client.post("/v1/cameras", json=yard), 403, "forbidden")
    assert key in is_problem(shared.client.patch("/v1/cameras/yard", json={key: "HOME"}), 403, "forbidden")
    assert shared.cameras() == []


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_a_form_can_send_is_refused(shared: RunningDaemon, kind: str) -> None:
    body = json.dumps({"name": "yard", "url": "rtsp://127.0.0.1:9/1"})
    headers = {"Content-Type": kind} if kind else {}
    is_problem(shared.client.post("/v1/cameras", content=body, headers=headers), 415, "unsupported-media-type")
    is_problem(shared.client.patch("/v1/cameras/a", content=body, headers=headers), 415, "unsupported-media-type")
    if kind:
        is_problem(shared.client.post("/v1/reload", headers=headers), 415, "unsupported-media-type")
        is_problem(shared.client.delete("/v1/cameras/a", headers=headers), 415, "unsupported-media-type")
    assert shared.cameras() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'"text"',
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"name": "yard", "url": "a", "url": "b"}',
        b'{"name": "yard", "url": "rtsp://h/1", "fps": NaN}',
        b'{"name": "yard", "url": "rtsp://h/1", "fps": -Infinity}',
        b'{"name": "yard", "url": "rtsp://h/\\u0000"}',
        b'{"name": "yard", "url": "rtsp://h/\\ud800"}',
        b'{"name": "yard", "url": "rtsp://h/1", "\\ud800": 1}',
        b'{"name": "yard", "fps": ' + b"9" * 10_000 + b"}",
    ],
)
def test_what_is_no_proper_json_is_refused(shared: RunningDaemon, body: bytes) -> None:
    answer = shared.client.post("/v1/cameras", content=body, headers={"Content-Type": "application/json"})
    is_problem(answer, 400, "malformed-json")
    assert shared.cameras() == []


def test_a_huge_body_is_refused(shared: RunningDaemon) -> None:
    body = b'{"name": "' + b"a" * 1_000_000 + b'"}'
    answer = shared.client.post("/v1/cameras", content=body, headers={"Content-Type": "application/json"})
    assert "64 KiB" in is_problem(answer, 413, "body-too-large")


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"name": "yard"}, "url"),
        ({"url": "rtsp://h/1"}, "name"),
        *(({"name": name, "url": "rtsp://h/1"}, "name") for name in ("a/b", "../x", "+", "#", "", "x" * 65, "a\n", 3)),
        ({"name": "tester", "url": "rtsp://h/1"}, "name"),
        ({"name": "yard", "url": ["rtsp://h/1"]}, "url"),
        ({"name": "yard", "url": f"gopher://u:{SECRET}@h"}, "url"),
        ({"name": "yard", "url": f"rtsp://u:{SECRET} @h/1"}, "url"),
        ({"name": "yard", "url": "/absent/film.mp4"}, "url"),
        ({"name": "yard", "url": "rtsp://***@h/1"}, "url"),
        ({"name": "yard", "url": "rtsp://h/1", "password": SECRET}, ""),
        ({"name": "yard", "url": "rtsp://h/1", "username": "u", "password": {"a": SECRET}}, "password"),
        ({"name": "yard", "url": "rtsp://h/1", "username": "u", "password": "***"}, "password"),
        ({"name": "yard", "url": "rtsp://h/1", "options": {"headers": "***"}}, "options.headers"),
        ({"name": "yard", "url": "rtsp://h/1", "fps": True}, "fps"),
        ({"name": "yard", "url": "rtsp://h/1", "fps": 1e999}, "fps"),
        ({"name": "yard", "url": "rtsp://h/1", f"rtsp://u:{SECRET}@h/1": 1}, "rtsp://***@h/1"),
    ],
)
def test_a_wrong_camera_is_refused_by_its_keys(shared: RunningDaemon, document: dict[str, Any], path: str) -> None:
    body = json.dumps(document).replace("Infinity", "1e999")
    answer = shared.client.post("/v1/cameras", content=body, headers={"Content-Type": "application/json"})
    is_problem(answer, 422, "invalid-configuration")
    assert [error["path"] for error in answer.json()["errors"]] == [path]
    assert SECRET not in answer.text
    assert shared.cameras() == []
    assert not shared.kept.exists()


@pytest.mark.parametrize("name", ["a%2Fb", "..", "%00", "%F0%9F%98%80", "x" * 3000, "a%0Ab", "rtsp:%2F%2Fu:p@h"])
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_odd_names_are_not_found(shared: RunningDaemon, name: str, method: str) -> None:
    content, headers = (b"{}", {"Content-Type": "application/json"}) if method == "PATCH" else (None, {})
    answer = shared.client.request(method, f"/v1/cameras/{name}", content=content, headers=headers)
    assert answer.status_code in (404, 405)
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_openapi_document_has_it_all(shared: RunningDaemon) -> None:
    paths = shared.client.get("/openapi.json").json()["paths"]
    assert set(paths["/v1/cameras"]) == {"get", "post"}
    assert set(paths["/v1/cameras/{name}"]) == {"get", "patch", "delete"}
    body = paths["/v1/cameras"]["post"]["requestBody"]["content"]["application/json"]
    assert body["example"]["name"] == "yard"
    assert {"name", "url"} <= set(body["schema"]["required"])
    patch = paths["/v1/cameras/{name}"]["patch"]["requestBody"]["content"]
    assert set(patch) == {"application/merge-patch+json", "application/json"}
    assert {"403", "404", "409", "415", "422", "503", "507"} <= set(paths["/v1/cameras/{name}"]["patch"]["responses"])
    assert "needs_restart" in json.dumps(paths["/v1/reload"]["post"]["responses"]["200"])
    assert "/v1/reload" in shared.client.get("/docs").text
