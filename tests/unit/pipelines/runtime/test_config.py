"""What holds of every key of the configuration: a description, bounds on types, and no secret in an error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, SecretStr, ValidationError

from visaged.daemon.config.document import SettingsError
from visaged.daemon.config.errors import problems_of
from visaged.daemon.config.secrets import Secret
from visaged.daemon.settings import Settings, load, parse
from visaged.pipelines.runtime.config import HiddenText, NotBoolean, StrictConfig

SECRET = "s3cr3t-hunter2"
SCHEMA = Settings.model_json_schema()


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    return SCHEMA["$defs"][node["$ref"].rpartition("/")[2]] | node if "$ref" in node else node


def keys(node: dict[str, Any], path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every key of the configuration with its schema; an item of a list is 0, a value of a mapping "word"."""
    node = resolved(node)
    for choice in (node, *node.get("anyOf", [])):
        choice = resolved(choice)
        for name, inner in choice.get("properties", {}).items():
            yield (*path, name), resolved(inner)
            yield from keys(inner, (*path, name))
        if "items" in choice:
            yield (*path, 0), resolved(choice["items"])
            yield from keys(choice["items"], (*path, 0))
        if isinstance(choice.get("additionalProperties"), dict):
            yield (*path, "word"), resolved(choice["additionalProperties"])
            yield from keys(choice["additionalProperties"], (*path, "word"))


ALL = dict(keys(SCHEMA))


def types(node: dict[str, Any]) -> set[str]:
    return {resolved(choice).get("type", "") for choice in (node, *node.get("anyOf", []))}


NUMBERS = [path for path, node in ALL.items() if types(node) & {"number", "integer"}]


def document(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A document with one value in it, and else nothing, not even what must be there."""
    for part in reversed(path):
        value = [value] if part == 0 else {part: value}
    assert isinstance(value, dict)
    return value


def problems(path: tuple[str | int, ...], value: Any) -> dict[str, str]:
    with pytest.raises(SettingsError) as caught:
        parse(document(path, value))
    return {problem.path: problem.text for problem in caught.value.problems}


def trouble(document: dict[str, Any]) -> str:
    """What is said of a document; nothing if it is taken."""
    try:
        parse(document)
    except SettingsError as error:
        return str(error)
    return ""


def told(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if part == 0 else f".{part}" if text else str(part)
    return text


def test_there_are_the_keys_that_are_known_to_be_there() -> None:
    for path in (
        ("cameras", 0, "fps"),
        ("tracker", "motion", "memory_s"),
        ("fetch", "ports", 0),
        ("min_confidence", "word"),
        ("oss", "buckets", 0, "s3", "region"),
        ("cameras", 0, "min_confidence", "word"),
    ):
        assert path in ALL
    assert len(NUMBERS) > 60


@pytest.mark.parametrize("path", [path for path in ALL if path[-1] not in (0, "word")], ids=told)
def test_every_key_has_a_description(path: tuple[str | int, ...]) -> None:
    text = ALL[path].get("description", "")
    assert len(text) >= 8
    assert text.endswith((".", "?"))


@pytest.mark.parametrize("path", NUMBERS, ids=told)
@pytest.mark.parametrize("value", [True, False])
def test_no_boolean_is_a_number(path: tuple[str | int, ...], value: bool) -> None:
    if "boolean" in types(ALL[path]):
        pytest.skip("it may be one")
    assert "is a boolean" in problems(path, value)[told(path)]


@pytest.mark.parametrize("path", NUMBERS, ids=told)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_every_number_is_finite(path: tuple[str | int, ...], value: float) -> None:
    assert told(path) in problems(path, value)


def bounds(node: dict[str, Any]) -> tuple[float, float]:
    """Least and largest value of a number."""
    found = next(one for one in (node, *node.get("anyOf", [])) if one.get("type") in ("number", "integer"))
    if "enum" in found or "const" in found:
        return 0.0, 0.0
    return found.get("minimum", found.get("exclusiveMinimum")), found.get("maximum", found.get("exclusiveMaximum"))


@pytest.mark.parametrize("path", NUMBERS, ids=told)
def test_every_number_has_bounds_between_which_it_can_be_computed_with(path: tuple[str | int, ...]) -> None:
    least, most = bounds(ALL[path])
    assert most <= 1e9
    assert least >= -1e9
    node = ALL[path]
    assert not any("exclusiveMinimum" in one for one in (node, *node.get("anyOf", []))), "1e-320 is greater than 0"


HUGE = [1e308, -1e308, 10**5000, -(10**5000), "9" * 5000, "1e400", "0x" + "f" * 5000, 2**63, -(2**63)]


@pytest.mark.parametrize("path", NUMBERS, ids=told)
def test_no_number_is_too_large_for_a_clear_error(path: tuple[str | int, ...]) -> None:
    for value in HUGE:
        text = problems(path, value)[told(path)]
        assert len(text) < 500


SECRETS = [path for path in ALL if str(path[-1]) in ("password", "url", "endpoint", "sha256", "host")] + [
    path for path in ALL if str(path[-1]).endswith("secret") or path[-1] == "secret_access_key"
]


@pytest.mark.parametrize("path", SECRETS, ids=told)
@pytest.mark.parametrize("value", [[SECRET], {SECRET: 1}, 3141592653, f"\x00{SECRET} @:/?#["])
def test_what_may_be_a_secret_is_not_repeated(path: tuple[str | int, ...], value: Any) -> None:
    if path in (("http", "host"), ("http", "fleet", "host"), ("oss", "host")):
        pytest.skip("an address of this machine")
    text = trouble(document(path, value))
    assert SECRET not in text
    assert "3141592653" not in text


@pytest.mark.parametrize("path", [("http", "keys", 0), ("cameras", 0), ("mqtt",), ("oss", "keys"), ("fetch", "s3")])
def test_a_secret_where_keys_should_be_is_not_repeated(path: tuple[str | int, ...]) -> None:
    found = problems(path, SECRET)
    assert told(path) in found
    assert SECRET not in str(found)


class Hook(StrictConfig):
    """A made-up part of a configuration."""

    address: HiddenText = ""
    token: Annotated[SecretStr, Field(min_length=50)] | None = None
    words: dict[str, Annotated[SecretStr, Field(min_length=50)]] = Field(default={})
    retries: Annotated[int, NotBoolean] = 3
    notes: list[int] = Field(default=[])


class Made(StrictConfig):
    """A made-up configuration."""

    hooks: list[Hook] = Field(default=[])
    first: Hook | None = None
    colour: int = 0


@pytest.mark.parametrize(
    ("document", "path", "is_told"),
    [
        ({"hooks": [{"token": SECRET}]}, "hooks[0].token", False),
        ({"first": {"token": SECRET}}, "first.token", False),
        ({"first": {"words": {"a": SECRET}}}, "first.words.a", False),
        ({"first": {"address": 3}}, "first.address", False),
        ({"first": SECRET}, "first", False),
        ({"hooks": [SECRET]}, "hooks[0]", False),
        ({"hooks": SECRET}, "hooks", False),
        ({"first": {"words": SECRET}}, "first.words", False),
        ({"first": {"retries": SECRET}}, "first.retries", True),
        ({"first": {"notes": [SECRET]}}, "first.notes[0]", True),
        ({"colour": SECRET}, "colour", True),
    ],
)
def test_values_are_hidden_by_the_type_of_their_key(document: dict[str, Any], path: str, is_told: bool) -> None:
    with pytest.raises(ValidationError) as caught:
        Made.model_validate(document)
    (problem,) = problems_of(caught.value, Made)
    assert problem.path == path
    assert (SECRET in problem.text) is is_told


def parts_of(model: type[BaseModel], seen: set[type[BaseModel]] | None = None) -> set[type[BaseModel]]:
    seen = set() if seen is None else seen
    waiting: list[Any] = [model]
    while waiting:
        one = waiting.pop()
        if isinstance(one, type) and issubclass(one, BaseModel):
            if one not in seen:
                seen.add(one)
                waiting += [field.annotation for field in one.model_fields.values()]
        else:
            waiting += getattr(one, "__args__", ())
    return seen


def test_every_part_is_strict() -> None:
    parts = parts_of(Settings)
    assert len(parts) > 15
    assert all(issubclass(part, StrictConfig) for part in parts)


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"pass", "pass"),
        (b"pass\n", "pass"),
        (b"pass\r\n", "pass"),
        (b"pass\rmore", "pass"),
        (b"pass\nmore\n", "pass"),
        (b"\xef\xbb\xbfpass\r\n", "pass"),
        (b" two  words \n", " two  words "),
        ("p\u00e4ss\u2028w\x0bord\x1c\n".encode(), "p\u00e4ss\u2028w\x0bord\x1c"),
    ],
)
@pytest.mark.parametrize("part", ["camera", "mqtt", "oss", "s3", "bucket"])
def test_the_first_line_of_a_file(tmp_path: Path, part: str, content: bytes, secret: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    assert read_of(part, "file", str(file)) == secret


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n", b"  \n", b"\xef\xbb\xbf", b"\nsecond"])
@pytest.mark.parametrize("part", ["camera", "mqtt", "oss", "s3", "bucket"])
def test_a_file_without_a_first_line_is_named(tmp_path: Path, part: str, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"_file {file} is empty"):
        read_of(part, "file", str(file))


@pytest.mark.parametrize("part", ["camera", "mqtt", "oss", "s3", "bucket"])
def test_a_variable(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setenv("VISAGED_TEST_SECRET", f" {SECRET} ")
    assert read_of(part, "env", "VISAGED_TEST_SECRET") == f" {SECRET} "
    monkeypatch.setenv("VISAGED_TEST_SECRET", "")
    with pytest.raises(ValueError, match=r"VISAGED_TEST_SECRET .*is not set, or empty"):
        read_of(part, "env", "VISAGED_TEST_SECRET")
    monkeypatch.delenv("VISAGED_TEST_SECRET")
    with pytest.raises(ValueError, match=r"VISAGED_TEST_SECRET .*is not set, or empty"):
        read_of(part, "env", "VISAGED_TEST_SECRET")


def read_of(part: str, kind: str, value: str) -> str | None:
    """The secret that a part of the configuration has, given as a file or in the environment."""
    login = {"username": "u", f"password_{kind}": value}
    s3 = {"access_key_id": "a", f"secret_access_key_{kind}": value}
    settings = parse(
        {
            "camera": {"cameras": [{"name": "a", "url": "rtsp://h/1", **login}]},
            "mqtt": {"mqtt": login},
            "oss": {"oss": {"keys": [{"name": "a", "access_key_id": "a", f"access_key_secret_{kind}": value}]}},
            "s3": {"fetch": {"s3": s3}},
            "bucket": {"oss": {"buckets": [{"name": "abc", "s3": s3}]}},
        }[part]
    )
    if part == "camera":
        return settings.cameras[0].login()[1]
    if part == "mqtt":
        return settings.mqtt.login()[1]
    if part == "oss":
        return settings.oss.keys[0].secret()
    store = settings.fetch.s3 if part == "s3" else settings.oss.buckets[0].s3
    assert store is not None
    return store.secret()


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret.required(parse({"mqtt": {"username": "u", "password": SECRET}}).mqtt, "password")
    assert secret.read() == SECRET
    assert SECRET not in f"{secret} {secret!r}"


def test_a_configuration_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "visaged.yaml"
    path.write_bytes(b"\xef\xbb\xbfnode: shop\r\nhttp:\r\n  port: 1\r\n")
    settings = load(path)
    assert (settings.node, settings.http.port) == ("shop", 1)
