"""The keys of `oss`, and what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from visaged.daemon.api.aliyun_oss.settings import OssSettings, check

KEY = {"name": "alice", "access_key_id": "AK1", "access_key_secret": "not to be seen"}
S3 = {"endpoint": "http://127.0.0.1:9000", "access_key_id": "a", "secret_access_key": "b"}


def test_defaults() -> None:
    settings = OssSettings()
    assert (settings.enabled, settings.host, settings.port) == (False, "127.0.0.1", 8081)
    assert settings.endpoints == ["localhost"]
    assert check(settings) == []


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"host": "0.0.0.0"}, "there are no keys"),
        ({"host": "192.168.1.5"}, "set host to 127.0.0.1"),
        ({"host": "oss.example.com"}, "there are no keys"),
        ({"port": 70000}, "65535"),
        ({"port": True}, "boolean"),
        ({"colour": 1}, "Extra inputs"),
        ({"endpoints": ["http://oss.example.com"]}, "without scheme, port and path"),
        ({"endpoints": ["oss.example.com:80"]}, "without scheme, port and path"),
        ({"region": "Hangzhou"}, "such as cn-hangzhou"),
        ({"endpoints": ["a.b", "a.b"]}, "more than one is a.b"),
        ({"attributes": {"shoe_size": False}}, "there is no attribute shoe_size; known are age"),
        ({"keys": [KEY, KEY]}, "more than one is named alice"),
        ({"keys": [KEY, KEY | {"name": "bob"}]}, "access_key_id AK1"),
        ({"keys": [KEY | {"access_key_secret_env": "X"}]}, "not access_key_secret and access_key_secret_env"),
        ({"keys": [{"name": "alice", "access_key_id": "a"}]}, "give one of access_key_secret, access_key_secret_file"),
        ({"keys": [KEY | {"access_key_id": "a:b"}]}, "without spaces, commas and colons"),
        ({"keys": [KEY | {"access_key_id": "a b"}]}, "without spaces, commas and colons"),
        ({"keys": [KEY | {"access_key_secret": ""}]}, "empty"),
        ({"buckets": [{"name": "ab", "folder": "."}]}, "3 to 63 lower-case"),
        ({"buckets": [{"name": "With-Capitals", "folder": "."}]}, "3 to 63 lower-case"),
        ({"buckets": [{"name": "a.b.c", "folder": "."}]}, "3 to 63 lower-case"),
        ({"buckets": [{"name": "photos"}]}, "give one of folder, objects and s3, not none"),
        ({"buckets": [{"name": "photos", "folder": ".", "s3": S3}]}, "not folder and s3"),
        ({"buckets": [{"name": "photos", "folder": ".", "s3_bucket": "x"}]}, "but no s3"),
        ({"buckets": [{"name": "photos", "objects": {"": "x"}}]}, "no key"),
        ({"buckets": [{"name": "photos", "folder": "."}] * 2}, "more than one is named photos"),
        (
            {"endpoints": ["a.b"], "buckets": [{"name": "photos", "folder": ".", "domains": ["a.b"]}]},
            "more than one is a.b",
        ),
    ],
)
def test_refusals(document: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        OssSettings.model_validate(document)
    assert says in str(caught.value)


def test_other_machines_need_keys() -> None:
    assert OssSettings.model_validate({"host": "0.0.0.0", "keys": [KEY]}).host == "0.0.0.0"
    assert OssSettings.model_validate({"host": "::1"}).host == "::1"


def test_secrets_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def secret(**key: str) -> str:
        settings = OssSettings.model_validate({"keys": [{"name": "alice", "access_key_id": "AK1"} | key]})
        return settings.keys[0].secret()

    file = tmp_path / "secret"
    file.write_text("from a file\nand more")
    assert secret(access_key_secret_file=str(file)) == "from a file"
    monkeypatch.setenv("OSS_SECRET", "from a variable")
    assert secret(access_key_secret_env="OSS_SECRET") == "from a variable"
    assert secret(access_key_secret="plain") == "plain"
    assert "not to be seen" not in repr(OssSettings.model_validate({"keys": [KEY]}))


def test_what_is_wrong_with_the_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OSS_ABSENT", raising=False)
    empty = tmp_path / "empty"
    empty.write_text("")
    document = {
        "buckets": [
            {"name": "one", "folder": str(tmp_path)},
            {"name": "two", "folder": str(tmp_path / "absent")},
            {"name": "three", "objects": {"a.jpg": str(tmp_path / "absent.jpg")}},
            {"name": "too-long", "folder": f"/{'a' * 5000}"},
            {"name": "too-long-too", "objects": {"a.jpg": f"/{'a' * 5000}"}},
            {"name": "four", "s3": {"access_key_id": "a", "secret_access_key_env": "OSS_ABSENT"}},
        ],
        "keys": [
            {"name": "a", "access_key_id": "a", "access_key_secret_env": "OSS_ABSENT"},
            {"name": "b", "access_key_id": "b", "access_key_secret_file": str(tmp_path / "absent")},
            {"name": "c", "access_key_id": "c", "access_key_secret_file": str(empty)},
            {"name": "d", "access_key_id": "d", "access_key_secret": "d"},
        ],
    }
    found = {problem.path: problem.text for problem in check(OssSettings.model_validate(document))}
    assert set(found) == {
        "oss.buckets[1]", "oss.buckets[2]", "oss.buckets[3]", "oss.buckets[4]", "oss.buckets[5].s3",
        "oss.keys[0]", "oss.keys[1]", "oss.keys[2]",
    }  # fmt: skip
    assert "does not exist" in found["oss.buckets[1]"]
    assert "key a.jpg" in found["oss.buckets[2]"]
    assert "OSS_ABSENT" in found["oss.keys[0]"]
    assert "cannot be read" in found["oss.keys[1]"]
    assert "is empty" in found["oss.keys[2]"]


def test_the_schema_has_the_patterns_for_editors() -> None:
    schema = OssSettings.model_json_schema()
    assert re.fullmatch(schema["properties"]["endpoints"]["items"]["pattern"], "oss.example.com")
    assert re.fullmatch(schema["$defs"]["BucketSettings"]["properties"]["name"]["pattern"], "imm-demo")
