"""What a request to the OSS endpoint means, ranges, and errors as XML."""

from __future__ import annotations

import base64
from typing import Any
from xml.etree import ElementTree

import pytest

from visaged.daemon.api.aliyun_oss.errors import STATUSES, OssError, error_response
from visaged.daemon.api.aliyun_oss.objects import byte_range
from visaged.daemon.api.aliyun_oss.requests import HostRouter, read_request

NAMES = HostRouter(["oss.example.com", "example.com", "localhost"], {"pictures.example.org": "photos"})


def scope(path: bytes, host: str = "127.0.0.1:8081", query: bytes = b"", **headers: str) -> dict[str, Any]:
    pairs = [(b"host", host.encode()), *((name.encode(), value.encode()) for name, value in headers.items())]
    return {
        "type": "http",
        "scheme": "http",
        "method": "GET",
        "raw_path": path,
        "query_string": query,
        "headers": pairs,
    }


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("photos.oss.example.com", "photos"),
        ("photos.oss.example.com:8081", "photos"),
        ("PHOTOS.OSS.Example.COM.", "photos"),
        ("photos.example.com", "photos"),
        ("photos.localhost:1", "photos"),
        ("a.b.oss.example.com", "a.b"),
        ("pictures.example.org", "photos"),
        ("oss.example.com", "oss"),  # a bucket of that name below example.com
        ("example.com", None),
        (".example.com", None),
        ("photosexample.com", None),
        ("localhost:8081", None),
        ("127.0.0.1", None),
        ("[::1]:8081", None),
        ("", None),
    ],
)
def test_which_bucket_a_host_names(host: str, bucket: str | None) -> None:
    assert NAMES.bucket(host) == bucket


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("", True),
        ("127.0.0.1:8081", True),
        ("[::1]:8081", True),
        ("10.0.0.1", True),
        ("localhost", True),
        ("photos.localhost", True),
        ("oss.example.com:1", True),
        ("pictures.example.org", True),
        ("example.org", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
        ("evil", False),
    ],
)
def test_which_hosts_are_known(host: str, known: bool) -> None:
    assert NAMES.knows(host) is known


@pytest.mark.parametrize(
    ("path", "bucket", "key"),
    [
        (b"/photos/a.jpg", "photos", b"a.jpg"),
        (b"/photos/a%2Fb.jpg", "photos", b"a/b.jpg"),
        (b"/photos/a/b.jpg", "photos", b"a/b.jpg"),
        (b"/photos/a%252Fb.jpg", "photos", b"a%2Fb.jpg"),
        (b"/photos/a+b%20c%2B.jpg", "photos", b"a+b c+.jpg"),
        (b"/photos//a.jpg", "photos", b"/a.jpg"),
        (b"/photos/%2Fa.jpg", "photos", b"/a.jpg"),
        (b"/photos/a/", "photos", b"a/"),
        (b"/photos/../a", "photos", b"../a"),
        (b"/photos/%E5%A5%B3", "photos", "女".encode()),
        (b"/photos/%", "photos", b"%"),
        (b"/photos/", "photos", b""),
        (b"/photos", "photos", b""),
        (b"/", None, b""),
        (b"/p%68otos/a", "photos", b"a"),
    ],
)
def test_which_key_a_path_names(path: bytes, bucket: str | None, key: bytes) -> None:
    request = read_request(scope(path), NAMES)
    assert (request.bucket, request.key) == (bucket, key)
    under = read_request(scope(path, "photos.localhost"), NAMES)
    assert under.bucket == "photos"
    assert under.key == b"photos/" + key if bucket and path.count(b"/") > 1 else True


def test_the_query() -> None:
    request = read_request(scope(b"/b/k", query=b"a=1+2%2B3&b&=x&c=%E5%A5%B3&a=4&&d=="), NAMES)
    assert request.query == (
        (b"a", b"1 2+3"), (b"b", b""), (b"", b"x"), (b"c", "女".encode()), (b"a", b"4"), (b"d", b"="),
    )  # fmt: skip
    assert request.argument(b"a") == b"1 2+3"
    assert request.argument(b"b") == b""
    assert request.argument(b"absent") is None


def test_paths_that_are_none() -> None:
    for path in (b"", b"*", b"photos/a"):
        with pytest.raises(OssError, match="slash"):
            read_request(scope(path), NAMES)


def test_keys_that_are_none() -> None:
    for path, text in ((b"/b/%ff", "UTF-8"), (b"/b/" + b"a" * 1024, "1023")):
        with pytest.raises(OssError, match=text):
            read_request(scope(path), NAMES).key_text()
    assert read_request(scope(b"/b/" + b"a" * 1023), NAMES).key_text() == "a" * 1023


@pytest.mark.parametrize(
    ("header", "size", "standard", "found"),
    [
        (b"", 10, False, None),
        (b"bytes=0-0", 10, False, (0, 1)),
        (b" bytes=3- ", 10, False, (3, 7)),
        (b"bytes=-3", 10, False, (7, 3)),
        (b"bytes=0-10", 10, False, None),
        (b"bytes=0-10", 10, True, (0, 10)),
        (b"bytes=-11", 10, False, None),
        (b"bytes=-11", 10, True, (0, 10)),
        (b"bytes=0-", 0, False, None),
        (b"bytes=99999999999999999999999-", 10, True, None),
    ],
)
def test_ranges(header: bytes, size: int, standard: bool, found: tuple[int, int] | None) -> None:
    assert byte_range(header, size, standard) == found


@pytest.mark.parametrize(
    ("header", "size"), [(b"bytes=10-", 10), (b"bytes=-0", 10), (b"bytes=0-", 0), (b"bytes=-1", 0)]
)
def test_ranges_that_cannot_be(header: bytes, size: int) -> None:
    with pytest.raises(OssError) as caught:
        byte_range(header, size, True)
    assert caught.value.status == 416


def test_errors() -> None:
    for code, status in STATUSES.items():
        response = error_response(OssError(code, "a < b & c \x00\x0b"), "A" * 24, "h\x1b<", False)
        assert response.status_code == status
        root = ElementTree.fromstring(bytes(response.body))
        assert root.findtext("Code") == code
        assert root.findtext("Message") == "a < b & c ??"
        assert root.findtext("HostId") == "h?<"
        assert root.findtext("EC") == response.headers["x-oss-ec"]
    response = error_response(OssError("NoSuchKey", "gone", {"Key": "k" * 9000}), "A" * 24, "h", True)
    assert response.body == b""
    root = ElementTree.fromstring(base64.b64decode(response.headers["x-oss-err"]))
    assert root.findtext("Code") == "NoSuchKey"
    assert len(response.headers["x-oss-err"]) < 1000
