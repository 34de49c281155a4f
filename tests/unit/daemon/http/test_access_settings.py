"""The configuration of keys and TLS: what is refused, and what the text tells to do."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from tests.support.certificates import Certificates
from visaged.daemon.config.document import SettingsError
from visaged.daemon.config.tls import TlsSettings
from visaged.daemon.http.keys import hash_key, make_key
from visaged.daemon.settings import check, parse, warnings

HASH = "0123456789abcdef" * 4


def problems_of(http: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(SettingsError) as caught:
        parse({"http": http})
    return {problem.path: problem.text for problem in caught.value.problems}


def key(name: str = "shop", **changes: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hash_key(make_key().encode()), **changes}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "box.example", ""])
def test_beyond_loopback_there_are_keys(host: str) -> None:
    text = problems_of({"host": host})["http"]
    for way_out in ("visaged key NAME", "127.0.0.1", "without_keys"):
        assert way_out in text
    assert parse({"http": {"host": host, "keys": [key()]}}).http.host == host
    assert parse({"http": {"host": host, "without_keys": True}}).http.host == host


def test_keys_may_be_wanted_on_loopback_too() -> None:
    assert parse({"http": {"keys": [key()]}}).http.keys[0].name == "shop"


def test_keys_and_no_keys_is_a_contradiction() -> None:
    assert "drop one" in problems_of({"keys": [key()], "without_keys": True})["http"]


@pytest.mark.parametrize("value", [True, False, None])
def test_the_old_way_out_names_the_new_one(value: object) -> None:
    text = problems_of({"host": "0.0.0.0", "allow_remote": value})["http"]
    assert "allow_remote" in text
    assert "without_keys: true" in text
    assert "visaged key NAME" in text


@pytest.mark.parametrize(
    ("changes", "path", "text"),
    [
        ({"sha256": make_key()}, "http.keys[0].sha256", "not the key"),
        ({"sha256": "0" * 63}, "http.keys[0].sha256", "64 hexadecimal digits"),
        ({"sha256": ""}, "http.keys[0].sha256", "visaged key"),
        ({"sha256": int("1" * 64)}, "http.keys[0].sha256", "string"),
        ({"name": "two words"}, "http.keys[0].name", "two words"),
        ({"name": "-"}, "http.keys[0].name", "pattern"),
        ({"name": True}, "http.keys[0].name", "quote it"),
        ({"max_per_second": 0}, "http.keys[0].max_per_second", "greater than or equal to 0.001"),
        ({"max_per_second": float("nan")}, "http.keys[0].max_per_second", ""),
        ({"max_at_once": 0}, "http.keys[0].max_at_once", "greater than or equal to 1"),
        ({"burst": 3}, "http.keys[0]", "max_per_second"),
        ({"key": "x"}, "http.keys[0].key", "not a known key"),
    ],
)
def test_keys_that_cannot_be(changes: dict[str, Any], path: str, text: str) -> None:
    found = problems_of({"keys": [key(**changes)]})
    assert set(found) == {path}
    assert text in found[path]


def test_hashes_may_be_written_in_capitals() -> None:
    assert parse({"http": {"keys": [key(sha256=HASH.upper())]}}).http.keys[0].sha256 == HASH


def test_keys_differ() -> None:
    assert "same name (a)" in problems_of({"keys": [key("a"), key("b"), key("a")]})["http.keys"]
    double = [key("a", sha256=HASH), key("b", sha256=HASH.upper()), key("c")]
    assert "same sha256 (a, b)" in problems_of({"keys": double})["http.keys"]


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates.create(tmp_path / "tls")


def tls_problem(certificate: Path, private: Path) -> str:
    settings = parse({"http": {"tls": {"certificate": str(certificate), "key": str(private)}}})
    found = {problem.path: problem.text for problem in check(settings)}
    assert set(found) == {"http.tls"}
    return found["http.tls"]


def test_good_tls_files(certificates: Certificates) -> None:
    pair = certificates.server
    settings = parse({"http": {"tls": {"certificate": str(pair.certificate), "key": str(pair.key)}}})
    assert not check(settings)
    assert not warnings(settings)


def test_tls_takes_both_files() -> None:
    assert problems_of({"tls": {"certificate": "a"}}) == {"http.tls.key": "is missing"}
    assert set(problems_of({"tls": True})) == {"http.tls"}


def test_tls_files_that_are_missing_or_something_else(certificates: Certificates, tmp_path: Path) -> None:
    pair = certificates.server
    absent, noise = tmp_path / "absent.pem", tmp_path / "noise.pem"
    noise.write_bytes(b"\xff\x00noise")
    assert tls_problem(absent, pair.key) == f"certificate {absent} cannot be read: No such file or directory"
    assert tls_problem(pair.certificate, absent) == f"key {absent} cannot be read: No such file or directory"
    assert "Is a directory" in tls_problem(tmp_path, pair.key)
    assert "BEGIN CERTIFICATE" in tls_problem(noise, pair.key)
    assert "BEGIN PRIVATE KEY" in tls_problem(pair.certificate, noise)
    assert "BEGIN CERTIFICATE" in tls_problem(pair.key, pair.key)
    assert "BEGIN PRIVATE KEY" in tls_problem(pair.certificate, pair.certificate)
    cut = tmp_path / "cut.pem"
    cut.write_bytes(pair.certificate.read_bytes()[:200])
    assert str(cut) in tls_problem(cut, pair.key)


def test_a_key_of_another_certificate(certificates: Certificates) -> None:
    text = tls_problem(certificates.server.certificate, certificates.client.key)
    assert "does not belong to" in text
    assert str(certificates.client.key) in text


def test_a_key_with_a_password_is_not_asked_for(certificates: Certificates, tmp_path: Path) -> None:
    private = serialization.load_pem_private_key(certificates.server.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    text = tls_problem(certificates.server.certificate, locked)
    assert "has a password" in text
    assert "openssl pkey" in text


def test_certificates_that_clients_will_refuse_are_warnings(certificates: Certificates, tmp_path: Path) -> None:
    old = certificates.authority.issue_server("old", is_expired=True)
    settings = parse({"http": {"tls": {"certificate": str(old.certificate), "key": str(old.key)}}})
    assert not check(settings)
    (warning,) = warnings(settings)
    assert warning.path == "http.tls.certificate"
    assert "has expired" in warning.text
    pair = certificates.client
    assert "purpose" in str(TlsSettings(certificate=pair.certificate, key=pair.key).warning())
    # What comes after the server's own certificate is another's affair.
    chain = tmp_path / "chain.pem"
    shutil.copyfile(certificates.server.certificate, chain)
    with chain.open("ab") as file:
        file.write(certificates.ca.read_bytes())
    assert TlsSettings(certificate=chain, key=certificates.server.key).warning() is None


def test_certificates_that_end_soon_are_warnings(certificates: Certificates) -> None:
    pair = certificates.server  # it is good for 30 days
    tls = TlsSettings(certificate=pair.certificate, key=pair.key)
    assert tls.warning(time.time() + 14 * 86400) is None
    assert "ends in 10 days" in str(tls.warning(time.time() + 20 * 86400))


def test_keys_without_tls_are_a_warning_beyond_loopback() -> None:
    found = warnings(parse({"http": {"host": "0.0.0.0", "keys": [key()]}}))
    assert [warning.path for warning in found] == ["http.tls"]
    assert "unencrypted" in found[0].text
    assert not warnings(parse({"http": {"keys": [key()]}}))
    assert not warnings(parse({"http": {"host": "0.0.0.0", "without_keys": True}}))
