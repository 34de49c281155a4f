"""What is planted in a configuration, in the right place or a wrong one, is in no error and no state."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.daemon.config.schema import leaves
from visaged.daemon.config.document import SettingsError
from visaged.daemon.management.api import _public
from visaged.daemon.settings import Settings, check, load, parse, warnings
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.errors import explain

SECRETS = ("hunter2", "987/hunter2", "987#hunter2", "hun ter2@x:y/z?")
SHAPES = (
    "rtsp://admin:{}@cam.local/1", "mqtt://user:{}@broker:1883/", "user:{}@broker", "http://cam/a?psw={}&n=1",
    "rtsp://cam/channel=1_password={}", "https://h/a#token={}", "rtsp:/admin:{}@cam",
)  # fmt: skip
ADDRESSES = [shape.format(secret) for shape in SHAPES for secret in SECRETS if "://" in shape or " " not in secret]


def texts(document: Any, folder: Path) -> Iterator[str]:
    """Everything that a check of a configuration prints."""
    path = folder / "visaged.yaml"
    path.write_text(yaml.safe_dump(document))
    try:
        settings = load(path)
    except SettingsError as error:
        yield str(error)
        for problem in error.problems:
            yield f"{problem.path} {problem.text}"
        return
    for problem in check(settings) + warnings(settings):
        yield f"{problem.path} {problem.text}"


def leaks(text: str) -> bool:
    return re.search(r"hunter2|987|hun ter2", text) is not None


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_url_with_a_login_is_repeated_for_no_key(address: str, tmp_path: Path) -> None:
    # All keys at once: a second each is too much, and every problem is found.
    wrong: dict[str, Any] = {}
    for path in leaves(Settings):
        place: Any = wrong
        *above, last = path
        for part in above:
            place = place.setdefault(part, {})
        place[last] = address
    wrong["cameras"] = [{"name": address, "url": "rtsp://cam/1", address: 1, "fps": address, "options": {"a": 5}}]
    wrong["fetch"] |= {"allow": [address], "deny": [address]}
    for part in ("mqtt", "http", "fetch", "oss", "models", "log"):
        for text in texts({part: wrong[part]}, tmp_path):
            assert not leaks(text), text
    for text in texts(wrong, tmp_path):
        assert not leaks(text), text
    for document in ({address: 1}, [address], {"cameras": [address]}, {"http": {address: {address: 1}}}):
        for text in texts(document, tmp_path):
            assert not leaks(text), text


@pytest.mark.parametrize("key", ["host", "prefix"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_the_broker_is_not_repeated(address: str, key: str, tmp_path: Path) -> None:
    for text in texts({"mqtt": {key: address}}, tmp_path):
        assert not leaks(text), text


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_camera_shows_its_url_without_secrets(address: str, tmp_path: Path) -> None:
    for text in texts({"cameras": [{"name": "a", "url": address}]}, tmp_path):
        assert not leaks(text), text
    try:
        camera = parse({"cameras": [{"name": "a", "url": address}]}).cameras[0]
    except SettingsError:
        return
    assert not leaks(str(_public(camera)))
    source = SourceConfig(url=camera.url)
    for error in (OSError(5, address), RuntimeError(f"cannot open {address}"), ConnectionError(address)):
        assert not leaks(str(explain(error, source, opened=False))), address


def test_a_key_that_stands_twice_may_be_a_url(tmp_path: Path) -> None:
    path = tmp_path / "visaged.yaml"
    path.write_text("rtsp://admin:hunter2@cam/1: 1\nrtsp://admin:hunter2@cam/1: 2\n")
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert "stands twice" in str(caught.value)
    assert "hunter2" not in str(caught.value)
