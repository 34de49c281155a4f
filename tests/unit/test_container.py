"""The files of the container fit each other and the repository. That it is built and starts, no test looks at."""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import dashboard
from visaged.daemon.cli.main import DEMO
from visaged.daemon.settings import check, load

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "container"
CONTAINERFILE = (FOLDER / "Containerfile").read_text()
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROMETHEUS = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
# Made by make-secrets.sh, and in no repository.
SECRETS = FOLDER / "secrets"


def mounts(service: str) -> dict[str, Path]:
    """Files and folders of the repository that a container sees, by their paths there."""
    pairs = [volume.split(":") for volume in SERVICES[service]["volumes"]]
    return {parts[1]: (FOLDER / parts[0]).resolve() for parts in pairs if parts[0].startswith(".")}


def copied() -> list[str]:
    """What the first stage of the build copies from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", CONTAINERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A copy of the folder's script has made its secrets."""
    script = tmp_path / "make-secrets.sh"
    script.write_text((FOLDER / "make-secrets.sh").read_text())
    for _ in range(2):  # the second time it leaves them as they are
        subprocess.run(["sh", str(script)], check=True, capture_output=True, timeout=60)
    return tmp_path / "secrets"


def test_the_build_finds_what_it_copies() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*"
    for source in copied():
        assert (ROOT / source).exists(), source
        lets_in = [line[1:] for line in ignored if line.startswith("!")]
        assert any(source == kept or source.startswith(f"{kept}/") for kept in lets_in), source
        shut_out = [line for line in ignored[1:] if not line.startswith("!")]
        assert not any(fnmatch.fnmatch(source, line) for line in shut_out), source


def test_every_part_of_the_package_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    files = [project["project"]["readme"], *project["project"]["license-files"]]
    assert {*project["tool"]["setuptools"]["package-dir"].values(), *files} <= set(copied())


def test_the_requirements_of_each_variant() -> None:
    spec = importlib.util.spec_from_file_location("requirements", FOLDER / "requirements.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cpu, cuda = module.requirements(project, "cpu"), module.requirements(project, "cuda")
    others = [line for line in project["dependencies"] if not line.startswith("onnxruntime")]
    assert [line for line in cpu if line not in others] == ["onnxruntime>=1.22,<2"]
    assert set(project["dependencies"]) < set(cuda)
    assert any("[cuda,cudnn]" in line for line in cuda)
    assert module.requirements(project, "cpu", ["fleet"]) == [*cpu, *project["optional-dependencies"]["fleet"]]
    for wrong in (["rocm"], ["cpu", "flet"], []):
        command = [sys.executable, str(FOLDER / "requirements.py"), *wrong]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        assert "cpu|cuda" in done.stderr


def test_the_image_is_of_no_root_and_holds_no_secret() -> None:
    user = re.findall(r"^USER (\d+):(\d+)$", CONTAINERFILE, re.MULTILINE)
    assert len(user) == 1
    assert int(user[0][0]) >= 10_000
    assert not re.search(r"(?i)password|index-url|extra-index", CONTAINERFILE)
    assert "STOPSIGNAL SIGTERM" in CONTAINERFILE


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_no_more_than_it_has_to(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert all(COMPOSE["secrets"][secret] for secret in service.get("secrets", []))
    assert not any(re.search("(?i)(password|secret|token)$", key) for key in service.get("environment", {}))
    image = re.fullmatch(r"\$\{\w+:-(?:localhost/visaged|[\w./-]+:v?\d+\.\d+\.\d+)\}", service["image"])
    assert image, f"{service['image']} is not a version, or cannot be replaced"


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_mounts_is_there(name: str) -> None:
    for inside, path in mounts(name).items():
        assert path.exists(), f"{inside}: {path}"
    named = {volume.split(":")[0] for volume in SERVICES[name]["volumes"] if not volume.startswith(".")}
    assert named <= COMPOSE["volumes"].keys()
    assert set(SERVICES[name]["networks"]) <= COMPOSE["networks"].keys()


def test_the_secrets_that_are_asked_for_are_made(secrets: Path) -> None:
    asked = {(FOLDER / secret["file"]).resolve() for secret in COMPOSE["secrets"].values()}
    assert asked == {SECRETS / path.name for path in secrets.iterdir()}
    texts = {path.read_text().strip() for path in secrets.iterdir()}
    assert len(texts) == len(asked)
    assert all(re.fullmatch(r"[\w-]{32}", text) for text in texts)
    assert (secrets.stat().st_mode & 0o777) == 0o700


def test_what_containers_read_can_be_read_by_them(tmp_path: Path) -> None:
    folder = tmp_path / "container"
    folder.mkdir()
    script = folder / "make-secrets.sh"
    script.write_text((FOLDER / "make-secrets.sh").read_text())
    seen = [path for service in SERVICES for path in mounts(service).values()]
    for path in seen:  # as a checkout with a strict umask has them
        copy = folder / os.path.relpath(path, FOLDER)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, copy)
        else:
            shutil.copy(path, copy)
        subprocess.run(["chmod", "-R", "go=", str(copy)], check=True, timeout=60)
    subprocess.run(["sh", str(script)], check=True, capture_output=True, timeout=60)
    for path in seen:
        copy = folder / os.path.relpath(path, FOLDER)
        assert copy.stat().st_mode & 0o044 == 0o044, copy
        assert all(one.stat().st_mode & 0o044 == 0o044 for one in copy.rglob("*")), copy


def test_grafana_asks_nobody_but_prometheus() -> None:
    environment = SERVICES["grafana"]["environment"]
    off = ("ANALYTICS_REPORTING_ENABLED", "ANALYTICS_CHECK_FOR_UPDATES", "ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
           "NEWS_NEWS_FEED_ENABLED")  # fmt: skip
    assert {environment[f"GF_{name}"] for name in off} == {"false"}
    assert environment["GF_PLUGINS_PREINSTALL_DISABLED"] == environment["GF_SECURITY_DISABLE_GRAVATAR"] == "true"


def test_the_configuration_passes_the_check(secrets: Path, tmp_path: Path) -> None:
    text = mounts("visaged")["/etc/visaged/visaged.yaml"].read_text()
    assert "/opt/visaged/demo.mp4" in CONTAINERFILE
    config = tmp_path / "visaged.yaml"
    config.write_text(text.replace("/run/secrets/", f"{secrets}/").replace("/opt/visaged/demo.mp4", str(DEMO)))
    settings = load(config)
    assert check(settings) == []
    assert settings.mqtt.host in SERVICES
    assert str(settings.http.port) in SERVICES["visaged"]["ports"][0].split(":")[1:]
    assert {Path(path).name for path in re.findall(r"^[^#\n]*/run/secrets/(\w+)", text, re.MULTILINE)} <= set(
        SERVICES["visaged"]["secrets"]
    )


def test_prometheus_asks_visaged_by_a_name_that_it_knows() -> None:
    settings = yaml.safe_load(mounts("visaged")["/etc/visaged/visaged.yaml"].read_text())
    (target,) = PROMETHEUS["scrape_configs"][0]["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in SERVICES
    assert host in settings["http"]["hosts"]
    assert int(port) == settings["http"]["port"]
    assert set(SERVICES["visaged"]["networks"]) & set(SERVICES["prometheus"]["networks"])


def test_prometheus_has_the_job_and_the_rules_of_the_example() -> None:
    example = yaml.safe_load((ROOT / "configs/prometheus/prometheus.yml").read_text())
    assert PROMETHEUS["rule_files"] == example["rule_files"]
    assert PROMETHEUS["scrape_configs"][0]["job_name"] == example["scrape_configs"][0]["job_name"]
    rules = mounts("prometheus")["/etc/prometheus/rules"]
    assert list(rules.glob("*.yml"))


def test_grafana_finds_its_source_and_the_dashboard() -> None:
    seen = mounts("grafana")
    (source,) = yaml.safe_load((seen["/etc/grafana/provisioning/datasources"] / "prometheus.yaml").read_text())[
        "datasources"
    ]
    host, port = source["url"].removeprefix("http://").split(":")
    assert SERVICES[host]["ports"][0].endswith(f":{port}")
    assert set(SERVICES["grafana"]["networks"]) & set(SERVICES[host]["networks"])
    (provider,) = yaml.safe_load((seen["/etc/grafana/provisioning/dashboards"] / "visaged.yaml").read_text())[
        "providers"
    ]
    inside = f"{provider['options']['path']}/visaged.json"
    assert seen[inside] == dashboard.PATH
    assert SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == inside


def test_the_variant_for_gpus_refuses_to_go_on_without_one() -> None:
    over = yaml.safe_load((FOLDER / "compose.cuda.yaml").read_text())["services"]["visaged"]
    assert over["build"]["args"] == {"VARIANT": "cuda"}
    assert over["command"][-1] == "--require-gpu"


def test_broker_and_daemon_agree() -> None:
    settings = yaml.safe_load(mounts("visaged")["/etc/visaged/visaged.yaml"].read_text())
    folder = mounts("mosquitto")["/mosquitto/config"]
    rights = (folder / "access.conf").read_text()
    assert f"user {settings['mqtt']['username']}\ntopic write visaged/#" in rights
    start = (folder / "start.sh").read_text()
    assert f"{settings['mqtt']['username']}:mqtt_password" in start
    assert set(re.findall(r":(\w+password)", start)) == set(SERVICES["mosquitto"]["secrets"])
