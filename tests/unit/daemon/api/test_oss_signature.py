"""OSS's signatures by the examples of its documents and of its own clients' tests."""

from __future__ import annotations

import hashlib

import pytest

from visaged.daemon.api.aliyun_oss.errors import OssError
from visaged.daemon.api.aliyun_oss.requests import OssRequest
from visaged.daemon.api.aliyun_oss.signature import (
    SUBRESOURCES,
    Verifier,
    canonical_request_v4,
    signature_v1,
    signature_v4,
    string_to_sign_v1,
)

SCOPE = "20231216/cn-hangzhou/oss/aliyun_v4_request"
DATE = b"20231216T162057Z"
SIGNED_S = 1702743657.0

V4_REQUEST = OssRequest(
    "PUT",
    "bucket",
    b"1234+-/123/1.txt",
    (
        (b"param1", b"value1"),
        (b"+param1", b"value3"),
        (b"|param1", b"value4"),
        (b"+param2", b""),
        (b"|param2", b""),
        (b"param2", b""),
    ),
    (
        (b"x-oss-head1", b"value"),
        (b"abc", b"value"),
        (b"zabc", b"value"),
        (b"xyz", b"value"),
        (b"content-type", b"text/plain"),
        (b"x-oss-content-sha256", b"UNSIGNED-PAYLOAD"),
        (b"x-oss-date", DATE),
    ),
    "bucket.oss-cn-hangzhou.aliyuncs.com",
)


def signed(request: OssRequest, authorization: str) -> OssRequest:
    headers = (*request.headers, (b"authorization", authorization.encode()))
    return OssRequest(request.method, request.bucket, request.key, request.query, headers, request.host)


def test_the_example_of_version_1() -> None:
    """Alibaba Cloud, "Include a signature in the Authorization header": PUT nelson to oss-example."""
    date = b"Thu, 17 Nov 2005 18:49:58 GMT"
    request = OssRequest(
        "PUT",
        "oss-example",
        b"nelson",
        (),
        (
            (b"content-md5", b"ODBGOERFMDMzQTczRUY3NUE3NzA5QzdFNUYzMDQxNEM="),
            (b"content-type", b"text/html"),
            (b"date", date),
            (b"x-oss-meta-author", b"foo@bar.com"),
            (b"x-oss-magic", b"abracadabra"),
        ),
        "",
    )
    secret = "OtxrzxIsfpFjA7SwPzILwy8Bw21TLhquhboDYROV"
    assert signature_v1(secret, string_to_sign_v1(request, date)) == "26NBxoKdsyly4EDv6inkoDft/yA="
    verifier = Verifier({"44CF9590006BF252F707": secret}, None, lambda: 1132253398.0)
    assert verifier.verify(signed(request, "OSS 44CF9590006BF252F707:26NBxoKdsyly4EDv6inkoDft/yA="))


def test_the_example_of_version_4() -> None:
    """The one that the tests of all of Alibaba Cloud's own clients share."""
    canonical = canonical_request_v4(V4_REQUEST, V4_REQUEST.query, ())
    text = f"OSS4-HMAC-SHA256\n{DATE.decode()}\n{SCOPE}\n{hashlib.sha256(canonical).hexdigest()}".encode()
    expected = "e21d18daa82167720f9b1047ae7e7f1ce7cb77a31e8203a7d5f4624fa0284afe"
    assert signature_v4("sk", SCOPE, text) == expected
    verifier = Verifier({"ak": "sk"}, "cn-hangzhou", lambda: SIGNED_S)
    assert verifier.verify(signed(V4_REQUEST, f"OSS4-HMAC-SHA256 Credential=ak/{SCOPE},Signature={expected}"))
    spaced = f"OSS4-HMAC-SHA256 Credential=ak/{SCOPE}, Signature={expected}"
    assert verifier.verify(signed(V4_REQUEST, spaced))


def test_what_version_1_signs() -> None:
    query = ((b"x-oss-process", b"imm/detectface"), (b"other", b"1"), (b"acl", b""), (b"security-token", b"a b"))
    headers = ((b"x-oss-b", b"2"), (b"date", b"then"), (b"x-oss-a", b"1"))
    request = OssRequest("GET", "b-c-d", "a b+/女".encode(), query, headers, "")
    assert string_to_sign_v1(request, b"then").decode() == (
        "GET\n\n\nthen\nx-oss-a:1\nx-oss-b:2\n/b-c-d/a b+/女?acl&security-token=a b&x-oss-process=imm/detectface"
    )
    assert string_to_sign_v1(OssRequest("GET", None, b"", (), (), ""), b"").endswith(b"\n/")
    assert {b"x-oss-process", b"response-content-type", b"uploadId"} <= SUBRESOURCES


def test_what_version_4_signs() -> None:
    request = OssRequest("GET", "b-c-d", "a b+/女~".encode(), ((b"k", b"a/b c"),), ((b"host", b"h"),), "h")
    assert canonical_request_v4(request, request.query, ("host",)).decode() == (
        "GET\n/b-c-d/a%20b%2B/%E5%A5%B3~\nk=a%2Fb%20c\nhost:h\n\nhost\nUNSIGNED-PAYLOAD"
    )


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (f"OSS4-HMAC-SHA256 Credential=ak/{SCOPE},Signature={'0' * 64}", "SignatureDoesNotMatch"),
        (f"OSS4-HMAC-SHA256 Credential=ak/{SCOPE},Signature=\xff", "SignatureDoesNotMatch"),
        (f"OSS4-HMAC-SHA256 Credential=ak/{SCOPE}", "SignatureDoesNotMatch"),
        (f"OSS4-HMAC-SHA256 Credential=who/{SCOPE},Signature=0", "InvalidAccessKeyId"),
        (f"OSS4-HMAC-SHA256 Credential=ak/{SCOPE.replace('1216', '1217')},Signature=0", "InvalidArgument"),
        (f"OSS4-HMAC-SHA256 Credential=ak/{SCOPE.replace('hangzhou', 'beijing')},Signature=0", "InvalidArgument"),
        (f"OSS4-HMAC-SHA256 Credential=ak/{SCOPE.replace('oss', 's3')},Signature=0", "InvalidArgument"),
        ("OSS4-HMAC-SHA256 Credential=ak,Signature=0", "InvalidArgument"),
        ("OSS ak:0", "SignatureDoesNotMatch"),
        ("OSS ak:", "SignatureDoesNotMatch"),
        ("OSS :", "InvalidAccessKeyId"),
    ],
)
def test_bad_signatures(authorization: str, code: str) -> None:
    verifier = Verifier({"ak": "sk-which-nobody-may-see"}, "cn-hangzhou", lambda: SIGNED_S)
    with pytest.raises(OssError) as caught:
        verifier.verify(signed(V4_REQUEST, authorization))
    assert caught.value.code == code
    assert "nobody-may-see" not in str(caught.value) + str(caught.value.details)


def test_without_keys_no_signature_counts() -> None:
    assert Verifier({}, None, lambda: 0.0).verify(signed(V4_REQUEST, "OSS nobody:nothing")) is False
    assert Verifier({"ak": "sk"}, None, lambda: 0.0).verify(V4_REQUEST) is False


@pytest.mark.parametrize(
    ("key", "query", "is_plain"),
    [
        (b"a.jpg", ((b"security-token", b"t"), (b"x-oss-process", b"imm/detectface")), True),
        (b"a.jpg", ((b"security-token", b"t&x-oss-process=imm/detectface"),), False),
        (b"a.jpg", ((b"response-content-language", b"en&x-oss-process"),), False),
        (b"a.jpg", ((b"response-content-disposition", b"attachment; filename=salt&style.jpg"),), True),
        (b"a.jpg", ((b"prefix", b"a&x-oss-process=b"),), True),  # which is not signed
        (b"a.jpg?x-oss-process=imm/detectface", (), False),
        (b"q?x=1&y=2.jpg", (), True),
    ],
)
def test_version_1_signs_one_request_and_no_other(
    key: bytes, query: tuple[tuple[bytes, bytes], ...], is_plain: bool
) -> None:
    bare = OssRequest("GET", "bucket", key, query, (), "localhost")
    signature = signature_v1("secret", string_to_sign_v1(bare, b"2000000000")).encode()
    login = ((b"OSSAccessKeyId", b"id"), (b"Expires", b"2000000000"), (b"Signature", signature))
    in_query = OssRequest("GET", "bucket", key, query + login, (), "localhost")
    date = b"Thu, 17 Nov 2005 18:49:58 GMT"
    signature = signature_v1("secret", string_to_sign_v1(bare, date)).encode()
    headers = ((b"date", date), (b"authorization", b"OSS id:" + signature))
    in_header = OssRequest("GET", "bucket", key, query, headers, "localhost")
    verifier = Verifier({"id": "secret"}, None, lambda: 1132253398.0)
    for request in (in_query, in_header):
        if is_plain:
            assert verifier.verify(request)
        else:
            with pytest.raises(OssError, match="version 4") as caught:
                verifier.verify(request)
            assert caught.value.code == "InvalidArgument"
