"""The keys of `fetch`, and what they let through."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from visaged.daemon.fetch.errors import FetchError
from visaged.daemon.fetch.policy import Policy
from visaged.daemon.fetch.settings import FetchSettings, S3Settings, check, parse_rule
from visaged.daemon.fetch.urls import parse

KEY = {"access_key_id": "reader", "secret_access_key": "s3cr3t"}


def settings(**keys: Any) -> FetchSettings:
    return FetchSettings.model_validate({"enabled": True} | keys)


def verdict(policy: Policy, url: str, *addresses: str) -> str:
    """Return `yes`, or why not."""
    target = parse(url)
    try:
        policy.admit(target)
        policy.check(target, [ip_address(a) for a in addresses] if isinstance(target.host, str) else [target.host])
        return "yes"
    except FetchError as caught:
        error = caught
    assert error.reason == "forbidden"
    for address in addresses:
        assert address not in str(error), "strangers learn the addresses of this network"
    return str(error)


def test_off_by_default() -> None:
    assert not FetchSettings().enabled
    assert not FetchSettings().public
    assert FetchSettings().ports == [80, 443]


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({}, "from nowhere"),
        ({"allow": ["http://example.com"]}, "no host"),
        ({"allow": ["example.com/path"]}, "no range"),
        ({"allow": ["*"]}, "no host"),
        ({"allow": ["a.*.example"]}, "no host"),
        ({"allow": [""]}, "no host"),
        ({"allow": ["10.0.0.1/8"]}, "host bits"),
        ({"allow": ["127.1"]}, "no host"),
        ({"allow": ["example.com:0"]}, "no port"),
        ({"allow": ["example.com:70000"]}, "no port"),
        ({"allow": ["169.254.169.254"]}, "never"),
        ({"allow": ["fe80::/64"]}, "never"),
        ({"allow": ["fd12::/16:8080"]}, "no range"),
        ({"deny": ["example.com:80"], "public": True}, "port"),
        ({"public": True, "ports": [0]}, "ports"),
        ({"public": True, "schemes": []}, "schemes"),
        ({"public": True, "schemes": ["ftp"]}, "schemes"),
        ({"public": True, "timeout_s": 0}, "timeout_s"),
        ({"public": True, "max_mb": True}, "boolean"),
        ({"public": True, "proxy": "http://proxy"}, "proxy"),
        ({"s3": {"access_key_id": "reader"}}, "give one of"),
        ({"s3": KEY | {"secret_access_key_env": "SECRET"}}, "not secret_access_key and secret_access_key_env"),
        ({"s3": KEY | {"secret_access_key": ""}}, "secret_access_key is empty"),
        ({"s3": KEY | {"endpoint": "minio:9000"}}, "does not start with https:// or http://"),
        ({"s3": KEY | {"endpoint": "http://minio:9000/path"}}, "path"),
        ({"s3": KEY | {"endpoint": "http://user:s3cr3t@minio:9000"}}, "user or password"),
        ({"s3": KEY | {"region": "eu/../"}}, "region"),
    ],
)
def test_what_cannot_be(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text) as caught:
        settings(**keys)
    assert "s3cr3t" not in "".join(error["msg"] for error in caught.value.errors())


def test_s3_alone_is_somewhere() -> None:
    s3 = settings(s3=KEY).s3
    assert s3 is not None
    assert s3.secret() == "s3cr3t"
    assert "s3cr3t" not in repr(s3)


@pytest.mark.parametrize(
    ("text", "name", "is_wildcard", "network", "port"),
    [
        ("Example.COM", "example.com", False, None, None),
        ("bücher.example:8080", "xn--bcher-kva.example", False, None, 8080),
        ("*.example.com", "example.com", True, None, None),
        ("*.example.com:81", "example.com", True, None, 81),
        ("10.0.0.0/8", None, False, "10.0.0.0/8", None),
        ("10.0.0.0/8:9000", None, False, "10.0.0.0/8", 9000),
        ("192.168.1.7:9000", None, False, "192.168.1.7/32", 9000),
        ("fd12::/16", None, False, "fd12::/16", None),
        ("2001:db8::1", None, False, "2001:db8::1/128", None),
        ("[2001:db8::1]:8443", None, False, "2001:db8::1/128", 8443),
    ],
)
def test_entries(text: str, name: str | None, is_wildcard: bool, network: str | None, port: int | None) -> None:
    rule = parse_rule(text)
    assert (rule.name, rule.is_wildcard, rule.port) == (name, is_wildcard, port)
    assert (None if rule.network is None else str(rule.network)) == network


def test_public_only() -> None:
    policy = Policy(settings(public=True))
    assert verdict(policy, "https://example.com/", "8.8.8.8", "2606:4700::1111") == "yes"
    assert verdict(policy, "http://8.8.8.8/") == "yes"
    assert verdict(policy, "http://[64:ff9b::8.8.8.8]/") == "yes"
    # One bad address of a name refuses the name.
    assert "private" in verdict(policy, "https://example.com/", "8.8.8.8", "10.0.0.1")
    assert "loopback" in verdict(policy, "https://example.com/", "2606:4700::1111", "::1")
    assert "metadata" in verdict(policy, "https://example.com/", "169.254.169.254")
    assert "metadata" in verdict(policy, "https://example.com/", "64:ff9b::a9fe:a9fe")
    assert "fetch.ports" in verdict(policy, "https://example.com:22/", "8.8.8.8")
    for host in ("127.0.0.1", "2130706433", "[::ffff:7f00:1]", "[2002:7f00:1::]", "①②⑦.1", "[64:ff9b:1::7f00:1]"):
        assert "nothing is fetched from" in verdict(policy, f"http://{host}/")


def test_listed_hosts() -> None:
    policy = Policy(settings(allow=["pictures.example", "*.cdn.example", "store.example:9000"]))
    assert verdict(policy, "https://pictures.example/", "8.8.8.8") == "yes"
    assert verdict(policy, "https://a.b.cdn.example/", "8.8.8.8") == "yes"
    assert verdict(policy, "http://store.example:9000/", "8.8.8.8") == "yes"
    for url in (
        "https://cdn.example/",
        "https://evilcdn.example/",
        "https://pictures.example.evil.example/",
        "https://www.pictures.example/",
        "http://8.8.8.8/",
    ):
        assert "not in fetch.allow" in verdict(policy, url, "1.1.1.1")
    # A port with an entry is the only one of it.
    assert "nothing is fetched" in verdict(policy, "http://store.example/", "8.8.8.8")
    assert "port" in verdict(policy, "http://pictures.example:9000/", "8.8.8.8")
    # A listed name that points inwards needs the address listed as well.
    assert "private" in verdict(policy, "https://pictures.example/", "192.168.1.7")
    assert "metadata" in verdict(policy, "https://pictures.example/", "169.254.169.254")


def test_listed_ranges() -> None:
    policy = Policy(settings(allow=["192.168.1.0/24", "nas.lan:9000", "[fd12::/16]:8080", "127.0.0.1:8000"]))
    assert verdict(policy, "http://192.168.1.7/") == "yes"
    assert verdict(policy, "http://[::ffff:192.168.1.7]/") == "yes"
    assert verdict(policy, "http://any.lan/", "192.168.1.7") == "yes"
    assert verdict(policy, "http://nas.lan:9000/", "192.168.1.7") == "yes"
    assert verdict(policy, "http://[fd12::1]:8080/") == "yes"
    assert verdict(policy, "http://127.0.0.1:8000/") == "yes"
    assert "nothing is fetched" in verdict(policy, "http://any.lan:9000/", "192.168.1.7")
    assert "nothing is fetched" in verdict(policy, "http://192.168.2.7/")
    assert "nothing is fetched" in verdict(policy, "http://any.lan/", "192.168.1.7", "192.168.2.7")
    assert "nothing is fetched" in verdict(policy, "http://any.lan/", "8.8.8.8")
    assert "nothing is fetched" in verdict(policy, "http://[fd12::1]/")
    assert "nothing is fetched" in verdict(policy, "http://127.0.0.1/")


def test_what_is_never_fetched_from() -> None:
    policy = Policy(settings(allow=["0.0.0.0/0", "::/0"]))
    assert verdict(policy, "http://10.0.0.1/") == "yes"
    assert verdict(policy, "http://8.8.8.8/") == "yes"
    for host in ("169.254.169.254", "0.0.0.0", "224.0.0.1", "[::]", "[fe80::1]", "[fd00:ec2::254]", "168.63.129.16"):
        assert "nothing is fetched from" in verdict(policy, f"http://{host}/")


def test_denied() -> None:
    policy = Policy(settings(public=True, allow=["10.0.0.0/8"], deny=["8.8.8.0/24", "*.example", "10.1.0.0/16"]))
    assert "fetch.deny" in verdict(policy, "http://8.8.8.8/")
    assert "fetch.deny" in verdict(policy, "http://[64:ff9b::8.8.8.8]/")
    assert "fetch.deny" in verdict(policy, "http://name.test/", "1.1.1.1", "8.8.8.8")
    assert "fetch.deny" in verdict(policy, "http://a.example/", "1.1.1.1")
    assert "fetch.deny" in verdict(policy, "http://10.1.2.3/")
    assert verdict(policy, "http://10.2.2.3/") == "yes"


def test_schemes() -> None:
    policy = Policy(settings(public=True, schemes=["https"]))
    assert "fetch.schemes" in verdict(policy, "http://example.com/", "8.8.8.8")
    assert verdict(policy, "https://example.com/", "8.8.8.8") == "yes"


def test_a_name_without_addresses() -> None:
    with pytest.raises(FetchError, match="no address"):
        Policy(settings(public=True)).check(parse("http://example.com/"), [])


def test_secrets_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    of_file = S3Settings(access_key_id="reader", secret_access_key_file=file)
    with pytest.raises(ValueError, match="cannot be read"):
        of_file.secret()
    file.write_text("")
    with pytest.raises(ValueError, match="is empty"):
        of_file.secret()
    file.write_text("s3cr3t\n")
    assert of_file.secret() == "s3cr3t"
    of_variable = S3Settings(access_key_id="reader", secret_access_key_env="STORE_SECRET")
    with pytest.raises(ValueError, match="STORE_SECRET"):
        of_variable.secret()
    monkeypatch.setenv("STORE_SECRET", "s3cr3t")
    assert of_variable.secret() == "s3cr3t"


def test_check_names_what_is_missing(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    s3 = {"access_key_id": "reader", "secret_access_key_file": missing, "ca_file": missing}
    problems = check(settings(public=True, ca_file=missing, s3=s3))
    assert [problem.path for problem in problems] == ["fetch.ca_file", "fetch.s3.ca_file", "fetch.s3"]
    assert all("missing" in problem.text for problem in problems)
    assert check(settings(public=True, s3=KEY)) == []
