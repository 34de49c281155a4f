"""Objects from storage that speaks S3 and checks who asks."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import free_port
from tests.support.certificates import Authority
from tests.support.http_server import Names, Routes, Visit, serves, web_server
from tests.support.s3_server import REGION, S3Server
from visaged.daemon.fetch.errors import FetchError
from visaged.daemon.fetch.fetcher import Fetcher
from visaged.daemon.fetch.s3 import S3Client, S3Object
from visaged.daemon.fetch.settings import FetchSettings, S3Settings

PICTURE = bytes(range(256)) * 40
MOST = 1_000_000


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with S3Server() as server:
        for bucket in ("pictures", "pictures.dotted", "private"):
            server.make_bucket(bucket)
            server.put(bucket, "a/face.jpg", PICTURE, ContentType="image/jpeg")
        yield server


def keys_of(store: S3Server, **more: Any) -> dict[str, Any]:
    keys = {"endpoint": store.endpoint, "region": REGION, "access_key_id": store.reader.id}
    return keys | {"secret_access_key": store.reader.secret} | more


def client(store: S3Server, **more: Any) -> S3Client:
    return S3Client(S3Settings.model_validate(keys_of(store, **more)))


def elsewhere(port: int, **more: Any) -> dict[str, Any]:
    keys = {"endpoint": f"http://127.0.0.1:{port}", "access_key_id": "reader", "secret_access_key": "s3cr3t"}
    return keys | more


def get(store: S3Server, bucket: str = "pictures", key: str = "a/face.jpg", **more: Any) -> S3Object:
    return client(store, **more).get(bucket, key, MOST, 10.0)


def refused(one: S3Client, reason: str, bucket: str = "pictures", key: str = "a/face.jpg", **bounds: Any) -> str:
    with pytest.raises(FetchError) as caught:
        one.get(bucket, key, bounds.get("most_bytes", MOST), bounds.get("timeout_s", 10.0))
    assert caught.value.reason == reason, str(caught.value)
    for secret in ("s3cr3t", "Signature=", "a/face.jpg"):
        assert secret not in str(caught.value)
    return str(caught.value)


def test_an_object(store: S3Server) -> None:
    found = get(store)
    assert found.data == PICTURE
    assert found.size == len(PICTURE)
    assert found.content_type == "image/jpeg"
    assert found.etag.startswith('"')
    assert found.last_modified is not None
    assert abs((datetime.now(UTC) - found.last_modified).total_seconds()) < 300
    known = client(store).head("pictures", "a/face.jpg", 10.0)
    assert known == S3Object(b"", len(PICTURE), found.etag, found.last_modified, "image/jpeg")


@pytest.mark.parametrize(
    "key", ["a b+c.jpg", "ü/Ω😀.jpg", "q?x=1&y#z.jpg", "100%25.jpg", "~tilde'(1)!*.jpg", "a=b;c,d@e:f"]
)
def test_keys_are_taken_literally(store: S3Server, key: str) -> None:
    store.put("pictures", key, key.encode())
    assert get(store, key=key).data == key.encode()
    fetcher = Fetcher(FetchSettings.model_validate({"enabled": True, "s3": keys_of(store)}))
    assert asyncio.run(fetcher.fetch(f"s3://pictures/{key}")) == key.encode()


def test_many_at_a_time_from_threads(store: S3Server) -> None:
    one = client(store)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: one.get("pictures", "a/face.jpg", MOST, 10.0).data, range(8)))
    assert found == [PICTURE] * 8


def test_what_is_not_there(store: S3Server) -> None:
    assert "no such object" in refused(client(store), "not_found", key="missing.jpg")
    owner = {"access_key_id": store.owner.id, "secret_access_key": store.owner.secret}
    assert "no such bucket" in refused(client(store, **owner), "not_found", bucket="missing-bucket")
    with pytest.raises(FetchError) as caught:
        client(store).head("pictures", "missing.jpg", 10.0)
    assert caught.value.reason == "not_found"


def test_who_may_not_read(store: S3Server) -> None:
    assert "secret_access_key" in refused(client(store, secret_access_key="s3cr3t"), "credentials")
    assert "access_key_id" in refused(client(store, access_key_id="AKIAUNKNOWN"), "credentials")
    assert "may not read" in refused(client(store), "credentials", bucket="private")
    with pytest.raises(FetchError) as caught:
        client(store, secret_access_key="s3cr3t").head("pictures", "a/face.jpg", 10.0)
    assert caught.value.reason == "credentials"


def test_only_the_listed_buckets(store: S3Server) -> None:
    assert get(store, buckets=["pictures"]).data == PICTURE
    assert "fetch.s3.buckets" in refused(client(store, buckets=["pictures"]), "forbidden", bucket="private")


@pytest.mark.parametrize(
    ("bucket", "key"), [("Pictures", "a"), ("pictures/../x", "a"), ("pictures", ""), ("pictures", "\udc80")]
)
def test_names_that_no_object_has(store: S3Server, bucket: str, key: str) -> None:
    with pytest.raises(FetchError) as caught:
        client(store).get(bucket, key, MOST, 5.0)
    assert caught.value.reason == "bad_url"


def test_secrets_are_read_when_they_are_needed(store: S3Server, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    one = client(store, secret_access_key=None, secret_access_key_file=file)
    assert "cannot be read" in refused(one, "credentials")
    file.write_text(f"{store.reader.secret}\n")
    assert one.get("pictures", "a/face.jpg", MOST, 10.0).data == PICTURE


def test_the_largest_object(store: S3Server) -> None:
    assert client(store).get("pictures", "a/face.jpg", len(PICTURE), 10.0).data == PICTURE
    assert "larger" in refused(client(store), "too_large", most_bytes=len(PICTURE) - 1)


def test_through_the_fetcher(store: S3Server) -> None:
    def fetch(url: str, **keys: Any) -> bytes:
        settings = FetchSettings.model_validate({"enabled": True, "s3": keys_of(store)} | keys)
        return asyncio.run(Fetcher(settings).fetch(url))

    assert fetch("S3://pictures/a/face.jpg") == PICTURE
    for url, reason, keys in (
        ("s3://pictures/missing.jpg", "not_found", {}),
        ("s3://private/a/face.jpg", "credentials", {}),
        ("s3://pictures/a/face.jpg", "too_large", {"max_mb": 0.01}),
        ("s3://pictures", "bad_url", {}),
        ("s3://pictures/a/face.jpg", "disabled", {"s3": None, "public": True}),
        # The storage's own address is not open to URLs.
        (f"{store.endpoint}/pictures/a/face.jpg", "forbidden", {}),
        (f"{store.endpoint}/pictures/a/face.jpg", "forbidden", {"public": True, "ports": [80, 9000]}),
    ):
        with pytest.raises(FetchError) as caught:
            fetch(url, **keys)
        assert caught.value.reason == reason


def test_the_bucket_in_the_path_or_in_the_name() -> None:
    hosts = ["store.lan", "pictures.store.lan"]
    names = Names({name: [["127.0.0.1"]] for name in hosts})
    with web_server(serves(PICTURE)) as server:
        for style, bucket, host, path in (
            ("auto", "pictures", "store.lan", "/pictures/a%20b.jpg"),
            ("path", "pictures", "store.lan", "/pictures/a%20b.jpg"),
            ("virtual", "pictures", "pictures.store.lan", "/a%20b.jpg"),
            ("virtual", "pictures.dotted", "store.lan", "/pictures.dotted/a%20b.jpg"),
        ):
            endpoint = f"http://store.lan:{server.port}"
            settings = S3Settings.model_validate(elsewhere(server.port, endpoint=endpoint, addressing_style=style))
            assert S3Client(settings, resolve=names).get(bucket, "a b.jpg", MOST, 5.0).data == PICTURE
            assert server.visits[-1].headers["host"] == f"{host}:{server.port}"
            assert server.visits[-1].path == path


def test_aws_itself_is_asked_by_https_in_the_region() -> None:
    names = Names({"pictures.s3.eu-west-1.amazonaws.com": [["52.218.0.1"]]})
    dial = Routes({"52.218.0.1": free_port()})
    settings = S3Settings.model_validate(elsewhere(1, endpoint=None, region="eu-west-1"))
    refused(S3Client(settings, resolve=names, dial=dial), "unreachable")
    assert set(dial.dialled) == {("52.218.0.1", 443)}


def test_nothing_but_the_configuration_is_looked_at(
    store: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with web_server(serves(b'{"AccessKeyId": "other", "SecretAccessKey": "other", "Token": "other"}')) as trap:
        trap_url = f"http://127.0.0.1:{trap.port}"
        (tmp_path / ".aws").mkdir()
        for name in ("credentials", "config"):
            (tmp_path / ".aws" / name).write_text(
                f"[default]\naws_access_key_id = other\naws_secret_access_key = other\nendpoint_url = {trap_url}\n"
            )
        variables = {
            "HOME": str(tmp_path),
            "AWS_ACCESS_KEY_ID": "other",
            "AWS_SECRET_ACCESS_KEY": "other",
            "AWS_SESSION_TOKEN": "other",
            "AWS_PROFILE": "missing",
            "AWS_CONFIG_FILE": str(tmp_path / ".aws" / "config"),
            "AWS_REGION": "ap-south-1",
            "AWS_DEFAULT_REGION": "ap-south-1",
            "AWS_ENDPOINT_URL": trap_url,
            "AWS_ENDPOINT_URL_S3": trap_url,
            "AWS_CA_BUNDLE": str(tmp_path / "missing.pem"),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": trap_url,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": trap_url,
            "HTTP_PROXY": trap_url,
            "http_proxy": trap_url,
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert get(store).data == PICTURE
        # And where the configuration's key is not good, no other one is tried.
        refused(client(store, secret_access_key="s3cr3t"), "credentials")
        with web_server(serves(PICTURE)) as server:
            get_one = S3Client(S3Settings.model_validate(elsewhere(server.port))).get
            assert get_one("pictures", "a", MOST, 5.0).data == PICTURE
    authorization = server.visits[0].headers["authorization"]
    assert "Credential=reader/" in authorization
    assert "/us-east-1/s3/" in authorization
    assert "x-amz-security-token" not in server.visits[0].headers
    assert trap.connections == 0


def test_signatures_are_in_no_log(store: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        get(store)
    mine = [record.getMessage() for record in caplog.records if record.name.startswith(("visaged", "botocore.auth"))]
    assert not [line for line in mine if "ignature" in line or store.reader.id in line or "face.jpg" in line]


def test_without_the_package(store: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "botocore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "botocore", None)
    assert "pip install 'visaged[s3]'" in refused(client(store), "disabled")


def test_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue_server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with web_server(serves(PICTURE), tls=context) as server:
        keys = elsewhere(server.port, endpoint=f"https://localhost:{server.port}")
        good = S3Client(S3Settings.model_validate(keys | {"ca_file": authority.certificate}))
        assert good.get("pictures", "a", MOST, 5.0).data == PICTURE
        text = refused(S3Client(S3Settings.model_validate(keys)), "unreachable")
    # Strangers are not told where the storage is; the owner is.
    assert "localhost" not in text
    assert f"https://localhost:{server.port} has a certificate that is not accepted" in caplog.text
    assert len(server.visits) == 1


def error_answer(status: str, code: str) -> Any:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>a/face.jpg</Message></Error>".encode()
    return lambda visit: visit.answer(status, body)


@pytest.mark.parametrize(
    ("answer", "reason", "text", "visits"),
    [
        (error_answer("403 Forbidden", "RequestTimeTooSkewed"), "credentials", "clock", 1),
        (error_answer("403 Forbidden", "AccessDenied"), "credentials", "may not read", 1),
        (error_answer("403 Forbidden", "SomethingNew"), "credentials", "not accepted", 1),
        (error_answer("400 Bad Request", "InvalidAccessKeyId"), "credentials", "access_key_id", 1),
        (error_answer("400 Bad Request", "AuthorizationHeaderMalformed"), "status", "region", 1),
        (error_answer("301 Moved Permanently", "PermanentRedirect"), "status", "region", 1),
        (error_answer("307 Temporary Redirect", "TemporaryRedirect"), "status", "region", 1),
        (error_answer("404 Not Found", "NoSuchKey"), "not_found", "no such object", 1),
        (error_answer("503 Slow Down", "SlowDown"), "status", "SlowDown", 2),
        (error_answer("500 Internal Server Error", "InternalError"), "status", "InternalError", 2),
        (error_answer("418 I'm a teapot", "a" * 100), "status", "418", 1),
        (lambda visit: visit.answer("302 Found", Location="http://169.254.169.254/"), "status", "302", 1),
        (lambda visit: visit.answer("200 OK", b"", Content_Encoding="gzip"), "status", "gzip", 1),
        (lambda visit: visit.send(b"nonsense\r\n\r\n"), "unreachable", "cannot be reached", 2),
    ],
)
def test_what_storage_answers(answer: Any, reason: str, text: str, visits: int) -> None:
    with web_server(answer) as server:
        one = S3Client(S3Settings.model_validate(elsewhere(server.port)))
        assert text in refused(one, reason)
        assert len(server.visits) == visits


def test_trouble_that_passes() -> None:
    def first_fails(visit: Visit) -> None:
        visit.answer(*(("503 Slow Down",) if len(server.visits) == 1 else ("200 OK", PICTURE)))

    with web_server(first_fails) as server:
        one = S3Client(S3Settings.model_validate(elsewhere(server.port)))
        assert one.get("pictures", "a", MOST, 5.0).data == PICTURE


def test_aws_chunked_is_no_packing() -> None:
    with web_server(lambda visit: visit.answer("200 OK", PICTURE, Content_Encoding="aws-chunked")) as server:
        one = S3Client(S3Settings.model_validate(elsewhere(server.port)))
        found = one.get("pictures", "a", MOST, 5.0)
    assert found == S3Object(PICTURE, len(PICTURE), "", None, None)


def test_storage_that_drips_or_gushes() -> None:
    def drips(visit: Visit) -> None:
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not visit.stopping.wait(0.05):
            visit.send(b"a")

    def gushes(visit: Visit) -> None:
        visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n77359400\r\n")
        while not visit.stopping.is_set():
            visit.send(bytes(1_000_000))

    def gushes_errors(visit: Visit) -> None:
        visit.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        while not visit.stopping.is_set():
            visit.send(bytes(1_000_000))

    with web_server({"/drips/a": drips, "/gushes/a": gushes, "/errors/a": gushes_errors}) as server:
        one = S3Client(S3Settings.model_validate(elsewhere(server.port)))
        began = time.monotonic()
        assert "0.5 s" in refused(one, "timeout", bucket="drips", key="a", timeout_s=0.5)
        assert time.monotonic() - began < 2.0
        tracemalloc.start()
        try:
            refused(one, "too_large", bucket="gushes", key="a")
            refused(one, "status", bucket="errors", key="a")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 12e6
    assert not [thread for thread in threading.enumerate() if thread.name == "fetch look-up"]
