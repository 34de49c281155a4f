"""Single pictures by a fleet: Ray Serve in front of two daemons, of which one ends meanwhile."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.access_server import bearer, is_problem
from tests.support.served_fleet import ServedFleet, served_fleet
from tests.support.waiting import until
from visaged.daemon.http.keys import hash_key, make_key

pytest.importorskip("ray.serve", reason="the extra fleet is not installed")

KEY = make_key()
FACES = "/v1/faces"
PICTURE = Path(__file__).parents[2] / "daemon" / "demo" / "picture.jpg"
WAIT_S = 30.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedFleet]:
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "bucket").mkdir()
    (folder / "bucket" / "people.jpg").write_bytes(PICTURE.read_bytes())
    document = {
        "http": {"keys": [{"name": "shop", "sha256": hash_key(KEY.encode())}], "max_waiting": 2, "max_body_mb": 2},
        "oss": {"enabled": True, "port": 0, "buckets": [{"name": "album", "folder": str(folder / "bucket")}]},
    }
    with served_fleet(folder, document) as fleet:
        for client in (fleet.client, *(daemon.client for daemon in fleet.daemons)):
            client.headers.update(bearer(KEY))
        yield fleet


def post(fleet: ServedFleet) -> httpx.Response:
    return fleet.client.post(FACES, content=PICTURE.read_bytes())


def test_answers_are_those_of_a_node(fleet: ServedFleet) -> None:
    data = PICTURE.read_bytes()
    kit = {"img": base64.b64encode(data).decode()}
    direct = fleet.daemons[0].client
    for asked in (
        {"url": FACES + "?landmarks=106&attributes=age,emotion", "content": data},
        {"url": FACES, "files": {"file": ("people.jpg", data)}},
        {"url": "/prod/face_detection", "json": kit},
        {"url": FACES, "content": b"no picture"},
        {"url": FACES, "content": b""},
        {"url": FACES + "?attributes=none", "content": data},
    ):
        served, own = fleet.client.post(**asked), direct.post(**asked)
        assert (served.status_code, served.content) == (own.status_code, own.content)
        different = {"date", "server", "x-request-id", "connection"}
        assert [one for one in served.headers.multi_items() if one[0] not in different] == [
            one for one in own.headers.multi_items() if one[0] not in different
        ]


def test_a_request_has_one_id_everywhere(fleet: ServedFleet) -> None:
    response = fleet.client.post(FACES, content=b"", headers={"X-Request-ID": "asked-for"})
    assert response.headers.get_list("x-request-id") == ["asked-for"]
    assert any("asked-for" in daemon.text for daemon in fleet.daemons)


def test_buckets_are_served_on_the_same_port(fleet: ServedFleet) -> None:
    assert fleet.client.get("/album/people.jpg").content == PICTURE.read_bytes()
    assert fleet.client.head("/album/people.jpg").headers["content-length"] == str(PICTURE.stat().st_size)
    found = fleet.client.get("/album/people.jpg?x-oss-process=imm/detectface").json()
    assert found["Faces"]
    by_name = fleet.client.get("/people.jpg", headers={"Host": f"album.localhost:{fleet.client.base_url.port}"})
    assert by_name.content == PICTURE.read_bytes()


def test_a_key_is_needed_and_the_log_has_the_clients_address(fleet: ServedFleet) -> None:
    # A proxy on the machine of Serve's may say who the client is, as it may to a daemon.
    by_proxy = {"X-Forwarded-For": "192.0.2.66", "Connection": "Authorization"}
    with httpx.Client(base_url=fleet.client.base_url, trust_env=False) as stranger:
        is_problem(stranger.post(FACES, content=PICTURE.read_bytes(), headers=by_proxy), 401, "key-missing")
        is_problem(stranger.post(FACES, headers=bearer(make_key())), 401, "key-wrong")
    until(lambda: any("a request of 192.0.2.66 was refused" in daemon.text for daemon in fleet.daemons), WAIT_S)
    assert fleet.client.post(FACES, content=PICTURE.read_bytes(), headers=by_proxy).status_code == 200


def test_a_picture_can_be_too_large(fleet: ServedFleet) -> None:
    is_problem(fleet.client.post(FACES, content=b"x" * 2_100_000), 413, "body-too-large")
    is_problem(fleet.client.post(FACES, content=(b"x" * 100_000 for _ in range(60))), 413, "body-too-large")


def test_too_many_pictures_go_to_both_nodes_and_beyond_that_are_refused(fleet: ServedFleet) -> None:
    before = [daemon.metric("pictures_total", outcome="answered") for daemon in fleet.daemons]
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda _: post(fleet), range(24)))
    refused = [one for one in answers if one.status_code != 200]
    assert refused
    for one in refused:
        is_problem(one, 503, "overloaded")
        assert int(one.headers["retry-after"]) >= 1
    after = [daemon.metric("pictures_total", outcome="answered") for daemon in fleet.daemons]
    answered = [now - then for now, then in zip(after, before, strict=True)]
    assert sum(answered) == len(answers) - len(refused)
    assert all(answered), f"answered by the nodes: {answered}"


def test_a_client_that_hangs_up_is_let_go(fleet: ServedFleet) -> None:
    def abandoned() -> float:
        return sum(daemon.metric("pictures_total", outcome="abandoned") for daemon in fleet.daemons)

    before = abandoned()
    url = fleet.client.base_url
    with socket.create_connection((url.host, url.port or 0), WAIT_S) as client:
        head = f"POST {FACES} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 100000\r\n\r\n"
        client.sendall(head.encode() + b"x" * 1000)
        # Each question for the metrics counts, too.
        until(lambda: sum(one.metric("http_requests_active", key="shop") for one in fleet.daemons) == 3, WAIT_S)
    until(lambda: abandoned() > before, WAIT_S)


def test_a_node_that_is_gone_is_replaced_by_another_until_none_is_left(fleet: ServedFleet) -> None:
    for daemon in fleet.daemons:  # in turn
        assert post(fleet).status_code == 200
        daemon.kill()
    began_s = time.monotonic()
    refused = post(fleet)
    is_problem(refused, 503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    assert time.monotonic() - began_s < WAIT_S
    fleet.daemons[1].start()
    until(lambda: post(fleet).status_code == 200, WAIT_S)
