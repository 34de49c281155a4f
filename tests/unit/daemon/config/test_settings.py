"""The configuration: what is refused, where it says the trouble is, and that no secret is ever shown."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.certificates import Certificates
from visaged.daemon.config.base import is_loopback
from visaged.daemon.config.document import SettingsError, read
from visaged.daemon.logs.destinations import RotatedFile
from visaged.daemon.settings import Settings, check, load, parse, warnings
from visaged.models.manifest import WEIGHTS, Head

SECRET = "s3cr3t-hunter2"
CAMERA = {"name": "door", "url": "rtsp://camera.example/1"}


def problems_of(document: dict[str, Any]) -> dict[str, str]:
    """The problems that parsing finds, by path; the paths of a wrong document are unique here."""
    with pytest.raises(SettingsError) as caught:
        parse(document)
    return {problem.path: problem.text for problem in caught.value.problems}


def world_problems(document: dict[str, Any]) -> dict[str, str]:
    """The problems that `check` finds in a document that parses."""
    return {problem.path: problem.text for problem in check(parse(document))}


def trouble(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        load(path)
    return str(caught.value)


def cameras(*changes: dict[str, Any]) -> dict[str, Any]:
    return {"cameras": [{**CAMERA, "name": f"camera{index}", **change} for index, change in enumerate(changes)]}


def test_files_with_a_cameras_authorities(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    certificates = Certificates.create(tmp_path / "ca")
    files = [certificates.ca, tmp_path / "text.pem", tmp_path / "gone.pem"]
    assert world_problems(cameras(*({"tls": {"ca_file": str(file)}} for file in files))) == {
        "cameras[1].tls.ca_file": f"{files[1]} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)",
        "cameras[2].tls.ca_file": f"{files[2]} cannot be read: No such file or directory",
    }


def test_nothing_is_a_configuration() -> None:
    settings = parse({})
    assert settings.cameras == []
    assert settings.http.host == "127.0.0.1"
    assert settings.node
    assert not check(settings)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"camera": []}, "camera"),
        ({"http": {"prot": 1}}, "http.prot"),
        ({"mqtt": {"tls": {"ca": "x"}}}, "mqtt.tls.ca"),
        (cameras({}, {"frames": 3}), "cameras[1].frames"),
        ({"tracker": {"lost_seconds": 3}}, "tracker.lost_seconds"),
        ({"tracker": {"motion": {"speed": 3}}}, "tracker.motion.speed"),
        ({"models": {"analyser": None}}, "models.analyser"),
        ({"log": {"path": "x"}}, "log.path"),
        ({"http": {"keys": [{"name": "a", "sha256": "0" * 64, "rate": 1}]}}, "http.keys[0].rate"),
        ({"http": {"tls": {"certificate": "a", "key": "b", "ca": "c"}}}, "http.tls.ca"),
    ],
)
def test_unknown_keys_are_refused_by_their_path(document: dict[str, Any], path: str) -> None:
    assert problems_of(document) == {
        path: "is not a known key; look for a spelling mistake (`visaged schema` lists all keys)"
    }


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"cameras": {"name": "a"}}, "cameras"),
        ({"cameras": ["rtsp://h/1"]}, "cameras[0]"),
        (cameras({"fps": "fast"}), "cameras[0].fps"),
        (cameras({}, {"url": 3}), "cameras[1].url"),
        (cameras({}, {"loop": "perhaps"}), "cameras[1].loop"),
        (cameras({"attributes": ["age"]}), "cameras[0].attributes"),
        (cameras({"attributes": {"age": 3}}), "cameras[0].attributes.age"),
        ({"min_confidence": 0.5}, "min_confidence"),
        ({"min_confidence": {"age": 1.01}}, "min_confidence.age"),
        (cameras({"min_confidence": {"age": -0.01}}), "cameras[0].min_confidence.age"),
        (cameras({"min_confidence": {"age": "high"}}), "cameras[0].min_confidence.age"),
        (cameras({"options": {"probesize": 3}}), "cameras[0].options.probesize"),
        ({"http": None}, "http"),
        ({"http": {"port": "eighty"}}, "http.port"),
        ({"http": {"port": 8080.5}}, "http.port"),
        ({"http": {"max_megapixels": float("nan")}}, "http.max_megapixels"),
        ({"node": 3}, "node"),
        ({"models": {"manifest": 3}}, "models.manifest"),
        ({"tracker": {"lost_s": "long"}}, "tracker.lost_s"),
        ({"tracker": {"confirm_hits": 1.5}}, "tracker.confirm_hits"),
        ({"tracker": {"motion": {"memory_s": "q"}}}, "tracker.motion.memory_s"),
        ({"tracker": []}, "tracker"),
    ],
)
def test_wrong_types_are_refused_by_their_path(document: dict[str, Any], path: str) -> None:
    assert set(problems_of(document)) == {path}


@pytest.mark.parametrize(
    ("document", "path", "text"),
    [
        ({"http": {"port": 65536}}, "http.port", "65535"),
        ({"http": {"port": -1}}, "http.port", "0"),
        ({"mqtt": {"port": 0}}, "mqtt.port", "1"),
        ({"mqtt": {"prefix": "a/#"}}, "mqtt.prefix", "a/#"),
        ({"mqtt": {"protocol": "4"}}, "mqtt.protocol", "'4'"),
        ({"mqtt": {"host": ""}}, "mqtt.host", ""),
        ({"mqtt": {"host": "two words"}}, "mqtt.host", "not a host"),
        ({"log": {"level": "loud"}}, "log.level", "'loud'"),
        (cameras({"fps": 0}), "cameras[0].fps", "greater than or equal to 0.001"),
        (cameras({"name": "front door"}), "cameras[0].name", "front door"),
        (cameras({"name": "a/b"}), "cameras[0].name", "a/b"),
        (cameras({"url": ""}), "cameras[0].url", "empty"),
        (cameras({}, {"url": "ftp://h/1"}), "cameras[1].url", "'ftp' is not supported"),
        (cameras({"url": "rtsp:///1"}), "cameras[0].url", "no host"),
        (cameras({"url": "rtsp://h:99999/1"}), "cameras[0].url", "not a valid URL"),
        ({"cameras": [{"url": "rtsp://h/1"}]}, "cameras[0].name", "is missing"),
        ({"tracker": {"lost_s": -1}}, "tracker.lost_s", "greater than or equal to 0.001"),
        ({"tracker": {"confirm_confidence": 5}}, "tracker.confirm_confidence", "less than or equal to 1"),
        ({"tracker": {"lost_s": float("inf")}}, "tracker.lost_s", "finite"),
        ({"log": {"max_mb": float("inf")}}, "log.max_mb", "finite"),
        ({"tracker": {"low_confidence": 0.9}}, "tracker", "low_confidence"),
        ({"inference": {"min_confidence": -0.1}}, "inference.min_confidence", "greater than or equal to 0"),
        ({"kit": {"min_confidence": 1.1}}, "kit.min_confidence", "less than or equal to 1"),
        ({"inference": {"provider": "rocm"}}, "inference.provider", "rocm"),
        ({"mqtt": {"tls": {"cert_file": "a"}}}, "mqtt.tls", "belong together"),
    ],
)
def test_values_that_cannot_be_are_refused(document: dict[str, Any], path: str, text: str) -> None:
    found = problems_of(document)
    assert set(found) == {path}
    assert text in found[path]


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (
            "broker:1883",
            "is a host with a port, and only a host belongs here; write host: broker, port: 1883 under mqtt",
        ),
        ("[::1]:8883", 'write host: "::1", port: 8883 under mqtt'),
        ("127.0.0.1:1883", "write host: 127.0.0.1, port: 1883 under mqtt"),
        ("mqtt://broker", "is a URL, and only a host belongs here; write host: broker under mqtt"),
        ("mqtt://broker:1884/", "write host: broker, port: 1884 under mqtt"),
        ("mqtts://broker.lan:8883", "write host: broker.lan, port: 8883, tls: {} under mqtt"),
        ("mqtt://[fe80::1]:1883", 'write host: "fe80::1", port: 1883 under mqtt'),
        (f"mqtt://user:{SECRET}@broker", "write host: broker, username and password_file under mqtt"),
        (f"user:{SECRET}@broker", "is a login, and only a host belongs here; write host: broker, username"),
        ("broker/path", "is a host with a path, and only a host belongs here; write host: broker under mqtt"),
    ],
)
def test_more_than_a_host_says_what_to_write(host: str, words: str) -> None:
    found = problems_of({"mqtt": {"host": host}})
    assert set(found) == {"mqtt.host"}
    assert words in found["mqtt.host"]
    assert SECRET not in found["mqtt.host"]


@pytest.mark.parametrize(
    ("written", "host"),
    [("[::1]", "::1"), ("::1", "::1"), ("fe80::1%eth0", "fe80::1%eth0"), ("broker.lan", "broker.lan"), ("::", "::")],
)
def test_a_host_may_be_written_with_the_brackets_of_urls(written: str, host: str) -> None:
    assert parse({"mqtt": {"host": written}}).mqtt.host == host


def test_all_problems_are_told_at_once() -> None:
    document = {"http": {"port": -1}, "colour": "red", **cameras({"fps": 0, "loop": 7})}
    assert set(problems_of(document)) == {"http.port", "colour", "cameras[0].fps", "cameras[0].loop"}


def test_names_are_unique() -> None:
    assert "named a, b" in problems_of({"cameras": [{**CAMERA, "name": name} for name in "abcba"]})["cameras"]
    clash = problems_of({"node": "door", "cameras": [CAMERA]})
    assert "node's name too" in clash["cameras"]


def test_a_camera_named_like_the_host_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "door.example.org")
    assert "node's name too" in problems_of({"cameras": [CAMERA]})["cameras"]
    assert parse({"node": "other", "cameras": [CAMERA]}).node == "other"


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("", False),
        ("127.0.0.1.example.org", False),
        ("127.example.org", False),
    ],
)
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local


@pytest.mark.parametrize(
    "keys",
    [
        {"host": "broker.example"},
        {"tls": {}},
        {"username": "u"},
        {"username": "u", "password": "p"},
        {"protocol": "5"},
    ],
)
def test_the_embedded_broker_is_a_small_one(keys: dict[str, Any]) -> None:
    assert "embedded broker" in problems_of({"mqtt": {"embedded": True, **keys}})["mqtt"]


@pytest.mark.parametrize("prefix", ["/homeassistant", "homeassistant/", "home/+", "#", "home assistant", ""])
def test_the_prefix_of_home_assistant_is_the_beginning_of_a_topic(prefix: str) -> None:
    assert "mqtt.home_assistant.prefix" in problems_of({"mqtt": {"home_assistant": {"prefix": prefix}}})


@pytest.mark.parametrize(
    ("prefix", "found", "is_right"),
    [
        ("visaged", "homeassistant", True),
        ("visaged", "visaged", False),
        ("visaged", "visaged/ha", False),
        ("a/b", "a", True),
        ("visaged", "visaged2", True),
        ("homeassistant/visaged", "homeassistant", True),
    ],
)
def test_home_assistant_looks_elsewhere_than_below_the_prefix(prefix: str, found: str, is_right: bool) -> None:
    document = {"mqtt": {"prefix": prefix, "home_assistant": {"enabled": True, "prefix": found}}}
    if is_right:
        parse(document)
        return
    assert f"home_assistant.prefix ({found})" in problems_of(document)["mqtt"]
    document["mqtt"]["home_assistant"]["enabled"] = False  # type: ignore[index]
    parse(document)


@pytest.mark.parametrize("where", ["mqtt", "cameras[0]"])
def test_one_password_and_a_user_to_it(where: str) -> None:
    def problem(login: dict[str, Any]) -> str:
        document = {"mqtt": login} if where == "mqtt" else cameras(login)
        found = problems_of(document)
        assert set(found) == {where}
        return found[where]

    assert "not password and password_env" in problem({"username": "u", "password": "a", "password_env": "B"})
    assert "not password_file and password_env" in problem({"username": "u", "password_file": "a", "password_env": "B"})
    assert "password is empty; leave it out" in problem({"username": "u", "password": ""})
    for name in ("password", "password_file", "password_env"):
        assert problem({name: "x"}) == f"{name} is given, but no username"


def test_passwords_come_from_files_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\nmore\n")
    monkeypatch.setenv("VISAGED_TEST_PASSWORD", SECRET)
    document = cameras(
        {"username": "u", "password_file": str(file)},
        {"username": "u", "password_env": "VISAGED_TEST_PASSWORD"},
        {"username": "u", "password": SECRET},
        {"username": "u"},
    )
    settings = parse(document)
    assert [camera.login() for camera in settings.cameras] == [("u", SECRET)] * 3 + [("u", None)]
    assert not check(settings)


def test_passwords_that_cannot_be_had_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISAGED_TEST_PASSWORD", raising=False)
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    found = world_problems(
        {
            "mqtt": {"username": "u", "password_env": "VISAGED_TEST_PASSWORD"},
            **cameras(
                {"username": "u", "password_file": str(tmp_path / "absent")},
                {"username": "u", "password_file": str(tmp_path / "empty")},
                {"username": "u", "password_file": str(tmp_path / "binary")},
                {"username": "u", "password_file": str(tmp_path)},
            ),
        }
    )
    assert "environment variable VISAGED_TEST_PASSWORD (password_env) is not set, or empty" in found["mqtt"]
    assert "No such file" in found["cameras[0]"]
    assert "is empty" in found["cameras[1]"]
    assert "not UTF-8 text" in found["cameras[2]"]
    assert "directory" in found["cameras[3]"]


def test_files_of_cameras_must_be_there(tmp_path: Path, demo_clip: Path) -> None:
    found = world_problems(
        cameras(
            {"url": str(demo_clip)},
            {"url": str(tmp_path / "absent.mp4")},
            {"url": str(tmp_path)},
            {"url": (tmp_path / "absent.mp4").as_uri()},
        )
    )
    assert set(found) == {"cameras[1].url", "cameras[2].url", "cameras[3].url"}
    assert "does not exist" in found["cameras[1].url"]
    assert "is not a file" in found["cameras[2].url"]


def test_tls_files_must_be_what_they_say(tmp_path: Path) -> None:
    certificates = Certificates.create(tmp_path / "tls")
    assert not world_problems({"mqtt": {"tls": {"ca_file": str(certificates.ca)}}})
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("not a certificate")
    for path in (tmp_path / "absent.pem", wrong):
        found = world_problems({"mqtt": {"tls": {"ca_file": str(path)}}})
        assert set(found) == {"mqtt.tls"}
        assert str(path) in found["mqtt.tls"]
    pair, other = certificates.client, certificates.server
    mixed = {"cert_file": str(pair.certificate), "key_file": str(other.key)}
    assert "cert_file" in world_problems({"mqtt": {"tls": mixed}})["mqtt.tls"]


def manifest_copy(folder: Path, **changes: Any) -> Path:
    """A manifest beside links to the real networks, with changed fields of its detector's entry."""
    document = yaml.safe_load((WEIGHTS / "manifest.yaml").read_text())
    for entry in document["models"]:
        target = folder / entry["file"]
        shutil.copyfile(WEIGHTS / entry["file"], target)
    document["models"][0] |= changes
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_good_manifest_elsewhere_is_taken(tmp_path: Path) -> None:
    assert not world_problems({"models": {"manifest": str(manifest_copy(tmp_path))}})


def test_missing_truncated_and_exchanged_networks_are_told_apart(tmp_path: Path) -> None:
    manifest = manifest_copy(tmp_path)
    model = tmp_path / yaml.safe_load(manifest.read_text())["models"][0]["file"]
    whole = model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2])
    found = world_problems({"models": {"manifest": str(manifest)}})
    assert set(found) == {"models.detector"}
    assert hashlib.sha256(whole[: len(whole) // 2]).hexdigest() in found["models.detector"]
    model.unlink()
    found = world_problems({"models": {"manifest": str(manifest)}})
    assert "No such file" in found["models.detector"]
    wrong = manifest_copy(tmp_path, sha256="0" * 64)
    assert "0" * 64 in world_problems({"models": {"manifest": str(wrong)}})["models.detector"]


def test_manifests_that_cannot_be_used(tmp_path: Path) -> None:
    absent = tmp_path / "absent.yaml"
    assert "No such file" in world_problems({"models": {"manifest": str(absent)}})["models.manifest"]
    broken = tmp_path / "broken.yaml"
    broken.write_text("models: [")
    assert "not YAML" in world_problems({"models": {"manifest": str(broken)}})["models.manifest"]
    found = world_problems({"models": {"detector": "detector-v99", "analyzer": "detector-v4"}})
    assert "no detector named 'detector-v99'" in found["models.detector"]
    assert "no analyzer named 'detector-v4'" in found["models.analyzer"]


def test_switches_of_attributes_that_do_not_exist() -> None:
    found = world_problems(
        {"attributes": {"age": False, "shoe_size": True}, **cameras({"attributes": {"beauty": True, "gender": False}})}
    )
    assert set(found) == {"attributes.shoe_size", "cameras[0].attributes.beauty"}
    assert "known are" in found["attributes.shoe_size"]
    assert "age" in found["attributes.shoe_size"]
    alone = world_problems({"models": {"analyzer": None}, "attributes": {"age": False}})
    assert "there is no analyzer" in alone["attributes.age"]


def test_switches_of_a_camera_win() -> None:
    settings = parse({"attributes": {"age": False}, **cameras({"attributes": {"age": True, "mask": False}}, {})})
    known = {"age", "mask", "gender"}
    assert settings.enabled(known) == {"mask", "gender"}
    assert settings.enabled(known, settings.cameras[0]) == {"age", "gender"}
    assert settings.enabled(known, settings.cameras[1]) == {"mask", "gender"}


HEADS = {
    head.name: head
    for head in (
        Head(name="age", kind="number", output="age", min_confidence=0.3),
        Head(name="charm", kind="score", output="charm"),
        Head(name="spots", kind="points", output="spots", count=3),
    )
}


def test_the_least_confidence_of_an_attribute_is_its_network_s_own_until_said_otherwise() -> None:
    settings = parse({"min_confidence": {"charm": 0.5}, **cameras({"min_confidence": {"age": 0, "charm": 1}}, {})})
    assert parse({}).least(HEADS) == {"age": 0.3, "charm": 0.0}
    assert settings.least(HEADS) == {"age": 0.3, "charm": 0.5}
    assert settings.least(HEADS, settings.cameras[0]) == {"age": 0.0, "charm": 1.0}
    assert settings.least(HEADS, settings.cameras[1]) == {"age": 0.3, "charm": 0.5}


def test_least_confidences_of_attributes_that_do_not_exist() -> None:
    found = world_problems(
        {
            "min_confidence": {"age": 0.5, "shoe_size": 0.5},
            **cameras({"min_confidence": {"beauty": 0.5, "landmarks_106": 0.5}}),
        }
    )
    # The points are no attribute with a confidence.
    expected = {"min_confidence.shoe_size", "cameras[0].min_confidence.beauty"}
    assert set(found) == expected | {"cameras[0].min_confidence.landmarks_106"}
    assert "known are age" in found["min_confidence.shoe_size"]
    alone = world_problems({"models": {"analyzer": None}, "min_confidence": {"age": 0.5}})
    assert "there is no analyzer" in alone["min_confidence.age"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the empty file is fine"),
        ("- a\n- b\n", "holds a list"),
        ("just words", "holds a str"),
        pytest.param("#" + "x" * (1 << 20), "larger than 1 MiB", id="too large"),
        ("http: {port: [}", "line 1"),
        ("a: 1\n b: 2", "line 2"),
        ("\x00", "not YAML"),
        ("http:\n  port: 1\n  port: 2\n", "line 3, column 3: the key 'port' stands twice"),
        ("http: {}\nhttp: {}\n", "the key 'http' stands twice"),
        ("node: 2020-99-99\n", "month must be in 1..12"),
        ("http: {port: " + "9" * 5000 + "}", "line 1, column 14: there is a number with too many digits"),
        ("http: {port: 0x" + "f" * 5000 + "}", "too many digits"),
        ("http: {port: -0b" + "1" * 50_000 + "}", "too many digits"),
        ("http: {port: 1" + ":1" * 40_000 + "}", "too many digits"),
        ("http: {port: 1." + "0" * 5000 + "}", "too many digits"),
        ("http: {port: 0x" + "f" * 300 + "}", "http.port: Input should be less than or equal to 65535"),
        ("http:\n\tport: 1\n", "line 2, column 1: there is a tab; indent with spaces"),
        (
            "a: &a [x, x]\n"
            + "".join(f"b{n}: &b{n} [*{p}, *{p}]\n" for n, p in enumerate(["a", *(f"b{n}" for n in range(30))])),
            "more than 200,000 values",
        ),
        (
            "a: &a {x: 1}\n"
            + "".join(
                f"b{n}: &b{n} {{<<: [*{p}, *{p}]}}\n" for n, p in enumerate(["a", *(f"b{n}" for n in range(30))])
            ),
            "more than 200,000 values",
        ),
        (
            "c: &c {name: a, url: rtsp://h/1, fps: 1, loop: false}\ncameras: [" + "*c," * 60_000 + "]\n",
            "more than 200,000 values",
        ),
        ("cameras: [" + "1," * 5000 + "]", "there are 4900 more problems"),
        ("[" * 3000, "nested too deeply"),
        ("? [a]\n: 3\n", "unhashable key"),
        ("node: !!python/object/apply:os.getcwd []", "not YAML"),
        ("1: 2\n", "has a key that is no text"),
        ("yes: 2\n", "has a key that is no text"),
        ("http: {on: 2}\n", "http: has a key that is no text"),
        ("min_confidence: {yes: 0.5}\n", "min_confidence: has a key that is no text"),
        ("cameras: [{name: a, url: b, attributes: {no: true}}]\n", "cameras[0].attributes: has a key that is no"),
        ("node: &a [*a]\n", "valid string"),
        ("node: !!set [a]\n", "line 1, column 7: this is no mapping"),
        ("node: !!map\n- a\n", "this is no mapping"),
        ("node: !!timestamp {=: x}\n", "line 1, column 7: this is no value of its kind"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "visaged.yaml"
    path.write_text(text)
    if not text:
        assert load(path) == Settings()
        return
    assert expected in trouble(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in trouble(tmp_path / "absent.yaml")
    assert "directory" in trouble(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("node: Küche".encode("latin-1"))
    assert "not UTF-8" in trouble(latin)


@pytest.mark.parametrize(
    "text", ['http: {tls: {certificate: "a\\0b", key: x}}', '"a\\0b": 1', 'mqtt: {tls: {ca_file: "\\0"}}']
)
def test_nul_is_nowhere(tmp_path: Path, text: str) -> None:
    path = tmp_path / "visaged.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"line 1, column \d+: there is a NUL character"):
        load(path)


def test_yaml_merge_keys_work(tmp_path: Path) -> None:
    path = tmp_path / "visaged.yaml"
    path.write_text(
        """
        cameras:
          - &front {name: front, url: rtsp://h/1, fps: 3}
          - &back {<<: *front, name: back}
          - {<<: *back, name: side, fps: 7}
        """
    )
    assert [(camera.name, camera.fps) for camera in load(path).cameras] == [("front", 3), ("back", 3), ("side", 7)]
    assert [camera["name"] for camera in read(path)["cameras"]] == ["front", "back", "side"]


@pytest.mark.parametrize(
    "text",
    [
        f"mqtt: {{username: u, password: {SECRET}}}",
        f"mqtt: {{password: {SECRET}}}",
        f"mqtt: {{username: u, password: [{SECRET}]}}",
        f"mqtt: {{username: u, passwort: {SECRET}}}",
        f"mqtt:\n  username: u\n  password: {SECRET}: x\n",
        f"mqtt:\n  username: u\n  password: *{SECRET}\n",
        f"mqtt:\n  username: u\n  password: !{SECRET} x\n",
        f"mqtt:\n  username: u\n  password: '{SECRET}\n",
        f"mqtt:\n  username: u\n  password: {SECRET}\n  password: {SECRET}\n",
        f"cameras: [{{name: a, url: 'rtsp://u:{SECRET}@h/1'}}]",
        f"cameras: [{{name: a, url: 'ftp://u:{SECRET}@h/1'}}]",
        f"cameras: [{{name: a, url: 'rtsp://u:{SECRET}@h:99999/1'}}]",
        f"cameras: [{{name: a, url: 'rtsp://u:{SECRET}/@h/1'}}]",
        f"cameras: [{{name: a, url: 'rtsp://u:x {SECRET}@h/1'}}]",
        f"cameras: ['rtsp://u:{SECRET}@h/1']",
        f"cameras: [{{name: a, url: rtsp://h, username: u, password: {SECRET}, password_env: X}}]",
        f"cameras: [{{name: a, url: rtsp://h/x, fps: 0, username: u, password: {SECRET}}}]",
        f"cameras: [{{name: a, url: '/absent?password={SECRET}'}}]",
        f"http: {{keys: [{{name: a, sha256: {SECRET}}}]}}",
        f"http: {{keys: [{{name: a, sha256: [{SECRET}]}}]}}",
        f"http: {{keys: [{{name: a, sha256: '{SECRET}', max_at_once: 0}}]}}",
    ],
)
def test_secrets_are_never_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "visaged.yaml"
    path.write_text(text)
    try:
        settings = load(path)
    except SettingsError as error:
        shown = [str(error), repr(error), *map(str, error.problems)]
    else:
        shown = [*map(str, check(settings))]
        if "password: " in text:
            shown += [repr(settings), str(settings), settings.model_dump_json()]
    assert SECRET not in " ".join(shown)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"http": {"port": True}}, "http.port"),
        ({"cameras": [{"name": "a", "url": "rtsp://h/x", "fps": True}]}, "cameras[0].fps"),
        ({"cameras": [{"name": "a", "url": "rtsp://h/x", "hardware": False}]}, "cameras[0].hardware"),
    ],
)
def test_yamls_booleans_are_no_numbers_and_no_words(document: dict[str, Any], path: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(document)
    assert [problem.path for problem in caught.value.problems] == [path]
    assert "quote it" in str(caught.value)


def test_plain_rtp_comes_with_a_warning() -> None:
    cameras = [{"name": "a", "url": "rtsp://h/1"}, {"name": "b", "url": "rtp://239.0.0.1:5004"}]
    (warning,) = warnings(parse({"cameras": cameras}))
    assert warning.path == "cameras[1].url"
    assert "SDP" in warning.text


def test_a_log_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a reader
    for file, text in (
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "is a pipe"),
        (tmp_path / "no" / "log", "no folder"),
    ):
        found = world_problems({"log": {"file": str(file)}})
        assert set(found) == {"log.file"}
        assert text in found["log.file"]
    assert not world_problems({"log": {"file": str(tmp_path / "log")}})


@pytest.mark.parametrize(("keep", "files"), [(0, 1), (1, 2)])
def test_the_log_that_is_checked_can_be_written(tmp_path: Path, keep: int, files: int) -> None:
    settings = parse({"log": {"file": str(tmp_path / "log"), "max_mb": 0.001, "keep": keep}}).log
    file = RotatedFile(tmp_path / "log", round(settings.max_mb * 2**20), settings.keep, pytest.fail)
    for number in range(300):
        file(f"line {number}")
    file.close()
    assert len(list(tmp_path.iterdir())) == files
    assert all(path.stat().st_size < 1100 for path in tmp_path.iterdir())
