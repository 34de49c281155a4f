"""The OSS endpoint byte by byte: objects, ranges, conditions, what is refused, and what is in no bucket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.broker import free_port
from tests.support.oss_endpoint import PICTURE, START_S, Endpoint, Network, is_error, make_folder, real_network, serve
from tests.support.s3_server import REGION, S3Server


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with real_network() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("buckets"))


@pytest.fixture(scope="module")
def open_endpoint(network: Network, folder: Path) -> Iterator[Endpoint]:
    """Without keys."""
    with serve(network.pictures, {"buckets": [{"name": "imm-demo", "folder": str(folder)}]}) as running:
        yield running


# --- objects as they are ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "standard", "status", "body", "content_range"),
    [
        ("bytes=0-9", False, 206, range(10), "bytes 0-9/100"),
        ("bytes=90-", False, 206, range(90, 100), "bytes 90-99/100"),
        ("bytes=-5", False, 206, range(95, 100), "bytes 95-99/100"),
        ("bytes=99-99", True, 206, range(99, 100), "bytes 99-99/100"),
        ("bytes=90-200", True, 206, range(90, 100), "bytes 90-99/100"),
        ("bytes=-500", True, 206, range(100), "bytes 0-99/100"),
        ("bytes=90-200", False, 200, range(100), None),
        ("bytes=100-200", False, 200, range(100), None),
        ("bytes=100-200", True, 416, None, "bytes */100"),
        ("bytes=-0", True, 416, None, "bytes */100"),
        ("bytes=9-3", True, 200, range(100), None),
        ("bytes=0-1,5-6", True, 200, range(100), None),
        ("items=0-1", True, 200, range(100), None),
        ("bytes=-", True, 200, range(100), None),
    ],
)
def test_ranges(
    open_endpoint: Endpoint, asked: str, standard: bool, status: int, body: range | None, content_range: str | None
) -> None:
    headers = {"Range": asked} | ({"x-oss-range-behavior": "standard"} if standard else {})
    response, found = open_endpoint.ask("/imm-demo/hello.txt", headers=headers)
    assert response.headers["content-range"] == content_range
    if body is None:
        is_error(response, found, status, "InvalidRange")
    else:
        assert response.status == status
        assert found == bytes(body)
        assert response.headers["content-length"] == str(len(body))


TAG = hashlib.md5(bytes(range(100))).hexdigest().upper()
BEFORE, AT, AFTER = "Tue, 14 Nov 2023 22:13:19 GMT", "Tue, 14 Nov 2023 22:13:20 GMT", "Tue, 14 Nov 2023 22:13:21 GMT"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": f'"{TAG}"'}, 304),
        ({"If-None-Match": TAG}, 304),
        ({"If-None-Match": f'"x", W/"{TAG}"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-None-Match": '"other"', "If-Modified-Since": AT}, 200),
        ({"If-Modified-Since": BEFORE}, 200),
        ({"If-Modified-Since": AT}, 304),
        ({"If-Modified-Since": AFTER}, 304),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Match": f'"{TAG}"'}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Unmodified-Since": BEFORE}, 412),
        ({"If-Unmodified-Since": AT}, 200),
        ({"If-Match": TAG, "If-Unmodified-Since": BEFORE}, 200),
    ],
)
def test_conditions(open_endpoint: Endpoint, method: str, headers: dict[str, str], status: int) -> None:
    response, body = open_endpoint.ask("/imm-demo/hello.txt", method, headers)
    assert response.status == status
    if status == 412 and method == "GET":
        is_error(response, body, 412, "PreconditionFailed")
    elif status == 200 and method == "GET":
        assert body == bytes(range(100))
    else:
        assert body == b""
    if status != 412:
        assert response.headers["etag"] == f'"{TAG}"'


def test_a_client_that_goes_away(open_endpoint: Endpoint) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", open_endpoint.port), START_S) as connection:
            connection.sendall(b"GET /imm-demo/huge.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert open_endpoint.ask("/imm-demo/hello.txt")[0].status == 200


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status", "code", "says"),
    [
        ("/imm-demo/absent.jpg", 404, "NoSuchKey", ""),
        ("/imm-demo/absent.jpg?x-oss-process=imm/detectface", 404, "NoSuchKey", ""),
        ("/imm-demo/sub", 404, "NoSuchKey", ""),
        ("/absent/person.jpg", 404, "NoSuchBucket", ""),
        ("/imm%2Ddemo%2Fperson.jpg", 404, "NoSuchBucket", ""),
        ("/%ff%00/person.jpg", 404, "NoSuchBucket", ""),
        ("/", 501, "NotImplemented", "/<bucket>/<key>"),
        ("/imm-demo", 501, "NotImplemented", "key"),
        ("/imm-demo/", 501, "NotImplemented", "key"),
        ("/imm-demo/person.jpg?acl", 501, "NotImplemented", "acl"),
        ("/imm-demo/person.jpg?x-oss-process=", 400, "MissingArgument", ""),
        ("/imm-demo/person.jpg?x-oss-process=image/resize,w_100", 400, "InvalidArgument", "imm/detectface"),
        ("/imm-demo/person.jpg?x-oss-process=imm/detectface,a_1", 400, "InvalidArgument", "image/faces"),
        ("/imm-demo/person.jpg?x-oss-process=%ff%00<x>", 400, "InvalidArgument", ""),
        ("/imm-demo/huge.jpg?x-oss-process=imm/detectface", 400, "ImageTooLarge", "at most 20000000"),
        ("/imm-demo/wide.png?x-oss-process=imm/detectface", 400, "ImageTooLarge", "at most 10 megapixels"),
        ("/imm-demo/empty.jpg?x-oss-process=imm/detectface", 400, "BadRequest", "no bytes"),
        ("/imm-demo/text.jpg?x-oss-process=imm/detectface", 400, "BadRequest", "no JPEG"),
        ("/imm-demo/cut.jpg?x-oss-process=image/faces", 400, "BadRequest", "damaged"),
        ("/imm-demo/%ff.jpg", 400, "InvalidObjectName", "UTF-8"),
        (f"/imm-demo/{'a' * 1024}", 400, "InvalidObjectName", "1023"),
        (f"/imm-demo/{'a' * 1000}", 404, "NoSuchKey", ""),
    ],
)
def test_refusals(open_endpoint: Endpoint, target: str, status: int, code: str, says: str) -> None:
    response, body = open_endpoint.ask(target)
    assert says in is_error(response, body, status, code)["Message"]
    assert response.headers["server"] == "visaged/test"


@pytest.mark.parametrize(
    "key",
    [
        "../secret.txt",
        "..%2Fsecret.txt",
        "%2e%2e/secret.txt",
        "sub/../../secret.txt",
        "sub/../person.jpg",
        "./person.jpg",
        "sub//folder/person.jpg",
        "/person.jpg",
        "person.jpg/",
        "person.jpg/.",
        "..%5Csecret.txt",
        "sub%5Cfolder%5Cperson.jpg",
        "C:%5Cperson.jpg",
        "person.jpg%00",
        "person.jpg%00.txt",
        "link.txt",
        "up/secret.txt",
        "up/bucket-beside/secret.txt",
        "up/bucket/hello.txt",
        "loop",
        "loop/person.jpg",
        "pipe.jpg",
        ".hidden.jpg",
        ".git/config",
        "seen.txt",
        "person.jpg/x",
        "{root}/secret.txt",
    ],
)
def test_no_way_out_of_the_folder(open_endpoint: Endpoint, folder: Path, key: str) -> None:
    target = f"/imm-demo/{key.format(root=quote(str(folder.parent)))}"
    for query in ("", "?x-oss-process=imm/detectface"):
        response, body = open_endpoint.ask(target + query)
        is_error(response, body, 404, "NoSuchKey")
        assert b"secret" not in body.replace(b"secret.txt", b"")
    assert open_endpoint.ask(target, "HEAD")[0].status == 404


def test_names_that_are_not_known(open_endpoint: Endpoint) -> None:
    """What a page on the web sends whose name was made to lead here."""
    for host in ("evil.example.com", "localhost.evil.example.com", "127.0.0.1.evil.example.com"):
        response, body = open_endpoint.ask("/imm-demo/hello.txt", headers={"Host": host})
        assert "oss.endpoints" in is_error(response, body, 403, "AccessDenied")["Message"]
    for host in ("127.0.0.1:1", "[::1]", "LOCALHOST", "192.168.1.5:8081"):
        assert open_endpoint.ask("/imm-demo/hello.txt", headers={"Host": host})[0].status == 200


def test_head_is_of_the_object_whatever_the_process(open_endpoint: Endpoint) -> None:
    response, body = open_endpoint.ask("/imm-demo/hello.txt?x-oss-process=imm/detectface", "HEAD")
    assert (response.status, body, response.headers["content-length"]) == (200, b"", "100")


def test_a_link_inside_the_folder_is_followed(open_endpoint: Endpoint) -> None:
    for key in ("way.txt", "here/hello.txt"):
        assert open_endpoint.ask(f"/imm-demo/{key}")[1] == bytes(range(100))


def test_files_that_may_not_be_read(open_endpoint: Endpoint, folder: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = folder / "locked.jpg"
    path.write_text("locked")
    path.chmod(0)
    is_error(*open_endpoint.ask("/imm-demo/locked.jpg"), 403, "AccessDenied")


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "OPTIONS", "PATCH"])
def test_objects_are_not_written(open_endpoint: Endpoint, method: str) -> None:
    response, body = open_endpoint.ask("/imm-demo/person.jpg", method)
    assert is_error(response, body, 405, "MethodNotAllowed")["Method"] == method
    assert response.headers["allow"] == "GET, HEAD"


def test_too_many_at_a_time(network: Network, open_endpoint: Endpoint) -> None:
    async def fill() -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(network.pictures.place())
            target = "/imm-demo/person.jpg?x-oss-process=imm/detectface"
            response, body = await asyncio.to_thread(open_endpoint.ask, target)
            is_error(response, body, 503, "ServiceUnavailable")
            assert int(response.headers["retry-after"]) >= 1

    asyncio.run(fill())
    assert open_endpoint.ask("/imm-demo/person.jpg?x-oss-process=imm/detectface")[0].status == 200


def test_requests_are_counted(network: Network, folder: Path) -> None:
    with serve(network.pictures, {"buckets": [{"name": "imm-demo", "folder": str(folder)}]}) as endpoint:
        for target in ("person.jpg?x-oss-process=image/faces", "hello.txt", "absent.txt", "a?x-oss-process=b"):
            endpoint.ask(f"/imm-demo/{target}")

        def count(operation: str, code: str) -> float | None:
            labels = {"operation": operation, "code": code}
            return endpoint.metrics.registry.get_sample_value("visaged_oss_requests_total", labels)

        assert count("figures", "OK") == count("get", "OK") == count("get", "NoSuchKey") == 1
        assert count("process", "InvalidArgument") == 1


def test_an_error_of_the_server(network: Network, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    from visaged.daemon.api.aliyun_oss import app

    def breaks(*arguments: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setitem(app._ANSWERS, "image/faces", breaks)
    breaks.__name__ = "figures"
    with serve(network.pictures, {"buckets": [{"name": "imm-demo", "folder": str(folder)}]}) as endpoint:
        response, body = endpoint.ask("/imm-demo/person.jpg?x-oss-process=image/faces")
    is_error(response, body, 500, "InternalError")
    assert b"broken" not in body
    assert "broken" in caplog.text


# --- buckets of a store -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with S3Server() as server:
        for bucket in ("pictures", "private"):
            server.make_bucket(bucket)
            for key in ("a/person.jpg", "/lead.jpg", "a b+c%2F女.jpg"):
                server.put(bucket, key, PICTURE.read_bytes(), ContentType="image/jpeg")
        server.put("pictures", "large.bin", bytes(3_000_000))
        server.put("pictures", "huge.jpg", bytes(21 * 2**20))
        yield server


@pytest.fixture(scope="module")
def stored(network: Network, store: S3Server) -> Iterator[Endpoint]:
    """A bucket of the store, one that the store's key may not read, and one whose store is not there."""
    s3 = {
        "endpoint": store.endpoint,
        "region": REGION,
        "access_key_id": store.reader.id,
        "secret_access_key": store.reader.secret,
    }
    buckets = [
        {"name": "imm-demo", "s3": s3, "s3_bucket": "pictures"},
        {"name": "private", "s3": s3},
        {"name": "gone", "s3": s3 | {"endpoint": f"http://127.0.0.1:{free_port()}"}},
        {"name": "other", "s3": s3 | {"secret_access_key": "wr0ng"}, "s3_bucket": "pictures"},
    ]
    with serve(network.pictures, {"buckets": buckets, "max_object_mb": 2.5}) as running:
        yield running


def test_pictures_of_a_store(stored: Endpoint) -> None:
    for key in ("a/person.jpg", "a%2Fperson.jpg", "/lead.jpg", "%2Flead.jpg", quote("a b+c%2F女.jpg")):
        response, body = stored.ask(f"/imm-demo/{key}?x-oss-process=imm/detectface")
        assert response.status == 200, body
        assert json.loads(body)["Faces"]
        response, body = stored.ask(f"/imm-demo/{key}")
        assert body == PICTURE.read_bytes()
        assert response.headers["content-type"] == "image/jpeg"
        assert response.headers["etag"].strip('"') == hashlib.md5(body).hexdigest()
        head, _ = stored.ask(f"/imm-demo/{key}", "HEAD")
        for name in ("etag", "last-modified", "content-length", "content-type", "x-oss-object-type"):
            assert head.headers[name] == response.headers[name]
        assert stored.ask(f"/imm-demo/{key}", headers={"If-None-Match": head.headers["etag"]})[0].status == 304
        response, body = stored.ask(f"/imm-demo/{key}", headers={"Range": "bytes=2-5"})
        assert (response.status, body) == (206, PICTURE.read_bytes()[2:6])


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/imm-demo/absent.jpg", 404, "NoSuchKey"),
        ("/imm-demo/absent.jpg?x-oss-process=imm/detectface", 404, "NoSuchKey"),
        ("/imm-demo/large.bin", 400, "EntityTooLarge"),
        ("/imm-demo/huge.jpg?x-oss-process=imm/detectface", 400, "ImageTooLarge"),
        ("/imm-demo/large.bin?x-oss-process=imm/detectface", 400, "ImageTooLarge"),
        ("/private/a/person.jpg", 403, "AccessDenied"),
        ("/other/a/person.jpg", 403, "AccessDenied"),
        ("/gone/a/person.jpg", 503, "ServiceUnavailable"),
        ("/gone/a/person.jpg?x-oss-process=imm/detectface", 503, "ServiceUnavailable"),
    ],
)
def test_refusals_of_a_store(
    stored: Endpoint, store: S3Server, caplog: pytest.LogCaptureFixture, target: str, status: int, code: str
) -> None:
    response, body = stored.ask(target)
    is_error(response, body, status, code)
    assert (response.headers["retry-after"] is not None) == (status == 503)
    for secret in (store.reader.secret, "wr0ng", store.reader.id):
        assert secret not in body.decode() + caplog.text


def test_the_bound_that_an_object_is_beyond_is_named(stored: Endpoint) -> None:
    _, body = stored.ask("/imm-demo/large.bin?x-oss-process=imm/detectface")
    assert b"2.5 MB" in body


def test_the_log_names_the_bucket_s_own_settings(
    network: Network, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    s3 = {"endpoint": f"http://127.0.0.1:{free_port()}", "access_key_id": "a", "secret_access_key": "b"}
    with serve(network.pictures, {"buckets": [{"name": "gone", "s3": s3}]}) as running:
        assert running.ask("/gone/a.jpg")[0].status == 503
    assert "oss.buckets[gone].s3: http://127.0.0.1" in caplog.text


def test_places_of_a_store_are_given_back(stored: Endpoint) -> None:
    for _ in range(10):
        assert stored.ask("/imm-demo/a/person.jpg")[0].status == 200
        assert stored.ask("/imm-demo/large.bin")[0].status == 400
        assert stored.ask("/imm-demo/a/person.jpg", headers={"If-None-Match": "*"})[0].status == 304


def test_a_silent_store_does_not_take_all_threads(network: Network, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent, ThreadPoolExecutor(12) as clients:
        s3 = {"access_key_id": "a", "secret_access_key": "b"}
        buckets: list[dict[str, Any]] = [
            {"name": "silent", "s3": s3 | {"endpoint": f"http://127.0.0.1:{silent.getsockname()[1]}"}},
            {"name": "imm-demo", "folder": str(folder)},
        ]
        with serve(network.pictures, {"buckets": buckets, "store_timeout_s": 3}) as running:
            asked = [clients.submit(running.ask, "/silent/a.jpg", "HEAD") for _ in range(12)]
            answers = [future.result()[0] for future in asked]
            told = [base64.b64decode(answer.headers["x-oss-err"]).decode() for answer in answers]
            assert {answer.status for answer in answers} == {503}
            assert sum("is being asked about 8 objects" in text for text in told) == 4
            assert sum("does not answer" in text for text in told) == 8
            assert running.ask("/imm-demo/person.jpg", "HEAD")[0].status == 200
