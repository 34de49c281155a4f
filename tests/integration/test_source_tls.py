"""Cameras behind TLS: only a camera whose certificate is good gets a request, and with it the login."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from pathlib import Path

import pytest

from tests.integration.test_cameras import Rig
from tests.integration.test_source_jpegs import picture
from tests.support.certificates import Authority, KeyPair
from tests.support.http_server import serves, web_server
from tests.support.odd_servers import tcp_server
from tests.support.sources import SourceRun, failure_of

SNAPSHOT = serves(picture(1))
LOGIN = {"credentials": ("eye", "secret")}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> KeyPair:
    return authority.issue_server()


def context(pair: KeyPair) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(pair.certificate, pair.key)
    return made


@pytest.mark.parametrize("scheme", ["https", "rtsps", "rtmps"])
def test_an_unknown_certificate_gets_no_byte(scheme: str, own: KeyPair) -> None:
    heard = []

    def talk(connection: socket.socket, stopping: threading.Event) -> None:
        with context(own).wrap_socket(connection, server_side=True) as stream:
            heard.append(stream.recv(4096))

    with tcp_server(talk) as port:
        error = failure_of(f"{scheme}://127.0.0.1:{port}/live", arguments=LOGIN)
    assert error.cause == "certificate"
    assert "a certificate that is not accepted (unable to get local issuer certificate)" in str(error)
    assert "tls.ca_file" in str(error)
    assert "tls.verify: false" in str(error)
    assert not any(heard)


@pytest.mark.parametrize("kind", ["another host", "expired"])
def test_a_known_authority_does_not_suffice(kind: str, authority: Authority) -> None:
    pair = authority.issue_server("old", is_expired=True) if kind == "expired" else authority.issue_stranger()
    with web_server(SNAPSHOT, tls=context(pair)) as server:
        tls = {"ca_file": str(authority.certificate)}
        error = failure_of(f"https://127.0.0.1:{server.port}/", tls=tls, arguments=LOGIN)
        assert not server.visits
    assert error.cause == "certificate"
    assert ("expired" if kind == "expired" else "IP address mismatch") in str(error)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_authority_of_ones_own(host: str, own: KeyPair, authority: Authority) -> None:
    tls = {"ca_file": str(authority.certificate)}
    with (
        web_server(SNAPSHOT, tls=context(own)) as server,
        SourceRun(f"https://{host}:{server.port}/", fps=20.0, tls=tls) as run,
    ):
        run.wait_for_frames(2)


def test_the_certificate_itself_may_be_named(own: KeyPair) -> None:
    with (
        web_server(SNAPSHOT, tls=context(own)) as server,
        SourceRun(f"https://127.0.0.1:{server.port}/", fps=20.0, tls={"ca_file": str(own.certificate)}) as run,
    ):
        run.wait_for_frames(2)


def test_the_systems_authorities(own: KeyPair, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with (
        web_server(SNAPSHOT, tls=context(own)) as server,
        SourceRun(f"https://127.0.0.1:{server.port}/", fps=20.0) as run,
    ):
        run.wait_for_frames(2)


def test_any_certificate_if_one_insists(own: KeyPair, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with web_server(SNAPSHOT, tls=context(own)) as server, Rig() as rig:
        rig.add(f"https://127.0.0.1:{server.port}/", fps=20.0, tls={"verify": False})
        rig.wait_for_state("streaming")
    assert "camera door: its certificate is not verified (tls.verify is false)" in caplog.text


def test_an_authority_that_vanished(tmp_path: Path, own: KeyPair) -> None:
    with web_server(SNAPSHOT, tls=context(own)) as server:
        tls = {"ca_file": str(tmp_path / "gone.pem")}
        error = failure_of(f"https://127.0.0.1:{server.port}/", tls=tls, arguments=LOGIN)
        assert not server.visits
    assert error.cause == "certificate"
    assert "gone.pem cannot be read: No such file or directory" in str(error)
