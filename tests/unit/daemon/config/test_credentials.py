"""Secrets that systemd gives to a service, as files of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from visaged.daemon.cli.main import app
from visaged.daemon.config.tls import TlsError, TlsSettings
from visaged.daemon.settings import check, parse
from visaged.pipelines.outputs.mqtt.config import TlsConfig

SECRET = "s3cr3t-hunter2"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the credentials are."""
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "mqtt-password").write_text(f"{SECRET}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    return tmp_path / "credentials"


def login(name: str) -> dict[str, Any]:
    return {"username": "visaged", "password_file": f"credential:{name}"}


def test_a_password_may_be_a_credential(folder: Path) -> None:
    settings = parse({"mqtt": login("mqtt-password"), "cameras": [{"name": "a", "url": "rtsp://h/", **login("a")}]})
    (folder / "a").write_text("other")
    assert settings.mqtt.login() == ("visaged", SECRET)
    assert settings.cameras[0].login() == ("visaged", "other")
    assert check(settings) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mqtt", "the service has no credential mqtt: name it in LoadCredential"),
        ("../mqtt-password", "'../mqtt-password' cannot be the name of a credential"),
        ("/etc/passwd", "'/etc/passwd' cannot be"),
        ("", "'' cannot be"),
        (".", "'.' cannot be"),
    ],
)
def test_a_name_that_is_wrong(folder: Path, name: str, said: str) -> None:
    (problem,) = check(parse({"mqtt": login(name)}))
    assert problem.path == "mqtt"
    assert said in problem.text


def test_outside_of_the_service_the_check_says_that_it_cannot_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    tls = {"certificate": "credential:certificate", "key": "credential:key"}
    config = tmp_path / "visaged.yaml"
    config.write_text(yaml.safe_dump({"mqtt": login("mqtt-password"), "http": {"tls": tls}}))
    done = CliRunner().invoke(app, ["check", str(config)])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "not checked: mqtt: password_file credential:mqtt-password cannot be read: there are no credent" in said
    assert "not checked: http.tls: certificate credential:certificate cannot be read" in said
    config.write_text(
        yaml.safe_dump({"mqtt": login("mqtt-password"), "http": {"tls": tls}, "models": {"detector": "x"}})
    )
    assert CliRunner().invoke(app, ["check", str(config)]).exit_code == 2


def test_certificates_and_keys_may_be_credentials(folder: Path) -> None:
    for name in ("certificate", "key"):
        (folder / name).write_text("no PEM")
    with pytest.raises(TlsError, match="key credential:key holds no private key in PEM form"):
        TlsSettings.model_validate({"certificate": "credential:certificate", "key": "credential:key"}).context()
    with pytest.raises(OSError, match="the service has no credential ca"):
        TlsConfig.model_validate({"ca_file": "credential:ca"}).context()
