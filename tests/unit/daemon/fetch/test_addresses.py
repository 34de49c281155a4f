"""What URLs point at, in all the ways that they can be written, and which addresses are public."""

# ruff: noqa: RUF001 - characters that look like others are what is tested

from __future__ import annotations

import ipaddress
from ipaddress import ip_address

import pytest

from visaged.daemon.fetch.addresses import destination, judge, parse
from visaged.daemon.fetch.errors import FetchError
from visaged.daemon.fetch.urls import parse as parse_url
from visaged.daemon.fetch.urls import parse_s3, scheme_of

PUBLIC = ["8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.0", "100.63.255.255", "100.128.0.0", "192.0.1.1",
          "198.17.255.255", "223.255.255.255", "2606:4700::1111", "2a00:1450:4001::1", "2001:200::1", "2620:fe::fe",
          "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]  # fmt: skip
INTERNAL = ["127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1",
            "100.127.255.255", "192.0.0.1", "192.0.0.9", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1",
            "198.19.255.255", "192.88.99.1", "::1", "fc00::1", "fdff::1", "fec0::1", "::7f00:1", "::8.8.8.8",
            "2001:db8::1", "3fff::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1",
            "2001:20::1", "2002:7f00:1::", "2002:808:808::1", "64:ff9b:1::7f00:1", "64:ff9b:1::808:808", "100::1",
            "100:0:0:1::1", "5f00::1", "4000::1", "::ffff:0:127.0.0.1",
            "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::10.1.2.3"]  # fmt: skip
NEVER = ["169.254.169.254", "169.254.170.2", "169.254.0.1", "168.63.129.16", "100.100.100.200", "192.0.0.192",
         "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "fe80::1",
         "febf::1", "ff02::1", "ff0e::1", "fd00:ec2::254", "fd20:ce::254", "::ffff:169.254.169.254",
         "64:ff9b::a9fe:a9fe", "64:ff9b::", "::ffff:0.0.0.0"]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *((text, "public") for text in PUBLIC),
        *((text, "internal") for text in INTERNAL),
        *((t, "never") for t in NEVER),
    ],
)
def test_kinds_of_addresses(text: str, kind: str) -> None:
    assert judge(ip_address(text))[0] == kind


def test_whatever_python_knows_to_be_special_is_not_public() -> None:
    for text in PUBLIC:
        address = destination(ip_address(text))
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved
    # What this Python's own list has, and its version may have less than ours.
    constants = [getattr(ipaddress, name) for name in ("_IPv4Constants", "_IPv6Constants")]
    networks = [network for c in constants for network in c._private_networks]
    assert len(networks) > 20
    for network in networks:
        for address in (network[0], network[-1]):
            assert judge(address)[0] != "public" or address.is_global, address


def test_a_resolver_may_give_zones() -> None:
    assert judge(parse("fe80::1%eth0"))[0] == "never"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0X7F000001", "127.0.0.1"),
        ("0x7f.0x0.0x0.0x1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("10.65535", "10.0.255.255"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("4294967295", "255.255.255.255"),
        ("0251.0376.0251.0376", "169.254.169.254"),
        ("127。0。0。1", "127.0.0.1"),
        ("127．0．0．1", "127.0.0.1"),
        ("127｡0｡0｡1", "127.0.0.1"),
        ("１２７.０.０.１", "127.0.0.1"),
        ("①②⑦.⓪.⓪.①", "127.0.0.1"),
        ("①⑥⑨。②⑤④。①⑥⑨。②⑤④", "169.254.169.254"),
        ("𝟙𝟚𝟟.𝟘.𝟘.𝟙", "127.0.0.1"),
        ("0ⓧ7f.1", "127.0.0.1"),
        ("127.0.0\u00ad.1", "127.0.0.1"),
        ("127.0.0\u200b.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
        ("[64:FF9B::127.0.0.1]", "64:ff9b::7f00:1"),
    ],
)
def test_addresses_in_disguise_are_addresses(host: str, address: str) -> None:
    assert parse_url(f"http://{host}/x").host == ip_address(address)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("EXAMPLE.com", "example.com"),
        ("example.com.", "example.com"),
        ("ｅｘａｍｐｌｅ.ｃｏｍ", "example.com"),
        ("ⓔⓧⓐⓜⓟⓛⓔ.ⓒⓞⓜ", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "localhost"),
        ("my_camera.lan", "my_camera.lan"),
        ("1.example", "1.example"),
        ("0x7f.example", "0x7f.example"),
    ],
)
def test_names_have_one_spelling(host: str, name: str) -> None:
    assert parse_url(f"https://{host}").host == name


@pytest.mark.parametrize(
    "url",
    [
        "",
        "picture.jpg",
        "//example.com/a",
        "http:/example.com/a",
        "http:example.com",
        "http://",
        "http:///a",
        "http://:80/",
        "http://?a",
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "http://example.com@127.0.0.1/",
        "http://127.0.0.1#@example.com:80@example.com/".replace("#", "%23"),
        "http://example.com\\@127.0.0.1/",
        "http:\\\\127.0.0.1\\",
        "http://127.0.0.1\t/",
        "ht\ntp://example.com/",
        " http://example.com/",
        "http://exa mple.com/",
        "http://example.com/a b",
        "http://example.com/\r\nX-Header: 1",
        "http://%31%32%37.0.0.1/",
        "http://example%2ecom/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[v1.fe80]/",
        "http://[::1/",
        "http://::1/",
        "http://[127.0.0.1]/",
        "http://[::1]x/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:-1/",
        "http://example.com:８０/",
        "http://example.com:80:80/",
        "http://a..b/",
        "http://.example.com/",
        "http://-a.example/",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a.bc" * 100 + "/",
        "http://256.0.0.1/",
        "http://1.2.3.4.5/",
        "http://4294967296/",
        "http://1.2.3.08/",
        "http://1_0.0.0.1/",
        "http://1.2.3.0x1g/x".replace("0x1g", "-1"),
        "http://example.1/",
        "http://exam℀ple.com/",
        "http://a／b.example/",
        "http://a＠b.example/",
        "http://\u202eexample.com/",
        "http://xn--\u00e9.example/",
        "http://example.com/\ud800",
        "http://example.com/" + "a" * 8192,
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "javascript:alert(1)",
        "data:image/png;base64,AAAA",
    ],
)
def test_what_is_no_url_of_a_picture(url: str) -> None:
    with pytest.raises(FetchError) as caught:
        parse_url(url)
    assert caught.value.reason == "bad_url"
    assert "secret" not in str(caught.value)
    assert "passwd" not in str(caught.value)


def test_schemes() -> None:
    assert scheme_of("S3://bucket/key") == "s3"
    assert scheme_of("HTTPS://example.com/") == "https"
    for url in ("/etc/passwd", "file:///etc/passwd", "http:picture.jpg", f"data:image/png;base64,{'A' * 10_000}", ""):
        with pytest.raises(FetchError, match="start with https://, http:// or s3://"):
            scheme_of(url)
    with pytest.raises(FetchError, match="start with https:// or http://"):
        parse_url("minio:9000")


def test_parts() -> None:
    target = parse_url("HTTPS://Example.COM:8443/a%20b/ü?x=1&y=#part")
    assert (target.scheme, target.host, target.port) == ("https", "example.com", 8443)
    assert target.path == "/a%20b/%C3%BC?x=1&y="
    assert target.site == "https://example.com:8443"
    assert parse_url("http://example.com?a").path == "/?a"
    assert parse_url("http://example.com").path == "/"
    assert parse_url("http://example.com:80/").authority == "example.com"
    assert parse_url("https://[2606:4700::1111]:80/").authority == "[2606:4700::1111]:80"
    assert parse_url("http://example.com:/").port == 80


@pytest.mark.parametrize(
    ("location", "site", "path"),
    [
        ("/b?c", "https://example.com:8443", "/b?c"),
        ("b", "https://example.com:8443", "/a/b"),
        ("../b", "https://example.com:8443", "/b"),
        ("?q", "https://example.com:8443", "/a/x?q"),
        ("//other.example/b", "https://other.example", "/b"),
        ("http://other.example", "http://other.example", "/"),
        ("/a b/ü", "https://example.com:8443", "/a%20b/%C3%BC"),
        ("http://2130706433/", "http://127.0.0.1", "/"),
    ],
)
def test_redirects_are_resolved(location: str, site: str, path: str) -> None:
    target = parse_url("https://example.com:8443/a/x?y").joined(location)
    assert (target.site, target.path) == (site, path)


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "http://[", "//user@example.com/", "s3://bucket/key", "a\\b"]
)
def test_redirects_that_lead_nowhere(location: str) -> None:
    with pytest.raises(FetchError) as caught:
        parse_url("https://example.com/a").joined(location)
    assert caught.value.reason == "bad_url"


def test_s3_urls() -> None:
    target = parse_s3("S3://my.bucket-1/a b/../ü?x#y%20")
    assert (target.bucket, target.key) == ("my.bucket-1", "a b/../ü?x#y%20")


@pytest.mark.parametrize(
    "url",
    ["s3://", "s3://bucket", "s3://bucket/", "s3:///key", "s3:bucket/key", "s3://Bucket/key", "s3://a/key",
     "s3://user:pass@bucket/key", "s3://bucket:80/key", "s3://evil.com%2f/key", "s3://b..c/key", "s3://b?c/key",
     "s3://bucket/" + "k" * 1025, "s3://bucket/\udc80"],
)  # fmt: skip
def test_what_names_no_object(url: str) -> None:
    with pytest.raises(FetchError) as caught:
        parse_s3(url)
    assert caught.value.reason == "bad_url"
